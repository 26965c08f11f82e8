//! Products of frozen weights with a few rows: what decoding spends its time on. The kernel reads the weights at the speed
//! of memory; whatever it does not take goes to LibTorch.

use super::cuda::{arguments, ceil, kernel_source, row_stride, rows_and_width, run_early};
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Device, Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("skinny");

/// Rows of x at most.
const ROWS: i64 = 16;
/// As in the source: outputs of a block, inputs of a warp's turn.
const OUTPUTS: i64 = 16;
const SPAN: i64 = 32;
/// Blocks with fewer of which it takes more warps to keep a large GPU's memory busy.
const MANY_BLOCKS: i64 = 264;
/// Values that are read at once.
const PACK: i64 = 8;

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
    launch("skinny_linear", x, w, [w.size()[0], 1])
}

/// silu(gate) ⊙ up, [.., out], gates and ups the halves of x Wᵀ; w [2 out, in], bf16.
pub(super) fn gated_product(x: &Tensor, w: &Tensor) -> Tensor {
    launch("skinny_swiglu", x, w, [w.size()[0] / 2, 2])
}

fn launch(name: &'static str, x: &Tensor, w: &Tensor, [outputs, halves]: [i64; 2]) -> Tensor {
    let (rows, inputs) = rows_and_width(x);
    let mut size = x.size();
    *size.last_mut().expect("a tensor with axes") = outputs;
    let y = Tensor::empty(&size, (Kind::BFloat16, x.device()));
    let blocks = ceil(outputs, OUTPUTS);
    let warps = if halves == 1 && blocks < MANY_BLOCKS { 16 } else { 8 }.min(ceil(inputs, SPAN));
    let shape =
        Shape { grid: (blocks, 1, 1), block: (32 * warps, 1), shared: warps * halves * OUTPUTS * (ROWS + 1) * 4 };
    let arguments = arguments![x, w, &y, rows as i32, inputs as i32, outputs as i32, row_stride(x)];
    run_early(&SOURCE, name, x.device(), shape, &arguments);
    y
}
