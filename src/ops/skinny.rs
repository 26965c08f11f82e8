//! Products of frozen weights with a few rows: what decoding spends its time on. The kernel reads the weights at the speed
//! of memory; whatever it does not take goes to LibTorch.

use super::cuda::{arguments, ceil, kernel_source, row_stride, rows_and_width, run_early};
use super::norm::NormStep;
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Device, Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("skinny");

/// Rows of x at most.
const ROWS: i64 = 16;
/// As in the source: outputs of a block, inputs of a warp's turn, warps of a block.
const OUTPUTS: i64 = 16;
const SPAN: i64 = 64;
const MOST_WARPS: i64 = 8;
/// Values that are read at once.
const PACK: i64 = 8;

/// What becomes of the sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    /// bf16.
    Values,
    /// fp32, rounded to bf16 nevertheless.
    Logits,
    /// silu(gate) ⊙ up in bf16, gates and ups the halves of the sums.
    Gated,
}

impl Sums {
    fn halves(self) -> i64 {
        if self == Self::Gated { 2 } else { 1 }
    }

    /// Bytes of shared memory for each warp: 128 for a weight row of a turn, of as many turns as the source has in flight.
    fn shared(self) -> i64 {
        let turns = if self == Self::Gated { 3 } else { 5 };
        turns * self.halves() * OUTPUTS * SPAN * 2
    }
}

/// Whether the kernel takes x [.., in]: bf16 on a GPU, few rows, rows that begin on 16 bytes.
pub(super) fn takes(x: &Tensor) -> bool {
    let (rows, inputs) = rows_and_width(x);
    matches!(x.device(), Device::Cuda(_))
        && x.kind() == Kind::BFloat16
        && rows <= ROWS
        && inputs % PACK == 0
        && (x.data_ptr() as usize).is_multiple_of(16)
        && super::cuda::is_even(x)
        && row_stride(x) % PACK == 0
}

/// x Wᵀ, [.., out], of x [.., in] that the kernel takes and w [out, in], bf16.
pub(super) fn product(x: &Tensor, w: &Tensor) -> Tensor {
    launch(Sums::Values, x, w)
}

/// The same in fp32, with the values of bf16.
pub(super) fn logits(x: &Tensor, w: &Tensor) -> Tensor {
    launch(Sums::Logits, x, w)
}

/// silu(gate) ⊙ up, [.., out], gates and ups the halves of x Wᵀ; w [2 out, in], bf16.
pub(super) fn gated_product(x: &Tensor, w: &Tensor) -> Tensor {
    launch(Sums::Gated, x, w)
}

/// An empty result [.., out], its `out`, and blocks for it.
fn outputs(sums: Sums, x: &Tensor, w: &Tensor) -> (Tensor, i64, (i64, i64, i64)) {
    let outputs = w.size()[0] / sums.halves();
    let mut size = x.size();
    *size.last_mut().expect("a tensor with axes") = outputs;
    let kind = if sums == Sums::Logits { Kind::Float } else { Kind::BFloat16 };
    (Tensor::empty(&size, (kind, x.device())), outputs, (ceil(outputs, OUTPUTS), 1, 1))
}

fn launch(sums: Sums, x: &Tensor, w: &Tensor) -> Tensor {
    let (rows, inputs) = rows_and_width(x);
    let name = match (sums, rows <= 8) {
        (Sums::Values, true) => "skinny_linear_8",
        (Sums::Values, false) => "skinny_linear_16",
        (Sums::Logits, true) => "skinny_logits_8",
        (Sums::Logits, false) => "skinny_logits_16",
        (Sums::Gated, true) => "skinny_swiglu_8",
        (Sums::Gated, false) => "skinny_swiglu_16",
    };
    let (y, outputs, grid) = outputs(sums, x, w);
    let warps = ceil(inputs, SPAN).min(MOST_WARPS);
    let shape = Shape { grid, block: (32 * warps, 1), shared: warps * sums.shared() };
    let arguments = arguments![x, w, &y, rows as i32, inputs as i32, outputs as i32, row_stride(x)];
    run_early(&SOURCE, name, x.device(), shape, &arguments);
    y
}

/// Rows up to which a product works out the norm in front of it: each of its blocks does, which is quicker than a kernel
/// of its own for one or two.
const NORM_ROWS: i64 = 2;
/// As in the source: values of all rows at most, and what a row's width is a multiple of.
const NORM_VALUES: i64 = 8192;
const NORM_WIDTH: i64 = 256;

/// Whether a product can take the norm of x [.., in] (fp32) and of a branch of that shape with it.
pub(super) fn takes_norm_of(x: &Tensor, branch: Option<&Tensor>, gain: &Tensor) -> bool {
    let (rows, width) = rows_and_width(x);
    let dense = |t: &Tensor, kind| t.kind() == kind && t.is_contiguous() && (t.data_ptr() as usize).is_multiple_of(16);
    matches!(x.device(), Device::Cuda(_))
        && rows <= NORM_ROWS
        && rows * width <= NORM_VALUES
        && width % NORM_WIDTH == 0
        && dense(x, Kind::Float)
        && dense(gain, Kind::Float)
        && branch.is_none_or(|branch| dense(branch, Kind::BFloat16))
}

/// The product of the norm with w [out, in], bf16; the new stream is written to `step.sum`.
pub(super) fn normed_product(step: &NormStep, w: &Tensor) -> Tensor {
    launch_with_norm(Sums::Values, "skinny_norm_linear", step, w)
}

/// [`gated_product`] of the norm.
pub(super) fn normed_gated_product(step: &NormStep, w: &Tensor) -> Tensor {
    launch_with_norm(Sums::Gated, "skinny_norm_swiglu", step, w)
}

fn launch_with_norm(sums: Sums, name: &'static str, step: &NormStep, w: &Tensor) -> Tensor {
    let (rows, inputs) = rows_and_width(&step.x);
    let (y, outputs, grid) = outputs(sums, &step.x, w);
    let shared = MOST_WARPS * sums.shared() + 2 * rows * inputs;
    let shape = Shape { grid, block: (32 * MOST_WARPS, 1), shared };
    let arguments = arguments![
        &step.x,
        step.branch.as_ref(),
        step.gain,
        &step.sum,
        w,
        &y,
        step.scales.branch as f32,
        step.scales.output as f32,
        rows as i32,
        inputs as i32,
        outputs as i32
    ];
    run_early(&SOURCE, name, step.x.device(), shape, &arguments);
    y
}
