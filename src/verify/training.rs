//! `train_*` files: twenty AdamW steps from given weights on given batches.

use super::golden::{Golden, max_over_rms};
use super::{Report, Tolerances, VerifyError, VerifyOptions};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use crate::schedule::{LrSchedule, ScheduleShape};
use crate::train::optimizer::{AdamW, AdamWOptions, Sharing};

pub(super) fn verify(
    golden: &Golden,
    options: VerifyOptions,
    tolerances: Tolerances,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let (model, scaling) = golden.model()?;
    let settings = golden.json("optimizer")?;
    let number =
        |key: &str| settings[key].as_f64().ok_or_else(|| golden.problem(format!("optimizer metadata has no {key}")));
    let params = ParamStore::from_tensors(&model, golden.under("param."), options.device)
        .map_err(|e| golden.problem(e.to_string()))?
        .into_arena(options.precision);
    let forward =
        ForwardOptions { backend: options.backend, precision: options.precision, rope_table: RopeTable::Fp32 };
    let lm = DecoderLm::new(&model, &scaling, &params, forward);
    let mut optimizer = AdamW::new(
        &params,
        &scaling,
        AdamWOptions {
            betas: (number("beta1")?, number("beta2")?),
            eps: number("eps")?,
            grad_clip: number("grad_clip")?,
            weight_decay: number("weight_decay")?,
        },
        options.backend,
        Sharing::alone(),
    );
    let schedule = LrSchedule {
        shape: ScheduleShape::Linear,
        warmup: number("warmup_iters")? as u64,
        total: number("max_iters")? as u64,
        iterations_per_step: 1,
    };
    let peak = number("learning_rate")?;
    let tokens = golden.get("tokens")?;
    let (losses, norms, rates) = (golden.get("losses")?, golden.get("grad_norms")?, golden.get("lr")?);
    let refused = |e: crate::bridge::BridgeError| golden.problem(e.to_string());

    // AdamW turns gradients that are mostly rounding into steps of full size, and twenty of them amplify what they began
    // with. bf16 is therefore held to the gradients of the first two steps, which have the same weights since the rate
    // begins at 0, to losses and logits, and to the norm of all parameters together instead of each by itself.
    let comparable = match options.precision {
        Precision::Fp32 => tokens.size()[0],
        Precision::Bf16 => 2,
    };
    let (mut loss_error, mut norm_error, mut rate_error) = (0f64, 0f64, 0f64);
    let row_length = tokens.size()[2];
    for step in 0..tokens.size()[0] {
        let batch = tokens.get(step).to_device(options.device);
        let loss = lm.loss(&batch.narrow(1, 0, row_length - 1), &batch.narrow(1, 1, row_length - 1), 1.0);
        loss.backward();
        let lr = peak * schedule.at_step(step as u64);
        optimizer.step(&params, lr).map_err(refused)?;
        let norm = optimizer.norm();
        loss_error = loss_error.max((loss.double_value(&[]) - losses.double_value(&[step])).abs());
        if step < comparable {
            norm_error = norm_error.max((norm / norms.double_value(&[step]) - 1.0).abs());
        }
        rate_error = rate_error.max((lr - rates.double_value(&[step])).abs() / peak);
    }
    report.add("learning rates (worst)", rate_error, 1e-6);
    report.add("losses (worst)", loss_error, tolerances.training_loss);
    report.add(format!("gradient norms ({comparable} steps)"), norm_error, tolerances.gradient_norm);
    let (mut worst, mut squares) = (0f64, [0f64; 2]);
    for param in params.iter() {
        let want = golden.get(&format!("final_norm.{}", param.name))?.double_value(&[]);
        let got = param.tensor.norm().double_value(&[]);
        worst = worst.max((got / want - 1.0).abs());
        squares[0] += got * got;
        squares[1] += want * want;
    }
    match options.precision {
        Precision::Fp32 => report.add("final parameter norms (worst)", worst, tolerances.final_norm),
        Precision::Bf16 => {
            let error = ((squares[0] / squares[1]).sqrt() - 1.0).abs();
            report.add("final norm of all parameters", error, tolerances.final_norm);
        }
    }
    let first = tokens.get(0).narrow(1, 0, row_length - 1).to_device(options.device);
    let logits = tch::no_grad(|| lm.forward(&first));
    // Twenty updates amplify rounding: the limit of losses, not of one forward pass, over logits of order one.
    let limit = 10.0 * tolerances.training_loss;
    report.add("final logits", max_over_rms(&logits, &golden.get("final_logits")?), limit);
    Ok(())
}
