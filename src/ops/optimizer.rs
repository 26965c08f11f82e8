//! AdamW with global-norm clipping over flat arenas on a GPU: three launches, and nothing comes back to the host.

use super::cuda::kernel_source;
use super::cuda::{arguments, ceil, run};
use crate::bridge::nvrtc::{KernelSource, Shape};
use crate::bridge::profile::operation;
use tch::{Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("adamw");

/// Partial sums of the norm; a constant, so that the result does not depend on the card.
const PARTS: i64 = 1056;

/// The optimiser's numbers on the device.
#[derive(Debug)]
pub struct DeviceState {
    /// lr, step, norm before clipping, clip factor, 1 − β1^t, √(1 − β2^t), unused twice.
    numbers: Tensor,
    parts: Tensor,
}

/// Rates of a range of elements.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub lr_multiplier: f64,
    pub weight_decay: f64,
}

/// Settings of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub betas: (f64, f64),
    pub eps: f64,
    pub grad_clip: f64,
    /// Elements of the first range.
    pub first: i64,
    pub rates: [Rates; 2],
}

/// Flat tensors of equal length: what one process updates. Gradients are zero afterwards.
#[derive(Debug)]
pub struct Arenas<'a> {
    pub values: &'a Tensor,
    pub grads: &'a Tensor,
    pub first_moment: &'a Tensor,
    pub second_moment: &'a Tensor,
    /// bf16 copy of the values.
    pub shadow: Option<&'a Tensor>,
}

impl DeviceState {
    /// Before the first step.
    pub fn new(device: tch::Device) -> Self {
        Self {
            numbers: Tensor::zeros([8], (Kind::Float, device)),
            parts: Tensor::zeros([PARTS], (Kind::Double, device)),
        }
    }

    /// The number of steps taken, a view.
    pub fn steps(&self) -> Tensor {
        self.numbers.get(1)
    }

    /// The gradient norm of the latest step, a view.
    pub fn norm(&self) -> Tensor {
        self.numbers.get(2)
    }

    /// Clips by the norm of `all_grads`, of which the gradients in `arenas` are a part, and updates.
    pub fn step(&mut self, all_grads: &Tensor, arenas: &Arenas, step: &Step, lr: f64) {
        let Arenas { values, grads, first_moment, second_moment, shadow } = *arenas;
        let (device, count, all) = (values.device(), values.numel() as i64, all_grads.numel() as i64);
        let _operation = operation("gradient norm and AdamW");
        let _ = self.numbers.get(0).fill_(lr);
        run(&SOURCE, "square_sums", device, Shape::line(PARTS, 512), &arguments![all_grads, &self.parts, all]);
        let (beta1, beta2) = step.betas;
        let finish = arguments![&self.parts, &self.numbers, PARTS as i32, step.grad_clip as f32, beta1, beta2];
        run(&SOURCE, "norm_finish", device, Shape::line(1, 1024), &finish);
        if count == 0 {
            return;
        }
        let [a, b] = step.rates;
        let update = arguments![
            values,
            grads,
            first_moment,
            second_moment,
            shadow,
            &self.numbers,
            count,
            step.first,
            a.lr_multiplier as f32,
            a.weight_decay as f32,
            b.lr_multiplier as f32,
            b.weight_decay as f32,
            beta1,
            beta2,
            step.eps as f32,
            1i32
        ];
        run(&SOURCE, "adamw", device, Shape::line(ceil(count, 1024), 256), &update);
    }
}
