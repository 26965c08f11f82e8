//! Linear maps, norms, the SwiGLU MLP and rotary positions.

use super::{ParamStore, Precision};
use crate::arch::{ModelShape, NormKind};
use tch::{Device, Kind, Tensor};

/// ε of every norm.
const NORM_EPS: f64 = 1e-5;

/// y = x Wᵀ + bias, W [out, in] kept in fp32 and rounded to the dtype of x.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `{name}.weight` and, where the model has one, `{name}.bias`.
    pub fn new(params: &ParamStore, name: &str) -> Self {
        Self { weight: params.get(&format!("{name}.weight")), bias: params.find(&format!("{name}.bias")) }
    }

    /// [.., in] → [.., out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        x.linear(&self.weight.to_kind(kind), self.bias.as_ref().map(|b| b.to_kind(kind)).as_ref())
    }

    /// The weight, fp32.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// x · (mean(x²) + ε)^(−1/2) ⊙ gain over the last axis, computed in fp32.
#[derive(Debug)]
pub struct RmsNorm {
    gain: Tensor,
}

impl RmsNorm {
    /// With the gain `{name}.weight`.
    pub fn new(params: &ParamStore, name: &str) -> Self {
        Self { gain: params.get(&format!("{name}.weight")) }
    }

    /// fp32 out, whatever comes in.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        x.rms_norm([*x.size().last().expect("a tensor with axes")], Some(&self.gain), NORM_EPS)
    }
}

/// Mean and variance over the last axis, gain and bias, computed in fp32.
#[derive(Debug)]
pub struct LayerNorm {
    gain: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// fp32 out, whatever comes in.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let width = *x.size().last().expect("a tensor with axes");
        x.layer_norm([width], Some(&self.gain), Some(&self.bias), NORM_EPS, true)
    }
}

/// The norm that a model's shape names.
#[derive(Debug)]
pub enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    /// The norm `name` of a model.
    pub fn new(params: &ParamStore, name: &str, kind: NormKind) -> Self {
        match kind {
            NormKind::Rms => Self::Rms(RmsNorm::new(params, name)),
            NormKind::Layer => Self::Layer(LayerNorm {
                gain: params.get(&format!("{name}.weight")),
                bias: params.get(&format!("{name}.bias")),
            }),
        }
    }

    /// fp32 out, whatever comes in.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }
}

/// w3( silu(gate) ⊙ up ), both halves from w1.
#[derive(Debug)]
pub struct SwiGlu {
    w1: Linear,
    w3: Linear,
}

impl SwiGlu {
    /// The MLP under `{name}.w1` and `{name}.w3`.
    pub fn new(params: &ParamStore, name: &str) -> Self {
        Self { w1: Linear::new(params, &format!("{name}.w1")), w3: Linear::new(params, &format!("{name}.w3")) }
    }

    /// [b, t, w] → [b, t, w], and the linear half (before the gate), [b, t, d].
    pub fn forward(&self, x_btw: &Tensor) -> (Tensor, Tensor) {
        let mut halves = self.w1.forward(x_btw).chunk(2, -1);
        let up = halves.pop().expect("two halves");
        let gate = halves.pop().expect("two halves");
        (self.w3.forward(&(gate.silu() * &up)), up)
    }
}

/// Precision of the cosine and sine tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeTable {
    Fp32,
    /// Rounded to bf16, as the reference trains.
    RoundedToBf16,
}

/// Rotary positions over all channels of a head, halves paired: [a cos − b sin | a sin + b cos], in fp32.
#[derive(Debug)]
pub struct RotaryEmbedding {
    half: usize,
    base: f64,
    table: RopeTable,
}

impl RotaryEmbedding {
    /// Angles of a model's heads.
    pub fn new(shape: &ModelShape, table: RopeTable) -> Self {
        Self::of(shape.head_dim, shape.rope_base, table)
    }

    /// Angles base^(−2p / head_dim).
    pub fn of(head_dim: usize, base: f64, table: RopeTable) -> Self {
        Self { half: head_dim / 2, base, table }
    }

    /// cos and sin of positions 0..time, each [t, e/2], fp32.
    pub fn tables(&self, time: i64, device: Device) -> (Tensor, Tensor) {
        let exponents = Tensor::arange(self.half as i64, (Kind::Float, device)) / self.half as f64;
        let inverse = (exponents * -self.base.ln()).exp();
        let angles = Tensor::arange(time, (Kind::Float, device)).outer(&inverse);
        let round = |t: Tensor| match self.table {
            RopeTable::Fp32 => t,
            RopeTable::RoundedToBf16 => t.to_kind(Kind::BFloat16).to_kind(Kind::Float),
        };
        (round(angles.cos()), round(angles.sin()))
    }
}

/// Rotates x [b, t, h, e] by tables [t, e/2]; the result has the dtype of x.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let halves = x.to_kind(Kind::Float).chunk(2, -1);
    let (a, b) = (&halves[0], &halves[1]);
    let (cos, sin) = (cos.unsqueeze(1), sin.unsqueeze(1));
    Tensor::cat(&[a * &cos - b * &sin, a * &sin + b * &cos], -1).to_kind(x.kind())
}

/// Rounds to the activation dtype.
pub(super) fn activation(x: Tensor, precision: Precision) -> Tensor {
    x.to_kind(precision.kind())
}
