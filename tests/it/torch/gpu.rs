//! The CUDA kernels against plain tensor code on the same GPU: outputs and gradients, awkward sizes, both dtypes, and the
//! same bits on every run. `cargo test gpu -- --ignored` runs them on a machine with a GPU.

use super::distance;
use lossfloor::bridge::aten::set_deterministic;
use lossfloor::ops::Backend;
use lossfloor::ops::attention::{AttentionOptions, Difference, attention, differential_attention};
use lossfloor::ops::causal_conv1d::{Activation, causal_conv1d};
use lossfloor::ops::embedding::embedding;
use lossfloor::ops::gate::gate;
use lossfloor::ops::linear::{Weight, linear};
use lossfloor::ops::mamba::{InnerWeights, inner};
use lossfloor::ops::norm::{NormScales, NormWeights, add_norm};
use lossfloor::ops::readout::mean_loss;
use lossfloor::ops::rope::{Heads, split_heads};
use lossfloor::ops::selective_scan::{ScanInputs, selective_scan};
use lossfloor::ops::swiglu::swiglu;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::cell::Cell;
use tch::{Device, Kind, Tensor};

/// In fp32, sums run in another order; in bf16 each result is rounded once where the plain code rounds every step, both
/// within a few times 2⁻⁹ of what the rounded inputs give in fp32.
const LIMITS: [(Kind, f64); 2] = [(Kind::Float, 2e-5), (Kind::BFloat16, 1.2e-2)];

/// The GPU. LibTorch decides whether there is CUDA when it is first asked for anything of it, seeds included.
fn device() -> Device {
    lossfloor::bridge::load_cuda().expect("a GPU");
    assert!(tch::Cuda::is_available(), "these tests need a GPU");
    Device::Cuda(0)
}

