//! The gated memory unit: out_proj( silu(in_proj(x)) ⊙ memory ).

use super::{Extension, LayerContext, LayerState, Linear, Mixer, ParamStore};
use crate::ops::Backend;
use crate::ops::gate::gate;
use crate::ops::norm::Normed;
use tch::{Kind, Tensor};

/// Reads the memory that an earlier layer published.
#[derive(Debug)]
pub struct GatedMemoryUnit {
    memory_layer: usize,
    in_proj: Linear,
    out_proj: Linear,
}

impl GatedMemoryUnit {
    /// The unit with parameters under `{name}.gmu`.
    pub fn new(params: &ParamStore, name: &str, memory_layer: usize) -> Self {
        Self {
            memory_layer,
            in_proj: Linear::new(params, &format!("{name}.gmu.in_proj")),
            out_proj: Linear::new(params, &format!("{name}.gmu.out_proj")),
        }
    }

    /// x [b, t, w] gates memory [b, t, d].
    pub fn run(&self, x_btw: &Tensor, memory_btd: &Tensor, backend: Backend) -> Tensor {
        self.open(&self.in_proj.forward(x_btw, backend), memory_btd, backend)
    }

    /// The output for what in_proj gives, [b, t, d].
    fn open(&self, projected: &Tensor, memory_btd: &Tensor, backend: Backend) -> Tensor {
        self.out_proj.forward(&gate(projected, memory_btd, backend), backend)
    }
}

impl Mixer for GatedMemoryUnit {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        self.run(x_btw, &context.memories[&self.memory_layer], context.backend)
    }

    fn empty_state(&self, _: [i64; 2], _: Kind) -> LayerState {
        LayerState::Nothing
    }

    fn extend(&self, x_btw: &Normed, run: &mut Extension) -> Tensor {
        let LayerContext { backend, memories, .. } = &run.context;
        self.open(&self.in_proj.forward_norm(x_btw, *backend), &memories[&self.memory_layer], *backend)
    }
}
