//! How hyper-parameters follow size: parameterisations, initial distributions, learning-rate and decay rules, budgets.
//!
//! Rules and numbers are those of the SambaY paper (arXiv 2507.06607, Table 6 and its code). d is depth, d0 the depth at
//! which rates were tuned (width grows with depth inside an architecture), B batch and T tokens of a run, with B0 and T0
//! at the base:
//!
//! | | sp | mup | mup++ |
//! |---|---|---|---|
//! | learning rate η | η0 √(B/B0) | η0 √(B/B0) | η0 √(B/B0) √(d0/d) |
//! | matrix group, x η | 1 | d0/d | d0/d |
//! | decay of the vector group | λ | λ | 0 |
//! | logit scale | 1 | d0/d | d0/d |
//! | residual branch scale | 1 | 1 | 1/√(2d) |
//! | attention scale | 1/√D | √128/D | √128/D |

use crate::arch::params::{InitKind, ParamRole};
use serde::{Deserialize, Serialize};

/// The parameterisation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parametrization {
    /// Standard; the learning rate still follows the batch.
    #[serde(rename = "sp")]
    Standard,
    /// The original maximal-update parameterisation.
    #[serde(rename = "mup")]
    Mup,
    /// With depth scaling of residual branches, and no decay on vectors.
    #[serde(rename = "mup++")]
    MupPlusPlus,
}

impl Parametrization {
    /// The word in configs and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "sp",
            Self::Mup => "mup",
            Self::MupPlusPlus => "mup++",
        }
    }

    fn is_mup(self) -> bool {
        self != Self::Standard
    }
}

/// Whether residual output matrices start smaller by 1/√(2d).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutInitDiv {
    /// As the paper's release: with tied embeddings or the standard parameterisation.
    #[default]
    Auto,
    On,
    Off,
}

/// The rule a model of one depth is built and trained under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelScaling {
    pub parametrization: Parametrization,
    pub depth: usize,
    pub base_depth: usize,
    pub tied: bool,
    pub out_init_div: OutInitDiv,
}

/// A distribution to draw a parameter's first values from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitDistribution {
    /// N(0, std²).
    Normal {
        std: f64,
    },
    /// Uniform on [−bound, bound].
    Uniform {
        bound: f64,
    },
    /// log(1), …, log(n) along the last axis.
    LogStates,
    /// softplus⁻¹ of max(exp(u (ln 0.1 − ln 0.001) + ln 0.001), 1e-4) with u uniform on [0, 1).
    StepSizeBias,
    Constant(f64),
}

impl ModelScaling {
    fn depth_ratio(&self) -> f64 {
        self.base_depth as f64 / self.depth as f64
    }

    /// Multiplies the final normed hidden state.
    pub fn logit_scale(&self) -> f64 {
        if self.parametrization.is_mup() { self.depth_ratio() } else { 1.0 }
    }

    /// Multiplies every mixer and MLP output before it is added to the residual stream.
    pub fn residual_scale(&self) -> f64 {
        match self.parametrization {
            Parametrization::MupPlusPlus => 1.0 / (2.0 * self.depth as f64).sqrt(),
            Parametrization::Standard | Parametrization::Mup => 1.0,
        }
    }

    /// Multiplies the products of queries and keys.
    pub fn attention_scale(&self, head_dim: usize) -> f64 {
        let head_dim = head_dim as f64;
        if self.parametrization.is_mup() { 128f64.sqrt() / head_dim } else { 1.0 / head_dim.sqrt() }
    }

    /// Learning rate of a group over η.
    pub fn lr_multiplier(&self, role: ParamRole) -> f64 {
        match role {
            ParamRole::Matrix if self.parametrization.is_mup() => self.depth_ratio(),
            _ => 1.0,
        }
    }

    /// Decoupled weight decay of a group, given that of the matrices.
    pub fn weight_decay(&self, role: ParamRole, decay: f64) -> f64 {
        match (self.parametrization, role) {
            (_, ParamRole::Matrix) => decay,
            (Parametrization::MupPlusPlus, _) => 0.0,
            (Parametrization::Standard | Parametrization::Mup, _) => decay,
        }
    }

    /// Whether residual output matrices are divided by √(2d).
    pub fn divides_outputs(&self) -> bool {
        match self.out_init_div {
            OutInitDiv::Auto => self.tied || self.parametrization == Parametrization::Standard,
            OutInitDiv::On => true,
            OutInitDiv::Off => false,
        }
    }

