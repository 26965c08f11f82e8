//! What a model is, without tensors: a list of layers and the shapes they need.
//!
//! An architecture is a rule from a depth to a list of [`LayerSpec`]s plus the shape its authors chose. Each lives in
//! a file of this folder and has one line in [`ARCHITECTURES`]; tensor code never sees an architecture's name.
//!
//! Source of every rule: *Decoder-Hybrid-Decoder Architecture for Efficient Reasoning with Long Generation*
//! (arXiv 2507.06607) and its reference code.

pub mod cost;
pub mod params;

mod phi4miniflash;
mod samba;
mod sambay;
mod sambay_ablations;
mod transformer;
mod yoco;

use serde::{Deserialize, Serialize};

/// Every architecture, in the order in which lists show them.
pub const ARCHITECTURES: &[&dyn Architecture] = &[
    &transformer::Transformer,
    &transformer::TransformerLs,
    &samba::Samba,
    &yoco::SwaYoco,
    &yoco::SambaYoco,
    &sambay::SambaY,
    &sambay::SambaYDa,
    &sambay::MambaY,
    &sambay_ablations::SambaYAttn,
    &sambay_ablations::SambaYAttnAll,
    &sambay_ablations::SambaYMlp,
    &phi4miniflash::Phi4MiniFlash,
];

/// Why a model cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArchError {
    /// No architecture of that name.
    #[error("unknown architecture '{name}'; known: {known}{hint}")]
    Unknown { name: String, known: String, hint: String },
    /// The depth does not fit the layer rule.
    #[error("{architecture} cannot have depth {depth}: {rule}")]
    Depth { architecture: String, depth: usize, rule: String },
    /// Heads, widths or windows that do not fit together.
    #[error("{architecture}: {problem}")]
    Shape { architecture: String, problem: String },
}

/// A named model family.
pub trait Architecture: Sync {
    /// Exact name in configs, results and on the command line.
    fn name(&self) -> &'static str;
    /// One line for `model list`.
    fn summary(&self) -> &'static str;
    /// Shape that the authors chose, where they chose one.
    fn defaults(&self) -> ShapeDefaults;
    /// Coefficients (a, b) of the published parameter formula N(d) = (a α² + b α) d³ (α = width / depth).
    fn formula(&self) -> (f64, f64);
    /// The layers of a model of this depth. `shape` has passed [`ModelShape::validate`].
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError>;
}

/// What an architecture fixes about its shape unless a config says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct ShapeDefaults {
    /// Width = aspect ratio x depth.
    pub aspect_ratio: usize,
    /// Sliding window in keys, the query's own included; `None` where no layer has one.
    pub window: Option<usize>,
    /// Head counts; `None` for the rule n_heads = depth, n_kv_heads = depth / 4.
    pub heads: Option<(usize, usize)>,
    /// Channels of one attention head.
    pub head_dim: usize,
    /// Rows of the embedding, already padded to a multiple of 64.
    pub vocab_size: usize,
    /// Biases on the attention projections.
    pub attention_bias: AttentionBias,
    /// Norm of blocks and of the final hidden state.
    pub norm: NormKind,
    /// The only depth that exists, if there is just one.
    pub fixed_depth: Option<usize>,
    /// Depths must be a multiple of this.
    pub depth_multiple: usize,
}

impl ShapeDefaults {
    /// The family's common shape: heads of 128 channels, 32000 tokens, RMSNorm, no biases, depth a multiple of 4.
    pub const fn family(aspect_ratio: usize, window: Option<usize>) -> Self {
        Self {
            aspect_ratio,
            window,
            heads: None,
            head_dim: 128,
            vocab_size: 32_000,
            attention_bias: AttentionBias::None,
            norm: NormKind::Rms,
            fixed_depth: None,
            depth_multiple: 4,
        }
    }
}

/// Which attention projections have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionBias {
    /// None of them.
    None,
    /// Queries, values and output, as the reference's separate projections have it.
    QueryValueOutput,
    /// Keys too, as its fused projection had it. Without rotary positions a key bias shifts all scores of a query
    /// alike, so the softmax does not see it.
    All,
}

/// Normalisation with ε = 1e-5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// Root mean square, gain only.
    Rms,
    /// Mean and variance, gain and bias.
    Layer,
}

