//! One process for each job, so that neither its memory nor its start-up depends on the one before.

use crate::cli::{ExitStatus, output};
use serde::de::DeserializeOwned;

/// Set for the processes that run one job.
const CHILD: &str = "LOSSFLOOR_BENCH_CHILD";

/// Whether this process is one of them.
pub(super) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// What this program prints as JSON for each job alone, with the same options; `named` are the jobs as the command line
/// has them. A job that fails is noted and left out, and the status says so.
pub(super) fn in_children<T: DeserializeOwned>(jobs: &[String], named: &[String]) -> (Vec<T>, ExitStatus) {
    let mut results = Vec::new();
    for job in jobs {
        match in_child(job, named) {
            Ok(result) => results.push(result),
            Err(why) => output::note(&format!("{job}: {why}")),
        }
    }
    let status = if results.len() == jobs.len() { ExitStatus::Done } else { ExitStatus::Internal };
    (results, status)
}

fn in_child<T: DeserializeOwned>(job: &str, named: &[String]) -> anyhow::Result<T> {
    let options = std::env::args().skip(1).filter(|argument| !named.contains(argument));
    let child = std::process::Command::new(std::env::current_exe()?)
        .args(options)
        .arg(job)
        .env(CHILD, "1")
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !child.status.success() {
        anyhow::bail!("its process ended with {}", child.status);
    }
    Ok(serde_json::from_slice(&child.stdout)?)
}
