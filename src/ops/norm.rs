//! A step of the residual stream: x' = x + r·h, then n = norm(x')·s in the activation dtype. One kernel reads x and h
//! once and writes both results.

use super::cuda::{Sources, arguments, ceil, dense, kernel_sources, rows_and_width, run, run_early, sum_rows};
use super::{Backend, cpu, fused, skinny};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use crate::bridge::tensor::{values, values_mut};
use tch::{Device, Kind, Tensor};

const SOURCES: Sources = kernel_sources!("norm");

/// ε of every norm.
pub const NORM_EPS: f64 = 1e-5;

/// What multiplies and, of a layer norm, is added to a normed row.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    pub gain: &'a Tensor,
    /// Makes a layer norm of it.
    pub bias: Option<&'a Tensor>,
}

/// Over the last axis, computed in fp32; fp32 out, whatever comes in. RMS norm: x · (mean(x²) + ε)^(−1/2) ⊙ gain; layer
/// norm: the same of x − mean(x), plus the bias.
pub fn norm(x: &Tensor, weights: NormWeights) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let width = [*x.size().last().expect("a tensor with axes")];
    match weights.bias {
        None => x.rms_norm(width, Some(weights.gain), NORM_EPS),
        bias => x.layer_norm(width, Some(weights.gain), bias, NORM_EPS, true),
    }
}

/// Factors of [`add_norm`].
#[derive(Clone, Copy, Debug)]
pub struct NormScales {
    /// Multiplies the branch before it is added, in the branch's dtype.
    pub branch: f64,
    /// Multiplies the norm, in fp32.
    pub output: f64,
}

/// The new residual stream (fp32) and its norm in `kind`; without a branch the stream stays as it is.
pub fn add_norm(
    x: &Tensor,
    branch: Option<&Tensor>,
    weights: NormWeights,
    scales: NormScales,
    kind: Kind,
    backend: Backend,
) -> (Tensor, Tensor) {
    let inputs = [Some(x), branch, Some(weights.gain), weights.bias];
    let outputs = match x.device() {
        Device::Cpu if fused(backend, x) && kind == Kind::Float => Some(apply(AddNormOnCpu { scales }, &inputs)),
        Device::Cuda(_) if fused(backend, x) && x.size().last().is_some_and(|&width| width <= WIDEST) => {
            Some(apply(AddNormOnCuda { scales, kind }, &inputs))
        }
        _ => None,
    };
    if let Some(mut outputs) = outputs {
        let n = outputs.pop().expect("two outputs");
        return (if branch.is_some() { outputs.pop().expect("two outputs") } else { x.shallow_clone() }, n);
    }
    let x = add_branch(x, branch, scales.branch);
    let n = norm(&x, weights);
    let n = if scales.output == 1.0 { n } else { n * scales.output };
    (x, n.to_kind(kind))
}

/// What a layer reads: the norm of the residual stream.
#[derive(Debug)]
pub enum Normed<'a> {
    Made(Tensor),
    /// Left to the first product that reads it, which writes the new stream as well.
    Left(NormStep<'a>),
}

/// A step of the residual stream that is not computed yet.
#[derive(Debug)]
pub struct NormStep<'a> {
    pub(super) x: Tensor,
    pub(super) branch: Option<Tensor>,
    pub(super) gain: &'a Tensor,
    pub(super) scales: NormScales,
    /// Where the new stream comes.
    pub(super) sum: Tensor,
}

