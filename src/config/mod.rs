//! Configurations: [`ExperimentConfig`] as a person writes it (every field optional) and [`RunConfig`] as it will run
//! (every number decided). The written form of a resolved run is again a file that `train` takes.

mod checkpoint;
mod facts;
pub mod load;
mod resolve;

pub use checkpoint::SaveEvery;
pub use facts::{FactsCache, data_facts};
pub use load::ConfigError;
pub use resolve::{DataFacts, ExecConfig, RunConfig, RunId, StopRule};

use crate::arch::{AttentionBias, NormKind};
use crate::scaling::{BatchRule, OutInitDiv, TokenRule};
use crate::schedule::ScheduleShape;
use crate::units::{optional_count, optional_quantity};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One training run as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct ExperimentConfig {
    /// For people; no code reads a meaning into it.
    pub label: Option<String>,
    /// For people; selectable in tables.
    pub tag: Option<String>,
    pub model: ModelSection,
    pub data: DataSection,
    pub scaling: ScalingSection,
    pub train: TrainSection,
    /// Seed of initial values and of the order of data; default 1.
    pub seed: Option<u64>,
    pub exec: ExecSection,
}

/// What is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct ModelSection {
    /// Exact name; see `lossfloor model list`.
    pub arch: Option<String>,
    pub depth: Option<usize>,
    /// Width over depth; default the architecture's. Give this or `d_model`.
    pub aspect_ratio: Option<usize>,
    pub d_model: Option<usize>,
    /// Query heads; default depth.
    pub n_heads: Option<usize>,
    /// Key-value heads; default depth / 4.
    pub n_kv_heads: Option<usize>,
    pub head_dim: Option<usize>,
    /// Inner size of the MLP; default four widths.
    pub d_mlp: Option<usize>,
    /// Keys that a sliding-window query sees, its own included.
    pub window: Option<usize>,
    /// Rows of the embedding; default the corpus's vocabulary padded to a multiple of 64.
    pub vocab_size: Option<usize>,
    /// One matrix for embedding and readout; default false.
    pub tie_embeddings: Option<bool>,
    /// Tokens of a training row; default 4096.
    pub context: Option<usize>,
    pub attention_bias: Option<AttentionBias>,
    pub norm: Option<NormKind>,
    #[serde(deserialize_with = "optional_quantity")]
    pub rope_base: Option<f64>,
}

/// What it is trained on: a folder of shards, or a prefix such as `data/quick/train`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct DataSection {
    pub train: Option<PathBuf>,
    pub val: Option<PathBuf>,
}

/// Values at the base size and the rules that carry them to this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct ScalingSection {
    /// `sp`, `mup`, `mup++` or `none` (standard, the learning rate exactly as written); default `mup++`.
    pub rule: Option<ScalingRule>,
    /// Base depth d0; default 8.
    pub d0: Option<usize>,
    /// Learning rate η0 at the base.
    #[serde(deserialize_with = "optional_quantity")]
    pub lr: Option<f64>,
    /// Batch B0 at the base, tokens.
    #[serde(deserialize_with = "optional_count")]
    pub batch_tokens: Option<u64>,
    /// Budget T0 at the base; a run's budget grows with its parameters.
    #[serde(deserialize_with = "optional_quantity")]
    pub tokens: Option<f64>,
    /// Default: a twentieth of the run's tokens.
    #[serde(deserialize_with = "optional_count")]
    pub warmup_tokens: Option<u64>,
    /// Decoupled decay of matrices; default 0.1.
    #[serde(deserialize_with = "optional_quantity")]
    pub weight_decay: Option<f64>,
    pub out_init_div: Option<OutInitDiv>,
    pub batch_rule: Option<BatchRule>,
    pub token_rule: Option<TokenRule>,
}

/// `scaling.rule` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingRule {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "sp")]
    Standard,
    #[serde(rename = "mup")]
    Mup,
    #[default]
    #[serde(rename = "mup++")]
    MupPlusPlus,
}

