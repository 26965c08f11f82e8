//! [`Attempt`]: one process, or one group of ranks, that worked on a run: `attempts/NNN/`. Nothing of it is overwritten.

use super::RunFolder;
use super::folder::{now, tail};
use crate::files::{self, WriteError};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::PathBuf;

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The run is complete.
    Done,
    /// It was asked to make room, and has a checkpoint.
    Saved,
    /// A person stopped it; it has a checkpoint.
    Interrupted,
    /// The loss became NaN or infinite.
    Diverged,
    /// It asked for more memory than there is.
    Oom,
    /// Its configuration or data were refused.
    Config,
    /// This build or machine lacks what was asked.
    Unavailable,
    /// Another process works on the run.
    Taken,
    /// Anything else that ended with a message, or by a signal.
    Crash,
    /// It ended without a word.
    Lost,
}

impl Cause {
    /// What a process of this program means by the status that it ends with.
    pub fn of_status(status: i32) -> Self {
        match status {
            0 => Self::Done,
            2 => Self::Config,
            3 => Self::Diverged,
            6 => Self::Unavailable,
            75 => Self::Saved,
            76 => Self::Oom,
            130 => Self::Interrupted,
            _ => Self::Crash,
        }
    }

    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Saved => "saved",
            Self::Interrupted => "interrupted",
            Self::Diverged => "diverged",
            Self::Oom => "oom",
            Self::Config => "config",
            Self::Unavailable => "unavailable",
            Self::Taken => "taken",
            Self::Crash => "crash",
            Self::Lost => "lost",
        }
    }
}

/// `exit.json`: how an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Why.
    pub cause: Cause,
    /// Exit status of its process, where it has one.
    pub status: Option<i32>,
    /// In words.
    pub reason: Option<String>,
    /// Steps that were saved by then.
    pub step: u64,
    /// When.
    pub at: String,
}

impl Exit {
    /// An end at this moment.
    pub fn now(cause: Cause, status: Option<i32>, reason: Option<String>, step: u64) -> Self {
        Self { cause, status, reason, step, at: now() }
    }
}

/// `attempts/NNN/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Its folder.
    pub path: PathBuf,
}

impl Attempt {
    /// Attempt number `number` of a run.
    pub fn of(folder: &RunFolder, number: u32) -> Self {
        Self { number, path: folder.path.join("attempts").join(format!("{number:03}")) }
    }

    /// Makes the folder of a new attempt. Two processes never get the same one.
    pub fn begin(folder: &RunFolder) -> Result<Self, WriteError> {
        let parent = folder.path.join("attempts");
        let refused = |source| WriteError { path: parent.clone(), source };
        std::fs::create_dir_all(&parent).map_err(refused)?;
        let mut number = Self::all(folder).last().map_or(1, |last| last.number + 1);
        loop {
            let attempt = Self::of(folder, number);
            match std::fs::create_dir(&attempt.path) {
                Ok(()) => return Ok(attempt),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(refused(error)),
            }
        }
    }

    pub(super) fn all(folder: &RunFolder) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(folder.path.join("attempts")) else { return Vec::new() };
        let number = |name: std::ffi::OsString| name.to_str()?.parse().ok();
        let mut numbers: Vec<u32> = entries.flatten().filter_map(|entry| number(entry.file_name())).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| Self::of(folder, number)).collect()
    }

    /// Output of its processes, where something else than a terminal started them.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Notes where and with what it runs.
    pub fn set_environment(&self, environment: &serde_json::Value) -> Result<(), WriteError> {
        files::write_atomic(&self.path.join("env.json"), format!("{environment:#}\n").as_bytes())
    }

    /// What [`Self::set_environment`] noted.
    pub fn environment(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("env.json")).ok()?).ok()
    }

    /// Keeps what the source differed in from its commit.
    pub fn set_difference(&self, patch: &str) -> Result<(), WriteError> {
        files::write_atomic(&self.path.join("diff.patch"), patch.as_bytes())
    }

    /// How it ended, if that is known.
    pub fn exit(&self) -> Option<Exit> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("exit.json")).ok()?).ok()
    }

    /// Why it failed, where it did: in its own words, or by the status that its job script noted.
    pub fn failure(&self) -> Option<String> {
        match self.exit() {
            Some(exit) => {
                let failed = matches!(exit.cause, Cause::Crash | Cause::Oom | Cause::Config | Cause::Unavailable);
                failed.then(|| exit.reason.unwrap_or_else(|| exit.cause.name().to_owned()))
            }
            None => {
                let status = std::fs::read_to_string(self.path.join("status")).ok()?;
                let status = status.trim();
                let failed = !matches!(status, "" | "0" | "75");
                failed.then(|| self.last_words().unwrap_or_else(|| format!("ended with status {status}")))
            }
        }
    }

    /// Notes how it ended, unless that is noted already.
    pub fn end_if_open(&self, exit: &Exit) -> Result<(), WriteError> {
        let text = serde_json::to_string_pretty(exit).expect("an exit is plain strings and numbers");
        files::write_new(&self.path.join("exit.json"), format!("{text}\n").as_bytes())
    }

    /// What its log gives as the reason of an end: the last error, else a panic's message, else the last line.
    pub fn last_words(&self) -> Option<String> {
        const LONGEST: usize = 400;
        let tail = tail(&self.log())?;
        let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let error = lines.iter().rposition(|line| line.starts_with("error: "));
        let panic = || lines.iter().rposition(|line| line.starts_with("thread '") && line.contains("panicked at"));
        let index = error.or_else(|| panic().map(|at| (at + 1).min(lines.len() - 1))).or(lines.len().checked_sub(1))?;
        Some(lines[index].chars().take(LONGEST).collect())
    }
}

/// Whether a message tells of memory that ran out, in the words of LibTorch and of Rust's allocator.
pub fn tells_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    ["out of memory", "memory allocation of", "can't allocate memory"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_the_log() {
        let place = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(&RunFolder::at(place.path())).unwrap();
        let panic = "thread 'main' (7) panicked at src/a.rs:1:2:\nno such layer\nnote: run with `RUST_BACKTRACE=1`\n";
        for (log, expected) in [
            ("step 1\nerror: bad key\n\nFor more information, try '--help'.\n", Some("error: bad key")),
            (panic, Some("no such layer")),
            ("step 1\nstep 2\n\n", Some("step 2")),
            ("\n", None),
        ] {
            std::fs::write(attempt.log(), log).unwrap();
            assert_eq!(attempt.last_words().as_deref(), expected);
        }
    }

    #[test]
    fn attempts_are_numbered_and_end_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(place.path());
        let first = Attempt::begin(&folder).unwrap();
        let second = Attempt::begin(&folder).unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        let exit = |cause| Exit::now(cause, Some(1), None, 0);
        first.end_if_open(&exit(Cause::Oom)).unwrap();
        folder.close_lost_attempts(2).unwrap();
        folder.close_lost_attempts(3).unwrap();
        let causes: Vec<_> = folder.attempts().iter().map(|attempt| attempt.exit().unwrap().cause).collect();
        assert_eq!(causes, [Cause::Oom, Cause::Lost]);
    }
}
