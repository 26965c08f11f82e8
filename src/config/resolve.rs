//! From what was written to what will run.

use super::load::ConfigError;
use super::{
    BackendChoice, CheckpointSection, CollectivesChoice, DataSection, ExecSection, ExperimentConfig, ModelSection,
    OptimizerState, PrecisionChoice, SaveEvery, ScalingRule, ScalingSection, StopSection, TrainSection,
};
use crate::arch::{self, Architecture, ModelConfig, ModelShape, cost};
use crate::expression::{Expression, Scope};
use crate::scaling::{HyperparameterTransfer, ModelScaling, Parametrization, TokenRule};
use crate::schedule::LrSchedule;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Twelve hex digits: the hash of what a run is. Labels, paths and how it is executed do not enter; data enters by its
/// content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a run is executed.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecConfig {
    pub device: String,
    pub precision: PrecisionChoice,
    pub backend: BackendChoice,
    pub deterministic: bool,
    /// Rows that go through the model at once.
    pub micro_batch: usize,
    pub threads: Option<usize>,
    /// Processes on each node.
    pub gpus: usize,
    pub nodes: usize,
    pub collectives: CollectivesChoice,
    pub optimizer: OptimizerState,
    pub checkpoint_every: SaveEvery,
    /// Checkpoints that are kept, the newest ones.
    pub checkpoint_keep: usize,
    pub stop: Option<StopRule>,
}

/// When a run is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct StopRule {
    /// As written.
    pub text: String,
    /// Over [`StopRule::KEYS`].
    pub condition: Expression,
    /// Tokens before it counts.
    pub after_tokens: u64,
}

impl StopRule {
    /// What a condition may ask for: fields of `StepMetrics`.
    pub const KEYS: [&str; 5] = ["loss", "grad_norm", "lr", "step", "tokens"];

    fn new(section: &StopSection) -> Result<Self, ConfigError> {
        struct Keys;
        impl Scope for Keys {
            fn value(&self, _: &str) -> Option<&serde_json::Value> {
                None
            }
            fn knows(&self, key: &str) -> bool {
                StopRule::KEYS.contains(&key)
            }
            fn keys(&self) -> Vec<&str> {
                StopRule::KEYS.to_vec()
            }
        }
        let text = section.when.clone();
        let refuse = |error: crate::expression::ExpressionError| {
            ConfigError::value("exec.stop.when", format!("in \"{text}\" at {error}"))
        };
        let condition = Expression::parse(&text).map_err(refuse)?;
        condition.holds(&Keys).map_err(refuse)?;
        Ok(Self { after_tokens: section.after.unwrap_or(0), condition, text })
    }
}

/// One run, every number decided.
#[derive(Clone)]
pub struct RunConfig {
    pub label: String,
    pub tag: Option<String>,
    pub architecture: &'static dyn Architecture,
    pub model: ModelConfig,
    pub scaling: ModelScaling,
    pub transfer: HyperparameterTransfer,
    pub rule: ScalingRule,
    /// Tokens of a training row.
    pub seq_len: usize,
    pub train_data: PathBuf,
    pub val_data: PathBuf,
    /// Content of both corpora.
    pub data_fingerprint: String,
    /// Tokens actually trained on: whole steps.
    pub tokens: u64,
    /// Rows of one optimiser step.
    pub batch_rows: usize,
    /// η: peak rate of the vector group.
    pub lr: f64,
    pub weight_decay: f64,
    pub schedule: LrSchedule,
    pub grad_clip: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    pub validation_rows: usize,
    pub validation_contexts: usize,
    pub seed: u64,
    pub exec: ExecConfig,
}

impl std::fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("RunConfig").field("label", &self.label).field("model", &self.model).finish_non_exhaustive()
    }
}

/// What resolving needs to know of the data that a config names.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFacts {
    /// Hash of the content.
    pub fingerprint: String,
    /// Ids are below this, where the corpus says so.
    pub vocab_size: Option<u64>,
    /// Tokens of its longest shard: rows do not cross shards.
    pub longest_shard: u64,
}

impl DataFacts {
    /// Refuses rows of `tokens` where not one fits.
    fn check_rows(&self, key: &str, path: &Path, tokens: usize, hint: &str) -> Result<(), ConfigError> {
        if self.longest_shard < tokens as u64 {
            let (path, longest) = (path.display(), self.longest_shard);
            let problem =
                format!("{path} has no row of {tokens} tokens, its longest shard has {longest}; hint: {hint}");
            return Err(ConfigError::value(key, problem));
        }
        Ok(())
    }
}

