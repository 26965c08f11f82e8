//! The Mamba-1 mixer.

use super::{LayerContext, Linear, Mixer, ParamStore};
use crate::arch::MAMBA_D_CONV;
use crate::ops::Backend;
use crate::ops::linear::Weight;
use crate::ops::mamba::{InnerWeights, inner};
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

/// What decoding keeps of a sequence.
#[derive(Debug)]
pub struct MambaState {
    /// The last four inputs of the convolution, newest last, [b, d, 4].
    pub conv_bdk: Tensor,
    /// State-space state, fp32, [b, d, n].
    pub ssm_bdn: Tensor,
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

    /// Output [b, t, w], the scan's output before the gate [b, t, d] where this layer publishes it, and the state after
    /// the last token.
    pub fn run(&self, x_btw: &Tensor, backend: Backend) -> (Tensor, Option<Tensor>, MambaState) {
        let xz = self.in_proj.forward(x_btw, backend);
        let weights = InnerWeights {
            conv_weight: &self.conv_weight,
            conv_bias: &self.conv_bias,
            x_proj: &self.x_proj,
            dt_proj: &self.dt_proj,
            dt_bias: &self.dt_bias,
            a_log: &self.a_log,
            skip: &self.d,
        };
        let out = inner(&xz, &weights, self.publishes_memory, backend);
        let conv_bdk = {
            let (taps, (_, time, channels)) = (MAMBA_D_CONV as i64, xz.size3().expect("xz is [b, t, 2d]"));
            let kept = taps.min(time);
            let recent = xz.detach().narrow(2, 0, channels / 2).narrow(1, time - kept, kept);
            recent.transpose(1, 2).constant_pad_nd([taps - kept, 0]).to_kind(Kind::Float)
        };
        let state = MambaState { conv_bdk, ssm_bdn: out.last_state };
        (self.out_proj.forward(&out.gated, backend), out.memory, state)
    }
}

impl Mixer for Mamba {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        let (out, memory, _) = self.run(x_btw, context.backend);
        if let Some(memory) = memory {
            context.memories.insert(self.layer, memory);
        }
        out
    }
}