/// As [`add_norm`], in the activation dtype, for a layer that puts the norm through products of frozen weights only, of
/// which there must be one: it may work the norm out by itself. The new stream is there when it has.
pub fn add_norm_for_product<'a>(
    x: &Tensor,
    branch: Option<&Tensor>,
    weights: NormWeights<'a>,
    scales: NormScales,
    kind: Kind,
    backend: Backend,
) -> (Tensor, Normed<'a>) {
    let frozen = !weights.gain.requires_grad() && !x.requires_grad();
    let plain = weights.bias.is_none() && kind == Kind::BFloat16;
    if fused(backend, x) && frozen && plain && skinny::takes_norm_of(x, branch, weights.gain) {
        let sum = if branch.is_some() { x.empty_like() } else { x.shallow_clone() };
        let branch = branch.map(Tensor::shallow_clone);
        let step = NormStep { x: x.shallow_clone(), branch, gain: weights.gain, scales, sum: sum.shallow_clone() };
        return (sum, Normed::Left(step));
    }
    let (x, n) = add_norm(x, branch, weights, scales, kind, backend);
    (x, Normed::Made(n))
}

impl Normed<'_> {
    /// The norm itself, [.., w].
    pub fn tensor(&self) -> Tensor {
        match self {
            Self::Made(n) => n.shallow_clone(),
            Self::Left(NormStep { x, branch, gain, scales, sum }) => {
                let weights = NormWeights { gain, bias: None };
                let (new, n) = add_norm(x, branch.as_ref(), weights, *scales, Kind::BFloat16, Backend::Fused);
                if branch.is_some() {
                    sum.shallow_clone().copy_(&new);
                }
                n
            }
        }
    }
}

/// x + r·h.
fn add_branch(x: &Tensor, branch: Option<&Tensor>, scale: f64) -> Tensor {
    match branch {
        None => x.shallow_clone(),
        Some(h) if scale == 1.0 => x + h,
        Some(h) => x + h * scale,
    }
}

/// Widest row of the kernel.
const WIDEST: i64 = 8192;

