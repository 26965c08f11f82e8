//! Sweeps: a file that stands for many runs ([`SweepFile`]), the runs it stands for ([`grid::expand`], [`SweepPlan`]),
//! and doing them one process each ([`Scheduler`]).
//!
//! Truth lies in the runs' folders: a plan is computed anew each time and nothing else is remembered between calls.

pub mod devices;
pub mod executor;
pub mod file;
pub mod grid;
pub mod home;
pub mod packing;
pub mod plan;
pub mod price;
pub mod run;
pub mod select;
pub mod slurm;
mod speed;
pub mod state;

pub use executor::{Executor, ProcessExecutor};
pub use file::{ExecBlock, IncludeBlock, Order, RunSection, SweepFile};
pub use plan::{PlannedRun, SweepPlan};
pub use run::{Outcome, Scheduler};
pub use state::RunState;

use crate::config::ConfigError;
use crate::expression::ExpressionError;
use crate::files::{ReadError, WriteError};
use crate::runs::RunError;

/// Why a sweep cannot be planned or carried on.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A file or a value in it is not what was expected.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A condition cannot be understood or evaluated.
    #[error("{origin}: {place}: in \"{text}\" at {error}")]
    Expression {
        /// The sweep file.
        origin: String,
        /// Where in it, such as `exclude[0]`.
        place: String,
        /// The condition.
        text: String,
        /// What is wrong, and where in it.
        error: ExpressionError,
    },
    /// One point of the sweep is no run that can be trained.
    #[error("{origin}: {point}: {problem}")]
    Point {
        /// The sweep file.
        origin: String,
        /// The values that make the point.
        point: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of a run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file of a run cannot be read, or is not what was expected.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file of a run cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Slurm cannot be asked, or said no.
    #[error(transparent)]
    Slurm(#[from] crate::slurm::SlurmError),
    /// A run cannot be started.
    #[error(transparent)]
    Executor(#[from] executor::ExecutorError),
}
