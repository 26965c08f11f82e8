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

    /// Whether somebody may start the run: it is neither over nor at work, and no job waits for it.
    pub fn is_startable(self) -> bool {
        matches!(self, Self::Pending | Self::Resumable | Self::Failed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::{Claim, Phase, Progress};
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    #[test]
    fn no_clock_decides_whether_somebody_works() {
        let place = tempfile::tempdir().unwrap();
        let observer = Observer::new(None);
        let claim = Claim::take(place.path(), &observer).unwrap();
        let progress = |updated_at: &str| Progress {
            schema: 1,
            phase: Phase::Training,
            attempt: 1,
            step: 3,
            steps: 9,
            tokens: 30,
            loss: Some(2.0),
            flops: 1.0,
            saved: 0,
            updated_at: updated_at.to_owned(),
        };
        let lock = place.path().join("lock");
        let far = Duration::from_secs(40 * 365 * 86_400);
        for (said, touched) in
            [("2001-01-01T00:00:00Z", SystemTime::now() - far), ("2099-01-01T00:00:00Z", SystemTime::now() + far)]
        {
            claim.set_progress(&progress(said)).unwrap();
            File::options().write(true).open(&lock).unwrap().set_modified(touched).unwrap();
            assert_eq!(RunState::of(&claim, &observer).unwrap(), RunState::Running);
        }
        // However fresh its files, a run whose process is gone is not at work.
        let owner = claim.owner().unwrap().unwrap();
        let gone = crate::runs::Owner { started: owner.started + 1, ..owner };
        std::fs::write(&lock, serde_json::to_string(&gone).unwrap()).unwrap();
        assert_eq!(RunState::of(&claim, &observer).unwrap(), RunState::Pending);
    }
}