/// Threads of a row, and rows of a block: few rows are dealt out widely, so that none is waited for long.
fn forward_block(rows: i64, width: i64) -> (i64, i64) {
    const FEW_ROWS: i64 = 128;
    let threads = match width {
        _ if rows <= FEW_ROWS => 256,
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
    const NAME: &'static str = "residual add and norm";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [x, branch, gain, bias] = inputs else { unreachable!("four inputs") };
        let x = dense(x);
        let branch = branch.defined().then(|| dense(branch));
        let (rows, width) = rows_and_width(&x);
        let sum = if branch.is_some() { x.empty_like() } else { x.shallow_clone() };
        let n = Tensor::empty(x.size(), (self.kind, x.device()));
        let centered = bias.defined();
        let row_values = || Tensor::empty([rows], (Kind::Float, x.device()));
        let (mean, rstd) = (centered.then(row_values), row_values());
        let block = forward_block(rows, width);
        run_early(
            SOURCES.of(self.kind),
            if centered { "add_layernorm_forward" } else { "add_rmsnorm_forward" },
            x.device(),
            Shape::plane((ceil(rows, block.1), 1), block),
            &arguments![
                &x,
                branch.as_ref(),
                gain,
                bias,
                &sum,
                &n,
                mean.as_ref(),
                &rstd,
                self.scales.branch as f32,
                self.scales.output as f32,
                rows,
                width as i32
            ],
        );
        let mean = mean.unwrap_or_else(Tensor::new);
        let saved = vec![sum.shallow_clone(), rstd, gain.shallow_clone(), mean];
        // Without a branch the stream is no output of this function: it passes by.
        let outputs = if branch.is_some() { vec![sum, n] } else { vec![n] };
        Forward { outputs, saved, constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let [sum, rstd, gain, mean] = saved else { unreachable!("four saved tensors") };
        let (with_branch, dsum, dn) = arriving(grads);
        let Some(dn) = dn else { return unnormed(dsum, with_branch, self.scales, self.kind) };
        let (dn, dsum) = (dense(dn), dsum.map(dense));
        let (rows, width) = rows_and_width(sum);
        let dx = sum.empty_like();
        let dbranch = with_branch.then(|| Tensor::empty(sum.size(), (self.kind, sum.device())));
        let dgain = gain.empty_like();
        let block = backward_block(width);
        let blocks = ceil(rows, block.1).min(PARTS);
        let dbias = mean.defined().then(|| gain.empty_like());
        let columns = if dbias.is_some() { 2 * width } else { width };
        let parts = Tensor::empty([blocks, columns], (Kind::Float, sum.device()));
        run(
            SOURCES.of(self.kind),
            if dbias.is_some() { "layernorm_backward" } else { "rmsnorm_backward" },
            sum.device(),
            Shape::plane((blocks, 1), block),
            &arguments![
                &dn,
                dsum.as_ref(),
                sum,
                mean,
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
        sum_rows(SOURCES.of(self.kind), &parts, &dgain, dbias.as_ref(), width);
        vec![Some(dx), dbranch, Some(dgain), dbias]
    }
}

struct AddNormOnCpu {
    scales: NormScales,
}

impl AddNormOnCpu {
    fn settings<'a>(&self, gain: &'a Tensor, bias: &'a Tensor) -> cpu::NormSettings<'a> {
        cpu::NormSettings {
            gain: values(gain),
            bias: bias.defined().then(|| values(bias)),
            branch_scale: self.scales.branch as f32,
            out_scale: self.scales.output as f32,
            epsilon: NORM_EPS as f32,
        }
    }
}

impl CustomFunction for AddNormOnCpu {
    const NAME: &'static str = "residual add and norm";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [x, branch, gain, bias] = inputs else { unreachable!("four inputs") };
        let x = dense(x);
        let (rows, _) = rows_and_width(&x);
        let (mut n, mut statistics) = (x.empty_like(), Tensor::empty([rows, 2], (Kind::Float, Device::Cpu)));
        let settings = self.settings(gain, bias);
        let mut sum = if branch.defined() { x.empty_like() } else { x.shallow_clone() };
        {
            let branch = branch.defined().then(|| dense(branch));
            let added = branch.as_ref().map(|branch| (values(branch), values_mut(&mut sum)));
            cpu::norm_forward(values(&x), added, settings, values_mut(&mut n), values_mut(&mut statistics));
        }
        let saved = vec![sum.shallow_clone(), statistics, gain.shallow_clone(), bias.shallow_clone()];
        // As on a GPU: without a branch the stream is no output.
        let outputs = if branch.defined() { vec![sum, n] } else { vec![n] };
        Forward { outputs, saved, constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let [sum, statistics, gain, bias] = saved else { unreachable!("four saved tensors") };
        let (with_branch, dsum, dn) = arriving(grads);
        let Some(dn) = dn else { return unnormed(dsum, with_branch, self.scales, Kind::Float) };
        let (dn, dsum) = (dense(dn), dsum.map(dense));
        let (mut dx, mut dgain) = (sum.empty_like(), gain.empty_like());
        let mut dbranch = with_branch.then(|| sum.empty_like());
        let mut dbias = bias.defined().then(|| bias.empty_like());
        let out = cpu::NormGradients {
            x: values_mut(&mut dx),
            branch: dbranch.as_mut().map(values_mut),
            gain: values_mut(&mut dgain),
            bias: dbias.as_mut().map(values_mut),
        };
        let settings = self.settings(gain, bias);
        cpu::norm_backward(values(&dn), dsum.as_ref().map(values), values(sum), values(statistics), settings, out);
        vec![Some(dx), dbranch, Some(dgain), dbias]
    }
}

/// Whether there is a branch, and the gradients of the new stream, an output only with one, and of the norm.
fn arriving(grads: &[Option<Tensor>]) -> (bool, Option<&Tensor>, Option<&Tensor>) {
    match grads {
        [dsum, dn] => (true, dsum.as_ref(), dn.as_ref()),
        grads => (false, None, grads[0].as_ref()),
    }
}

/// Gradients where nothing arrives at the norm, only at the stream.
fn unnormed(dsum: Option<&Tensor>, with_branch: bool, scales: NormScales, kind: Kind) -> Vec<Option<Tensor>> {
    let dbranch = dsum.filter(|_| with_branch).map(|dx| dx.to_kind(kind) * scales.branch);
    vec![dsum.map(Tensor::shallow_clone), dbranch, None, None]
}
