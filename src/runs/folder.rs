//! [`RunFolder`]: the files of one run, read and written.

use super::attempt::Attempt;
use super::owner::{Fate, Observer, Owner};
use super::{Cause, Exit, RunError};
use crate::config::{RunConfig, RunId};
use crate::files::{self, ReadError, WriteError};
use crate::record::{RunRecord, RunStatus, StepMetrics};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its process has taken the folder.
    Starting,
    /// It takes steps.
    Training,
    /// It measures its validation loss.
    Validating,
    /// It has a checkpoint and has stopped.
    Saved,
    /// It has a record.
    Ended,
}

/// `state.json`: how far a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Of this file's layout.
    pub schema: u32,
    /// What it is at.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
    /// Steps taken.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Training loss of the latest step.
    pub loss: Option<f64>,
    /// Training FLOPs so far, counted.
    pub flops: f64,
    /// Steps that are saved.
    pub saved: u64,
    /// When this was written: raises suspicion when it is long ago, and decides nothing.
    pub updated_at: String,
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

    /// The folder at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The resolved config that the run is started with.
    pub fn config(&self) -> PathBuf {
        self.file("config.yaml")
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.file("checkpoint")
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.file("lock")
    }

    fn record_path(&self) -> PathBuf {
        self.file("record.json")
    }

    fn json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, RunError> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| RunError::Content { path: path.to_owned(), problem: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError::of(path)(error).into()),
        }
    }

    /// How the run ended, if it did.
    pub fn record(&self) -> Result<Option<RunRecord>, RunError> {
        self.json(&self.record_path())
    }

    /// Who works here, or did so when it was killed.
    pub fn owner(&self) -> Result<Option<Owner>, RunError> {
        // Former versions left an empty one in every folder.
        match std::fs::metadata(self.lock_path()) {
            Ok(meta) if meta.len() == 0 => Ok(None),
            _ => self.json(&self.lock_path()),
        }
    }

    /// Whether a process is at work here; none where nobody took the folder.
    pub fn holder(&self, observer: &Observer) -> Result<Option<(Owner, Fate)>, RunError> {
        Ok(self.owner()?.map(|owner| {
            let fate = observer.fate(&owner);
            (owner, fate)
        }))
    }

    /// Whether a process is at work here, or may be.
    pub fn is_held(&self, observer: &Observer) -> Result<bool, RunError> {
        Ok(self.holder(observer)?.is_some_and(|(_, fate)| fate != Fate::Gone))
    }

    /// Says how far the run is.
    pub fn set_progress(&self, progress: &Progress) -> Result<(), WriteError> {
        let text = serde_json::to_string_pretty(progress).expect("progress is plain numbers and strings");
        files::write_atomic(&self.file("state.json"), format!("{text}\n").as_bytes())
    }

    /// Writes the record: the run has ended.
    pub fn write_record(&self, record: &RunRecord) -> Result<(), WriteError> {
        files::write_atomic(&self.record_path(), record_text(record).as_bytes())
    }

    /// Writes the record of a run that left none. One that appears meanwhile stays as it is.
    pub fn write_record_if_absent(&self, record: &RunRecord) -> Result<(), WriteError> {
        files::write_new(&self.record_path(), record_text(record).as_bytes())
    }

    /// Puts the record of an earlier attempt beside that attempt's log, so that a record always tells of the latest one.
    pub fn archive_record(&self) -> Result<(), WriteError> {
        let record = self.record_path();
        if !record.exists() {
            return Ok(());
        }
        let refused = |source| WriteError { path: record.clone(), source };
        let attempt = match self.attempts().last() {
            Some(attempt) => attempt.clone(),
            None => Attempt::begin(self)?,
        };
        std::fs::rename(&record, attempt.path.join("record.json")).map_err(refused)
    }

    /// Every attempt, in order.
    pub fn attempts(&self) -> Vec<Attempt> {
        Attempt::all(self)
    }

    /// The log of the latest attempt that has one.
    pub fn log(&self) -> PathBuf {
        let attempts = self.attempts();
        let logged = attempts.iter().rev().find(|attempt| attempt.log().exists());
        logged.or(attempts.last()).map_or_else(|| self.file("attempts/001/log"), Attempt::log)
    }

    /// The last whole line of `metrics.jsonl`.
    pub fn last_metrics(&self) -> Option<StepMetrics> {
        let tail = tail(&self.file("metrics.jsonl"))?;
        tail.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// The whole lines of `metrics.jsonl`; none where there is no such file.
    pub fn all_metrics(&self) -> Result<Vec<StepMetrics>, ReadError> {
        let path = self.file("metrics.jsonl");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(ReadError::of(&path)(error)),
        }
    }

    /// Steps that have a checkpoint, oldest first. A file that is being written does not count.
    pub fn checkpoint_steps(&self) -> Vec<u64> {
        numbered(&self.checkpoints(), "step-", ".safetensors")
    }

    /// Steps that are saved: those of the newest checkpoint.
    pub fn saved_step(&self) -> u64 {
        self.checkpoint_steps().last().copied().unwrap_or(0)
    }

    /// The checkpoint of a step.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}.safetensors"))
    }

    /// Where what the evaluation `name` found of the checkpoint of `step` is kept.
    pub fn evaluation(&self, name: &str, step: u64) -> PathBuf {
        self.file(&format!("eval-{name}-step-{step}.json"))
    }

    /// Steps of whose checkpoint something is kept under the evaluation `name`, oldest first.
    pub fn evaluated_steps(&self, name: &str) -> Vec<u64> {
        let before = format!("eval-{name}-step-");
        numbered(&self.path, &before, ".json")
    }

    /// Opens `metrics.jsonl` for appending after `step`, dropping lines of later steps that a killed attempt left.
    pub fn metrics(&self, step: u64) -> Result<MetricsFile, WriteError> {
        let path = self.file("metrics.jsonl");
        if let Ok(text) = std::fs::read_to_string(&path) {
            let kept: String = text
                .lines()
                .filter(|line| serde_json::from_str::<StepMetrics>(line).is_ok_and(|m| m.step <= step))
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                files::write_atomic(&path, kept.as_bytes())?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| WriteError { path: path.clone(), source })?;
        Ok(MetricsFile { file, path })
    }

    /// Closes attempts that ended without a word: their process is gone.
    pub fn close_lost_attempts(&self, before: u32) -> Result<(), WriteError> {
        for attempt in self.attempts().iter().filter(|attempt| attempt.number < before && attempt.exit().is_none()) {
            let step = self.saved_step();
            let reason = format!("its process was gone when attempt {before} began");
            attempt.end_if_open(&Exit { cause: Cause::Lost, status: None, reason: Some(reason), step, at: now() })?;
        }
        Ok(())
    }
}