/// Shape of one model, every number decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct ModelShape {
    pub depth: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Inner size of the SwiGLU MLP.
    pub d_mlp: usize,
    /// Keys that a sliding-window query sees, its own included.
    pub window: Option<usize>,
    pub vocab_size: usize,
    pub tie_embeddings: bool,
    pub attention_bias: AttentionBias,
    pub norm: NormKind,
    /// Base of the rotary angles, where the architecture rotates.
    pub rope_base: f64,
}

impl ModelShape {
    /// The published shape of `architecture` at `depth`, untied.
    pub fn published(architecture: &dyn Architecture, depth: usize) -> Self {
        let defaults = architecture.defaults();
        let d_model = defaults.aspect_ratio * depth;
        let (n_heads, n_kv_heads) = defaults.heads.unwrap_or((depth, depth / 4));
        Self {
            depth,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim: defaults.head_dim,
            d_mlp: 4 * d_model,
            window: defaults.window,
            vocab_size: defaults.vocab_size,
            tie_embeddings: false,
            attention_bias: defaults.attention_bias,
            norm: defaults.norm,
            rope_base: 10_000.0,
        }
    }

    /// Width of all query heads together.
    pub fn attention_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    fn validate(&self, architecture: &dyn Architecture) -> Result<(), ArchError> {
        let name = architecture.name().to_owned();
        let defaults = architecture.defaults();
        if let Some(only) = defaults.fixed_depth
            && self.depth != only
        {
            let rule = format!("it exists at depth {only} only");
            return Err(ArchError::Depth { architecture: name, depth: self.depth, rule });
        }
        if self.depth == 0 || !self.depth.is_multiple_of(defaults.depth_multiple) {
            let below = self.depth / defaults.depth_multiple * defaults.depth_multiple;
            let above = below + defaults.depth_multiple;
            let near = if below == 0 { above.to_string() } else { format!("{below} or {above}") };
            let rule = format!("the depth must be a multiple of {}, such as {near}", defaults.depth_multiple);
            return Err(ArchError::Depth { architecture: name, depth: self.depth, rule });
        }
        let problem = if self.d_model == 0 || self.head_dim == 0 || self.d_mlp == 0 || self.vocab_size == 0 {
            Some("width, head_dim, d_mlp and vocab_size must be at least 1".to_owned())
        } else if self.n_heads == 0 || self.n_kv_heads == 0 || !self.n_heads.is_multiple_of(self.n_kv_heads) {
            Some(format!(
                "n_heads ({}) must be a multiple of n_kv_heads ({}), both at least 1",
                self.n_heads, self.n_kv_heads
            ))
        } else if self.window == Some(0) {
            Some("window must be at least 1 (the query's own key counts)".to_owned())
        } else {
            None
        };
        match problem {
            Some(problem) => Err(ArchError::Shape { architecture: name, problem }),
            None => Ok(()),
        }
    }
}

/// One block: a mixer and a SwiGLU MLP, each behind its norm and on the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    pub mixer: MixerSpec,
    /// State that this layer leaves for later ones.
    pub publishes: Vec<Published>,
}

impl LayerSpec {
    /// A layer that leaves nothing behind.
    pub fn new(mixer: MixerSpec) -> Self {
        Self { mixer, publishes: Vec::new() }
    }

    /// The same layer, publishing `state`.
    pub fn publishing(mut self, state: Published) -> Self {
        self.publishes.push(state);
        self
    }
}

/// State handed from one layer to later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Keys (after rotation, where there is one) and values of a self-attention layer.
    KeyValues,
    /// What gated memory units read; position-wise.
    Memory(MemorySource),
}

/// Where in a layer the memory of gated memory units is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// Output of the selective scan, after the D skip, before the gate.
    Scan,
    /// Concatenated attention heads, before the output projection.
    AttentionHeads,
    /// The linear half of the MLP's first projection, before the gate is applied.
    MlpUp,
}

/// The token mixer of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum MixerSpec {
    /// Causal self-attention; `window` counts keys, the query's own included; `None` sees all.
    Attention { window: Option<usize>, rope: bool, form: AttentionForm },
    /// Attention with its own queries over the keys and values of layer `kv_layer`.
    CrossAttention { kv_layer: usize, rope: bool, form: AttentionForm },
    /// Mamba-1 selective state space: state 16, convolution 4, expansion 2.
    Mamba,
    /// silu(W x) ⊙ memory of layer `memory_layer`, projected back; `d_memory` channels.
    GatedMemoryUnit { memory_layer: usize, d_memory: usize },
}

