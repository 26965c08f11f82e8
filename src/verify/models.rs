//! `model_*` files: forward, loss, gradients, what layers hand on, greedy decoding.

use super::golden::{Golden, max_over_rms, norm_ratio};
use super::{Report, Tolerances, VerifyError, VerifyOptions};
use crate::arch::{MixerSpec, ModelConfig};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use tch::{Kind, Tensor};

pub(super) fn verify(
    golden: &Golden,
    options: VerifyOptions,
    tolerances: Tolerances,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let (model, scaling) = golden.model()?;
    let params = ParamStore::from_tensors(&model, golden.under("param."), options.device)
        .map_err(|e| golden.problem(e.to_string()))?;
    let build = |rope_table| {
        let options = ForwardOptions { backend: options.backend, precision: options.precision, rope_table };
        DecoderLm::new(&model, &scaling, &params, options)
    };
    let lm = build(RopeTable::Fp32);
    let ids = golden.get("input_ids")?.to_device(options.device);
    let targets = golden.get("targets")?.to_device(options.device);

    let (logits, trace) = lm.forward_traced(&ids);
    report.add("logits", max_over_rms(&logits, &golden.get("logits")?), tolerances.values);
    let mut worst = 0f64;
    for (layer, x) in trace.blocks.iter().enumerate() {
        worst = worst.max(max_over_rms(x, &golden.get(&format!("block.{layer}.out"))?));
    }
    report.add("block outputs (worst)", worst, tolerances.values);
    let (kv_layer, memory_layer) = readers(&model);
    if let Some(layer) = kv_layer {
        let (k, v) = &trace.context.key_values[&layer];
        report.add("yoco keys", max_over_rms(k, &golden.get("yoco.k")?), tolerances.values);
        report.add("yoco values", max_over_rms(v, &golden.get("yoco.v")?), tolerances.values);
    }
    if let Some(layer) = memory_layer {
        let memory = &trace.context.memories[&layer];
        report.add("gmu memory", max_over_rms(memory, &golden.get("gmu.memory")?), tolerances.values);
    }

    let loss = lm.loss(&ids, &targets);
    report.add("loss", (loss.double_value(&[]) - golden.get("loss")?.double_value(&[])).abs(), tolerances.loss);
    let tensors: Vec<&Tensor> = params.iter().map(|p| &p.tensor).collect();
    let grads = Tensor::run_backward(&[&loss], &tensors, false, false);
    let (mut worst, mut where_) = (0f64, "");
    for (param, grad) in params.iter().zip(&grads) {
        let error = norm_ratio(grad, &golden.get(&format!("grad.{}", param.name))?, 0.0);
        if error > worst || error.is_nan() {
            (worst, where_) = (error, &param.name);
        }
    }
    report.add(format!("gradients (worst: {where_})"), worst, tolerances.gradients);

    if let Some(want) = golden.find("rope_bf16.logits") {
        let lm = build(RopeTable::RoundedToBf16);
        report.add("logits, bf16 rotary table", max_over_rms(&lm.forward(&ids), &want), tolerances.values);
        let error = lm.loss(&ids, &targets).double_value(&[]) - golden.get("rope_bf16.loss")?.double_value(&[]);
        report.add("loss, bf16 rotary table", error.abs(), tolerances.loss);
    }
    decode(golden, &lm, options, tolerances, report)
}

/// The layers whose keys and whose memory later layers read.
fn readers(model: &ModelConfig) -> (Option<usize>, Option<usize>) {
    let mut found = (None, None);
    for layer in &model.layers {
        match layer.mixer {
            MixerSpec::CrossAttention { kv_layer, .. } => found.0 = Some(kv_layer),
            MixerSpec::GatedMemoryUnit { memory_layer, .. } => found.1 = Some(memory_layer),
            MixerSpec::Attention { .. } | MixerSpec::Mamba => {}
        }
    }
    found
}

/// Greedy generation, each token from a full forward pass. The two best logits of a file are 0.02 apart at the closest:
/// too close for bf16, which therefore continues from the file's tokens and is compared in its logits only.
fn decode(
    golden: &Golden,
    lm: &DecoderLm,
    options: VerifyOptions,
    tolerances: Tolerances,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let want_tokens = golden.get("decode.tokens")?;
    let want_logits = golden.get("decode.logits")?;
    let steps = want_tokens.size()[1];
    let mut ids = golden.get("decode.prompt")?.to_device(options.device);
    let mut logits = Vec::new();
    for step in 0..steps {
        let all = tch::no_grad(|| lm.forward(&ids));
        let last = all.select(1, ids.size()[1] - 1);
        let next = match options.precision {
            Precision::Fp32 => last.argmax(-1, true),
            Precision::Bf16 => want_tokens.narrow(1, step, 1).to_device(options.device),
        };
        ids = Tensor::cat(&[ids, next], 1);
        logits.push(last);
    }
    let generated = ids.slice(1, -steps, None, 1).to_device(tch::Device::Cpu);
    if options.precision == Precision::Fp32 {
        let wrong = generated.ne_tensor(&want_tokens).to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
        report.add("greedy tokens that differ", wrong, 0.0);
    }
    report.add("decode logits", max_over_rms(&Tensor::stack(&logits, 1), &want_logits), tolerances.values);
    Ok(())
}
