//! The Mamba-1 mixer.

use super::{Extension, LayerContext, LayerState, Linear, Mixer, ParamStore, Wanted};
use crate::ops::Backend;
use crate::ops::linear::Weight;
use crate::ops::mamba::{InnerWeights, MambaState, extend, inner};
use crate::ops::norm::Normed;
use tch::{Kind, Tensor};

/// in_proj → (x, z); x → causal convolution → silu → (Δ, B, C); scan; silu(z) gate; out_proj.
#[derive(Debug)]
pub struct Mamba {
    layer: usize,
    in_proj: Linear,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Weight,
    dt_proj: Weight,
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    out_proj: Linear,
    publishes_memory: bool,
}

impl Mamba {
    /// The layer with parameters under `name`.
    pub fn new(params: &ParamStore, name: &str, layer: usize, publishes_memory: bool) -> Self {
        let get = |part: &str| params.get(&format!("{name}.{part}"));
        let linear = |part: &str| Linear::new(params, &format!("{name}.{part}"));
        Self {
            layer,
            in_proj: linear("in_proj"),
            conv_weight: get("conv1d.weight"),
            conv_bias: get("conv1d.bias"),
            x_proj: params.weight(&[format!("{name}.x_proj")]),
            dt_proj: params.weight(&[format!("{name}.dt_proj")]),
            dt_bias: get("dt_proj.bias"),
            a_log: get("A_log"),
            d: get("D"),
            out_proj: linear("out_proj"),
            publishes_memory,
        }
    }

    fn inner_weights(&self) -> InnerWeights<'_> {
        InnerWeights {
            conv_weight: &self.conv_weight,
            conv_bias: &self.conv_bias,
            x_proj: &self.x_proj,
            dt_proj: &self.dt_proj,
            dt_bias: &self.dt_bias,
            a_log: &self.a_log,
            skip: &self.d,
        }
    }

    /// Output [b, t, w], and the scan's output before the gate [b, t, d] where this layer publishes it.
    pub fn run(&self, x_btw: &Tensor, backend: Backend) -> (Tensor, Option<Tensor>) {
        let xz = self.in_proj.forward(x_btw, backend);
        let out = inner(&xz, &self.inner_weights(), self.publishes_memory, backend);
        (self.out_proj.forward(&out.gated, backend), out.memory)
    }

    /// As [`Self::run`], of tokens that follow those which `state` has seen; takes it past them.
    pub fn run_on(&self, x_btw: &Normed, state: &mut MambaState, backend: Backend) -> (Tensor, Option<Tensor>) {
        let xz = self.in_proj.forward_norm(x_btw, backend);
        let (gated, memory) = extend(&xz, &self.inner_weights(), state, self.publishes_memory, backend);
        (self.out_proj.forward(&gated, backend), memory)
    }

    /// The state of `batch` sequences without tokens; activations are of `kind`.
    pub fn state(&self, batch: i64, kind: Kind) -> MambaState {
        MambaState::empty(batch, &self.conv_weight, &self.a_log, kind)
    }

    fn publish(&self, memory: Option<Tensor>, context: &mut LayerContext) {
        if let Some(memory) = memory {
            context.memories.insert(self.layer, memory);
        }
    }
}

impl Mixer for Mamba {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        let (out, memory) = self.run(x_btw, context.backend);
        self.publish(memory, context);
        out
    }

    fn empty_state(&self, [batch, _]: [i64; 2], kind: Kind) -> LayerState {
        LayerState::Mamba(self.state(batch, kind))
    }

    fn extend(&self, x_btw: &Normed, run: &mut Extension) -> Tensor {
        let LayerState::Mamba(state) = &mut run.states[self.layer] else {
            panic!("layer {} keeps no state of a scan", self.layer)
        };
        let (out, memory) = self.run_on(x_btw, state, run.context.backend);
        self.publish(memory, &mut run.context);
        match run.wanted {
            Wanted::All => out,
            Wanted::Last => out.narrow(1, out.size()[1] - 1, 1),
        }
    }
}