/// Softmax attention, or the difference of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionForm {
    Softmax,
    /// Pairs of heads, even minus λ times odd.
    Differential,
}

/// State size of a Mamba channel.
pub const MAMBA_D_STATE: usize = 16;
/// Taps of the causal convolution in Mamba.
pub const MAMBA_D_CONV: usize = 4;
/// Inner width of Mamba over the model width.
pub const MAMBA_EXPAND: usize = 2;

/// Rank of Mamba's step-size projection: ceil(d_model / 16).
pub fn mamba_dt_rank(d_model: usize) -> usize {
    d_model.div_ceil(16)
}

/// A model that can be built: its shape and its layers, checked against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: &'static str,
    pub shape: ModelShape,
    pub layers: Vec<LayerSpec>,
}

impl ModelConfig {
    /// Lays out `architecture` in `shape`, or says why that is impossible.
    pub fn new(architecture: &dyn Architecture, shape: ModelShape) -> Result<Self, ArchError> {
        shape.validate(architecture)?;
        let layers = architecture.layers(&shape)?;
        let config = Self { architecture: architecture.name(), shape, layers };
        config.check_layers()?;
        Ok(config)
    }

    /// Consumers come after their publishers; differential attention has heads to pair.
    fn check_layers(&self) -> Result<(), ArchError> {
        let refuse = |problem: String| Err(ArchError::Shape { architecture: self.architecture.to_owned(), problem });
        for (index, layer) in self.layers.iter().enumerate() {
            let form = match layer.mixer {
                MixerSpec::Attention { form, .. } => Some(form),
                MixerSpec::CrossAttention { form, kv_layer, .. } => {
                    if kv_layer >= index || !self.layers[kv_layer].publishes.contains(&Published::KeyValues) {
                        return refuse(format!("layer {index} reads keys of layer {kv_layer}, which publishes none"));
                    }
                    Some(form)
                }
                MixerSpec::GatedMemoryUnit { memory_layer, .. } => {
                    let publishes_memory =
                        |layer: &LayerSpec| layer.publishes.iter().any(|state| matches!(state, Published::Memory(_)));
                    if memory_layer >= index || !publishes_memory(&self.layers[memory_layer]) {
                        return refuse(format!(
                            "layer {index} reads the memory of layer {memory_layer}, which publishes none"
                        ));
                    }
                    None
                }
                MixerSpec::Mamba => None,
            };
            let kv = self.shape.n_kv_heads;
            if form == Some(AttentionForm::Differential) && !kv.is_multiple_of(2) {
                return refuse(format!(
                    "differential attention pairs key-value heads, so n_kv_heads must be even, and it is {kv}; with the \
                     published rule n_kv_heads = depth / 4 that means depth 8, 16 or 24, or set model.n_kv_heads and \
                     model.n_heads yourself"
                ));
            }
        }
        Ok(())
    }

    /// Whether any layer rotates queries and keys.
    pub fn uses_rope(&self) -> bool {
        self.layers.iter().any(|layer| match layer.mixer {
            MixerSpec::Attention { rope, .. } | MixerSpec::CrossAttention { rope, .. } => rope,
            MixerSpec::Mamba | MixerSpec::GatedMemoryUnit { .. } => false,
        })
    }
}

/// The architecture of exactly this name.
pub fn lookup(name: &str) -> Result<&'static dyn Architecture, ArchError> {
    ARCHITECTURES.iter().copied().find(|a| a.name() == name).ok_or_else(|| {
        let near = ARCHITECTURES
            .iter()
            .map(|a| (strsim::jaro_winkler(a.name(), name), a.name()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score > 0.8);
        ArchError::Unknown {
            name: name.to_owned(),
            known: ARCHITECTURES.iter().map(|a| a.name()).collect::<Vec<_>>().join(", "),
            hint: near.map(|(_, n)| format!("; hint: did you mean '{n}'?")).unwrap_or_default(),
        }
    })
}

