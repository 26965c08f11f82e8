//! Depthwise causal convolution over time with a bias and, usually, a SiLU: y_t = silu(Σ_k w_k x_{t−K+1+k} + bias), zeros
//! before the first step. Layout [b, t, d]; weight [d, K], its last column multiplies the current step.
//!
//! The CPU kernel keeps nothing but its inputs and recomputes the sum before the SiLU in the backward pass.

#![expect(clippy::needless_range_loop, reason = "loops over lanes of several vectors at once read best by index")]

use super::Backend;
use super::cuda::{Sources, arguments, ceil, dense_fp32, even, kernel_sources, row_stride, run, serves, sum_rows};
use super::lanes::{Columns, LANES, Lanes, load, mul_add, sigmoid, splat, split_columns};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use crate::bridge::tensor::{values, values_mut};
use multiversion::multiversion;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// What follows the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Silu,
}

/// The convolution with the implementation that `backend` names; output in the dtype of x.
pub fn causal_conv1d(
    x_btd: &Tensor,
    w_dk: &Tensor,
    bias_d: &Tensor,
    activation: Activation,
    backend: Backend,
) -> Tensor {
    match backend {
        Backend::Fused if x_btd.device() == Device::Cpu => {
            let kind = x_btd.kind();
            let plain = |t: &Tensor| t.to_kind(Kind::Float).contiguous();
            let (x, w, bias) = (plain(x_btd), plain(w_dk), plain(bias_d));
            let mut outputs = apply(ConvOnCpu { activation }, &[Some(&x), Some(&w), Some(&bias)]);
            outputs.pop().expect("one output").to_kind(kind)
        }
        _ if serves(backend, x_btd) && activation == Activation::Silu && w_dk.size()[1] == TAPS as i64 => {
            apply(ConvOnCuda, &[Some(x_btd), Some(w_dk), Some(bias_d)]).pop().expect("one output")
        }
        _ => causal_conv1d_ref(x_btd, w_dk, bias_d, activation),
    }
}

/// The same through LibTorch's grouped convolution.
pub fn causal_conv1d_ref(x_btd: &Tensor, w_dk: &Tensor, bias_d: &Tensor, activation: Activation) -> Tensor {
    let (_, time, channels) = x_btd.size3().expect("x is [b, t, d]");
    let taps = w_dk.size()[1];
    let kind = x_btd.kind();
    let y_bdt = x_btd.transpose(1, 2).conv1d(
        &w_dk.unsqueeze(1).to_kind(kind),
        Some(bias_d.to_kind(kind)),
        1,
        taps - 1,
        1,
        channels,
    );
    let y_btd = y_bdt.narrow(2, 0, time).transpose(1, 2);
    match activation {
        Activation::None => y_btd,
        Activation::Silu => y_btd.silu(),
    }
}

/// Taps of the kernel.
const TAPS: usize = 4;

struct ConvOnCpu {
    activation: Activation,
}

impl CustomFunction for ConvOnCpu {
    const NAME: &'static str = "causal conv1d";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let conv = Conv::new(inputs, self.activation);
        let mut y = Tensor::empty(inputs[0].size(), (Kind::Float, Device::Cpu));
        let blocks = split_columns(values_mut(&mut y), conv.time, conv.channels);
        blocks.into_par_iter().enumerate().for_each(|(task, mut y)| forward_block(&conv.block(task), &mut y));
        Forward { outputs: vec![y], saved: inputs.iter().map(Tensor::shallow_clone).collect(), constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(dy) = &grads[0] else { return vec![None, None, None] };
        let dy = dy.contiguous();
        let conv = Conv::new(saved, self.activation);
        let dy = values(&dy);
        let mut dx = saved[0].empty_like();
        let blocks = split_columns(values_mut(&mut dx), conv.time, conv.channels);
        let parts: Vec<BlockGradients> = blocks
            .into_par_iter()
            .enumerate()
            .map(|(task, mut dx)| backward_block(&conv.block(task), dy, &mut dx))
            .collect();
        let (mut dw, mut dbias) = (saved[1].zeros_like(), saved[2].zeros_like());
        {
            let (dw, dbias) = (values_mut(&mut dw), values_mut(&mut dbias));
            for (task, part) in parts.iter().enumerate() {
                let block = conv.block(task);
                for lane in 0..block.lanes {
                    dbias[block.first + lane] += part.bias[lane];
                    for k in 0..TAPS {
                        dw[(block.first + lane) * TAPS + k] += part.w[k][lane];
                    }
                }
            }
        }
        vec![Some(dx), Some(dw), Some(dbias)]
    }
}

