//! What a run leaves behind: [`RunRecord`] (`record.json`, and one row of a study's CSV) and [`StepMetrics`] (one
//! line of `metrics.jsonl`). A run that diverged or failed has a record like any other.

use crate::arch::cost::{FlopsPerToken, ParamCount};
use crate::config::RunConfig;
use serde::{Deserialize, Serialize};

/// Version of the two layouts below; raised when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// All steps were taken and the validation loss was measured.
    Completed,
    /// The loss or the gradient norm became NaN or infinite.
    Diverged,
    /// The process ended with an error; `reason` has its message.
    Failed,
    /// Stopped by a signal after a checkpoint; the same command carries on.
    Interrupted,
}

impl RunStatus {
    /// The word that stands in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

fn one() -> u64 {
    1
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// One run's outcome. `results/README.md` defines every field; a test keeps the two equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    pub schema: u32,
    pub run_id: String,
    pub label: String,
    pub architecture: String,
    pub depth: u64,
    pub d_model: u64,
    /// Parameters by class; `params_total` is their sum.
    pub params_total: u64,
    pub params_embedding: u64,
    pub params_matrix: u64,
    pub params_vector: u64,
    pub params_readout: u64,
    /// Tokens trained on, and training FLOPs of those tokens under the three conventions of `arch::cost`.
    pub tokens: u64,
    pub flops_six_n_formula: f64,
    pub flops_six_n_exact: f64,
    pub flops: f64,
    pub seq_len: u64,
    pub batch_tokens: u64,
    pub parametrization: String,
    /// Peak learning rate of the vector group.
    pub lr: f64,
    pub weight_decay: f64,
    pub seed: u64,
    pub precision: String,
    /// Implementation of the operations; `unknown` in records of versions that did not write it.
    #[serde(default = "unknown")]
    pub backend: String,
    pub status: RunStatus,
    /// Why, for any status other than `completed`.
    pub reason: Option<String>,
    pub steps: u64,
    /// Mean over the last 20 steps, nats per token.
    pub train_loss: Option<f64>,
    /// Mean cross-entropy over the first `seq_len` positions of the validation rows, and its standard error.
    pub val_loss: Option<f64>,
    pub val_loss_se: Option<f64>,
    /// The same over the first 2, 3 and 4 times `seq_len` positions.
    pub val_loss_2x: Option<f64>,
    pub val_loss_3x: Option<f64>,
    pub val_loss_4x: Option<f64>,
    pub val_tokens: u64,
    /// Exact irreducible loss of the validation tokens that `val_loss` was measured on, where the corpus knows it.
    pub floor: Option<f64>,
    pub wall_s: f64,
    pub tokens_per_s: f64,
    pub device: String,
    /// Processes that trained it together when it ended.
    #[serde(default = "one")]
    pub processes: u64,
    pub git_commit: Option<String>,
    pub finished_at: String,
}

impl RunRecord {
    /// How it was computed. Equal runs computed differently have losses that differ by rounding.
    pub fn computed_with(&self) -> String {
        format!("{} in {} with {} kernels", self.device, self.precision, self.backend)
    }

    /// What follows from the configuration of a run that ended after `steps`; nothing in it is measured yet.
    pub fn unmeasured(run: &RunConfig, steps: u64, status: RunStatus, reason: Option<String>) -> Self {
        let count = ParamCount::of(&run.model);
        let flops = FlopsPerToken::of(&run.model, run.architecture, run.seq_len);
        let tokens = steps * run.batch_tokens();
        let trained = tokens as f64;
        Self {
            schema: SCHEMA,
            run_id: run.id().0,
            label: run.label.clone(),
            architecture: run.model.architecture.to_owned(),
            depth: run.model.shape.depth as u64,
            d_model: run.model.shape.d_model as u64,
            params_total: count.total(),
            params_embedding: count.embedding,
            params_matrix: count.matrix,
            params_vector: count.vector,
            params_readout: count.readout,
            tokens,
            flops_six_n_formula: flops.six_n_formula * trained,
            flops_six_n_exact: flops.six_n_exact * trained,
            flops: flops.counted * trained,
            seq_len: run.seq_len as u64,
            batch_tokens: run.batch_tokens(),
            parametrization: run.scaling.parametrization.name().to_owned(),
            lr: run.lr,
            weight_decay: run.weight_decay,
            seed: run.seed,
            precision: unknown(),
            backend: unknown(),
            status,
            reason,
            steps,
            train_loss: None,
            val_loss: None,
            val_loss_se: None,
            val_loss_2x: None,
            val_loss_3x: None,
            val_loss_4x: None,
            val_tokens: 0,
            floor: None,
            wall_s: 0.0,
            tokens_per_s: 0.0,
            device: run.exec.device.clone(),
            processes: run.exec.processes() as u64,
            git_commit: None,
            finished_at: jiff::Timestamp::now().to_string(),
        }
    }
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    pub schema: u32,
    /// Optimiser steps taken, this one included.
    pub step: u64,
    pub tokens: u64,
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the vector group in this step.
    pub lr: f64,
    pub tokens_per_s: f64,
    /// Seconds of training so far, over all attempts.
    pub wall_s: f64,
}
