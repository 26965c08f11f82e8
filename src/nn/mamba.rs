//! The Mamba-1 mixer.

use super::{LayerContext, Linear, Mixer, ParamStore};
use crate::arch::{MAMBA_D_CONV, MAMBA_D_STATE};
use crate::ops::Backend;
use crate::ops::causal_conv1d::{Activation, causal_conv1d};
use crate::ops::selective_scan::{ScanInputs, selective_scan};
use tch::{Kind, Tensor};

/// in_proj → (x, z); x → causal convolution → silu → (Δ, B, C); scan; silu(z) gate; out_proj.
#[derive(Debug)]
pub struct Mamba {
    layer: usize,
    in_proj: Linear,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Linear,
    dt_weight: Tensor,
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
            x_proj: linear("x_proj"),
            dt_weight: get("dt_proj.weight"),
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
        let kind = x_btw.kind();
        let state = MAMBA_D_STATE as i64;
        let rank = self.dt_weight.size()[1];
        let halves = self.in_proj.forward(x_btw).chunk(2, -1);
        let (x, z) = (halves[0].contiguous(), halves[1].contiguous());
        let convolved = causal_conv1d(&x, &self.conv_weight.squeeze_dim(1), &self.conv_bias, Activation::Silu, backend);
        let projected = self.x_proj.forward(&convolved).split_with_sizes([rank, state, state], -1);
        let delta = projected[0].linear(&self.dt_weight.to_kind(kind), None::<&Tensor>);
        let out = selective_scan(
            &ScanInputs {
                x_btd: &convolved,
                delta_btd: &delta,
                a_dn: &-self.a_log.exp(),
                b_btn: &projected[1],
                c_btn: &projected[2],
                d_d: Some(&self.d),
                z_btd: (!self.publishes_memory).then_some(&z),
                delta_bias_d: Some(&self.dt_bias),
                softplus: true,
            },
            backend,
        );
        let conv_bdk = {
            let taps = MAMBA_D_CONV as i64;
            x.detach().transpose(1, 2).constant_pad_nd([taps, 0]).slice(2, -taps, None, 1)
        };
        let (gated, memory) =
            if self.publishes_memory { (z.silu() * &out.y_btd, Some(out.y_btd)) } else { (out.y_btd, None) };
        let state = MambaState { conv_bdk: conv_bdk.to_kind(Kind::Float), ssm_bdn: out.last_state_bdn };
        (self.out_proj.forward(&gated), memory, state)
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