const SOURCES: Sources = kernel_sources!("conv");

/// Blocks of 32 x 8 threads, each thread with two channels and a strip of 32 steps.
fn cuda_grid(batch: i64, time: i64, channels: i64) -> (i64, i64) {
    (ceil(channels, 64), ceil(batch * ceil(time, 32), 8))
}

/// With SiLU, of x whose rows are evenly spaced; w and bias fp32.
pub(super) fn forward_on_cuda(x_btd: &Tensor, w_dk: &Tensor, bias_d: &Tensor) -> Tensor {
    let (batch, time, channels) = x_btd.size3().expect("x is [b, t, d]");
    let y = Tensor::empty([batch, time, channels], (x_btd.kind(), x_btd.device()));
    let shape = Shape::plane(cuda_grid(batch, time, channels), (32, 8));
    let arguments = arguments![x_btd, w_dk, bias_d, &y, row_stride(x_btd), batch as i32, time as i32, channels as i32];
    run(SOURCES.of(x_btd.kind()), "conv_forward", x_btd.device(), shape, &arguments);
    y
}

/// Writes the gradient of x, whose rows are evenly spaced, and returns those of w and bias; dy is dense.
pub(super) fn backward_on_cuda(
    dy_btd: &Tensor,
    x_btd: &Tensor,
    w_dk: &Tensor,
    bias_d: &Tensor,
    dx_btd: &Tensor,
) -> (Tensor, Tensor) {
    let (batch, time, channels) = x_btd.size3().expect("x is [b, t, d]");
    let grid = cuda_grid(batch, time, channels);
    let parts = Tensor::empty([grid.1, 5 * channels], (Kind::Float, x_btd.device()));
    let arguments = arguments![
        dy_btd,
        x_btd,
        w_dk,
        bias_d,
        dx_btd,
        &parts,
        row_stride(x_btd),
        row_stride(dx_btd),
        batch as i32,
        time as i32,
        channels as i32
    ];
    run(SOURCES.of(x_btd.kind()), "conv_backward", x_btd.device(), Shape::plane(grid, (32, 8)), &arguments);
    let (dw, dbias) = (w_dk.empty_like(), bias_d.empty_like());
    sum_rows(SOURCES.of(x_btd.kind()), &parts, &dw, Some(&dbias), 4 * channels);
    (dw, dbias)
}

struct ConvOnCuda;

impl CustomFunction for ConvOnCuda {
    const NAME: &'static str = "causal conv1d";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let (w, bias) = (dense_fp32(&inputs[1]), dense_fp32(&inputs[2]));
        let x = even(&inputs[0]);
        let y = forward_on_cuda(&x, &w, &bias);
        Forward { outputs: vec![y], saved: vec![x, w, bias], constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(dy) = &grads[0] else { return vec![None, None, None] };
        let [x, w, bias] = saved else { unreachable!("three saved tensors") };
        let dx = Tensor::empty(x.size(), (x.kind(), x.device()));
        let (dw, dbias) = backward_on_cuda(&dy.contiguous(), x, w, bias, &dx);
        vec![Some(dx), Some(dw), Some(dbias)]
    }
}

struct Conv<'a> {
    time: usize,
    channels: usize,
    x: &'a [f32],
    w: &'a [f32],
    bias: &'a [f32],
    silu: bool,
}