/// Layers of a decoder-hybrid-decoder: `self_decoder(i)` for i ≤ depth/2, then one full-attention layer that publishes
/// keys and values, then `cross_decoder(i)`.
fn hybrid_layers(
    depth: usize,
    self_decoder: impl Fn(usize) -> LayerSpec,
    full: LayerSpec,
    cross_decoder: impl Fn(usize) -> LayerSpec,
) -> Vec<LayerSpec> {
    let boundary = depth / 2 + 1;
    (0..depth)
        .map(|i| match i {
            i if i < boundary => self_decoder(i),
            i if i == boundary => full.clone(),
            i => cross_decoder(i),
        })
        .collect()
}

/// Self-attention without rotation, as the hybrids use it.
fn attention_nope(window: Option<usize>, form: AttentionForm) -> MixerSpec {
    MixerSpec::Attention { window, rope: false, form }
}

/// Cross-attention without rotation to the full layer of a hybrid of this depth.
fn cross_nope(depth: usize, form: AttentionForm) -> LayerSpec {
    LayerSpec::new(MixerSpec::CrossAttention { kv_layer: depth / 2 + 1, rope: false, form })
}

/// Mamba on even layers and sliding-window attention on odd ones.
fn mamba_or_window(i: usize, window: Option<usize>, form: AttentionForm) -> LayerSpec {
    LayerSpec::new(if i.is_multiple_of(2) { MixerSpec::Mamba } else { attention_nope(window, form) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str, depth: usize) -> String {
        let architecture = lookup(name).expect("known");
        let config = ModelConfig::new(architecture, ModelShape::published(architecture, depth)).expect("valid");
        let letters: Vec<String> = config
            .layers
            .iter()
            .map(|layer| {
                let letter = match &layer.mixer {
                    MixerSpec::Attention { window: Some(_), .. } => "S",
                    MixerSpec::Attention { window: None, .. } => "F",
                    MixerSpec::CrossAttention { .. } => "X",
                    MixerSpec::Mamba => "M",
                    MixerSpec::GatedMemoryUnit { .. } => "G",
                };
                format!("{letter}{}", if layer.publishes.is_empty() { "" } else { "*" })
            })
            .collect();
        letters.join(" ")
    }

    #[test]
    fn layer_rules_are_the_published_ones() {
        for (name, depth, expected) in [
            ("transformer", 8, "F F F F F F F F"),
            ("transformerls", 8, "S S S F S S S F"),
            ("samba", 8, "M S M S M S M S"),
            ("swayoco", 8, "S S S S S F* X X"),
            ("sambayoco", 8, "M S M S M F* X X"),
            ("sambay", 8, "M S M S M* F* G X"),
            ("sambayda", 8, "M S M S M* F* G X"),
            ("mambay", 8, "M M M M M* F* G X"),
            ("sambayattn", 8, "M S M S M F* G X"),
            ("sambayattnall", 8, "M S M S M F* G G"),
            ("sambaymlp", 8, "M S M S M F* G X"),
            ("swayoco", 16, "S S S S S S S S S F* X X X X X X"),
            ("sambay", 16, "M S M S M S M S M* F* G X G X G X"),
            ("sambayattnall", 16, "M S M S M S M S M F* G G G G G G"),
        ] {
            assert_eq!(pattern(name, depth), expected, "{name} at {depth}");
        }
        let phi = pattern("phi4miniflash", 32);
        assert_eq!(phi.matches('M').count(), 9);
        assert_eq!(phi.matches('S').count(), 8);
        assert_eq!(phi.matches('G').count(), 7);
        assert_eq!(phi.matches('X').count(), 7);
    }

    #[test]
    fn impossible_models_are_refused_with_a_sentence() {
        let refuse = |name: &str, depth: usize| {
            let architecture = lookup(name).expect("known");
            ModelConfig::new(architecture, ModelShape::published(architecture, depth)).expect_err("refused").to_string()
        };
        insta::assert_snapshot!(refuse("sambay", 10), @"sambay cannot have depth 10: the depth must be a multiple of 4, such as 8 or 12");
        insta::assert_snapshot!(refuse("sambayda", 12), @"sambayda: differential attention pairs key-value heads, so n_kv_heads must be even, and it is 3; with the published rule n_kv_heads = depth / 4 that means depth 8, 16 or 24, or set model.n_kv_heads and model.n_heads yourself");
        insta::assert_snapshot!(refuse("phi4miniflash", 16), @"phi4miniflash cannot have depth 16: it exists at depth 32 only");
        let error = lookup("sambey").err().expect("refused").to_string();
        assert!(error.contains("hint: did you mean 'sambay'?"), "{error}");
    }
}