/// How it is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct TrainSection {
    /// Token budget; instead of `scaling.tokens`.
    #[serde(deserialize_with = "optional_count")]
    pub tokens: Option<u64>,
    /// Global batch; instead of the batch rule.
    #[serde(deserialize_with = "optional_count")]
    pub batch_tokens: Option<u64>,
    /// `linear`, `cosine` or `wsd`; default linear.
    pub schedule: Option<ScheduleShape>,
    /// Iterations by which the schedule counts one optimiser step; default 1. The reference counts micro-batches.
    pub iterations_per_step: Option<u64>,
    /// Global gradient-norm limit; default 1.
    #[serde(deserialize_with = "optional_quantity")]
    pub grad_clip: Option<f64>,
    /// Defaults 0.9, 0.95, 1e-8.
    #[serde(deserialize_with = "optional_quantity")]
    pub beta1: Option<f64>,
    #[serde(deserialize_with = "optional_quantity")]
    pub beta2: Option<f64>,
    #[serde(deserialize_with = "optional_quantity")]
    pub eps: Option<f64>,
    /// Validation rows, each of `validation_contexts` x context tokens; default 200, or all there are.
    pub validation_rows: Option<usize>,
    /// Length of a validation row over the context, 1 to 4; default 4.
    pub validation_contexts: Option<usize>,
}

/// How a run is executed; no part of what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct ExecSection {
    /// `auto`, `cpu`, `cuda` or `cuda:1`; default auto.
    pub device: Option<String>,
    /// `auto` (fp32 on the CPU, bf16 on CUDA), `fp32` or `bf16`.
    pub precision: Option<PrecisionChoice>,
    /// `fused` (this crate's kernels) or `reference` (plain tensor code); default fused.
    pub backend: Option<BackendChoice>,
    /// Whether a GPU must give the same bits on every run, at a cost in speed; default false. A CPU always does.
    pub deterministic: Option<bool>,
    /// Rows that go through the model at once; default as many as fit a fixed number of tokens.
    pub micro_batch: Option<usize>,
    /// CPU threads of one process; default all.
    pub threads: Option<usize>,
    /// Processes on each node, one for each GPU (or for `threads` cores, on a CPU), that share every batch; default 1.
    pub gpus: Option<usize>,
    /// Machines; default 1.
    pub nodes: Option<usize>,
    /// `auto` (NCCL between GPUs, Gloo between CPUs), `nccl` or `gloo`.
    pub collectives: Option<CollectivesChoice>,
    /// `replicated` or `sharded` (ZeRO stage 1: each process keeps a part); default replicated.
    pub optimizer: Option<OptimizerState>,
    pub checkpoint: CheckpointSection,
    /// When a run is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopSection>,
}

/// When a run is given up: it then counts as diverged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct StopSection {
    /// A condition over `loss`, `grad_norm`, `lr`, `step` and `tokens`, such as `loss > 12`.
    pub when: String,
    /// Tokens before it counts; default none.
    #[serde(deserialize_with = "optional_count")]
    pub after: Option<u64>,
}

/// When a run saves itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct CheckpointSection {
    /// A time such as `15 min`, `4M tokens` or `500 steps`; default 10 min. Written as [`SaveEvery`].
    pub every: Option<String>,
    /// How many are kept; default 2.
    pub keep: Option<usize>,
}

/// `exec.precision` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    #[default]
    Auto,
    Fp32,
    Bf16,
}

/// `exec.collectives` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectivesChoice {
    #[default]
    Auto,
    Nccl,
    Gloo,
}

/// Where the optimiser's moments are when several processes train one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerState {
    /// All of them in every process.
    #[default]
    Replicated,
    /// Each process has a part and updates that part of the parameters.
    Sharded,
}

/// `exec.backend` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    #[default]
    Fused,
    Reference,
}
