//! A run's folder as the scheduler sees it: record, lock, progress. `train` writes these files; this module reads them,
//! and writes a record only for a run that died without one.

use super::SweepError;
use crate::config::{RunConfig, RunId};
use crate::files::{self, ReadError, WriteError};
use crate::record::{RunRecord, RunStatus, StepMetrics};
use fs4::FileExt;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

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
    /// A process holds its lock.
    Running,
    /// Begun and stopped; carries on from its checkpoint.
    Resumable,
    /// Not begun.
    Pending,
    /// There is no corpus at its data path; its id is provisional.
    #[serde(rename = "data missing")]
    DataMissing,
}

impl RunState {
    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Resumable => "resumable",
            Self::Pending => "pending",
            Self::DataMissing => "data missing",
        }
    }
}

/// `worker.json`: who was started on a run, so that a later scheduler knows which GPU a process it did not start uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Machine.
    pub host: String,
    /// Process id of the run.
    pub pid: u32,
    /// Its GPU, as `CUDA_VISIBLE_DEVICES` names it.
    pub gpu: Option<String>,
}

/// `runs/<id>/`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The folder.
    pub path: PathBuf,
}

impl RunFolder {
    /// The folder of run `id`.
    pub fn new(runs_dir: &Path, id: &RunId) -> Self {
        Self { path: runs_dir.join(&id.0) }
    }

    /// The resolved config that the run is started with.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.yaml")
    }

    /// Output of all attempts.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.txt")
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("record.json")
    }

    /// How the run ended, if it did.
    pub fn record(&self) -> Result<Option<RunRecord>, SweepError> {
        let path = self.record_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReadError::of(&path)(error).into()),
        };
        Ok(serde_json::from_str(&text).map(Some).map_err(|error| ReadError::of(&path)(error.into()))?)
    }

    /// Whether a process is at work here.
    pub fn is_locked(&self) -> bool {
        // Opened without creating: a folder that nobody worked in stays as it is.
        match File::open(self.path.join("lock")) {
            Ok(file) => FileExt::try_lock_shared(&file).is_err(),
            Err(_) => false,
        }
    }

    /// Who was last started here.
    pub fn worker(&self) -> Option<Worker> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("worker.json")).ok()?).ok()
    }

    /// Notes who was started here.
    pub fn set_worker(&self, worker: &Worker) -> Result<(), WriteError> {
        let text = serde_json::to_string(worker).expect("a worker is plain strings and numbers");
        files::write_atomic(&self.path.join("worker.json"), text.as_bytes())
    }

    /// The last whole line of `metrics.jsonl`.
    pub fn last_metrics(&self) -> Option<StepMetrics> {
        let tail = tail(&self.path.join("metrics.jsonl"), 0)?;
        tail.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// Bytes of log so far.
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |meta| meta.len())
    }

    /// What the log gives as the reason of an end, of what was written after byte `from`: the last error, else a
    /// panic's message, else the last line.
    pub fn last_words(&self, from: u64) -> Option<String> {
        const LONGEST: usize = 400;
        let tail = tail(&self.log(), from)?;
        let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let error = lines.iter().rposition(|line| line.starts_with("error: "));
        let panic = || lines.iter().rposition(|line| line.starts_with("thread '") && line.contains("panicked at"));
        let index = error.or_else(|| panic().map(|at| (at + 1).min(lines.len() - 1))).or(lines.len().checked_sub(1))?;
        Some(lines[index].chars().take(LONGEST).collect())
    }

    /// The state that the folder tells of.
    pub fn state(&self) -> Result<RunState, SweepError> {
        // In this order: a process that let go of the lock in between has written its record.
        let locked = self.is_locked();
        let record = self.record()?;
        Ok(match record.map(|record| record.status) {
            Some(RunStatus::Completed) => RunState::Done,
            Some(RunStatus::Diverged) => RunState::Diverged,
            _ if locked => RunState::Running,
            Some(RunStatus::Failed) => RunState::Failed,
            Some(RunStatus::Interrupted) => RunState::Resumable,
            None if self.has_checkpoint() => RunState::Resumable,
            None => RunState::Pending,
        })
    }

    fn has_checkpoint(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(self.path.join("checkpoint")) else { return false };
        // A hidden file is one that was being written when its process was killed.
        entries.flatten().any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    }

    /// Moves the record of an earlier attempt to `attempts/`, so that a record always tells of the latest one.
    pub fn archive_record(&self) -> Result<(), SweepError> {
        let record = self.record_path();
        if !record.exists() {
            return Ok(());
        }
        let attempts = self.path.join("attempts");
        let moved = || -> std::io::Result<()> {
            std::fs::create_dir_all(&attempts)?;
            let taken = std::fs::read_dir(&attempts)?.count();
            std::fs::rename(&record, attempts.join(format!("{:03}.json", taken + 1)))
        };
        moved().map_err(|source| WriteError { path: record.clone(), source }.into())
    }

    /// Writes the record of a run that left none. One that appears meanwhile stays as it is.
    pub fn write_record_if_absent(&self, record: &RunRecord) -> Result<(), SweepError> {
        let mut text = serde_json::to_string_pretty(record).expect("records have string keys and finite numbers");
        text.push('\n');
        Ok(files::write_new(&self.record_path(), text.as_bytes())?)
    }
}

/// The end of a file, at most 16 KiB, nothing before byte `from`.
fn tail(path: &Path, from: u64) -> Option<String> {
    const MOST: u64 = 16 << 10;
    let mut file = File::open(path).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(MOST).max(from);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The record of a run that ended, as `status`, without writing its own.
pub fn record_without_result(
    config: &RunConfig,
    status: RunStatus,
    reason: &str,
    last: Option<StepMetrics>,
) -> RunRecord {
    let steps = last.as_ref().map_or(0, |metrics| metrics.step);
    RunRecord {
        wall_s: last.as_ref().map_or(0.0, |metrics| metrics.wall_s),
        tokens_per_s: last.as_ref().map_or(0.0, |metrics| metrics.tokens_per_s),
        ..RunRecord::unmeasured(config, steps, status, Some(reason.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder { path: folder.path().to_owned() };
        let panic = "thread 'main' (7) panicked at src/a.rs:1:2:\nno such layer\nnote: run with `RUST_BACKTRACE=1`\n";
        for (log, expected) in [
            ("step 1\nerror: bad key\n\nFor more information, try '--help'.\n", Some("error: bad key")),
            (panic, Some("no such layer")),
            ("step 1\nstep 2\n\n", Some("step 2")),
            ("\n", None),
        ] {
            std::fs::write(run.log(), log).unwrap();
            assert_eq!(run.last_words(0).as_deref(), expected);
        }
        std::fs::write(run.log(), "error: of the first attempt\nkilled").unwrap();
        assert_eq!(run.last_words(28).as_deref(), Some("killed"));
    }
}
