//! The SwiGLU MLP: w3( silu(gate) ⊙ up ), gate and up the halves of w1's output. The fused kernels do not
//! keep the product of the halves: the backward pass makes it again beside its gradient.

use super::cuda::{Sources, arguments, ceil, dense, kernel_sources, rows_and_width, run};
use super::linear::{GradientSink, Weight, linear};
use super::norm::Normed;
use super::{Backend, cpu, fused, skinny};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use crate::bridge::tensor::{values, values_mut};
use tch::{Device, Kind, Tensor};

const SOURCES: Sources = kernel_sources!("swiglu");

/// [.., w] → [.., w], and the linear half before the gate, [.., d], where it is `wanted`.
pub fn swiglu(x: &Tensor, w1: &Weight, w3: &Weight, up_wanted: bool, backend: Backend) -> (Tensor, Option<Tensor>) {
    if fused(backend, x) && w1.is_frozen() && !up_wanted && skinny::takes(x) {
        return (linear(&skinny::gated_product(x, &w1.value(x.kind())), w3, backend), None);
    }
    if fused(backend, x) {
        let kind = x.kind();
        let function = SwiGlu { w1: w1.value(kind), w3: w3.value(kind), sinks: [w1.sink(), w3.sink()], up_wanted };
        let mut outputs = apply(function, &[Some(x), Some(w1.master()), Some(w3.master())]).into_iter();
        let y = outputs.next().expect("an output");
        return (y, outputs.next());
    }
    let mut halves = linear(x, w1, backend).chunk(2, -1);
    let up = halves.pop().expect("two halves");
    let gate = halves.pop().expect("two halves");
    (linear(&(gate.silu() * &up), w3, backend), up_wanted.then_some(up))
}

/// [`swiglu`] of a norm.
pub fn swiglu_of_norm(
    x: &Normed,
    w1: &Weight,
    w3: &Weight,
    up_wanted: bool,
    backend: Backend,
) -> (Tensor, Option<Tensor>) {
    match x {
        Normed::Left(step) if w1.is_frozen() && !up_wanted => {
            (linear(&skinny::normed_gated_product(step, &w1.value(Kind::BFloat16)), w3, backend), None)
        }
        _ => swiglu(&x.tensor(), w1, w3, up_wanted, backend),
    }
}

fn shape(rows: i64, inner: i64) -> Shape {
    Shape::line(ceil(rows * ceil(inner, 8), 512), 256)
}

struct SwiGlu {
    w1: Tensor,
    w3: Tensor,
    sinks: [GradientSink; 2],
    up_wanted: bool,
}

impl CustomFunction for SwiGlu {
    const NAME: &'static str = "swiglu";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let x = &inputs[0];
        let (kind, device) = (x.kind(), x.device());
        let h = x.linear(&self.w1, None::<&Tensor>);
        let (rows, width) = rows_and_width(&h);
        let inner = width / 2;
        let mut size = h.size();
        *size.last_mut().expect("a tensor with axes") = inner;
        let mut product = Tensor::empty(&size, (kind, device));
        if device == Device::Cpu {
            cpu::swiglu_forward(values(&h), values_mut(&mut product), inner as usize);
        } else {
            let arguments = arguments![&h, &product, rows, inner as i32];
            run(SOURCES.of(kind), "swiglu_forward", device, shape(rows, inner), &arguments);
        }
        let mut outputs = vec![product.linear(&self.w3, None::<&Tensor>)];
        if self.up_wanted {
            outputs.push(h.narrow(-1, inner, inner).contiguous());
        }
        Forward { outputs, saved: vec![x.shallow_clone(), h], constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let [x, h] = saved else { unreachable!("two saved tensors") };
        let (kind, device) = (x.kind(), x.device());
        let (rows, width) = rows_and_width(h);
        let inner = width / 2;
        let flat = |t: &Tensor| dense(t).view([rows, -1]);
        let dy = grads[0].as_ref().map(&flat);
        let dup = grads.get(1).and_then(Option::as_ref).map(&flat);
        // The gradient of the product, then in its place the product.
        let mut product = match &dy {
            Some(dy) => dy.mm(&self.w3),
            None => Tensor::zeros([rows, inner], (kind, device)),
        };
        let mut dh = Tensor::empty([rows, width], (kind, device));
        if device == Device::Cpu {
            let (product, dh) = (values_mut(&mut product), values_mut(&mut dh));
            cpu::swiglu_backward(values(h), dup.as_ref().map(values), product, dh, inner as usize);
        } else {
            let arguments = arguments![&product, h, dup.as_ref(), &dh, &product, inner, rows, inner as i32];
            run(SOURCES.of(kind), "swiglu_backward", device, shape(rows, inner), &arguments);
        }
        let dw3 = dy.map_or_else(|| vec![None], |dy| self.sinks[1].add(&dy, &product));
        drop(product);
        let dx = dh.mm(&self.w1).view_as(x);
        let dw1 = self.sinks[0].add(&dh, &flat(x));
        std::iter::once(Some(dx)).chain(dw1).chain(dw3).collect()
    }
}