/// What goes into the hash.
#[derive(Serialize)]
struct Identity<'a> {
    architecture: &'a str,
    shape: &'a ModelShape,
    seq_len: usize,
    parametrization: &'a str,
    base_depth: usize,
    base_lr: f64,
    base_batch_tokens: f64,
    out_init_div: bool,
    data: &'a str,
    steps: u64,
    batch_rows: usize,
    lr: f64,
    weight_decay: f64,
    schedule: crate::schedule::ScheduleShape,
    warmup: u64,
    total: u64,
    iterations_per_step: u64,
    grad_clip: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    validation_rows: usize,
    validation_contexts: usize,
    seed: u64,
}

/// Rounds every number of a tree to six significant digits, so that a generated value and a typed one agree.
fn canonical(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded: f64 = format!("{:.5e}", number.as_f64().unwrap_or(0.0)).parse().unwrap_or(0.0);
            serde_json::json!(rounded)
        }
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, canonical(v))).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

fn required<T>(value: Option<T>, key: &str, hint: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::value(key, format!("missing; {hint}")))
}

impl ModelSection {
    /// The section that says `model` in full; `context` is the tokens of a training row, where they are known.
    pub fn of(model: &ModelConfig, context: Option<usize>) -> Self {
        let shape = &model.shape;
        Self {
            arch: Some(model.architecture.to_owned()),
            depth: Some(shape.depth),
            aspect_ratio: None,
            d_model: Some(shape.d_model),
            n_heads: Some(shape.n_heads),
            n_kv_heads: Some(shape.n_kv_heads),
            head_dim: Some(shape.head_dim),
            d_mlp: Some(shape.d_mlp),
            window: shape.window,
            vocab_size: Some(shape.vocab_size),
            tie_embeddings: Some(shape.tie_embeddings),
            context,
            attention_bias: Some(shape.attention_bias),
            norm: Some(shape.norm),
            rope_base: Some(shape.rope_base),
        }
    }

    /// The architecture that is named.
    pub fn architecture(&self) -> Result<&'static dyn Architecture, ConfigError> {
        Ok(arch::lookup(required(self.arch.as_deref(), "model.arch", "see `lossfloor model list`")?)?)
    }

    /// The shape of `architecture` that this section asks for, every number decided. `ids` is how many token ids the
    /// corpus has, where there is one.
    pub fn shape(&self, architecture: &'static dyn Architecture, ids: Option<u64>) -> Result<ModelShape, ConfigError> {
        let depth = required(self.depth, "model.depth", "give the number of layers")?;
        let mut shape = ModelShape::published(architecture, depth);
        shape.d_model = match (self.aspect_ratio, self.d_model) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::value("model.d_model", "give either d_model or aspect_ratio, not both"));
            }
            (Some(ratio), None) => ratio * depth,
            (None, Some(width)) => width,
            (None, None) => shape.d_model,
        };
        shape.n_heads = self.n_heads.unwrap_or(shape.n_heads);
        shape.n_kv_heads = self.n_kv_heads.unwrap_or(shape.n_kv_heads);
        shape.head_dim = self.head_dim.unwrap_or(shape.head_dim);
        shape.d_mlp = self.d_mlp.unwrap_or(4 * shape.d_model);
        if let Some(window) = self.window {
            shape.window = shape.window.map(|_| window);
        }
        let padded = ids.map(|n| n.next_multiple_of(64) as usize);
        shape.vocab_size = self.vocab_size.or(padded).unwrap_or(shape.vocab_size);
        if let Some(ids) = ids
            && shape.vocab_size < ids as usize
        {
            let problem = format!("{} is below the corpus's {ids} token ids", shape.vocab_size);
            return Err(ConfigError::value("model.vocab_size", problem));
        }
        shape.tie_embeddings = self.tie_embeddings.unwrap_or(false);
        shape.attention_bias = self.attention_bias.unwrap_or(shape.attention_bias);
        shape.norm = self.norm.unwrap_or(shape.norm);
        shape.rope_base = self.rope_base.unwrap_or(shape.rope_base);
        Ok(shape)
    }
}

impl ScalingSection {
    /// The keys that say how a model scales: `rule`, `d0` and `out_init_div`.
    pub fn of(scaling: &ModelScaling) -> Self {
        let rule = match scaling.parametrization {
            Parametrization::Standard => ScalingRule::Standard,
            Parametrization::Mup => ScalingRule::Mup,
            Parametrization::MupPlusPlus => ScalingRule::MupPlusPlus,
        };
        Self {
            rule: Some(rule),
            d0: Some(scaling.base_depth),
            out_init_div: Some(scaling.out_init_div),
            ..Self::default()
        }
    }

