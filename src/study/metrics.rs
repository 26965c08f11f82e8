//! The table of the losses of a study's runs in the course of training.

use super::file::FigureTable;
use super::{Step, Study, StudyError, outputs};
use crate::record::StepMetrics;
use crate::report::results::{csv_of, ordered};
use crate::runs::RunFolder;
use crate::sweep::{SweepPlan, plan};
use serde::Serialize;

/// Steps between two rows at least, as a share of those taken: a row for each pixel of a wide figure, and for each of
/// the first steps.
const APART: f64 = 1e-3;

/// One logged step of one run.
#[derive(Serialize)]
struct MetricsRow<'a> {
    run_id: &'a str,
    label: &'a str,
    architecture: &'a str,
    depth: u64,
    d_model: u64,
    params_total: u64,
    batch_tokens: u64,
    seed: u64,
    step: u64,
    tokens: u64,
    /// Nats per token, of this step's batch.
    loss: f64,
    grad_norm: f64,
    /// Learning rate of this step.
    lr: f64,
}

impl Study {
    /// Writes the table of what every run that has ended logged, in the order of the table of runs, if a figure shows it.
    pub fn write_metrics(&self, plan: &SweepPlan) -> Result<Step, StudyError> {
        if !self.file.figures.iter().any(|figure| figure.table() == Some(FigureTable::Metrics)) {
            return Ok(Step::Current);
        }
        let records = plan::collect(plan, &self.runs_dir)?;
        let mut rows = Vec::new();
        for record in ordered(&records) {
            let metrics = RunFolder::at(&self.runs_dir.join(&record.run_id)).all_metrics()?;
            rows.extend(spread(metrics).into_iter().map(|step| MetricsRow {
                run_id: &record.run_id,
                label: &record.label,
                architecture: &record.architecture,
                depth: record.depth,
                d_model: record.d_model,
                params_total: record.params_total,
                batch_tokens: record.batch_tokens,
                seed: record.seed,
                step: step.step,
                tokens: step.tokens,
                loss: step.loss,
                grad_norm: step.grad_norm,
                lr: step.lr,
            }));
        }
        outputs::write_if_changed(&self.metrics_table(), csv_of(rows)?.as_bytes())
    }
}

/// The first and the last of some steps, and of the others those that are far enough from the one before.
fn spread(metrics: Vec<StepMetrics>) -> Vec<StepMetrics> {
    let last = metrics.last().map(|metrics| metrics.step);
    let mut out: Vec<StepMetrics> = Vec::new();
    for metrics in metrics {
        let far = |before: &StepMetrics| metrics.step as f64 >= (1.0 + APART) * before.step as f64;
        if out.last().is_none_or(far) || Some(metrics.step) == last {
            out.push(metrics);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_steps_stay() {
        let metrics = |step| StepMetrics {
            schema: 1,
            step,
            tokens: step,
            loss: 1.0,
            grad_norm: 1.0,
            lr: 1.0,
            tokens_per_s: 1.0,
            wall_s: 1.0,
        };
        let steps: Vec<u64> = spread((1..=100_003).map(metrics).collect()).iter().map(|m| m.step).collect();
        assert!(steps[..1000].iter().copied().eq(1..=1000) && steps.last() == Some(&100_003));
        assert!(steps.len() < 6000 && steps.windows(2).all(|pair| pair[1] as f64 <= 1.002 * pair[0] as f64 + 1.0));
        assert!(spread(Vec::new()).is_empty());
    }
}
