//! A place in a model that says when the backward pass comes by.

use crate::bridge::autograd::{CustomFunction, Forward, apply};
use tch::Tensor;

struct Boundary<F> {
    told: F,
}

impl<F: Fn() + Send + 'static> CustomFunction for Boundary<F> {
    const NAME: &'static str = "boundary";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let outputs = inputs.iter().map(Tensor::shallow_clone).collect();
        Forward { outputs, saved: Vec::new(), constant_outputs: 0 }
    }

    fn backward(&mut self, _: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        (self.told)();
        grads.iter().map(|grad| grad.as_ref().map(Tensor::shallow_clone)).collect()
    }
}

/// Hands on two tensors. `told` is called in the backward pass, once the gradients of both are complete: whatever was
/// computed from them has been passed by then.
pub fn boundary(a: &Tensor, b: &Tensor, told: impl Fn() + Send + 'static) -> (Tensor, Tensor) {
    let [a, b] = apply(Boundary { told }, &[Some(a), Some(b)]).try_into().expect("as many outputs as inputs");
    (a, b)
}
