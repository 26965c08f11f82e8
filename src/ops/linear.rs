//! y = x Wᵀ. The fused product reads a copy of W in the dtype of x, made once per step, and adds the gradient of W in fp32
//! to where the optimiser reads it, without a tensor of its own.

use super::cuda::{dense, rows_and_width};
use super::norm::Normed;
use super::{Backend, fused, skinny};
use crate::bridge::aten::addmm_fp32;
pub use crate::bridge::aten::set_grad;
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use tch::{Kind, Tensor};

/// One or more weight matrices [out, in] with the same input, whose outputs stand side by side.
#[derive(Debug)]
pub struct Weight {
    /// fp32 where they are trained.
    masters: Vec<Tensor>,
    /// Where the masters lie one after the other: all of them as one matrix.
    packed: Option<Packed>,
}

/// Views of a parameter arena, all [out, in].
#[derive(Debug)]
pub struct Packed {
    pub value: Tensor,
    /// bf16 copy of the values, kept up to date by the optimiser.
    pub shadow: Option<Tensor>,
    /// Gradients are added here; a model that is not trained has none.
    pub grad: Option<Tensor>,
}

impl Weight {
    /// Of masters [out, in], with their arena views where they have any.
    pub fn new(masters: Vec<Tensor>, packed: Option<Packed>) -> Self {
        Self { masters, packed }
    }

    /// The trained matrix of a weight that has one.
    pub fn master(&self) -> &Tensor {
        &self.masters[0]
    }

    /// Whether it is never trained again.
    pub(super) fn is_frozen(&self) -> bool {
        !self.masters[0].requires_grad()
    }

    /// Everything as one matrix of a dtype, outside the graph.
    pub(super) fn value(&self, kind: Kind) -> Tensor {
        let packed = self.packed.iter().flat_map(|packed| std::iter::once(&packed.value).chain(&packed.shadow));
        match packed.into_iter().find(|whole| whole.kind() == kind) {
            Some(whole) => whole.shallow_clone(),
            None => tch::no_grad(|| match self.masters.as_slice() {
                [one] => one.detach().to_kind(kind),
                several => Tensor::cat(several, 0).to_kind(kind),
            }),
        }
    }

    /// Where gradients are added; without it they are returned.
    pub(super) fn sink(&self) -> GradientSink {
        GradientSink {
            sum: self.packed.as_ref().and_then(|p| p.grad.as_ref().map(Tensor::shallow_clone)),
            rows: self.masters.iter().map(|m| m.size()[0]).collect(),
        }
    }
}

/// Where the gradient of a [`Weight`] goes.
pub(super) struct GradientSink {
    sum: Option<Tensor>,
    rows: Vec<i64>,
}

impl GradientSink {
    /// Takes dyᵀ x, dy [rows, out], x [rows, in]; what is to be returned for each master.
    pub(super) fn add(&self, dy: &Tensor, x: &Tensor) -> Vec<Option<Tensor>> {
        match &self.sum {
            Some(sum) => {
                add_product(sum, dy, x);
                self.rows.iter().map(|_| None).collect()
            }
            None => {
                let total = Tensor::zeros([dy.size()[1], x.size()[1]], (Kind::Float, x.device()));
                add_product(&total, dy, x);
                self.divide(&total)
            }
        }
    }

    /// A fp32 gradient computed elsewhere, [out, in].
    pub(super) fn divide(&self, total: &Tensor) -> Vec<Option<Tensor>> {
        total.split_with_sizes(&self.rows, 0).into_iter().map(Some).collect()
    }

    /// Where to add in place, if anywhere.
    pub(super) fn sum(&self) -> Option<&Tensor> {
        self.sum.as_ref()
    }
}

/// sum += dyᵀ x.
pub(super) fn add_product(sum: &Tensor, dy: &Tensor, x: &Tensor) {
    addmm_fp32(sum, &dy.transpose(0, 1), x).unwrap_or_else(|error| panic!("{error}"));
}

/// [.., in] → [.., out], the outputs of a weight's matrices side by side.
pub fn linear(x: &Tensor, weight: &Weight, backend: Backend) -> Tensor {
    if !fused(backend, x) {
        let all: Vec<Tensor> = weight.masters.iter().map(|w| x.linear(&w.to_kind(x.kind()), None::<&Tensor>)).collect();
        return if all.len() == 1 { all.into_iter().next().expect("one") } else { Tensor::cat(&all, -1) };
    }
    if weight.is_frozen() {
        let value = weight.value(x.kind());
        return if skinny::takes(x) { skinny::product(x, &value) } else { x.linear(&value, None::<&Tensor>) };
    }
    let function = Linear { value: weight.value(x.kind()), sink: weight.sink() };
    let inputs: Vec<Option<&Tensor>> = std::iter::once(x).chain(&weight.masters).map(Some).collect();
    apply(function, &inputs).pop().expect("one output")
}

/// [`linear`] of a norm.
pub fn linear_of_norm(x: &Normed, weight: &Weight, backend: Backend) -> Tensor {
    match x {
        Normed::Left(step) if weight.is_frozen() => skinny::normed_product(step, &weight.value(Kind::BFloat16)),
        _ => linear(&x.tensor(), weight, backend),
    }
}

struct Linear {
    value: Tensor,
    sink: GradientSink,
}

impl CustomFunction for Linear {
    const NAME: &'static str = "linear";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let x = &inputs[0];
        Forward {
            outputs: vec![x.linear(&self.value, None::<&Tensor>)],
            saved: vec![x.shallow_clone()],
            constant_outputs: 0,
        }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let mut out = vec![None];
        let Some(dy) = &grads[0] else {
            out.extend(self.sink.rows.iter().map(|_| None));
            return out;
        };
        let flat = |t: &Tensor| {
            let (rows, width) = rows_and_width(t);
            dense(t).view([rows, width])
        };
        let (x, dy) = (&saved[0], flat(dy));
        out[0] = Some(dy.mm(&self.value).view_as(x));
        out.extend(self.sink.add(&dy, &flat(x)));
        out
    }
}
