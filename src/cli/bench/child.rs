//! One process for each job, so that neither its memory nor its start-up depends on the one before.

use serde::de::DeserializeOwned;

/// Set for the processes that run one job.
const CHILD: &str = "LOSSFLOOR_BENCH_CHILD";

/// Whether this process is one of them.
pub(super) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This program again with the same options, for one job of those that the command line may name.
pub(super) fn in_child<T: DeserializeOwned>(job: &str, named: &[String]) -> anyhow::Result<T> {
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