    /// The rule that a model of this shape is built under.
    pub fn model_scaling(&self, shape: &ModelShape) -> Result<ModelScaling, ConfigError> {
        let parametrization = match self.rule.unwrap_or_default() {
            ScalingRule::None | ScalingRule::Standard => Parametrization::Standard,
            ScalingRule::Mup => Parametrization::Mup,
            ScalingRule::MupPlusPlus => Parametrization::MupPlusPlus,
        };
        let base_depth = self.d0.unwrap_or(8);
        if base_depth == 0 {
            return Err(ConfigError::value("scaling.d0", "the base depth must be at least 1"));
        }
        Ok(ModelScaling {
            parametrization,
            depth: shape.depth,
            base_depth,
            tied: shape.tie_embeddings,
            out_init_div: self.out_init_div.unwrap_or_default(),
        })
    }
}

/// The parameters that a token budget grows with: of this model, and at the base depth.
fn budget_params(
    rule: TokenRule,
    architecture: &dyn Architecture,
    model: &ModelConfig,
    base_depth: usize,
) -> Result<(f64, f64), ConfigError> {
    let shape = &model.shape;
    let width = shape.d_model;
    let base_width = (width as f64 / shape.depth as f64 * base_depth as f64).round() as usize;
    let own = cost::formula_params(architecture, shape.depth, width);
    let base = cost::formula_params(architecture, base_depth, base_width);
    Ok(match rule {
        TokenRule::SameArchitecture => (own, base),
        TokenRule::Transformer => {
            let transformer = arch::lookup("transformer")?;
            let width = transformer.defaults().aspect_ratio * base_depth;
            (own, cost::formula_params(transformer, base_depth, width))
        }
        TokenRule::WithVocabulary => {
            let matrices = if shape.tie_embeddings { 1.0 } else { 2.0 };
            let vocabulary = |width: usize| matrices * (shape.vocab_size * width) as f64;
            (own + vocabulary(width), base + vocabulary(base_width))
        }
    })
}

impl ExecConfig {
    /// Processes that train the run together.
    pub fn processes(&self) -> usize {
        self.gpus * self.nodes
    }
}