thread_local! {
    /// Counts the tensors that a test has drawn: each has a generator of its own, and tests may run side by side.
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// Normal values, fp32, that bf16 holds exactly.
fn normal(size: &[i64]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(DRAWN.replace(DRAWN.get() + 1));
    let values: Vec<f32> = (0..size.iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_slice(&values).reshape(size).to_kind(Kind::BFloat16).to_kind(Kind::Float).to_device(device())
}

/// A leaf with values that bf16 holds exactly where `scale` is a power of two.
fn leaf(size: &[i64], kind: Kind, scale: f64) -> Tensor {
    let values = (normal(size) * scale).to_kind(Kind::BFloat16);
    values.to_kind(kind).set_requires_grad(true)
}

fn fp32(leaves: &[Tensor]) -> Vec<Tensor> {
    leaves.iter().map(|t| t.detach().to_kind(Kind::Float).set_requires_grad(true)).collect()
}

/// Outputs and gradients of the kernels in the leaves' dtypes against plain code in fp32 on the same values; and twice the
/// same bits. In deterministic mode LibTorch fills new tensors with NaN, which shows what a kernel leaves unwritten.
fn agree(what: &str, leaves: Vec<Tensor>, limit: f64, run: impl Fn(&[Tensor], Backend) -> Tensor) {
    let size = tch::no_grad(|| run(&leaves, Backend::Fused)).size();
    let dy = normal(&size);
    let gradients = |leaves: &[Tensor], backend: Backend| {
        let y = run(leaves, backend);
        let dy = dy.to_kind(y.kind());
        let scalar = if y.dim() == 0 { y.shallow_clone() } else { (&y * dy).sum(Kind::Float) };
        let mut all = Tensor::run_backward(&[scalar], leaves, false, false);
        all.insert(0, y);
        all
    };
    set_deterministic(true);
    let ours = gradients(&leaves, Backend::Fused);
    let again = gradients(&leaves, Backend::Fused);
    let reference = gradients(&fp32(&leaves), Backend::Reference);
    for (index, (ours, reference)) in ours.iter().zip(&reference).enumerate() {
        let error = distance(ours, reference);
        assert!(error < limit, "{what}, tensor {index}: {error:e} is over {limit:e}");
        assert!(ours.equal(&again[index]), "{what}, tensor {index}: another run gives other bits");
    }
}

fn each(sizes: &[(i64, i64, i64)], test: impl Fn(Kind, f64, (i64, i64, i64))) {
    for (kind, limit) in LIMITS {
        for &size in sizes {
            test(kind, limit, size);
        }
    }
}

/// Rows, steps and channels: lengths around the kernels' chunks, widths around their blocks.
const SIZES: [(i64, i64, i64); 7] =
    [(1, 1, 24), (2, 63, 40), (1, 64, 96), (2, 100, 976), (1, 1000, 130), (3, 257, 1952), (1, 4096, 64)];

/// Channels in front of those that a kernel is given: none, so many that rows lie apart, and an odd number.
const SKIPPED: [i64; 3] = [0, 8, 3];

#[test]
#[ignore = "needs CUDA"]
fn gpu_convolution() {
    each(&SIZES, |kind, limit, (b, t, d)| {
        for skipped in SKIPPED {
            let x = leaf(&[b, t, skipped + d], kind, 1.0);
            let leaves = vec![x, leaf(&[d, 4], Kind::Float, 0.5), leaf(&[d], Kind::Float, 0.5)];
            agree(&format!("convolution {b} {t} {d} {kind:?} from {skipped}"), leaves, limit, |l, backend| {
                causal_conv1d(&l[0].narrow(2, skipped, d), &l[1], &l[2], Activation::Silu, backend)
            });
        }
    });
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_selective_scan() {
    // The plain loop keeps every state: short rows. A is no leaf, since one step gives it no gradient.
    each(&[(1, 1, 240), (2, 63, 40), (1, 64, 96), (2, 100, 976), (1, 400, 34)], |kind, limit, (b, t, d)| {
        let a = -(leaf(&[d, 16], Kind::Float, 0.5).detach().exp() * 4.0);
        let sequence = |width: i64| leaf(&[b, t, width], kind, 1.0);
        let vector = || leaf(&[d], Kind::Float, 1.0);
        let leaves = [sequence(d), sequence(d), sequence(16), sequence(16), vector(), vector(), sequence(d)];
        for gated in [true, false] {
            let leaves: Vec<Tensor> =
                leaves.iter().take(if gated { 7 } else { 6 }).map(|t| t.detach().set_requires_grad(true)).collect();
            agree(&format!("scan {b} {t} {d} {kind:?} gated {gated}"), leaves, limit, |l, backend| {
                let inputs = ScanInputs {
                    x_btd: &l[0],
                    delta_btd: &l[1],
                    a_dn: &a,
                    b_btn: &l[2],
                    c_btn: &l[3],
                    d_d: Some(&l[4]),
                    z_btd: l.get(6),
                    delta_bias_d: Some(&l[5]),
                    initial_bdn: None,
                    softplus: true,
                };
                selective_scan(&inputs, backend).y_btd
            });
        }
    });
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_norm_swiglu_and_gate() {
    each(&[(1, 1, 12), (2, 63, 22), (1, 100, 976), (2, 130, 1488), (1, 64, 1984)], |kind, limit, (b, t, w)| {
        let scales = NormScales { branch: 0.25, output: 0.5 };
        let vector = || leaf(&[w], Kind::Float, 1.0);
        let leaves = [leaf(&[b, t, w], Kind::Float, 1.0), leaf(&[b, t, w], kind, 1.0), vector(), vector()];
        for (part, centered) in [(0, false), (1, false), (0, true), (1, true)] {
            let given = leaves.iter().take(if centered { 4 } else { 3 });
            let leaves: Vec<Tensor> = given.map(|t| t.detach().set_requires_grad(true)).collect();
            let what = format!("norm {b} {t} {w} {kind:?}, centered {centered}, output {part}");
            agree(&what, leaves, limit, |l, backend| {
                let weights = NormWeights { gain: &l[2], bias: l.get(3) };
                let (x, n) = add_norm(&l[0], Some(&l[1]), weights, scales, l[1].kind(), backend);
                // Both outputs count, one of them more.
                if part == 0 { x + n.to_kind(Kind::Float) * 0.1 } else { n.to_kind(Kind::Float) + x * 0.1 }
            });
        }
        let leaves = vec![
            leaf(&[b, t, w], kind, 1.0),
            leaf(&[8 * w, w], Kind::Float, 1.0 / (w as f64).sqrt()),
            leaf(&[w, 4 * w], Kind::Float, 0.5 / (w as f64).sqrt()),
        ];
        agree(&format!("swiglu {b} {t} {w} {kind:?}"), leaves, limit, |l, backend| {
            let weight = |t: &Tensor| Weight::new(vec![t.shallow_clone()], None);
            let (y, up) = swiglu(&l[0], &weight(&l[1]), &weight(&l[2]), true, backend);
            Tensor::cat(&[y, up.expect("it is wanted")], -1)
        });
        for skipped in SKIPPED {
            let leaves = vec![leaf(&[b, t, skipped + w], kind, 1.0), leaf(&[b, t, w + skipped], kind, 1.0)];
            agree(&format!("gate {b} {t} {w} {kind:?} from {skipped}"), leaves, limit, |l, backend| {
                gate(&l[0].narrow(2, skipped, w), &l[1].narrow(2, 0, w), backend)
            });
        }
    });
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_projections_heads_and_attention() {
    // Rows, steps, head channels.
    each(&[(1, 1, 8), (2, 63, 16), (1, 100, 64), (2, 130, 128), (1, 1100, 64)], |kind, limit, (b, t, e)| {
        let heads = Heads { queries: 8, keys: 2, width: e };
        let angles = normal(&[t, e / 2]) * 3.0;
        let tables = (angles.cos(), angles.sin());
        let leaves = vec![leaf(&[b, t, 48], kind, 1.0), leaf(&[12 * e, 48], Kind::Float, 0.1)];
        agree(&format!("projection {b} {t} {e} {kind:?}"), leaves, limit, |l, backend| {
            let weight = Weight::new(vec![l[1].shallow_clone()], None);
            let parts = split_heads(&linear(&l[0], &weight, backend), heads, Some(&tables), backend);
            Tensor::cat(&parts, 2)
        });
        let qkv =
            || vec![leaf(&[b, t, 8, e], kind, 1.0), leaf(&[b, t, 4, e], kind, 1.0), leaf(&[b, t, 4, e], kind, 1.0)];
        for window in [None, Some(16)] {
            // One key leaves nothing to weigh: queries and keys have no gradient.
            if t == 1 {
                continue;
            }
            let options = AttentionOptions { scale: 1.0 / (e as f64).sqrt(), window };
            agree(&format!("attention {b} {t} {e} {kind:?} {window:?}"), qkv(), limit, |l, backend| {
                attention(&l[0], &l[1], &l[2], options, backend)
            });
            let lambda = Tensor::from(0.3f32).to_device(device());
            let gain = leaf(&[2 * e], Kind::Float, 1.0).detach();
            agree(&format!("differential {b} {t} {e} {kind:?} {window:?}"), qkv(), 2.0 * limit, |l, backend| {
                let difference = Difference { lambda: &lambda, gain: &gain, scale: 0.8 };
                differential_attention(&l[0], &l[1], &l[2], difference, options, backend)
            });
        }
    });
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_mamba_inner_part() {
    each(&[(1, 2, 24), (2, 63, 40), (2, 100, 1952)], |kind, limit, (b, t, d)| {
        let rank = d / 32;
        let small = |size: &[i64], scale: f64| leaf(size, Kind::Float, scale);
        let leaves = [
            leaf(&[b, t, 2 * d], kind, 1.0),
            small(&[d, 1, 4], 0.5),
            small(&[d], 0.5),
            small(&[rank.max(1) + 32, d], 1.0 / (d as f64).sqrt()),
            small(&[d, rank.max(1)], 0.5),
            small(&[d], 1.0),
            small(&[d, 16], 0.5),
            small(&[d], 1.0),
        ];
        // The plain code rounds five results on the way.
        let limit = if kind == Kind::Float { limit } else { 3.0 * limit };
        for wanted in [false, true] {
            let leaves: Vec<Tensor> = leaves.iter().map(|t| t.detach().set_requires_grad(true)).collect();
            agree(&format!("mamba {b} {t} {d} {kind:?} memory {wanted}"), leaves, limit, |l, backend| {
                let weight = |t: &Tensor| Weight::new(vec![t.shallow_clone()], None);
                let weights = InnerWeights {
                    conv_weight: &l[1],
                    conv_bias: &l[2],
                    x_proj: &weight(&l[3]),
                    dt_proj: &weight(&l[4]),
                    dt_bias: &l[5],
                    a_log: &l[6],
                    skip: &l[7],
                };
                let out = inner(&l[0], &weights, wanted, backend);
                match out.memory {
                    Some(memory) => Tensor::cat(&[out.gated, memory], -1),
                    None => out.gated,
                }
            });
        }
    });
}

#[test]
#[ignore = "needs CUDA"]
fn gpu_embedding_and_readout() {
    // Rows, width, vocabulary.
    each(&[(1, 12, 50), (33, 22, 7), (300, 976, 1001), (9000, 64, 32_000)], |kind, limit, (rows, w, v)| {
        let ids = (normal(&[1, rows]).abs() * (v as f64 / 4.0)).to_kind(Kind::Int64).clamp(0, v - 1);
        let table = vec![leaf(&[v, w], Kind::Float, 1.0)];
        agree(&format!("embedding {rows} {w} {v}"), table, limit, |l, backend| {
            embedding(&Weight::new(vec![l[0].shallow_clone()], None), &ids, backend)
        });
        let leaves = vec![leaf(&[1, rows, w], kind, 1.0), leaf(&[v, w], Kind::Float, 1.0 / (w as f64).sqrt())];
        agree(&format!("readout {rows} {w} {v} {kind:?}"), leaves, limit, |l, backend| {
            mean_loss(&l[0], &Weight::new(vec![l[1].shallow_clone()], None), &ids, 0.5, backend)
        });
    });
}
