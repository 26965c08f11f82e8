//! What tasks found of the checkpoints of a study's runs. Each result lies beside the record of its run, with its
//! settings; what is there under equal settings is not measured again.

use super::file::{Checkpoints, EvaluationSection};
use super::tidy::{TidyTable, shown};
use super::{Step, Study, StudyError, outputs};
use crate::config::RunConfig;
use crate::record::{RunRecord, RunStatus};
use crate::report::ReportEvaluation;
use crate::runs::RunFolder;
use crate::sweep::{SweepPlan, plan};
use crate::tasks::measurement::{Evaluation, FOUND, Measurement, Row, row};
use crate::units;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A checkpoint that is still to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingEvaluation {
    /// Which of `evaluations`.
    pub name: String,
    /// What is measured.
    pub measurement: Measurement,
    /// Sequences at once.
    pub batch: usize,
    /// The series of its run.
    pub label: String,
    /// Its run.
    pub run_id: String,
    /// Its step.
    pub step: u64,
    /// The file.
    pub checkpoint: PathBuf,
    /// Where the result goes.
    pub kept_at: PathBuf,
}

/// A checkpoint that has no result, or a run that has no such checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeasured {
    /// Which of `evaluations`.
    pub name: String,
    /// The series of its run.
    pub label: String,
    /// Its run.
    pub run_id: String,
    /// Its step, where there is a checkpoint.
    pub step: Option<u64>,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for Unmeasured {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let step = self.step.map_or(String::new(), |step| format!(" step {step}"));
        write!(f, "{}: {} {}{step}: {}", self.name, self.label, self.run_id, self.reason)
    }
}

impl PendingEvaluation {
    /// The same checkpoint, without a result because of `reason`.
    pub fn failed(&self, reason: impl std::fmt::Display) -> Unmeasured {
        Unmeasured {
            name: self.name.clone(),
            label: self.label.clone(),
            run_id: self.run_id.clone(),
            step: Some(self.step),
            reason: reason.to_string(),
        }
    }
}

/// What one of `evaluations` found.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Its name.
    pub name: String,
    /// What was measured.
    pub measurement: Measurement,
    /// One row for each result of each checkpoint.
    pub table: TidyTable,
    /// The rows of the last checkpoint of each run.
    pub last: Vec<Row>,
}

/// Columns that say which checkpoint a row is of; the columns of the result follow.
const CHECKPOINT: [&str; 12] = [
    "run_id",
    "label",
    "architecture",
    "model_depth",
    "d_model",
    "window",
    "params_total",
    "lr",
    "seed",
    "step",
    "tokens",
    "flops",
];

/// A run that has ended, and how it was to run.
struct EndedRun<'a> {
    record: RunRecord,
    config: &'a RunConfig,
    folder: RunFolder,
}

impl EndedRun<'_> {
    fn unmeasured(&self, name: &str, reason: String) -> Unmeasured {
        let RunRecord { label, run_id, .. } = self.record.clone();
        Unmeasured { name: name.to_owned(), label, run_id, step: None, reason }
    }

    /// Steps that `section` wants a result of: those of checkpoints, and those that have a result already, for which no
    /// checkpoint is needed.
    fn steps(&self, section: &EvaluationSection, kept_as: &str) -> Result<Vec<u64>, Unmeasured> {
        let done = self.folder.evaluated_steps(kept_as).into_iter();
        let done = done.filter(|step| self.kept(section, kept_as, *step).is_some());
        let all: BTreeSet<u64> = self.folder.checkpoint_steps().into_iter().chain(done).collect();
        let Some(&newest) = all.last() else {
            return Err(self.unmeasured(&section.name, "it has no checkpoint".to_owned()));
        };
        let whole = self.record.status == RunStatus::Completed;
        if whole && newest != self.record.steps {
            let reason = format!("its last checkpoint, step {}, is gone", self.record.steps);
            return Err(self.unmeasured(&section.name, reason));
        }
        Ok(match section.checkpoints {
            Checkpoints::Last => vec![newest],
            Checkpoints::All => all.into_iter().collect(),
        })
    }

    fn kept(&self, section: &EvaluationSection, kept_as: &str, step: u64) -> Option<Evaluation> {
        Evaluation::kept(&self.folder.evaluation(kept_as, step), &section.measurement)
    }

    /// The columns of [`CHECKPOINT`].
    fn columns(&self, step: u64) -> Row {
        let (record, shape) = (&self.record, &self.config.model.shape);
        let share = step as f64 / record.steps.max(1) as f64;
        let values = [
            json!(record.run_id),
            json!(record.label),
            json!(record.architecture),
            json!(record.depth),
            json!(record.d_model),
            json!(shape.window),
            json!(record.params_total),
            json!(record.lr),
            json!(record.seed),
            json!(step),
            json!(step * record.batch_tokens),
            json!(record.flops * share),
        ];
        row(CHECKPOINT.into_iter().zip(values))
    }
}