impl RunConfig {
    /// Decides every number of `written`. `facts` tells of the data at a path, `None` where there is none yet: then the
    /// id is provisional.
    pub fn resolve(
        written: &ExperimentConfig,
        facts: &dyn Fn(&Path) -> Result<Option<DataFacts>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let architecture = written.model.architecture()?;
        let train_data = required(written.data.train.clone(), "data.train", "give a folder or prefix of token shards")?;
        let val_data = required(written.data.val.clone(), "data.val", "give a folder or prefix of token shards")?;
        let missing = || DataFacts { fingerprint: "absent".to_owned(), vocab_size: None, longest_shard: u64::MAX };
        let train_facts = facts(&train_data)?.unwrap_or_else(missing);
        let val_facts = facts(&val_data)?.unwrap_or_else(missing);
        let shape = written.model.shape(architecture, train_facts.vocab_size)?;
        let model = ModelConfig::new(architecture, shape)?;
        let section = &written.scaling;
        let rule = section.rule.unwrap_or_default();
        let scaling = section.model_scaling(&model.shape)?;
        let base_depth = scaling.base_depth;
        let base_lr = required(section.lr, "scaling.lr", "give the learning rate at depth d0")?;
        if base_lr <= 0.0 {
            return Err(ConfigError::value("scaling.lr", "the learning rate must be positive"));
        }
        let base_batch = section.batch_tokens.or(written.train.batch_tokens);
        let base_batch = required(base_batch, "scaling.batch_tokens", "give the batch in tokens, such as 2^21")? as f64;
        let transfer = HyperparameterTransfer {
            base_depth,
            base_lr,
            base_batch_tokens: base_batch,
            base_tokens: section.tokens,
            batch_rule: section.batch_rule.unwrap_or_default(),
        };

        let seq_len = written.model.context.unwrap_or(4096);
        if seq_len == 0 {
            return Err(ConfigError::value("model.context", "a row has at least one token"));
        }
        let budget = match (written.train.tokens, section.tokens) {
            (Some(tokens), _) => tokens as f64,
            (None, Some(base)) => {
                let rule = section.token_rule.unwrap_or_default();
                let (own, reference) = budget_params(rule, architecture, &model, base_depth)?;
                (base * own / reference).floor()
            }
            (None, None) => {
                return Err(ConfigError::value(
                    "train.tokens",
                    "missing; give a budget, or scaling.tokens at depth d0",
                ));
            }
        };
        let batch = written.train.batch_tokens.map_or_else(|| transfer.batch_tokens(budget), |b| b as f64);
        let batch_rows = ((batch / seq_len as f64).round() as usize).max(1);
        let batch_tokens = (batch_rows * seq_len) as f64;
        let per_step = written.train.iterations_per_step.unwrap_or(1).max(1);
        let iteration_tokens = batch_tokens / per_step as f64;
        let total = (budget / iteration_tokens) as u64;
        let steps = total / per_step;
        if steps == 0 {
            let problem = format!(
                "{budget} tokens are less than one batch of {batch_tokens}; raise the budget or lower \
                 scaling.batch_tokens"
            );
            return Err(ConfigError::value("train.tokens", problem));
        }
        let tokens = steps * (batch_rows * seq_len) as u64;
        let warmup_tokens = section.warmup_tokens.map_or(budget / 20.0, |t| t as f64);
        let warmup = (warmup_tokens / iteration_tokens) as u64;
        if warmup >= total {
            let problem = format!("a warm-up of {warmup_tokens} tokens does not end within the run's {budget}");
            return Err(ConfigError::value("scaling.warmup_tokens", problem));
        }
        let lr = match rule {
            ScalingRule::None => base_lr,
            _ => transfer.lr(&scaling, batch_tokens),
        };
        let contexts = written.train.validation_contexts.unwrap_or(4);
        if !(1..=4).contains(&contexts) {
            return Err(ConfigError::value("train.validation_contexts", "must be 1, 2, 3 or 4"));
        }
        train_facts.check_rows("data.train", &train_data, seq_len + 1, "lower model.context")?;
        let hint = "use more text, or lower train.validation_contexts or model.context";
        val_facts.check_rows("data.val", &val_data, contexts * seq_len + 1, hint)?;
        let exec = exec_config(&written.exec, seq_len, batch_rows)?;
        Ok(Self {
            label: written.label.clone().unwrap_or_else(|| {
                let shape = &model.shape;
                format!("{}-d{}-w{}", model.architecture, shape.depth, shape.d_model)
            }),
            tag: written.tag.clone(),
            architecture,
            scaling,
            transfer,
            rule,
            seq_len,
            train_data,
            val_data,
            data_fingerprint: format!("{}+{}", train_facts.fingerprint, val_facts.fingerprint),
            tokens,
            batch_rows,
            lr,
            weight_decay: section.weight_decay.unwrap_or(0.1),
            schedule: LrSchedule {
                shape: written.train.schedule.unwrap_or_default(),
                warmup,
                total,
                iterations_per_step: per_step,
            },
            grad_clip: written.train.grad_clip.unwrap_or(1.0),
            betas: (written.train.beta1.unwrap_or(0.9), written.train.beta2.unwrap_or(0.95)),
            eps: written.train.eps.unwrap_or(1e-8),
            validation_rows: written.train.validation_rows.unwrap_or(200),
            validation_contexts: contexts,
            seed: written.seed.unwrap_or(1),
            exec,
            model,
        })
    }

