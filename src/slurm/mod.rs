//! Slurm as its commands show it: one `squeue` for everything, `sbatch`, `scancel`, and the times it writes.
//!
//! Only output formats that have been the same for many releases are read (`-o` with a separator, `--parsable`): the JSON
//! of `squeue` changes from release to release.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// A command of Slurm that could not be asked, or that said no.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// It is not installed, or not in the path.
    #[error("cannot start {command}: {source}; hint: run this where Slurm's commands are, on a login node")]
    Missing {
        /// `squeue`, `sbatch` or another.
        command: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{command} failed: {said}")]
    Refused {
        /// `squeue`, `sbatch` or another.
        command: &'static str,
        /// Its stderr on one line.
        said: String,
    },
}

/// What Slurm says of one job, or one task of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// `1234`, or `1234_7` for a task of an array.
    pub id: String,
    /// Id of the array, or of the job itself.
    pub array: String,
    /// Index in its array.
    pub task: Option<u32>,
    /// Its name.
    pub name: String,
    /// `RUNNING`, `PENDING` and so on.
    pub state: String,
    /// Why it waits.
    pub reason: String,
}

impl Job {
    /// Whether it has processes.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT")
    }

    /// Whether it will run, or run again, by itself.
    pub fn is_waiting(&self) -> bool {
        matches!(
            self.state.as_str(),
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD" | "SPECIAL_EXIT"
        )
    }
}

/// Jobs of this user that wait or run, by id. A job that is not in it has ended, or was never there.
#[derive(Clone, Debug, Default)]
pub struct Queue(HashMap<String, Job>);

const FIELDS: &str = "%i|%F|%K|%T|%r|%j";

impl Queue {
    /// Asks `squeue` once.
    pub fn read() -> Result<Self, SlurmError> {
        let mut command = Command::new("squeue");
        command.args(["--noheader", "--array", "--me", "--format", FIELDS]);
        Ok(Self::parse(&output("squeue", &mut command)?))
    }

    fn parse(listing: &str) -> Self {
        let job = |line: &str| {
            let fields: Vec<&str> = line.splitn(6, '|').map(str::trim).collect();
            let [id, array, task, state, reason, name] = <[&str; 6]>::try_from(fields).ok()?;
            let own = |text: &str| text.to_owned();
            let job = Job {
                id: own(id),
                array: own(array),
                task: task.parse().ok(),
                name: own(name),
                state: own(state),
                reason: own(reason),
            };
            Some((job.id.clone(), job))
        };
        Self(listing.lines().filter_map(job).collect())
    }

    /// The job `id`, `1234` or `1234_7`.
    pub fn get(&self, id: &str) -> Option<&Job> {
        self.0.get(id)
    }

    /// All of them, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.values()
    }
}

/// Submits a script, given on standard input; the id of the job. Warnings on stderr are no failure.
pub fn submit(script: &str, arguments: &[String]) -> Result<String, SlurmError> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let missing = |source| SlurmError::Missing { command: "sbatch", source };
    let mut child = command.spawn().map_err(missing)?;
    let mut input = child.stdin.take().expect("its input is a pipe");
    // Where sbatch has ended before it read everything, its message says why.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    let done = child.wait_with_output().map_err(missing)?;
    if !done.status.success() {
        return Err(SlurmError::Refused { command: "sbatch", said: one_line(&done.stderr) });
    }
    // `id` or `id;cluster`.
    let said = String::from_utf8_lossy(&done.stdout);
    Ok(said.trim().split(';').next().unwrap_or_default().to_owned())
}

/// Cancels jobs: TERM to their processes, and KILL after the cluster's grace period.
pub fn cancel(ids: &[String]) -> Result<(), SlurmError> {
    if ids.is_empty() {
        return Ok(());
    }
    output("scancel", Command::new("scancel").args(ids)).map(drop)
}

/// The largest array that this cluster takes.
pub fn largest_array() -> Result<usize, SlurmError> {
    const DEFAULT: usize = 1001;
    let settings = output("scontrol", Command::new("scontrol").args(["show", "config"]))?;
    let value = settings.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize")?.split('=').nth(1));
    // The highest index is one below it.
    Ok(value.and_then(|n| n.trim().parse::<usize>().ok()).unwrap_or(DEFAULT).saturating_sub(1))
}

/// Seconds of a time as Slurm writes it: `5:00`, `1:00:00`, `2-03:00:00`, `45` (minutes).
pub fn seconds(text: &str) -> Option<f64> {
    let (days, rest) = match text.trim().split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text.trim()),
    };
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let clock = match (days, parts.as_slice()) {
        (Some(_), [hours]) => hours * 3600,
        (Some(_), [hours, minutes]) => hours * 3600 + minutes * 60,
        (None, [minutes]) => minutes * 60,
        (None, [minutes, seconds]) => minutes * 60 + seconds,
        (_, [hours, minutes, seconds]) => hours * 3600 + minutes * 60 + seconds,
        _ => return None,
    };
    Some((days.unwrap_or(0) * 86_400 + clock) as f64)
}

fn output(name: &'static str, command: &mut Command) -> Result<String, SlurmError> {
    let done = command.stdin(Stdio::null()).output().map_err(|source| SlurmError::Missing { command: name, source })?;
    if !done.status.success() {
        return Err(SlurmError::Refused { command: name, said: one_line(&done.stderr) });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_writes_them() {
        for (text, expected) in [
            ("45", Some(2700.0)),
            ("5:30", Some(330.0)),
            ("1:00:00", Some(3600.0)),
            ("2-03", Some(183_600.0)),
            ("1-00:00:10", Some(86_410.0)),
            ("UNLIMITED", None),
            ("INVALID", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_queue_tells_tasks_of_arrays_apart() {
        let queue = Queue::parse("17_3|17|3|RUNNING|None|quick-ab|x\n18|18|N/A|PENDING|Resources|quick-cd\nnonsense\n");
        let task = queue.get("17_3").expect("there");
        assert_eq!((task.task, task.name.as_str(), task.is_running()), (Some(3), "quick-ab|x", true));
        let job = queue.get("18").expect("there");
        assert_eq!((job.task, job.is_waiting(), job.reason.as_str()), (None, true, "Resources"));
        assert_eq!(queue.jobs().count(), 2);
    }
}