impl Evaluated {
    /// The table of the last checkpoints, as a report shows it.
    pub(super) fn for_report(&self) -> ReportEvaluation {
        const OF_RUN: [&str; 4] = ["label", "run_id", "step", "tokens"];
        let apart = CHECKPOINT.iter().chain(&FOUND).chain(&["sd"]);
        let apart: Vec<&str> = apart.copied().collect();
        let mut varied: Vec<&String> = self.last.iter().flat_map(|row| row.keys()).collect();
        varied.retain(|key| !apart.contains(&key.as_str()));
        varied.sort();
        varied.dedup();
        let number = |row: &Row, key: &str| row.get(key).and_then(Value::as_f64);
        let cells = |row: &Row| {
            let of_run = OF_RUN.iter().map(|key| match (*key, number(row, key)) {
                ("tokens", Some(tokens)) => units::si(tokens),
                _ => shown(row.get(*key)),
            });
            let interval = match (number(row, "low"), number(row, "high")) {
                (Some(low), Some(high)) => format!("{low:.3} to {high:.3}"),
                _ => "–".to_owned(),
            };
            let varied = varied.iter().map(|key| match row.get(*key) {
                Some(Value::Number(number)) if number.is_f64() => {
                    let text = format!("{:.4}", number.as_f64().unwrap_or(f64::NAN));
                    text.trim_end_matches('0').trim_end_matches('.').to_owned()
                }
                other => shown(other),
            });
            let value = number(row, "value").map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
            of_run.chain(varied).chain([value, interval, shown(row.get("n"))]).collect()
        };
        let columns = OF_RUN.iter().map(|column| (*column).to_owned()).chain(varied.iter().map(|key| (*key).clone()));
        let found = ["value", "95 % interval", "n"].map(str::to_owned);
        ReportEvaluation {
            name: self.name.clone(),
            what: self.measurement.arguments().join(" "),
            is_share: self.measurement.is_share(),
            header: columns.chain(found).collect(),
            rows: self.last.iter().map(cells).collect(),
        }
    }
}

impl Study {
    /// Evaluations of two studies lie beside one run's record.
    fn kept_as(&self, section: &EvaluationSection) -> String {
        format!("{}-{}", self.file.study, section.name)
    }

    /// The table of an evaluation.
    pub(super) fn evaluation_table(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.csv"))
    }

    fn ended<'a>(&self, plan: Option<&'a SweepPlan>) -> Result<Vec<EndedRun<'a>>, StudyError> {
        let Some(plan) = plan else { return Ok(Vec::new()) };
        let records = plan::collect(plan, &self.runs_dir)?;
        let ended = crate::report::results::ordered(&records).into_iter().filter_map(|record| {
            let run = plan.runs.iter().find(|run| run.id.0 == record.run_id)?;
            Some(EndedRun {
                record: record.clone(),
                config: &run.config,
                folder: RunFolder::new(&self.runs_dir, &run.id),
            })
        });
        Ok(ended.collect())
    }

    /// Checkpoints of runs that have ended and are not measured yet, run by run.
    pub fn pending_evaluations(&self, plan: Option<&SweepPlan>) -> Result<Vec<PendingEvaluation>, StudyError> {
        let mut out = Vec::new();
        for run in self.ended(plan)? {
            for section in &self.file.evaluations {
                let kept_as = self.kept_as(section);
                let steps = run.steps(section, &kept_as).unwrap_or_default();
                let missing = steps.into_iter().filter(|step| run.kept(section, &kept_as, *step).is_none());
                out.extend(missing.map(|step| PendingEvaluation {
                    name: section.name.clone(),
                    measurement: section.measurement.clone(),
                    batch: section.batch as usize,
                    label: run.record.label.clone(),
                    run_id: run.record.run_id.clone(),
                    step,
                    checkpoint: run.folder.checkpoint(step),
                    kept_at: run.folder.evaluation(&kept_as, step),
                }));
            }
        }
        Ok(out)
    }

    /// What was found so far, and what has no checkpoint to be found of.
    pub fn evaluated(&self, plan: Option<&SweepPlan>) -> Result<(Vec<Evaluated>, Vec<Unmeasured>), StudyError> {
        let runs = self.ended(plan)?;
        let (mut found, mut unmeasured) = (Vec::new(), Vec::new());
        for section in &self.file.evaluations {
            let kept_as = self.kept_as(section);
            let mut table = TidyTable::new(&CHECKPOINT);
            let mut last = Vec::new();
            for run in &runs {
                let steps = run.steps(section, &kept_as).unwrap_or_else(|nothing| {
                    unmeasured.push(nothing);
                    Vec::new()
                });
                for &step in &steps {
                    let kept = run.kept(section, &kept_as, step).map(|kept| kept.rows).unwrap_or_default();
                    let rows = kept.into_iter().map(|found| run.columns(step).into_iter().chain(found).collect());
                    let rows: Vec<Row> = rows.collect();
                    if Some(&step) == steps.last() {
                        last.extend(rows.iter().cloned());
                    }
                    table.extend(rows);
                }
            }
            let (name, measurement) = (section.name.clone(), section.measurement.clone());
            found.push(Evaluated { name, measurement, table, last });
        }
        Ok((found, unmeasured))
    }

    /// Writes the table of each evaluation.
    pub fn write_evaluations(&self, evaluated: &[Evaluated]) -> Result<Step, StudyError> {
        let mut step = Step::Current;
        for evaluation in evaluated {
            let text = evaluation.table.to_csv()?;
            let path = self.evaluation_table(&evaluation.name);
            if outputs::write_if_changed(&path, text.as_bytes())? == Step::Made {
                step = Step::Made;
            }
        }
        Ok(step)
    }
}