/// The numbers between `before` and `after` in the names of a folder's files, in rising order.
fn numbered(folder: &Path, before: &str, after: &str) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
    };
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// The time of day, for people.
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn record_text(record: &RunRecord) -> String {
    let text = serde_json::to_string_pretty(record).expect("records have string keys and finite numbers");
    text + "\n"
}

/// `metrics.jsonl`, open.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Appends one line in one write.
    pub fn push(&mut self, metrics: &StepMetrics) -> Result<(), WriteError> {
        let mut line = serde_json::to_string(metrics).expect("metrics serialise: plain fields");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| WriteError { path: self.path.clone(), source })
    }
}

/// The end of a file, at most 16 KiB.
pub(super) fn tail(path: &Path) -> Option<String> {
    const MOST: u64 = 16 << 10;
    let mut file = File::open(path).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(MOST);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl Progress {
    /// Of a run at `step`, in attempt `attempt`.
    pub fn of(run: &RunConfig, phase: Phase, attempt: u32, step: u64, loss: Option<f64>, saved: u64) -> Self {
        Self {
            schema: crate::record::SCHEMA,
            phase,
            attempt,
            step,
            steps: run.steps(),
            tokens: step * run.batch_tokens(),
            loss,
            flops: run.flops() * step as f64 / run.steps() as f64,
            saved,
            updated_at: now(),
        }
    }
}

impl RunFolder {
    /// The record of a run that ended, as `status`, without writing its own.
    pub fn record_without_result(&self, config: &RunConfig, status: RunStatus, reason: &str) -> RunRecord {
        let last = self.last_metrics();
        let steps = last.as_ref().map_or(0, |metrics| metrics.step);
        RunRecord {
            wall_s: last.as_ref().map_or(0.0, |metrics| metrics.wall_s),
            tokens_per_s: last.as_ref().map_or(0.0, |metrics| metrics.tokens_per_s),
            ..RunRecord::unmeasured(config, steps, status, Some(reason.to_owned()))
        }
    }
}
