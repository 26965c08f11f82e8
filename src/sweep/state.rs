//! How far a run is, as its folder tells.

use super::SweepError;
use crate::record::RunStatus;
use crate::runs::{Fate, Observer, RunFolder};
use serde::Serialize;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Completed.
    Done,
    /// Its loss became NaN or infinite; not run again.
    Diverged,
    /// Ended with an error; tried again by the next `sweep run`.
    Failed,
    /// A process is at work on it.
    Running,
    /// A process was at work on it that cannot be asked from here; left alone.
    Unknown,
    /// A Slurm job waits to work on it.
    Queued,
    /// Begun and stopped; carries on from its checkpoint.
    Resumable,
    /// Not begun.
    Pending,
    /// There is no corpus at its data path; its id is provisional.
    #[serde(rename = "data missing")]
    DataMissing,
}

impl RunState {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Diverged,
        Self::Failed,
        Self::Running,
        Self::Unknown,
        Self::Queued,
        Self::Resumable,
        Self::Pending,
        Self::DataMissing,
    ];

    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Unknown => "unknown",
            Self::Queued => "queued",
            Self::Resumable => "resumable",
            Self::Pending => "pending",
            Self::DataMissing => "data missing",
        }
    }

    /// Whether nothing is left to do.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Diverged)
    }

    /// The state that a folder tells of.
    pub fn of(folder: &RunFolder, observer: &Observer) -> Result<Self, SweepError> {
        // In this order: a process that let go of the lock in between has written its record.
        let held = folder.holder(observer)?.map(|(_, fate)| fate);
        let record = folder.record()?;
        Ok(match (record.map(|record| record.status), held) {
            (Some(RunStatus::Completed), _) => Self::Done,
            (Some(RunStatus::Diverged), _) => Self::Diverged,
            (_, Some(Fate::Alive)) => Self::Running,
            (_, Some(Fate::Unknown)) => Self::Unknown,
            (Some(RunStatus::Failed), _) => Self::Failed,
            (Some(RunStatus::Interrupted), _) => Self::Resumable,
            (None, _) if folder.attempts().last().is_some_and(|attempt| attempt.failure().is_some()) => Self::Failed,
            (None, _) if folder.checkpoint_steps().is_empty() => Self::Pending,
            (None, _) => Self::Resumable,
        })
    }
}
