//! Decoding on a GPU: its kernels against plain tensor code, steps against forward passes, recorded work against work
//! launched one by one.

use super::decoding::{ids, lm_of, worst_error};
use super::distance;
use lossfloor::arch::{ARCHITECTURES, AttentionForm, MixerSpec, ModelConfig, ModelShape};
use lossfloor::decode::{Generator, Sampling};
use lossfloor::nn::Precision;
use lossfloor::ops::Backend;
use lossfloor::ops::attention::Difference;
use lossfloor::ops::cached_attention::{
    KvCache, Positions, cached_attention, cached_differential_attention, take_step,
};
use lossfloor::ops::linear::{Weight, linear, linear_of_norm};
use lossfloor::ops::mamba::{InnerWeights, MambaState, extend};
use lossfloor::ops::norm::{NormScales, NormWeights, Normed, add_norm_for_product};
use lossfloor::ops::readout::logits;
use lossfloor::ops::rope::Heads;
use lossfloor::ops::swiglu::{swiglu, swiglu_of_norm};
use tch::{Device, Kind, Tensor};

fn device() -> Device {
    lossfloor::bridge::load_cuda().expect("a GPU");
    assert!(tch::Cuda::is_available(), "these tests need a GPU");
    Device::Cuda(0)
}

/// Normal values that bf16 holds, in bf16.
fn normal(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, device())).to_kind(Kind::BFloat16)
}

fn fp32(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Float)
}

/// bf16 results are rounded once or twice, each time by at most 2⁻⁹.
const LIMIT: f64 = 6e-3;