    /// Optimiser steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.steps()
    }

    /// Tokens of one optimiser step.
    pub fn batch_tokens(&self) -> u64 {
        (self.batch_rows * self.seq_len) as u64
    }

    /// Training FLOPs of the whole run, counted.
    pub fn flops(&self) -> f64 {
        cost::FlopsPerToken::of(&self.model, self.architecture, self.seq_len).counted * self.tokens as f64
    }

    /// The hash of what this run is.
    pub fn id(&self) -> RunId {
        let identity = Identity {
            architecture: self.model.architecture,
            shape: &self.model.shape,
            seq_len: self.seq_len,
            parametrization: self.scaling.parametrization.name(),
            base_depth: self.scaling.base_depth,
            base_lr: self.transfer.base_lr,
            base_batch_tokens: self.transfer.base_batch_tokens,
            out_init_div: self.scaling.divides_outputs(),
            data: &self.data_fingerprint,
            steps: self.steps(),
            batch_rows: self.batch_rows,
            lr: self.lr,
            weight_decay: self.weight_decay,
            schedule: self.schedule.shape,
            warmup: self.schedule.warmup,
            total: self.schedule.total,
            iterations_per_step: self.schedule.iterations_per_step,
            grad_clip: self.grad_clip,
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: self.eps,
            validation_rows: self.validation_rows,
            validation_contexts: self.validation_contexts,
            seed: self.seed,
        };
        let tree = serde_json::to_value(identity).expect("plain numbers and strings serialise");
        let digest = Sha256::digest(canonical(tree).to_string().as_bytes());
        RunId(digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The config that resolves to this run with nothing left to defaults or rules of budget.
    pub fn written(&self) -> ExperimentConfig {
        ExperimentConfig {
            label: Some(self.label.clone()),
            tag: self.tag.clone(),
            model: ModelSection::of(&self.model, Some(self.seq_len)),
            data: DataSection { train: Some(self.train_data.clone()), val: Some(self.val_data.clone()) },
            scaling: ScalingSection {
                rule: Some(self.rule),
                lr: Some(self.transfer.base_lr),
                batch_tokens: Some(self.transfer.base_batch_tokens as u64),
                tokens: self.transfer.base_tokens,
                warmup_tokens: Some(self.schedule.warmup * self.batch_tokens() / self.schedule.iterations_per_step),
                weight_decay: Some(self.weight_decay),
                batch_rule: Some(self.transfer.batch_rule),
                token_rule: None,
                ..ScalingSection::of(&self.scaling)
            },
            train: TrainSection {
                tokens: Some(self.schedule.total * self.batch_tokens() / self.schedule.iterations_per_step),
                batch_tokens: Some(self.batch_tokens()),
                schedule: Some(self.schedule.shape),
                iterations_per_step: Some(self.schedule.iterations_per_step),
                grad_clip: Some(self.grad_clip),
                beta1: Some(self.betas.0),
                beta2: Some(self.betas.1),
                eps: Some(self.eps),
                validation_rows: Some(self.validation_rows),
                validation_contexts: Some(self.validation_contexts),
            },
            seed: Some(self.seed),
            exec: ExecSection {
                device: Some(self.exec.device.clone()),
                precision: Some(self.exec.precision),
                backend: Some(self.exec.backend),
                deterministic: Some(self.exec.deterministic),
                micro_batch: Some(self.exec.micro_batch),
                threads: self.exec.threads,
                gpus: Some(self.exec.gpus),
                nodes: Some(self.exec.nodes),
                collectives: Some(self.exec.collectives),
                optimizer: Some(self.exec.optimizer),
                checkpoint: CheckpointSection {
                    every: Some(self.exec.checkpoint_every.to_string()),
                    keep: Some(self.exec.checkpoint_keep),
                },
                stop: self
                    .exec
                    .stop
                    .as_ref()
                    .map(|rule| StopSection { when: rule.text.clone(), after: Some(rule.after_tokens) }),
            },
        }
    }
}

fn exec_config(section: &ExecSection, seq_len: usize, batch_rows: usize) -> Result<ExecConfig, ConfigError> {
    /// Tokens that go through a model at once unless the config says otherwise.
    const MICRO_BATCH_TOKENS: usize = 32_768;
    let every = section.checkpoint.every.as_deref().unwrap_or("10 min");
    let checkpoint_every: SaveEvery =
        every.parse().map_err(|problem: String| ConfigError::value("exec.checkpoint.every", problem))?;
    let micro_batch = section.micro_batch.unwrap_or((MICRO_BATCH_TOKENS / seq_len).max(1)).min(batch_rows);
    if micro_batch == 0 {
        return Err(ConfigError::value("exec.micro_batch", "at least one row goes through the model at a time"));
    }
    let keep = section.checkpoint.keep.unwrap_or(2);
    if keep == 0 {
        return Err(ConfigError::value("exec.checkpoint.keep", "at least one checkpoint is kept"));
    }
    let gpus = section.gpus.unwrap_or(1);
    let nodes = section.nodes.unwrap_or(1);
    for (key, count) in [("exec.gpus", gpus), ("exec.nodes", nodes)] {
        if count == 0 {
            return Err(ConfigError::value(key, "must be at least 1"));
        }
    }
    if gpus * nodes > batch_rows {
        let problem = format!("{} processes cannot share a batch of {batch_rows} rows", gpus * nodes);
        return Err(ConfigError::value("exec.gpus", format!("{problem}; hint: use fewer, or a larger batch")));
    }
    Ok(ExecConfig {
        device: section.device.clone().unwrap_or_else(|| "auto".to_owned()),
        precision: section.precision.unwrap_or_default(),
        backend: section.backend.unwrap_or_default(),
        deterministic: section.deterministic.unwrap_or(false),
        micro_batch,
        threads: section.threads,
        gpus,
        nodes,
        collectives: section.collectives.unwrap_or_default(),
        optimizer: section.optimizer.unwrap_or_default(),
        checkpoint_every,
        checkpoint_keep: keep,
        stop: section.stop.as_ref().map(StopRule::new).transpose()?,
    })
}
