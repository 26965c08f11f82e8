//! Token by token equals all at once.

use super::{scaling, set_up, tiny};
use lossfloor::arch::cost::DecodeCache;
use lossfloor::arch::{ARCHITECTURES, ModelConfig};
use lossfloor::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use lossfloor::ops::Backend;
use lossfloor::scaling::Parametrization;
use tch::{Device, Kind, Tensor};

/// A model whose logits are far from zero, on `device`.
pub(super) fn lm_of(config: &ModelConfig, backend: Backend, precision: Precision, device: Device) -> DecoderLm {
    let scaling = scaling(config, Parametrization::Standard);
    let params = ParamStore::init(config, &scaling, 3, device);
    tch::no_grad(|| {
        for param in params.iter().filter(|p| p.name.contains("wte") || p.name.contains("lm_head")) {
            let count = Tensor::arange(param.tensor.numel() as i64, (Kind::Float, Device::Cpu));
            let values = (count.remainder(8191.0) * 1.7).sin().reshape(param.tensor.size());
            param.tensor.shallow_clone().copy_(&values);
        }
    });
    let options = ForwardOptions { backend, precision, rope_table: RopeTable::Fp32 };
    DecoderLm::new(config, &scaling, &params.freeze(precision, device), options)
}

pub(super) fn ids(rows: i64, time: i64, device: Device) -> Tensor {
    let count = Tensor::arange(rows * time, (Kind::Int64, Device::Cpu));
    (&count * &count * 37 + count * 11 + 5).remainder(61).reshape([rows, time]).to_device(device)
}

/// The largest difference over the largest value.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    (got - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[])
}

/// Prefills `prompt` tokens in parts of at most `part`, steps through the rest, and compares each position's logits with
/// those of one forward pass.
pub(super) fn worst_error(lm: &DecoderLm, ids: &Tensor, prompt: i64, part: i64) -> f64 {
    let (rows, time) = ids.size2().expect("ids are [b, t]");
    let want = tch::no_grad(|| lm.forward(ids));
    let mut state = lm.decode_state(rows, time);
    let mut logits = lm.prefill_in_parts(&ids.narrow(1, 0, prompt), &mut state, 0, rows * part);
    let mut worst = error(&logits, &want.select(1, prompt - 1));
    for position in prompt..time {
        logits = lm.step(&ids.select(1, position), &mut state);
        worst = worst.max(error(&logits, &want.select(1, position)));
    }
    worst
}

#[test]
fn steps_after_a_prompt_give_the_logits_of_a_forward_pass() {
    set_up();
    for architecture in ARCHITECTURES {
        for backend in [Backend::Reference, Backend::Fused] {
            let lm = lm_of(&tiny(*architecture), backend, Precision::Fp32, Device::Cpu);
            // Windows are of eight keys: prompts and parts below, at and above them.
            for (prompt, part) in [(1, 1), (3, 3), (8, 8), (20, 20), (20, 1), (20, 7), (20, 8), (20, 19)] {
                let worst = worst_error(&lm, &ids(2, 34, Device::Cpu), prompt, part);
                assert!(
                    worst < 1e-5,
                    "{} {backend:?}: {worst:e} after {prompt} tokens in parts of {part}",
                    architecture.name()
                );
            }
        }
    }
}

#[test]
fn sequences_of_different_lengths_do_not_see_each_other() {
    set_up();
    for architecture in ARCHITECTURES {
        let lm = lm_of(&tiny(*architecture), Backend::Fused, Precision::Fp32, Device::Cpu);
        let ids = ids(3, 30, Device::Cpu);
        let lengths = [2, 17, 9];
        let mut state = lm.decode_state(3, 30);
        // Once more after a first use: nothing of it may be left.
        for _ in 0..2 {
            state.clear();
            for (row, length) in lengths.into_iter().enumerate() {
                let _ = lm.prefill(&ids.narrow(0, row as i64, 1).narrow(1, 0, length), &mut state, row as i64);
            }
            let want = tch::no_grad(|| lm.forward(&ids));
            for step in 0..12 {
                let at = |row: usize| lengths[row] + step;
                let next: Vec<Tensor> = (0..3).map(|row| ids.get(row as i64).get(at(row))).collect();
                let logits = lm.step(&Tensor::stack(&next, 0), &mut state);
                for row in 0..3 {
                    let worst = error(&logits.get(row as i64), &want.get(row as i64).get(at(row)));
                    assert!(worst < 1e-5, "{}: {worst:e} in row {row} after {step}", architecture.name());
                }
            }
        }
    }
}

#[test]
fn what_is_kept_is_what_the_description_says() {
    set_up();
    for architecture in ARCHITECTURES {
        let config = tiny(*architecture);
        let lm = lm_of(&config, Backend::Fused, Precision::Bf16, Device::Cpu);
        let (rows, capacity) = (3, 50);
        let kept = lm.decode_state(rows, capacity).bytes();
        let cache = DecodeCache::of(&config, 2);
        let said = rows as u64 * (capacity as u64 * cache.bytes_per_token + cache.bytes_per_sequence);
        // A ring has a slot for the token that enters its window as well.
        let rings = config
            .layers
            .iter()
            .filter(|layer| matches!(layer.mixer, lossfloor::arch::MixerSpec::Attention { window: Some(_), .. }));
        let slots = rings.count() as u64 * rows as u64 * 2 * config.shape.kv_width() as u64 * 2;
        assert_eq!(kept, said + slots, "{}", architecture.name());
    }
}

#[test]
fn frozen_parameters_give_the_same_logits() {
    set_up();
    for architecture in ARCHITECTURES {
        let config = tiny(*architecture);
        let scaling = scaling(&config, Parametrization::MupPlusPlus);
        let options =
            ForwardOptions { backend: Backend::Fused, precision: Precision::Fp32, rope_table: RopeTable::Fp32 };
        let build = |params: &ParamStore| DecoderLm::new(&config, &scaling, params, options);
        let params = ParamStore::init(&config, &scaling, 3, Device::Cpu);
        let ids = ids(2, 20, Device::Cpu);
        let want = tch::no_grad(|| build(&params).forward(&ids));
        let got = tch::no_grad(|| build(&params.freeze(Precision::Fp32, Device::Cpu)).forward(&ids));
        assert!(got.equal(&want), "{}", architecture.name());
    }
}
