//! `evaluations` of a study as written.

use super::StudyFile;
use crate::tasks::measurement::Measurement;
use serde::Deserialize;

/// One of `evaluations`: a task that checkpoints of every run are given.
#[derive(Clone, Debug, Deserialize)]
pub struct EvaluationSection {
    /// What figures and its table call it.
    pub name: String,
    /// Which checkpoints.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// Sequences at once; changes no result beyond rounding. Default 8.
    #[serde(default = "eight")]
    pub batch: u64,
    /// The task and its settings.
    #[serde(flatten)]
    pub measurement: Measurement,
}

fn eight() -> u64 {
    8
}

/// Which checkpoints of a run are evaluated.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoints {
    /// The last one.
    #[default]
    Last,
    /// Every one that is kept.
    All,
}

impl EvaluationSection {
    pub(super) fn check(&self, study: &StudyFile) -> Result<(), String> {
        if study.sweep.is_none() {
            return Err("without a sweep there are no checkpoints".to_owned());
        }
        if ["runs", "fits", "metrics"].contains(&self.name.as_str()) {
            return Err(format!("{}.csv is a table of the study itself; use another name", self.name));
        }
        if study.evaluations.iter().filter(|other| other.name == self.name).count() > 1 {
            return Err("two evaluations have this name".to_owned());
        }
        if self.batch == 0 {
            return Err("batch: at least one sequence at a time".to_owned());
        }
        self.measurement.check()
    }
}