/// One row and up to [`LANES`] channels.
struct Block<'a> {
    conv: &'a Conv<'a>,
    row: usize,
    first: usize,
    lanes: usize,
    w: [Lanes; TAPS],
    bias: Lanes,
}

struct BlockGradients {
    w: [Lanes; TAPS],
    bias: Lanes,
}

impl<'a> Conv<'a> {
    fn new(inputs: &'a [Tensor], activation: Activation) -> Self {
        let (_, time, channels) = inputs[0].size3().expect("x is [b, t, d]");
        assert_eq!(inputs[1].size(), [channels, TAPS as i64], "the CPU convolution is written for four taps");
        Self {
            time: time as usize,
            channels: channels as usize,
            x: values(&inputs[0]),
            w: values(&inputs[1]),
            bias: values(&inputs[2]),
            silu: activation == Activation::Silu,
        }
    }

    fn block(&self, task: usize) -> Block<'_> {
        let blocks = self.channels.div_ceil(LANES);
        let first = task % blocks * LANES;
        let lanes = LANES.min(self.channels - first);
        let mut w = [splat(0.0); TAPS];
        for (k, w_k) in w.iter_mut().enumerate() {
            for lane in 0..lanes {
                w_k[lane] = self.w[(first + lane) * TAPS + k];
            }
        }
        Block { conv: self, row: task / blocks, first, lanes, w, bias: load(&self.bias[first..], lanes) }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn at(&self, tensor: &[f32], t: usize) -> Lanes {
        load(&tensor[(self.row * self.conv.time + t) * self.conv.channels + self.first..], self.lanes)
    }

    /// The sum before the activation; `recent` holds the last four inputs, newest last.
    #[inline(always)]
    fn sum(&self, recent: &[Lanes; TAPS]) -> Lanes {
        let mut out = self.bias;
        for k in 0..TAPS {
            for lane in 0..LANES {
                out[lane] = mul_add(self.w[k][lane], recent[k][lane], out[lane]);
            }
        }
        out
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward_block(block: &Block, y: &mut Columns) {
    let mut recent = [splat(0.0); TAPS];
    for t in 0..block.conv.time {
        recent = [recent[1], recent[2], recent[3], block.at(block.conv.x, t)];
        let mut value = block.sum(&recent);
        if block.conv.silu {
            let s = sigmoid(&value);
            for lane in 0..LANES {
                value[lane] *= s[lane];
            }
        }
        y.store(t, &value);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward_block(block: &Block, dy: &[f32], dx: &mut Columns) -> BlockGradients {
    let mut out = BlockGradients { w: [splat(0.0); TAPS], bias: splat(0.0) };
    let mut recent = [splat(0.0); TAPS];
    // Gradients of the last four inputs so far, newest last.
    let mut pending = [splat(0.0); TAPS];
    for t in 0..block.conv.time {
        recent = [recent[1], recent[2], recent[3], block.at(block.conv.x, t)];
        pending = [pending[1], pending[2], pending[3], splat(0.0)];
        let mut d = block.at(dy, t);
        if block.conv.silu {
            let value = block.sum(&recent);
            let s = sigmoid(&value);
            for lane in 0..LANES {
                d[lane] *= s[lane] * (1.0 + value[lane] * (1.0 - s[lane]));
            }
        }
        for lane in 0..LANES {
            out.bias[lane] += d[lane];
        }
        // Tap k of step t read x of step t − 3 + k.
        for k in 0..TAPS {
            for lane in 0..LANES {
                out.w[k][lane] = mul_add(d[lane], recent[k][lane], out.w[k][lane]);
                pending[k][lane] = mul_add(d[lane], block.w[k][lane], pending[k][lane]);
            }
        }
        if t + 1 >= TAPS {
            dx.store(t + 1 - TAPS, &pending[0]);
        }
    }
    // The last three inputs wait for no later step.
    for k in 1..TAPS {
        if block.conv.time + k >= TAPS {
            dx.store(block.conv.time + k - TAPS, &pending[k]);
        }
    }
    out
}
