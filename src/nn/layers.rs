//! Linear maps, norms, the SwiGLU MLP and rotary positions.

use super::ParamStore;
use crate::arch::{ModelShape, NormKind};
use crate::ops::Backend;
use crate::ops::linear::{Weight, linear, linear_of_norm};
use crate::ops::norm::{NormScales, NormWeights, Normed, add_norm, add_norm_for_product, norm};
use crate::ops::rope::RopeTables;
use crate::ops::swiglu::{swiglu, swiglu_of_norm};
use tch::{Device, Kind, Tensor};

/// y = x Wᵀ + bias, W [out, in] kept in fp32 and rounded to the dtype of x.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    /// `{name}.weight` and, where the model has one, `{name}.bias`.
    pub fn new(params: &ParamStore, name: &str) -> Self {
        Self { weight: params.weight(&[name.to_owned()]), bias: params.find(&format!("{name}.bias")) }
    }

    /// Where the weight lies.
    pub fn device(&self) -> Device {
        self.weight.master().device()
    }

    /// [.., in] → [.., out].
    pub fn forward(&self, x: &Tensor, backend: Backend) -> Tensor {
        self.with_bias(linear(x, &self.weight, backend))
    }

    /// [`Self::forward`] of a norm.
    pub fn forward_norm(&self, x: &Normed, backend: Backend) -> Tensor {
        self.with_bias(linear_of_norm(x, &self.weight, backend))
    }

    fn with_bias(&self, y: Tensor) -> Tensor {
        match &self.bias {
            Some(bias) => {
                let bias = bias.to_kind(y.kind());
                y + bias
            }
            None => y,
        }
    }
}

/// The norm that a model's shape names, over the last axis: with a bias a layer norm, without one an RMS norm.
#[derive(Debug)]
pub struct Norm {
    gain: Tensor,
    bias: Option<Tensor>,
}

impl Norm {
    /// With the gain `{name}.weight` and, of a layer norm, `{name}.bias`.
    pub fn new(params: &ParamStore, name: &str, kind: NormKind) -> Self {
        let bias = (kind == NormKind::Layer).then(|| params.get(&format!("{name}.bias")));
        Self { gain: params.get(&format!("{name}.weight")), bias }
    }

    fn weights(&self) -> NormWeights<'_> {
        NormWeights { gain: &self.gain, bias: self.bias.as_ref() }
    }

    /// fp32 out, whatever comes in.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        norm(x, self.weights())
    }

    /// The gain.
    pub fn gain(&self) -> &Tensor {
        &self.gain
    }

    /// A step of the residual stream: x + r·branch in fp32, and its norm times a factor in `kind`.
    pub fn add(
        &self,
        x: &Tensor,
        branch: Option<&Tensor>,
        scales: NormScales,
        kind: Kind,
        backend: Backend,
    ) -> (Tensor, Tensor) {
        add_norm(x, branch, self.weights(), scales, kind, backend)
    }

    /// The same for a layer that puts the norm through products of frozen weights only.
    pub fn add_for_product(
        &self,
        x: &Tensor,
        branch: Option<&Tensor>,
        scales: NormScales,
        kind: Kind,
        backend: Backend,
    ) -> (Tensor, Normed<'_>) {
        add_norm_for_product(x, branch, self.weights(), scales, kind, backend)
    }
}

/// w3( silu(gate) ⊙ up ), both halves from w1.
#[derive(Debug)]
pub struct SwiGlu {
    w1: Weight,
    w3: Weight,
}

impl SwiGlu {
    /// The MLP under `{name}.w1` and `{name}.w3`.
    pub fn new(params: &ParamStore, name: &str) -> Self {
        let weight = |part: &str| params.weight(&[format!("{name}.{part}")]);
        Self { w1: weight("w1"), w3: weight("w3") }
    }

    /// [b, t, w] → [b, t, w], and the linear half (before the gate), [b, t, d], where it is wanted.
    pub fn forward(&self, x_btw: &Tensor, up_wanted: bool, backend: Backend) -> (Tensor, Option<Tensor>) {
        swiglu(x_btw, &self.w1, &self.w3, up_wanted, backend)
    }

    /// [`Self::forward`] of a norm.
    pub fn forward_norm(&self, x: &Normed, up_wanted: bool, backend: Backend) -> (Tensor, Option<Tensor>) {
        swiglu_of_norm(x, &self.w1, &self.w3, up_wanted, backend)
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
    pub fn tables(&self, time: i64, device: Device) -> RopeTables {
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
