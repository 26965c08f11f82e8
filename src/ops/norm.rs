//! A step of the residual stream: x' = x + r·h, then n = rms_norm(x')·gain·s in the activation dtype. On a GPU one kernel
//! reads x and h once and writes both results.

use super::Backend;
use super::cuda::{arguments, ceil, dense, kernel_source, rows_and_width, run, serves, sum_rows, typed};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("norm");

/// ε of every norm.
pub const NORM_EPS: f64 = 1e-5;

/// x · (mean(x²) + ε)^(−1/2) ⊙ gain over the last axis, computed in fp32; fp32 out, whatever comes in.
pub fn rms_norm(x: &Tensor, gain: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    x.rms_norm([*x.size().last().expect("a tensor with axes")], Some(gain), NORM_EPS)
}

/// Factors of [`add_rms_norm`].
#[derive(Clone, Copy, Debug)]
pub struct NormScales {
    /// Multiplies the branch before it is added, in the branch's dtype.
    pub branch: f64,
    /// Multiplies the norm, in fp32.
    pub output: f64,
}

/// The new residual stream (fp32) and its norm in `kind`; without a branch the stream stays as it is.
pub fn add_rms_norm(
    x: &Tensor,
    branch: Option<&Tensor>,
    gain: &Tensor,
    scales: NormScales,
    kind: Kind,
    backend: Backend,
) -> (Tensor, Tensor) {
    if serves(backend, x) && x.size().last().is_some_and(|&width| width <= WIDEST) {
        let mut outputs = apply(AddNormOnCuda { scales, kind }, &[Some(x), branch, Some(gain)]);
        let n = outputs.pop().expect("two outputs");
        return (if branch.is_some() { outputs.pop().expect("two outputs") } else { x.shallow_clone() }, n);
    }
    let x = add_branch(x, branch, scales.branch);
    let n = rms_norm(&x, gain);
    let n = if scales.output == 1.0 { n } else { n * scales.output };
    (x, n.to_kind(kind))
}

/// x + r·h.
pub fn add_branch(x: &Tensor, branch: Option<&Tensor>, scale: f64) -> Tensor {
    match branch {
        None => x.shallow_clone(),
        Some(h) if scale == 1.0 => x + h,
        Some(h) => x + h * scale,
    }
}

/// Widest row of the kernel.
const WIDEST: i64 = 8192;

/// Threads of a row, and rows of a block.
fn forward_block(width: i64) -> (i64, i64) {
    let threads = match width {
        0..=1024 => 32,
        1025..=2048 => 64,
        2049..=4096 => 128,
        _ => 256,
    };
    (threads, (128 / threads).max(1))
}

/// The same of the backward pass, which holds more of a row in each thread.
fn backward_block(width: i64) -> (i64, i64) {
    let threads = 32 * ceil(width, 512);
    (threads, (128 / threads).max(1))
}

/// Blocks of the backward pass at most: each leaves one row of partial sums.
const PARTS: i64 = 528;

struct AddNormOnCuda {
    scales: NormScales,
    kind: Kind,
}

impl CustomFunction for AddNormOnCuda {
    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [x, branch, gain] = inputs else { unreachable!("three inputs") };
        let x = dense(x);
        let branch = branch.defined().then(|| dense(branch));
        let (rows, width) = rows_and_width(&x);
        let sum = if branch.is_some() { x.empty_like() } else { x.shallow_clone() };
        let n = Tensor::empty(x.size(), (self.kind, x.device()));
        let rstd = Tensor::empty([rows], (Kind::Float, x.device()));
        let block = forward_block(width);
        run(
            &SOURCE,
            typed!("add_rmsnorm_forward", self.kind),
            x.device(),
            Shape::plane((ceil(rows, block.1), 1), block),
            &arguments![
                &x,
                branch.as_ref(),
                gain,
                &sum,
                &n,
                &rstd,
                self.scales.branch as f32,
                self.scales.output as f32,
                rows,
                width as i32
            ],
        );
        let saved = vec![sum.shallow_clone(), rstd, gain.shallow_clone()];
        // Without a branch the stream is no output of this function: it passes by.
        let outputs = if branch.is_some() { vec![sum, n] } else { vec![n] };
        Forward { outputs, saved, constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let [sum, rstd, gain] = saved else { unreachable!("three saved tensors") };
        let with_branch = grads.len() == 2;
        let (dsum, dn) = if with_branch { (grads[0].as_ref(), &grads[1]) } else { (None, &grads[0]) };
        let Some(dn) = dn else {
            let dx = dsum.map(Tensor::shallow_clone);
            let dbranch = dx.as_ref().map(|dx| dx.to_kind(self.kind) * self.scales.branch);
            return vec![dx, dbranch, None];
        };
        let (dn, dsum) = (dense(dn), dsum.map(dense));
        let (rows, width) = rows_and_width(sum);
        let dx = sum.empty_like();
        let dbranch = with_branch.then(|| Tensor::empty(sum.size(), (self.kind, sum.device())));
        let dgain = gain.empty_like();
        let block = backward_block(width);
        let blocks = ceil(rows, block.1).min(PARTS);
        let parts = Tensor::empty([blocks, width], (Kind::Float, sum.device()));
        run(
            &SOURCE,
            typed!("rmsnorm_backward", self.kind),
            sum.device(),
            Shape::plane((blocks, 1), block),
            &arguments![
                &dn,
                dsum.as_ref(),
                sum,
                rstd,
                gain,
                &dx,
                dbranch.as_ref(),
                &parts,
                self.scales.branch as f32,
                self.scales.output as f32,
                rows,
                width as i32
            ],
        );
        sum_rows(&SOURCE, &parts, &dgain, None, width);
        vec![Some(dx), dbranch, Some(dgain)]
    }
}
