//! Starting runs. [`ProcessExecutor`] starts `train` as a child process; tests invent processes.

use crate::runs::{Attempt, RunFolder};
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A run cannot be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The program did not start.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be run.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error("cannot write {path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process cannot be waited for.
    #[error("cannot watch process {pid}: {source}")]
    Watch {
        /// The process.
        pid: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a run is started with.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its folder, with the config in it.
    pub folder: RunFolder,
    /// Parent of all such folders.
    pub runs_dir: PathBuf,
    /// Which attempt this is; its output goes to the log there.
    pub attempt: Attempt,
    /// The GPUs it shall see; none for a run on the CPU.
    pub gpus: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// A started run.
pub trait Process {
    /// Process id.
    fn pid(&self) -> u32;
    /// How it ended, once it has.
    fn poll(&mut self) -> Result<Option<Ending>, ExecutorError>;
    /// Asks it to save itself and end.
    fn terminate(&mut self);
    /// Ends it at once.
    fn kill(&mut self);
}

/// Starts runs.
pub trait Executor {
    /// Starts one.
    fn start(&mut self, job: &Job) -> Result<Box<dyn Process>, ExecutorError>;
}

/// Starts `PROGRAM train CONFIG --runs DIR --attempt N`, output in the attempt's log. Several ranks are started by that
/// command.
///
/// The child has its own process group, so that a terminal's Ctrl-C reaches the scheduler alone; and it outlives a
/// scheduler that dies.
#[derive(Clone, Debug)]
pub struct ProcessExecutor {
    program: PathBuf,
}

impl ProcessExecutor {
    /// Runs are started with `program`.
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }
}

impl Executor for ProcessExecutor {
    fn start(&mut self, job: &Job) -> Result<Box<dyn Process>, ExecutorError> {
        let path = job.attempt.log();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log_error = |source| ExecutorError::Log { path: path.clone(), source };
        let log = log.map_err(log_error)?;
        let both = log.try_clone().map_err(log_error)?;
        let child = Command::new(&self.program)
            .arg("train")
            .arg(job.folder.config())
            .arg("--runs")
            .arg(&job.runs_dir)
            .arg("--attempt")
            .arg(job.attempt.number.to_string())
            .env("CUDA_VISIBLE_DEVICES", job.gpus.join(","))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .process_group(0)
            .spawn()
            .map_err(|source| ExecutorError::Start { program: self.program.clone(), source })?;
        Ok(Box::new(ChildProcess { child }))
    }
}

struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    fn signal(&mut self, signal: rustix::process::Signal) {
        // A child that was waited for has given its id back: whoever has it now is not meant.
        if let Ok(None) = self.child.try_wait()
            && let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32)
        {
            // It may end between the two calls; then there is nothing left to stop.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Process for ChildProcess {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn poll(&mut self) -> Result<Option<Ending>, ExecutorError> {
        let pid = self.child.id();
        let status = self.child.try_wait().map_err(|source| ExecutorError::Watch { pid, source })?;
        Ok(status.map(|status| match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        }))
    }

    fn terminate(&mut self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}
