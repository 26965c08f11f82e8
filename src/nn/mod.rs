//! Modules with parameters: from a [`crate::arch::ModelConfig`] and a [`ParamStore`] to a [`DecoderLm`].
//!
//! Shape letters: b batch, t time, w model width, d inner channels, h heads, k key-value heads, e head channels, v vocabulary.

mod attention;
mod decoder;
mod decoding;
mod gated_memory_unit;
mod layers;
mod mamba;
mod params;

pub use attention::{Attention, DifferentialHeads};
pub use decoder::{BackwardWatch, DecoderLm, ForwardOptions, Trace};
pub use decoding::{DecodeState, Extension, LayerState, Place, Wanted};
pub use gated_memory_unit::GatedMemoryUnit;
pub use layers::{Linear, Norm, RopeTable, RotaryEmbedding, SwiGlu};
pub use mamba::Mamba;
pub use params::{Arena, NnError, ParamStore, Parameter};

use crate::ops::Backend;
use crate::ops::norm::Normed;
use crate::ops::rope::RopeTables;
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// Dtype of activations between fp32 norms and residual sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    /// Products in bf16 with fp32 accumulation; residual stream, norms, softmax, scan and loss in fp32.
    Bf16,
}

impl Precision {
    /// The tensor kind of activations.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// The word in configs and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        }
    }
}

/// State that layers hand to later ones during one forward pass.
#[derive(Debug)]
pub struct LayerContext {
    pub backend: Backend,
    /// Keys (rotated, where the architecture rotates) and values by the layer that published them, [b, t, k, e].
    pub key_values: HashMap<usize, (Tensor, Tensor)>,
    /// Memory of gated memory units by the layer that published it, [b, t, d].
    pub memories: HashMap<usize, Tensor>,
}

impl LayerContext {
    /// Nothing published yet.
    pub fn new(backend: Backend) -> Self {
        Self { backend, key_values: HashMap::new(), memories: HashMap::new() }
    }
}

/// A token mixer: [b, t, w] in the activation dtype to the same.
pub trait Mixer: std::fmt::Debug + Send {
    /// Mixes, reading and publishing state through `context`.
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor;

    /// What decoding keeps of so many sequences of at most so many tokens, before they have any; activations of `kind`.
    fn empty_state(&self, sizes: [i64; 2], kind: Kind) -> LayerState;

    /// Mixes further tokens of sequences, and takes this layer's state in `run` past them. All positions' outputs, or the
    /// last one's: as `run` wants it.
    fn extend(&self, x_btw: &Normed, run: &mut Extension) -> Tensor;

    /// Angles that this layer rotates positions below `capacity` by.
    fn rotations(&self, _capacity: i64) -> Option<RopeTables> {
        None
    }
}