    /// Where a parameter's first values come from.
    pub fn init(&self, kind: InitKind) -> InitDistribution {
        use InitDistribution::{Constant, LogStates, Normal, StepSizeBias, Uniform};
        const STD: f64 = 0.02;
        let mup = self.parametrization.is_mup();
        let hidden = |fan_in: usize, divisor: f64| {
            if mup { Uniform { bound: 1.0 / (fan_in as f64).sqrt() / divisor } } else { Normal { std: STD / divisor } }
        };
        match kind {
            InitKind::Embedding => Normal { std: if self.tied { STD } else { 1e-4 } },
            InitKind::Readout if mup => Constant(0.0),
            InitKind::Readout => Normal { std: STD },
            InitKind::Linear { fan_in } | InitKind::StepSizeWeight { rank: fan_in } => hidden(fan_in, 1.0),
            InitKind::ResidualOutput { fan_in } => {
                hidden(fan_in, if self.divides_outputs() { (2.0 * self.depth as f64).sqrt() } else { 1.0 })
            }
            InitKind::StepSizeBias => StepSizeBias,
            InitKind::StateDecay => LogStates,
            InitKind::Convolution { taps } => Uniform { bound: 1.0 / (taps as f64).sqrt() },
            InitKind::Lambda => Normal { std: 0.1 },
            InitKind::Ones => Constant(1.0),
            InitKind::Zeros => Constant(0.0),
        }
    }
}

/// How the batch follows the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchRule {
    /// B = B0.
    #[default]
    Constant,
    /// B = B0 √(T/T0).
    SqrtTokens,
}

/// Whose parameters a token budget grows with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRule {
    /// T = T0 N(d) / N(d0), N of the same architecture.
    #[default]
    SameArchitecture,
    /// T = T0 N(d) / N_transformer(d0), as the paper's release.
    Transformer,
    /// As the first, with embedding and readout counted in N.
    WithVocabulary,
}

/// Hyper-parameters tuned at one size and the rules that carry them to another. A run records all of them: d0 is a
/// definition, and changing it rescales logits and rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HyperparameterTransfer {
    pub base_depth: usize,
    pub base_lr: f64,
    pub base_batch_tokens: f64,
    pub base_tokens: Option<f64>,
    pub batch_rule: BatchRule,
}

impl HyperparameterTransfer {
    /// Batch in tokens for a budget.
    pub fn batch_tokens(&self, tokens: f64) -> f64 {
        match (self.batch_rule, self.base_tokens) {
            (BatchRule::SqrtTokens, Some(base)) => self.base_batch_tokens * (tokens / base).sqrt(),
            _ => self.base_batch_tokens,
        }
    }

    /// η: peak learning rate of the vector group.
    pub fn lr(&self, scaling: &ModelScaling, batch_tokens: f64) -> f64 {
        let batch = (batch_tokens / self.base_batch_tokens).sqrt();
        let depth = match scaling.parametrization {
            Parametrization::MupPlusPlus => scaling.depth_ratio().sqrt(),
            Parametrization::Standard | Parametrization::Mup => 1.0,
        };
        self.base_lr * batch * depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling(depth: usize, base_depth: usize) -> ModelScaling {
        ModelScaling {
            parametrization: Parametrization::MupPlusPlus,
            depth,
            base_depth,
            tied: true,
            out_init_div: OutInitDiv::Auto,
        }
    }

    /// The table of rates printed with the reference's rules, d0 = 16.
    #[test]
    fn rates_of_the_published_sizes() {
        for (depth, lr, matrix, logit, residual) in [
            (8, 5.657e-4, 1.131e-3, 2.0, 0.25),
            (12, 4.619e-4, 6.158e-4, 1.3333, 0.2041),
            (16, 4e-4, 4e-4, 1.0, 0.1768),
            (24, 3.266e-4, 2.177e-4, 0.6667, 0.1443),
        ] {
            let rule = scaling(depth, 16);
            let transfer = HyperparameterTransfer {
                base_depth: 16,
                base_lr: 4e-4,
                base_batch_tokens: 2_097_152.0,
                base_tokens: None,
                batch_rule: BatchRule::Constant,
            };
            let eta = transfer.lr(&rule, 2_097_152.0);
            let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 5e-4, "{depth}: {got} for {want}");
            close(eta, lr);
            close(eta * rule.lr_multiplier(ParamRole::Matrix), matrix);
            close(rule.logit_scale(), logit);
            close(rule.residual_scale(), residual);
        }
    }

    #[test]
    fn batch_follows_the_budget_when_asked() {
        let transfer = HyperparameterTransfer {
            base_depth: 16,
            base_lr: 4e-4,
            base_batch_tokens: 2_097_152.0,
            base_tokens: Some(1e11),
            batch_rule: BatchRule::SqrtTokens,
        };
        let batch = transfer.batch_tokens(4e11);
        assert_eq!(batch, 2.0 * 2_097_152.0);
        assert!((transfer.lr(&scaling(16, 16), batch) / 4e-4 - 2f64.sqrt()).abs() < 1e-12);
    }
}
