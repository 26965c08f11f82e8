//! Rows of a table by token. On a GPU the gradient is added to the table's gradient row by row in the order of the
//! tokens, without a dense gradient of its own and with the same result every time.

use super::Backend;
use super::cuda::{arguments, ceil, dense, kernel_source, run, serves};
use super::linear::Weight;
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Kind, Tensor};

const SOURCE: KernelSource = kernel_source!("embedding");

/// ids [b, t] to rows [b, t, w], fp32 whatever the table's dtype.
pub fn embedding(table: &Weight, ids_bt: &Tensor, backend: Backend) -> Tensor {
    let master = table.master();
    if !serves(backend, master) || !master.requires_grad() {
        return Tensor::embedding(master, ids_bt, -1, false, false).to_kind(Kind::Float);
    }
    let function = EmbeddingOnCuda { grad: table.sink().sum().map(Tensor::shallow_clone) };
    apply(function, &[Some(master), Some(ids_bt)]).pop().expect("one output")
}

struct EmbeddingOnCuda {
    /// Where gradients are added; without it they are returned.
    grad: Option<Tensor>,
}

impl CustomFunction for EmbeddingOnCuda {
    const NAME: &'static str = "embedding";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [table, ids] = inputs else { unreachable!("two inputs") };
        let rows = Tensor::embedding(table, ids, -1, false, false);
        Forward { outputs: vec![rows], saved: vec![table.shallow_clone(), ids.shallow_clone()], constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(dx) = &grads[0] else { return vec![None, None] };
        let (table, dx) = (&saved[0], dense(dx));
        let width = table.size()[1];
        let (tokens, order) = saved[1].reshape([-1]).sort_stable(true, 0, false);
        let rows = tokens.size()[0];
        let pieces = ceil(rows, 32);
        let parts = Tensor::empty([pieces, 2, width], (Kind::Float, dx.device()));
        let sum = self.grad.as_ref().map_or_else(|| table.zeros_like(), Tensor::shallow_clone);
        run(
            &SOURCE,
            "embedding_pieces",
            dx.device(),
            Shape::plane((pieces, ceil(width, 1024)), (256, 1)),
            &arguments![&dx, &tokens, &order, &sum, &parts, rows, width as i32],
        );
        run(
            &SOURCE,
            "embedding_joins",
            dx.device(),
            Shape::plane((pieces, ceil(width, 128)), (32, 8)),
            &arguments![&tokens, &parts, &sum, rows, width as i32],
        );
        vec![self.grad.is_none().then_some(sum), None]
    }
}
