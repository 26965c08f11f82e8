//! `model_*` files: forward, loss, gradients, what layers hand on, greedy decoding.

use super::golden::{Golden, norm_ratio};
use super::{Report, Tolerances, VerifyError, VerifyOptions};
use crate::arch::{MixerSpec, ModelConfig};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use crate::scaling::ModelScaling;
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
    report.add("logits", tolerances.distance(&logits, &golden.get("logits")?), tolerances.values);
    let mut worst = 0f64;
    for (layer, x) in trace.blocks.iter().enumerate() {
        worst = worst.max(tolerances.distance(x, &golden.get(&format!("block.{layer}.out"))?));
    }
    report.add("block outputs (worst)", worst, tolerances.values);
    let (kv_layer, memory_layer) = readers(&model);
    if let Some(layer) = kv_layer {
        let (k, v) = &trace.context.key_values[&layer];
        report.add("yoco keys", tolerances.distance(k, &golden.get("yoco.k")?), tolerances.values);
        report.add("yoco values", tolerances.distance(v, &golden.get("yoco.v")?), tolerances.values);
    }
    if let Some(layer) = memory_layer {
        let memory = &trace.context.memories[&layer];
        report.add("gmu memory", tolerances.distance(memory, &golden.get("gmu.memory")?), tolerances.values);
    }

    let loss = lm.loss(&ids, &targets, 1.0);
    report.add("loss", (loss.double_value(&[]) - golden.get("loss")?.double_value(&[])).abs(), tolerances.loss);
    let errors = gradient_errors(golden, &lm, &params, [&ids, &targets])?;
    let limits = gradient_limits(golden, &model, &scaling, options, tolerances, [&ids, &targets])?;
    let worst = params.iter().zip(errors).zip(limits).max_by(|((_, e1), l1), ((_, e2), l2)| {
        // NaN is the largest of all in this order.
        (e1 / l1).total_cmp(&(e2 / l2))
    });
    let ((param, error), limit) = worst.expect("a model has parameters");
    report.add(format!("gradients (worst: {})", param.name), error, limit);

    if let Some(want) = golden.find("rope_bf16.logits") {
        let lm = build(RopeTable::RoundedToBf16);
        report.add("logits, bf16 rotary table", tolerances.distance(&lm.forward(&ids), &want), tolerances.values);
        let error = lm.loss(&ids, &targets, 1.0).double_value(&[]) - golden.get("rope_bf16.loss")?.double_value(&[]);
        report.add("loss, bf16 rotary table", error.abs(), tolerances.loss);
    }
    decode(golden, &lm, options, tolerances, report)
}

/// ‖a − b‖ over ‖b‖ of every parameter's gradient, in store order.
fn gradient_errors(
    golden: &Golden,
    lm: &DecoderLm,
    params: &ParamStore,
    [ids, targets]: [&Tensor; 2],
) -> Result<Vec<f64>, VerifyError> {
    let tensors: Vec<&Tensor> = params.iter().map(|p| &p.tensor).collect();
    let grads = Tensor::run_backward(&[&lm.loss(ids, targets, 1.0)], &tensors, false, false);
    let wants = params.iter().map(|param| golden.get(&format!("grad.{}", param.name)));
    wants.zip(&grads).map(|(want, grad)| Ok(norm_ratio(grad, &want?, 0.0))).collect()
}

/// How far each gradient may be off. Some are what is left of a cancellation, and bf16 leaves less of them: there, four
/// times what rounding nothing but the weights does to a gradient in fp32 is allowed as well, since weights are one of
/// every four inputs that are rounded or fewer.
fn gradient_limits(
    golden: &Golden,
    model: &ModelConfig,
    scaling: &ModelScaling,
    options: VerifyOptions,
    tolerances: Tolerances,
    batch: [&Tensor; 2],
) -> Result<Vec<f64>, VerifyError> {
    let rounded =
        golden.under("param.").into_iter().map(|(name, t)| (name, t.to_kind(Kind::BFloat16).to_kind(t.kind())));
    let params = ParamStore::from_tensors(model, rounded.collect(), options.device)
        .map_err(|e| golden.problem(e.to_string()))?;
    match options.precision {
        Precision::Fp32 => Ok(params.iter().map(|_| tolerances.gradients).collect()),
        Precision::Bf16 => {
            let fp32 =
                ForwardOptions { backend: options.backend, precision: Precision::Fp32, rope_table: RopeTable::Fp32 };
            let lm = DecoderLm::new(model, scaling, &params, fp32);
            let errors = gradient_errors(golden, &lm, &params, batch)?;
            Ok(errors.into_iter().map(|error| tolerances.gradients.max(4.0 * error)).collect())
        }
    }
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

/// Greedy generation through the incremental decoder. The two best logits of a file are 0.02 apart at the closest: too
/// close for bf16, which therefore continues from the file's tokens and is compared in its logits only.
fn decode(
    golden: &Golden,
    lm: &DecoderLm,
    options: VerifyOptions,
    tolerances: Tolerances,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let want_tokens = golden.get("decode.tokens")?.to_device(options.device);
    let want_logits = golden.get("decode.logits")?;
    let prompt = golden.get("decode.prompt")?.to_device(options.device);
    let (steps, (batch, time)) = (want_tokens.size()[1], prompt.size2().expect("a prompt is [b, t]"));
    let mut state = lm.decode_state(batch, time + steps);
    let mut logits = vec![lm.prefill(&prompt, &mut state, 0)];
    let mut tokens = Vec::new();
    for step in 0..steps {
        let last = logits.last().expect("the prompt gave some");
        let next = match options.precision {
            Precision::Fp32 => last.argmax(-1, false),
            Precision::Bf16 => want_tokens.select(1, step),
        };
        if step + 1 < steps {
            logits.push(lm.step(&next, &mut state));
        }
        tokens.push(next);
    }
    if options.precision == Precision::Fp32 {
        let wrong = Tensor::stack(&tokens, 1).ne_tensor(&want_tokens);
        report.add("greedy tokens that differ", wrong.sum(Kind::Float).double_value(&[]), 0.0);
    }
    report.add("decode logits", tolerances.distance(&Tensor::stack(&logits, 1), &want_logits), tolerances.values);
    Ok(())
}
