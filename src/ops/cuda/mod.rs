//! What the CUDA kernels of this crate share: which tensors they run on, and how they are launched.

use super::Backend;
use crate::bridge::nvrtc::{Argument, KernelSource, Shape, Start, launch};
use tch::{Device, Kind, Tensor};

/// Whether this crate's CUDA kernels serve a tensor: asked for, on a GPU, in bf16 or fp32.
pub(super) fn serves(backend: Backend, x: &Tensor) -> bool {
    backend == Backend::Fused
        && matches!(x.device(), Device::Cuda(_))
        && matches!(x.kind(), Kind::BFloat16 | Kind::Float)
}

/// A source with the text that all kernels share in front of it.
macro_rules! kernel_source {
    ($name:literal) => {
        $crate::bridge::nvrtc::KernelSource {
            name: $name,
            text: concat!(include_str!("cuda/common.cuh"), include_str!(concat!("cuda/", $name, ".cu"))),
        }
    };
}
pub(super) use kernel_source;

/// One text for both dtypes of activations: a module of its own for each, of which a run needs one.
pub(super) struct Sources {
    pub(super) bf16: KernelSource,
    pub(super) fp32: KernelSource,
}

impl Sources {
    pub(super) fn of(&self, kind: Kind) -> &KernelSource {
        if kind == Kind::BFloat16 { &self.bf16 } else { &self.fp32 }
    }
}

/// [`Sources`] of a text like [`kernel_source`]'s, whose activations are of the type VALUE.
macro_rules! kernel_sources {
    ($name:literal) => {
        $crate::ops::cuda::Sources { bf16: kernel_sources!($name, "bf16"), fp32: kernel_sources!($name, "float") }
    };
    ($name:literal, $value:literal) => {
        $crate::bridge::nvrtc::KernelSource {
            name: concat!($name, "_", $value),
            text: concat!(
                "#define VALUE ",
                $value,
                "\n",
                include_str!("cuda/common.cuh"),
                include_str!(concat!("cuda/", $name, ".cu"))
            ),
        }
    };
}
pub(super) use kernel_sources;

/// Launches, or panics with what went wrong, as tensor operations of `tch` do.
pub(super) fn run(source: &KernelSource, name: &'static str, device: Device, shape: Shape, arguments: &[Argument]) {
    launch(source, name, device, shape, Start::InTurn, arguments).unwrap_or_else(|error| panic!("{error}"));
}

/// The same of a kernel that waits by itself for what the one in front of it writes (`await_previous`).
pub(super) fn run_early(
    source: &KernelSource,
    name: &'static str,
    device: Device,
    shape: Shape,
    arguments: &[Argument],
) {
    launch(source, name, device, shape, Start::Early, arguments).unwrap_or_else(|error| panic!("{error}"));
}

/// Arguments of a launch, each turned into its kind.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => {
        [$($crate::bridge::nvrtc::Argument::from($value)),*]
    };
}
pub(super) use arguments;

/// a / b, rounded up.
pub(super) fn ceil(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// All axes but the last, and the last.
pub(super) fn rows_and_width(x: &Tensor) -> (i64, i64) {
    let size = x.size();
    let width = *size.last().expect("a tensor with axes");
    (size[..size.len() - 1].iter().product(), width)
}

/// Elements between rows of a tensor whose rows are evenly spaced and dense, such as a slice of channels.
pub(super) fn row_stride(x: &Tensor) -> i64 {
    even_rows(x).expect("a CUDA kernel takes evenly spaced rows of adjacent values")
}

fn even_rows(x: &Tensor) -> Option<i64> {
    let (size, stride) = (x.size(), x.stride());
    let last = size.len() - 1;
    if stride[last] != 1 && size[last] != 1 {
        return None;
    }
    // Axes of one element do not matter; the others must follow from the innermost.
    let mut axes = (0..last).rev().filter(|&axis| size[axis] != 1);
    let Some(inner) = axes.next() else { return Some(size[last]) };
    let mut expected = stride[inner] * size[inner];
    for axis in axes {
        if stride[axis] != expected {
            return None;
        }
        expected *= size[axis];
    }
    Some(stride[inner])
}

/// Whether its rows are evenly spaced and dense.
pub(super) fn is_even(x: &Tensor) -> bool {
    even_rows(x).is_some()
}

/// The tensor, or a contiguous copy where its rows are not evenly spaced.
pub(super) fn even(x: &Tensor) -> Tensor {
    if is_even(x) { x.shallow_clone() } else { x.contiguous() }
}

/// The tensor, or a contiguous copy.
pub(super) fn dense(x: &Tensor) -> Tensor {
    if x.is_contiguous() { x.shallow_clone() } else { x.contiguous() }
}

/// The tensor in fp32, contiguous.
pub(super) fn dense_fp32(x: &Tensor) -> Tensor {
    dense(&x.to_kind(Kind::Float))
}

/// Second stage of a sum over rows: `parts` [rows, n] to the `split` first columns and the rest.
pub(super) fn sum_rows(source: &KernelSource, parts: &Tensor, first: &Tensor, rest: Option<&Tensor>, split: i64) {
    let (rows, columns) = rows_and_width(parts);
    let shape = Shape::plane((ceil(columns, 32), 1), (32, 32));
    run(
        source,
        "sum_rows",
        parts.device(),
        shape,
        &arguments![parts, first, rest, rows, columns as i32, split as i32, 0i32],
    );
}
