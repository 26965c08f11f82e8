//! A run's folder: who works in it, and the files a run leaves.
//!
//! ```text
//! runs/<run_id>/config.yaml    the resolved configuration, again a file that `train` takes
//!               env.json       machine, versions and command of the last attempt
//!               metrics.jsonl  one StepMetrics a line, append-only
//!               record.json    the outcome; its presence means the run has ended
//!               checkpoint/    step-NNNNNNNN.safetensors
//!               lock           held while a process works here
//! ```

use super::TrainError;
use crate::files::{ReadError, write_atomic};
use crate::record::{RunRecord, StepMetrics};
use fs4::FileExt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder of one run, locked for this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Takes the folder for this process; refused while another one has it.
    pub fn lock(path: &Path) -> Result<Self, TrainError> {
        let write = |source| TrainError::Write { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(write)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(write)?;
        match FileExt::try_lock(&lock) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(_) => Err(TrainError::Locked { path: path.to_owned() }),
        }
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.file("checkpoint")
    }

    /// The record of a run that has ended.
    pub fn record(&self) -> Result<Option<RunRecord>, TrainError> {
        let path = self.file("record.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).map_err(|e| TrainError::Record { path, problem: e.to_string() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError::of(&path)(error).into()),
        }
    }

    /// Writes the record: the run has ended.
    pub fn write_record(&self, record: &RunRecord) -> Result<(), TrainError> {
        let text = serde_json::to_string_pretty(record).expect("records serialise: plain fields");
        Ok(write_atomic(&self.file("record.json"), format!("{text}\n").as_bytes())?)
    }

    /// Opens `metrics.jsonl` for appending after `step`, dropping lines of later steps that a killed attempt left.
    pub fn metrics(&self, step: u64) -> Result<MetricsFile, TrainError> {
        let path = self.file("metrics.jsonl");
        if let Ok(text) = std::fs::read_to_string(&path) {
            let kept: String = text
                .lines()
                .filter(|line| serde_json::from_str::<StepMetrics>(line).is_ok_and(|m| m.step <= step))
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                write_atomic(&path, kept.as_bytes())?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| TrainError::Write { path: path.clone(), source })?;
        Ok(MetricsFile { file, path })
    }
}

/// `metrics.jsonl`, open.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Appends one line in one write.
    pub fn push(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(metrics).expect("metrics serialise: plain fields");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}
