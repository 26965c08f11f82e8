//! The readout and its cross-entropy. Fused, tokens are taken in parts, so that their logits need little memory, and each
//! part's gradient is computed at once, in the place of its logits.

use super::cuda::{Sources, arguments, dense, kernel_sources, rows_and_width, run};
use super::linear::{GradientSink, Weight, add_product, linear};
use super::{Backend, cpu, fused, skinny};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use crate::bridge::tensor::values_mut;
use tch::{Device, Kind, Reduction, Tensor};

const SOURCES: Sources = kernel_sources!("cross_entropy");

/// Logits of one part at most, values: of a GPU, whose kernels want long ones, and of a CPU, whose cache should hold one.
const PART_VALUES: [i64; 2] = [1 << 28, 1 << 18];

/// Logits [.., v] in fp32, rounded to the dtype of the normed hidden states [.., w].
pub fn logits(hidden: &Tensor, readout: &Weight, backend: Backend) -> Tensor {
    if fused(backend, hidden) && readout.is_frozen() && skinny::takes(hidden) {
        return skinny::logits(hidden, &readout.value(hidden.kind()));
    }
    linear(hidden, readout, backend).to_kind(Kind::Float)
}

/// Cross-entropy of every position, nats, [b, t], from normed hidden states [b, t, w].
pub fn token_losses(hidden: &Tensor, readout: &Weight, targets_bt: &Tensor, backend: Backend) -> Tensor {
    if !fused(backend, hidden) {
        let logits = logits(hidden, readout, backend);
        let vocab = *logits.size().last().expect("logits are [b, t, v]");
        return logits
            .view([-1, vocab])
            .cross_entropy_loss(&targets_bt.reshape([-1]), None::<&Tensor>, Reduction::None, -100, 0.0)
            .view_as(targets_bt);
    }
    tch::no_grad(|| {
        let (hidden, targets) = flat(hidden, targets_bt);
        let value = readout.value(hidden.kind());
        let losses = Tensor::empty(targets.size(), (Kind::Float, hidden.device()));
        for (from, count) in parts(&targets, &value) {
            let logits = hidden.narrow(0, from, count).linear(&value, None::<&Tensor>);
            cross_entropy(&logits, &targets.narrow(0, from, count), &losses.narrow(0, from, count), None);
        }
        losses.view_as(targets_bt)
    })
}

/// Mean cross-entropy, nats per token, times `share`: the part of a batch's loss that these tokens stand for.
///
/// Fused, the gradient is computed in the forward pass, for a gradient of one at the result: backward passes must start
/// here.
pub fn mean_loss(hidden: &Tensor, readout: &Weight, targets_bt: &Tensor, share: f64, backend: Backend) -> Tensor {
    if !fused(backend, hidden) {
        return token_losses(hidden, readout, targets_bt, backend).mean(Kind::Float) * share;
    }
    let function = MeanLoss { value: readout.value(hidden.kind()), sink: readout.sink(), share };
    apply(function, &[Some(hidden), Some(targets_bt), Some(readout.master())]).pop().expect("one output")
}

fn flat(hidden: &Tensor, targets_bt: &Tensor) -> (Tensor, Tensor) {
    let (rows, width) = rows_and_width(hidden);
    (dense(hidden).view([rows, width]), dense(&targets_bt.reshape([-1])))
}

/// Positions in parts: first and number.
fn parts(targets: &Tensor, value: &Tensor) -> impl Iterator<Item = (i64, i64)> {
    let (rows, vocab) = (targets.size()[0], value.size()[0]);
    let [on_gpu, on_cpu] = PART_VALUES;
    let most = if targets.device() == Device::Cpu { on_cpu } else { on_gpu };
    let step = (most / vocab / 128 * 128).max(128);
    (0..rows).step_by(step as usize).map(move |from| (from, step.min(rows - from)))
}

/// Losses of logits [n, v]; with a scale the logits become their gradient times it.
fn cross_entropy(logits: &Tensor, targets: &Tensor, losses: &Tensor, gradient_scale: Option<f64>) {
    let (rows, vocab) = rows_and_width(logits);
    if logits.device() == Device::Cpu {
        let (mut logits, mut losses) = (logits.shallow_clone(), losses.shallow_clone());
        let targets = Vec::<i64>::try_from(targets).expect("targets are a row of ids");
        let scale = gradient_scale.map(|scale| scale as f32);
        cpu::cross_entropy(values_mut(&mut logits), &targets, values_mut(&mut losses), vocab as usize, scale);
        return;
    }
    let threads = if vocab <= 32768 && logits.kind() == Kind::BFloat16 { 512 } else { 1024 };
    let arguments = arguments![
        logits,
        targets,
        losses,
        gradient_scale.unwrap_or(0.0) as f32,
        rows,
        vocab as i32,
        i32::from(gradient_scale.is_some())
    ];
    run(SOURCES.of(logits.kind()), "cross_entropy", logits.device(), Shape::line(rows, threads), &arguments);
}

struct MeanLoss {
    value: Tensor,
    sink: GradientSink,
    share: f64,
}

impl CustomFunction for MeanLoss {
    const NAME: &'static str = "readout and cross-entropy";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let (hidden, targets) = flat(&inputs[0], &inputs[1]);
        let rows = targets.size()[0];
        let scale = self.share / rows as f64;
        let losses = Tensor::empty([rows], (Kind::Float, hidden.device()));
        let dhidden = hidden.empty_like();
        let dvalue = match self.sink.sum() {
            Some(sum) => sum.shallow_clone(),
            None => Tensor::zeros(self.value.size(), (Kind::Float, hidden.device())),
        };
        for (from, count) in parts(&targets, &self.value) {
            let of = |t: &Tensor| t.narrow(0, from, count);
            let logits = of(&hidden).linear(&self.value, None::<&Tensor>);
            cross_entropy(&logits, &of(&targets), &of(&losses), Some(scale));
            let _ = logits.mm_out(&of(&dhidden), &self.value);
            add_product(&dvalue, &logits, &of(&hidden));
        }
        let mut saved = vec![dhidden.view_as(&inputs[0])];
        if self.sink.sum().is_none() {
            saved.push(dvalue);
        }
        Forward { outputs: vec![losses.sum(Kind::Float) * scale], saved, constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], _grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let dvalue = saved.get(1).and_then(|total| self.sink.divide(total).pop().flatten());
        vec![Some(saved[0].shallow_clone()), None, dvalue]
    }
}
