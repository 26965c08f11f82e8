//! The folders of runs: what a run leaves, who works on it, what became of each attempt.
//!
//! ```text
//! runs/<run_id>/config.yaml    the resolved configuration, again a file that `train` takes
//!               state.json     how far the run is, replaced whole
//!               metrics.jsonl  one StepMetrics a line, append-only
//!               checkpoint/    step-NNNNNNNN.safetensors
//!               record.json    the outcome; its presence means the run has ended
//!               eval-NAME-step-N.json  what an evaluation found of a checkpoint
//!               lock           the process that works here: machine, pid, its start, Slurm job
//!               attempts/NNN/  log, env.json, exit.json and diff.patch of each process that worked here
//! ```
//!
//! Truth lies here and nowhere else. Files are replaced by renaming, and the lock is made by linking, both of which hold on
//! network file systems.

mod attempt;
mod claim;
mod folder;
mod owner;

pub use attempt::{Attempt, Cause, Exit, tells_of_memory};
pub use claim::{Claim, ClaimError};
pub use folder::{MetricsFile, Phase, Progress, RunFolder};
pub use owner::{Fate, Observer, Owner};

use crate::files::{ReadError, WriteError};

/// A file of a run cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is not what this version writes.
    #[error("{path} is no file of this version: {problem}; hint: move the folder away to run again")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
