//! The likeliest token of each row of logits.

use super::cuda::{arguments, dense, kernel_source, run_early};
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Device, Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("argmax");

/// The place [b] of the largest value of each row [b, v]; of equal ones the first.
pub fn argmax(x: &Tensor) -> Tensor {
    let (rows, columns) = x.size2().expect("x is [b, v]");
    if x.kind() != Kind::Float || !matches!(x.device(), Device::Cuda(_)) {
        return x.argmax(-1, false);
    }
    let places = Tensor::empty([rows], (Kind::Int64, x.device()));
    let arguments = arguments![&dense(x), &places, columns as i32];
    run_early(&SOURCE, "argmax", x.device(), Shape::line(rows, 1024), &arguments);
    places
}
