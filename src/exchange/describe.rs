//! `config.json` of a model folder.

use super::{Element, ExchangeError, Layout, ModelFolder, Origin};
use crate::arch::{AttentionBias, MAMBA_D_CONV, MAMBA_D_STATE, MAMBA_EXPAND, NormKind, mamba_dt_rank};
use crate::config::{ModelSection, ScalingRule, ScalingSection, load};
use crate::files::ReadError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// The file.
pub(super) const FILE_NAME: &str = "config.json";
/// Version of the section `lossfloor`; raised when a key changes its meaning.
const SCHEMA: u32 = 1;
/// Whose model class loads the Hugging Face layout.
const PHI4_FLASH: &str = "microsoft/Phi-4-mini-flash-reasoning";

/// How the tables of rotary angles are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RopeTable {
    /// As the reference and every run here has them.
    Bf16,
}

/// The section `lossfloor`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    schema: u32,
    layout: Layout,
    model: ModelSection,
    /// `rule`, `d0` and `out_init_div`.
    scaling: ScalingSection,
    rope_table: RopeTable,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Origin>,
}

/// What a `config.json` says.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) layout: Layout,
    pub(super) model: ModelSection,
    pub(super) scaling: ScalingSection,
    pub(super) run: Option<Origin>,
    pub(super) eos_id: Option<u64>,
}

impl Description {
    /// Reads the `config.json` at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, ExchangeError> {
        let text = std::fs::read(path).map_err(ReadError::of(path))?;
        let tree: Value = serde_json::from_slice(&text).map_err(|e| ExchangeError::content(path, e.to_string()))?;
        let eos_id = tree["eos_token_id"].as_u64();
        let (layout, model, scaling, run) = match (&tree["lossfloor"], tree["model_type"].as_str()) {
            (Value::Null, Some("phi4flash")) => {
                let (model, scaling) = phi4_flash(&tree, path)?;
                (Layout::HuggingFace, model, scaling, None)
            }
            (Value::Null, model_type) => {
                let of = model_type.map_or(String::new(), |name| format!(" of model_type '{name}'"));
                let problem = format!("a model{of} without a section 'lossfloor'; hint: import it with --arch");
                return Err(ExchangeError::content(path, problem));
            }
            (section, _) if section["schema"] != SCHEMA => {
                let problem = format!("lossfloor.schema is {}, expected {SCHEMA}", section["schema"]);
                return Err(ExchangeError::content(path, problem));
            }
            (section, _) => {
                let origin = format!("{}: lossfloor", path.display());
                let section: Section = load::from_tree(section.clone(), &origin)?;
                (section.layout, section.model, section.scaling, section.run)
            }
        };
        Ok(Self { layout, model, scaling, run, eos_id })
    }
}

/// The keys of a Hugging Face configuration that decide a model.
#[derive(Deserialize)]
struct Phi4Flash {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    sliding_window: Window,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(flatten)]
    other: serde_json::Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// Keys that a window sees: one number, or as the class saves it, one for each layer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Window {
    One(usize),
    Each(Vec<Option<usize>>),
}

fn phi4_flash(tree: &Value, path: &Path) -> Result<(ModelSection, ScalingSection), ExchangeError> {
    let keys: Phi4Flash = load::from_tree(tree.clone(), &path.display().to_string())?;
    let only = [
        ("hidden_act", vec![json!("silu")]),
        ("layer_norm_eps", vec![json!(1e-5)]),
        ("mb_per_layer", vec![json!(2)]),
        ("mamba_d_state", vec![json!(MAMBA_D_STATE)]),
        ("mamba_d_conv", vec![json!(MAMBA_D_CONV)]),
        ("mamba_expand", vec![json!(MAMBA_EXPAND)]),
        ("mamba_dt_rank", vec![json!("auto"), json!(mamba_dt_rank(keys.hidden_size))]),
        ("mlp_bias", vec![json!(false)]),
        ("lm_head_bias", vec![json!(false)]),
    ];
    for (key, known) in only {
        if let Some(value) = keys.other.get(key)
            && !known.contains(value)
        {
            return Err(ExchangeError::content(path, format!("{key} is {value}; phi4miniflash has {}", known[0])));
        }
    }
    let heads = keys.num_attention_heads;
    if heads == 0 || !keys.hidden_size.is_multiple_of(heads) {
        let problem = format!("hidden_size {} is no multiple of num_attention_heads {heads}", keys.hidden_size);
        return Err(ExchangeError::content(path, problem));
    }
    let window = match keys.sliding_window {
        Window::One(window) => Some(window),
        Window::Each(windows) => windows.into_iter().flatten().next(),
    };
    let model = ModelSection {
        arch: Some("phi4miniflash".to_owned()),
        depth: Some(keys.num_hidden_layers),
        d_model: Some(keys.hidden_size),
        n_heads: Some(heads),
        n_kv_heads: Some(keys.num_key_value_heads),
        head_dim: Some(keys.hidden_size / heads),
        d_mlp: Some(keys.intermediate_size),
        window,
        vocab_size: Some(keys.vocab_size),
        tie_embeddings: Some(keys.tie_word_embeddings),
        attention_bias: Some(AttentionBias::All),
        norm: Some(NormKind::Layer),
        ..ModelSection::default()
    };
    Ok((model, ScalingSection { rule: Some(ScalingRule::Standard), ..ScalingSection::default() }))
}

/// The `config.json` of a model that is written in `layout`, most of it as `element`.
pub(super) fn config(folder: &ModelFolder, layout: Layout, element: Element) -> Value {
    let shape = &folder.model.shape;
    let mut tree = json!({
        "model_type": "lossfloor",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_mlp,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "tie_word_embeddings": shape.tie_embeddings,
        "torch_dtype": element.torch_name(),
    });
    if layout == Layout::HuggingFace {
        let class = |module: &str, class: &str| format!("{PHI4_FLASH}--{module}_phi4flash.{class}");
        tree["model_type"] = json!("phi4flash");
        tree["architectures"] = json!(["Phi4FlashForCausalLM"]);
        tree["auto_map"] = json!({
            "AutoConfig": class("configuration", "Phi4FlashConfig"),
            "AutoModelForCausalLM": class("modeling", "Phi4FlashForCausalLM"),
        });
        tree["sliding_window"] = json!(shape.window);
        tree["mb_per_layer"] = json!(2);
        tree["layer_norm_eps"] = json!(1e-5);
        tree["hidden_act"] = json!("silu");
        tree["mlp_bias"] = json!(false);
        tree["lm_head_bias"] = json!(false);
    }
    if let Some(context) = folder.context {
        tree["max_position_embeddings"] = json!(context);
    }
    if let Some(id) = folder.eos_id {
        tree["bos_token_id"] = json!(id);
        tree["eos_token_id"] = json!(id);
    }
    let section = Section {
        schema: SCHEMA,
        layout,
        model: ModelSection::of(&folder.model, folder.context),
        scaling: ScalingSection::of(&folder.scaling),
        rope_table: RopeTable::Bf16,
        run: folder.origin.clone(),
    };
    tree["lossfloor"] = load::to_tree(&section);
    tree
}
