//! Under which names, and in which pieces, a model's parameters are stored.

use super::ExchangeError;
use crate::arch::params::ParamSpec;
use crate::arch::{ModelConfig, NormKind};
use crate::scaling::{ModelScaling, Parametrization};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Names and pieces of the tensors of a file.
///
/// | layout | queries, keys, values | tied matrix |
/// |---|---|---|
/// | separate | `attn.q_proj`, `attn.k_proj`, `attn.v_proj` | `lm_head.weight` |
/// | fused | `attn.attn`: for each key-value head its query heads, then its keys, then its values | `lm_head.weight` |
/// | hugging-face | `attn.Wqkv`: all queries, then all keys, then all values | `model.embed_tokens.weight` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// The state dict of the reference at its head.
    Separate,
    /// The state dict of the reference as the paper released it.
    Fused,
    /// microsoft/Phi-4-mini-flash-reasoning on Hugging Face.
    HuggingFace,
}

/// Rows of one parameter within a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// Place in the list of parameters; zeros where the model has no such parameter.
    pub(super) param: Option<usize>,
    pub(super) rows: Range<usize>,
}

/// A tensor of a file: blocks of rows, one below the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredSpec {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) blocks: Vec<Block>,
}

/// Names in a block of the Hugging Face model, where they differ.
const HUGGING_FACE: [(&str, &str); 7] = [
    ("norm_1.", "input_layernorm."),
    ("norm_2.", "post_attention_layernorm."),
    ("mlp.w1.", "mlp.fc1."),
    ("mlp.w3.", "mlp.fc2."),
    ("attn.gmu.", "attn."),
    ("attn.da.", "attn.inner_cross_attn."),
    ("attn.proj.", "attn.out_proj."),
];

impl Layout {
    /// Every one.
    const ALL: [Self; 3] = [Self::Separate, Self::Fused, Self::HuggingFace];

    /// As it is written in `config.json` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::Fused => "fused",
            Self::HuggingFace => "hugging-face",
        }
    }

    /// The layout that others expect of a model: Hugging Face's where it has one, else separate.
    pub fn usual(model: &ModelConfig, scaling: &ModelScaling) -> Self {
        if Self::HuggingFace.check(model, scaling).is_ok() { Self::HuggingFace } else { Self::Separate }
    }

    /// Refuses a model that the layout cannot hold.
    pub(super) fn check(self, model: &ModelConfig, scaling: &ModelScaling) -> Result<(), ExchangeError> {
        let shape = &model.shape;
        let problem = match self {
            Self::Separate | Self::Fused => return Ok(()),
            Self::HuggingFace if model.architecture != "phi4miniflash" => {
                format!("it is that of phi4miniflash, and this is {}", model.architecture)
            }
            Self::HuggingFace if scaling.parametrization != Parametrization::Standard => {
                format!("its model has no scales, and this one was trained under {}", scaling.parametrization.name())
            }
            Self::HuggingFace if shape.attention_width() != shape.d_model => {
                format!("its heads are {} / {} wide, not {}", shape.d_model, shape.n_heads, shape.head_dim)
            }
            Self::HuggingFace if shape.norm != NormKind::Layer => "its norms are LayerNorm".to_owned(),
            Self::HuggingFace => return Ok(()),
        };
        Err(ExchangeError::Layout { layout: self.name(), problem: format!("{problem}; hint: use the separate layout") })
    }

    /// The two names that a tied matrix may have: the one of this layout first.
    pub(super) fn tied_names(self) -> [&'static str; 2] {
        match self {
            Self::Separate | Self::Fused => ["lm_head.weight", "transformer.wte.weight"],
            Self::HuggingFace => ["model.embed_tokens.weight", "lm_head.weight"],
        }
    }

    /// The tensors of `model`, whose parameters are `params`, in the order of its forward pass.
    pub(super) fn tensors(self, model: &ModelConfig, params: &[ParamSpec]) -> Vec<StoredSpec> {
        let place = |name: String| params.iter().position(|param| param.name == name);
        let mut out = Vec::new();
        for (index, param) in params.iter().enumerate() {
            let single = || {
                let blocks = vec![Block { param: Some(index), rows: 0..param.shape[0] }];
                StoredSpec { name: self.rename(&param.name, model), shape: param.shape.clone(), blocks }
            };
            match (self, projection(&param.name)) {
                (Self::Separate, _) | (_, None) => out.push(single()),
                (_, Some((prefix, 'q', kind))) => {
                    let own = |letter: char| place(format!("{prefix}.{letter}_proj.{kind}"));
                    let has_keys = place(format!("{prefix}.k_proj.weight")).is_some();
                    let [key, value] = [own('k'), own('v')];
                    out.push(if has_keys { self.joined(model, param, [Some(index), key, value]) } else { single() });
                }
                // They went with the queries.
                (_, Some(_)) => {}
            }
        }
        out
    }

    /// Queries, keys and values of a layer in one tensor; `query` is the parameter of the queries.
    fn joined(self, model: &ModelConfig, query: &ParamSpec, parts: [Option<usize>; 3]) -> StoredSpec {
        let shape = &model.shape;
        let groups = match self {
            Self::Fused => shape.n_kv_heads,
            Self::Separate | Self::HuggingFace => 1,
        };
        let heights = [shape.attention_width(), shape.kv_width(), shape.kv_width()];
        let rows = |group: usize, height: usize| group * height / groups..(group + 1) * height / groups;
        let blocks = (0..groups)
            .flat_map(|group| (0..3).map(move |part| (group, part)))
            .map(|(group, part)| Block { param: parts[part], rows: rows(group, heights[part]) })
            .collect();
        let mut all = query.shape.clone();
        all[0] = heights.iter().sum();
        StoredSpec { name: self.rename(&query.name, model), shape: all, blocks }
    }

    /// The name under which a parameter is stored; for queries, that of the tensor that they lie in.
    fn rename(self, name: &str, model: &ModelConfig) -> String {
        if model.shape.tie_embeddings && name == "transformer.wte.weight" {
            return self.tied_names()[0].to_owned();
        }
        match self {
            Self::Separate => name.to_owned(),
            Self::Fused => name.replace(".attn.q_proj.", ".attn.attn."),
            Self::HuggingFace => hugging_face_name(&name.replace(".attn.q_proj.", ".attn.Wqkv.")),
        }
    }
}

impl std::str::FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|layout| layout.name() == text).ok_or_else(|| format!("known: {}", known()))
    }
}

/// Splits `….attn.k_proj.weight` into `….attn`, `k` and `weight`.
fn projection(name: &str) -> Option<(&str, char, &str)> {
    ['q', 'k', 'v'].into_iter().find_map(|letter| {
        let (prefix, kind) = name.split_once(&format!(".{letter}_proj."))?;
        Some((prefix, letter, kind))
    })
}

fn hugging_face_name(name: &str) -> String {
    let Some((block, rest)) = name.strip_prefix("transformer.h.").and_then(|rest| rest.split_once('.')) else {
        let name = name.replace("transformer.wte.", "model.embed_tokens.");
        return name.replace("transformer.ln_f.", "model.final_layernorm.");
    };
    let renamed = HUGGING_FACE.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", rest.strip_prefix(ours)?)));
    format!("model.layers.{block}.{}", renamed.unwrap_or_else(|| rest.to_owned()))
}
