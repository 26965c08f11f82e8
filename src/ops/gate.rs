//! silu(z) ⊙ m, the gate of gated memory units and of Mamba layers that publish their memory.

use super::cuda::{Sources, arguments, ceil, dense, even, kernel_sources, row_stride, rows_and_width, run};
use super::{Backend, cpu, fused};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use crate::bridge::tensor::{values, values_mut};
use tch::{Device, Tensor};

const SOURCES: Sources = kernel_sources!("gate");

/// [.., d] twice to [.., d].
pub fn gate(z: &Tensor, memory: &Tensor, backend: Backend) -> Tensor {
    if fused(backend, z) && z.kind() == memory.kind() {
        return apply(Gate, &[Some(z), Some(memory)]).pop().expect("one output");
    }
    z.silu() * memory
}

fn shape(rows: i64, width: i64) -> Shape {
    Shape::line(ceil(rows * ceil(width, 8), 512), 256)
}

/// y = silu(z) m, rows of z and m evenly spaced.
pub(super) fn gate_forward(z: &Tensor, memory: &Tensor) -> Tensor {
    let y = Tensor::empty(memory.size(), (z.kind(), z.device()));
    let (rows, width) = rows_and_width(z);
    let arguments = arguments![z, memory, &y, row_stride(z), row_stride(memory), row_stride(&y), rows, width as i32];
    run(SOURCES.of(z.kind()), "gate_forward", z.device(), shape(rows, width), &arguments);
    y
}

/// Writes the gradients of z and memory, whose rows are evenly spaced.
pub(super) fn gate_backward(dy: &Tensor, z: &Tensor, memory: &Tensor, dz: &Tensor, dmemory: &Tensor) {
    let (rows, width) = rows_and_width(z);
    let arguments = arguments![
        dy,
        z,
        memory,
        dz,
        dmemory,
        row_stride(dy),
        row_stride(z),
        row_stride(memory),
        row_stride(dz),
        row_stride(dmemory),
        rows,
        width as i32,
        0i32
    ];
    run(SOURCES.of(z.kind()), "gate_backward", z.device(), shape(rows, width), &arguments);
}

struct Gate;

impl CustomFunction for Gate {
    const NAME: &'static str = "gate";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        if inputs[0].device() == Device::Cpu {
            let (z, memory) = (dense(&inputs[0]), dense(&inputs[1]));
            let mut y = z.empty_like();
            cpu::gate_forward(values(&z), values(&memory), values_mut(&mut y));
            return Forward { outputs: vec![y], saved: vec![z, memory], constant_outputs: 0 };
        }
        let (z, memory) = (even(&inputs[0]), even(&inputs[1]));
        Forward { outputs: vec![gate_forward(&z, &memory)], saved: vec![z, memory], constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(dy) = &grads[0] else { return vec![None, None] };
        let empty = || Tensor::empty(dy.size(), (dy.kind(), dy.device()));
        let (mut dz, mut dmemory) = (empty(), empty());
        if dy.device() == Device::Cpu {
            let [z, memory] = saved else { unreachable!("two saved tensors") };
            let gradients = (values_mut(&mut dz), values_mut(&mut dmemory));
            cpu::gate_backward(values(&dense(dy)), values(z), values(memory), gradients.0, gradients.1);
            return vec![Some(dz), Some(dmemory)];
        }
        gate_backward(&even(dy), &saved[0], &saved[1], &dz, &dmemory);
        vec![Some(dz), Some(dmemory)]
    }
}