#[test]
#[ignore = "needs CUDA"]
fn gpu_cached_attention() {
    let device = device();
    for (width, key_heads, group) in [(128, 4, 4), (64, 2, 3), (128, 1, 16), (64, 2, 1)] {
        for slots in [16, 64, 100, 257, 3000] {
            let batch = 3;
            let q = normal(&[batch, key_heads * group, width]);
            let cache = KvCache::empty([batch, key_heads, slots, width], (Kind::BFloat16, device));
            cache.k_bkse.shallow_clone().copy_(&normal(&[batch, key_heads, slots, width]));
            cache.v_bkse.shallow_clone().copy_(&normal(&[batch, key_heads, slots, width]));
            let plain = KvCache::empty([batch, key_heads, slots, width], (Kind::Float, device));
            plain.k_bkse.shallow_clone().copy_(&cache.k_bkse);
            plain.v_bkse.shallow_clone().copy_(&cache.v_bkse);
            // The first, one in the middle, and one that has gone round the ring.
            let at = Tensor::from_slice(&[0i64, slots / 2, slots + 5]).to_device(device);
            let positions = Positions { at: &at, bound: slots + 6 };
            let scale = 1.0 / (width as f64).sqrt();
            let what = format!("{width} wide, {key_heads} x {group} heads, {slots} slots");
            // Twice: the blocks' counts must be back at zero.
            for _ in 0..2 {
                let got = cached_attention(&q, &cache, positions, scale, Backend::Fused);
                let want = cached_attention(&fp32(&q), &plain, positions, scale, Backend::Reference);
                let error = distance(&got, &want);
                assert!(error < LIMIT, "{what}: {error:e}");
                if key_heads % 2 == 0 {
                    let (lambda, gain) = (Tensor::from(0.3f32).to_device(device), fp32(&normal(&[2 * width])));
                    let difference = Difference { lambda: &lambda, gain: &gain, scale: 0.7 };
                    let run = |q: &Tensor, cache: &KvCache, backend: Backend| {
                        cached_differential_attention(q, cache, positions, scale, difference, backend)
                    };
                    let (got, want) = (run(&q, &cache, Backend::Fused), run(&fp32(&q), &plain, Backend::Reference));
                    // Short rows leave small differences of nearly equal maps, whose norm shows their rounding.
                    let error = distance(&got, &want);
                    assert!(error < 4.0 * LIMIT, "{what}, differential: {error:e}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_step_of_a_cache() {
    let device = device();
    let heads = Heads { queries: 6, keys: 2, width: 64 };
    let (batch, slots) = (3, 10);
    let packed = normal(&[batch, (6 + 4) * 64]);
    let angles = Tensor::randn([40, 32], (Kind::Float, device));
    let tables = (angles.cos(), angles.sin());
    let at = Tensor::from_slice(&[0i64, 7, 33]).to_device(device);
    let positions = Positions { at: &at, bound: 34 };
    for (kind, limit) in [(Kind::Float, 1e-6), (Kind::BFloat16, LIMIT)] {
        for tables in [None, Some(&tables)] {
            let of = |backend: Backend, kind: Kind| {
                let cache = KvCache::empty([batch, 2, slots, 64], (kind, device));
                let q = take_step(&packed.to_kind(kind), heads, tables, positions, &cache, backend);
                [q, cache.k_bkse, cache.v_bkse]
            };
            for (got, want) in of(Backend::Fused, kind).iter().zip(of(Backend::Reference, Kind::Float)) {
                let error = distance(got, &want);
                assert!(error < limit, "{kind:?}: {error:e}");
            }
        }
    }
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_skinny_products() {
    for rows in [1, 3, 8, 9, 16] {
        for (inputs, outputs) in [(64, 16), (2048, 160), (520, 1000), (4096, 2048)] {
            // A stride between rows: the first part of wider ones.
            let x = normal(&[rows, inputs + 8]).narrow(1, 0, inputs);
            let w = normal(&[outputs, inputs]);
            let weight = |w: &Tensor| Weight::new(vec![w.shallow_clone()], None);
            let error =
                distance(&linear(&x, &weight(&w), Backend::Fused), &fp32(&x).linear(&fp32(&w), None::<&Tensor>));
            assert!(error < LIMIT, "{rows} x {inputs} x {outputs}: {error:e}");
            let scores = logits(&x, &weight(&w), Backend::Fused);
            assert_eq!(scores.kind(), Kind::Float);
            assert!(scores.equal(&fp32(&linear(&x, &weight(&w), Backend::Fused))));
            let w1 = normal(&[2 * outputs, inputs]) * (1.0 / (inputs as f64).sqrt());
            let w3 = normal(&[24, outputs]);
            let got = swiglu(&x, &weight(&w1), &weight(&w3), false, Backend::Fused).0;
            let want = swiglu(&fp32(&x), &weight(&fp32(&w1)), &weight(&fp32(&w3)), false, Backend::Reference).0;
            let error = distance(&got, &want);
            assert!(error < 2.0 * LIMIT, "MLP {rows} x {inputs} x {outputs}: {error:e}");
        }
    }
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_products_of_norms() {
    for (rows, width) in [(1, 256), (2, 2048), (1, 8192), (2, 4096)] {
        let (x, gain) = (fp32(&normal(&[rows, 1, width])), fp32(&normal(&[width])));
        let branch = normal(&[rows, 1, width]);
        let weights = NormWeights { gain: &gain, bias: None };
        let scales = NormScales { branch: 0.25, output: 0.5 };
        let scaled = |size: [i64; 2]| (normal(&size) * (1.0 / (size[1] as f64).sqrt())).to_kind(Kind::BFloat16);
        let (w, w1, w3) = (scaled([100, width]), scaled([80, width]), scaled([24, 40]));
        let weight = |w: &Tensor, kind: Kind| Weight::new(vec![w.to_kind(kind)], None);
        for branch in [None, Some(&branch)] {
            let step = |kind: Kind, backend: Backend| {
                let branch = branch.map(|branch| branch.to_kind(kind));
                let make = || add_norm_for_product(&x, branch.as_ref(), weights, scales, kind, backend);
                let ((sum, n), (_, again)) = (make(), make());
                assert_eq!(matches!(n, Normed::Left(_)), kind == Kind::BFloat16);
                let product = linear_of_norm(&n, &weight(&w, kind), backend);
                let mlp = swiglu_of_norm(&again, &weight(&w1, kind), &weight(&w3, kind), false, backend).0;
                [sum, product, mlp, again.tensor()]
            };
            let (got, want) = (step(Kind::BFloat16, Backend::Fused), step(Kind::Float, Backend::Reference));
            for ((got, want), what) in got.iter().zip(want).zip(["stream", "product", "MLP", "norm"]) {
                let error = distance(got, &want);
                assert!(error < 2.0 * LIMIT, "{what} of {rows} x {width}, {}: {error:e}", branch.is_some());
            }
        }
    }
    // More rows have a kernel for the norm.
    let (x, gain) = (fp32(&normal(&[3, 1, 256])), fp32(&normal(&[256])));
    let weights = NormWeights { gain: &gain, bias: None };
    let scales = NormScales { branch: 1.0, output: 1.0 };
    let (_, n) = add_norm_for_product(&x, None, weights, scales, Kind::BFloat16, Backend::Fused);
    assert!(matches!(n, Normed::Made(_)));
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_mamba_step() {
    for (batch, channels, rank) in [(1, 64, 4), (5, 72, 7), (16, 3968, 124)] {
        let scaled = |size: &[i64], scale: f64| (normal(size) * scale).to_kind(Kind::BFloat16);
        let conv_weight = fp32(&scaled(&[channels, 1, 4], 0.5));
        let vector = || fp32(&normal(&[channels]));
        let (conv_bias, dt_bias, skip) = (vector(), vector(), vector());
        let a_log = fp32(&scaled(&[channels, 16], 0.5));
        let x_proj = scaled(&[rank + 32, channels], 1.0 / (channels as f64).sqrt());
        let dt_proj = scaled(&[channels, rank], 1.0 / (rank as f64).sqrt());
        let run = |kind: Kind, backend: Backend, xz: &Tensor, memory_wanted: bool| {
            let weight = |w: &Tensor| Weight::new(vec![w.to_kind(kind)], None);
            let (x_proj, dt_proj) = (weight(&x_proj), weight(&dt_proj));
            let weights = InnerWeights {
                conv_weight: &conv_weight,
                conv_bias: &conv_bias,
                x_proj: &x_proj,
                dt_proj: &dt_proj,
                dt_bias: &dt_bias,
                a_log: &a_log,
                skip: &skip,
            };
            let mut state = MambaState::empty(batch, &conv_weight, &a_log, kind);
            let mut out = Vec::new();
            for t in 0..xz.size()[1] {
                let (gated, memory) =
                    extend(&xz.narrow(1, t, 1).to_kind(kind), &weights, &mut state, memory_wanted, backend);
                out.push(gated);
                out.extend(memory);
            }
            out.extend([state.conv_bkd, state.ssm_bdn]);
            out
        };
        let xz = normal(&[batch, 6, 2 * channels]);
        for memory_wanted in [false, true] {
            for (kind, limit) in [(Kind::Float, 2e-5), (Kind::BFloat16, 1.2e-2)] {
                let got = run(kind, Backend::Fused, &xz, memory_wanted);
                let want = run(Kind::Float, Backend::Reference, &xz, memory_wanted);
                for (index, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = distance(got, want);
                    assert!(error < limit, "{batch} x {channels}, {kind:?}, tensor {index}: {error:e}");
                }
            }
        }
    }
}

/// A model with heads that the kernels take.
fn config(architecture: &dyn lossfloor::arch::Architecture) -> ModelConfig {
    let depth = architecture.defaults().fixed_depth.unwrap_or(8);
    let published = ModelShape::published(architecture, depth);
    let shape = ModelShape {
        d_model: 128,
        n_heads: 8,
        n_kv_heads: 2,
        head_dim: 64,
        d_mlp: 256,
        window: published.window.map(|_| 24),
        vocab_size: 64,
        ..published
    };
    ModelConfig::new(architecture, shape).expect("a valid shape")
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_steps_give_the_logits_of_a_forward_pass() {
    let device = device();
    for architecture in ARCHITECTURES {
        let config = config(*architecture);
        let differential = config.layers.iter().any(|layer| {
            let (MixerSpec::Attention { form, .. } | MixerSpec::CrossAttention { form, .. }) = layer.mixer else {
                return false;
            };
            form == AttentionForm::Differential
        });
        for (precision, limit) in [(Precision::Fp32, 2e-5), (Precision::Bf16, if differential { 0.12 } else { 0.06 })] {
            let lm = lm_of(&config, Backend::Fused, precision, device);
            for (prompt, part) in [(1, 1), (40, 40), (40, 7), (150, 64)] {
                let worst = worst_error(&lm, &ids(2, prompt + 40, device), prompt, part);
                eprintln!("{} {precision:?} {prompt} in {part}: {worst:e}", architecture.name());
                assert!(
                    worst < limit,
                    "{} {precision:?}: {worst:e} after {prompt} tokens in parts of {part}",
                    architecture.name()
                );
            }
        }
    }
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_recorded_steps_choose_the_same_tokens() {
    let device = device();
    for architecture in ARCHITECTURES {
        let config = config(*architecture);
        for sampling in [Sampling::GREEDY, Sampling { temperature: 0.9, top_p: 0.9, top_k: Some(20), seed: 3 }] {
            let prompts = [vec![1, 2, 3], vec![5; 50], vec![7; 50]];
            let tokens = |recorded: bool| {
                let lm = lm_of(&config, Backend::Fused, Precision::Bf16, device);
                let generator = Generator::new(lm, 3, 120, sampling);
                let mut generator = if recorded { generator } else { generator.without_recording() };
                let mut all = Vec::new();
                // A second time over: the recorded work is used again.
                for _ in 0..2 {
                    generator.read(&prompts);
                    for _ in 0..60 {
                        generator.step().expect("a step");
                    }
                    all.push(generator.tokens_since(0));
                }
                assert_eq!(all[0], all[1], "{}", architecture.name());
                all.remove(0)
            };
            assert_eq!(tokens(true), tokens(false), "{} {sampling:?}", architecture.name());
        }
    }
}
