//! What is set once for a process: threads, and what LibTorch's libraries read from the environment before `main` begins.

use super::{ExitStatus, usage};
use crate::bridge::nvrtc::keep_kernels_in;
use crate::runs::tells_of_memory;
use std::any::Any;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// OpenMP's threads sleep between parallel regions instead of spinning, which would starve this crate's own kernels;
/// the allocator keeps large blocks instead of returning them to the system after every step.
/// cuBLAS keeps one workspace of its usual size for each stream, which deterministic runs need.
const SETTINGS: [(&str, &str); 4] = [
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
];

/// Starts this program again with the settings that the user has not made; returns when there are none, or when the
/// system refuses: they make it faster, no more.
pub fn settle() {
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only on failure.
        let _ = std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
}

/// Sets how many threads LibTorch and this crate's kernels use, all of the machine's where nothing is said. The calling
/// thread is one of them: it works instead of waking another and waiting for it, which takes longer than a small kernel.
pub fn use_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        let count = i32::try_from(threads).ok().filter(|n| *n > 0);
        tch::set_num_threads(count.ok_or_else(|| usage("exec.threads: at least one thread is needed"))?);
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).use_current_thread().build_global()?;
    Ok(())
}

/// Names the folder where compiled CUDA kernels are kept between processes: in the user's cache, as LibTorch is.
pub fn keep_kernels() {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    if let Some(cache) = cache {
        keep_kernels_in(cache.join("lossfloor/kernels"));
    }
}

/// What a panic of LibTorch's operations says in its first line, and the status of a process that ends with it.
pub fn told_by(panic: &(dyn Any + Send)) -> (ExitStatus, String) {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = first_line(said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
    let status = if tells_of_memory(said) { ExitStatus::OutOfMemory } else { ExitStatus::Internal };
    // Which processes have how much of the rest, and how to set the allocator, is not what helps.
    let end = said.find(" is free.").map_or(said.len(), |at| at + " is free".len());
    (status, said[..end].to_owned())
}

/// The first line of a text, or of the error that a panicking `unwrap` quotes with its line breaks written out.
fn first_line(said: &str) -> &str {
    match said.split_once("Torch(\"") {
        Some((_, quoted)) => quoted.split("\\n").next().unwrap_or(quoted).trim_end_matches("\")"),
        None => said.lines().next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(said: &str) -> Result<(), tch::TchError> {
        Err(tch::TchError::Torch(said.to_owned()))
    }

    fn told(outcome: Result<(), tch::TchError>) -> (ExitStatus, String) {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outcome.unwrap()));
        told_by(panic.unwrap_err().as_ref())
    }

    #[test]
    fn a_panic_is_told_in_one_line() {
        let of_memory = "CUDA out of memory. Tried to allocate 62.50 GiB. GPU 0 has a total capacity of 139.80 GiB of \
                         which 11.44 GiB is free. Process 802 has 518.00 MiB memory in use. See documentation\n\
                         Exception raised from malloc\n";
        let line = "CUDA out of memory. Tried to allocate 62.50 GiB. GPU 0 has a total capacity of 139.80 GiB of \
                    which 11.44 GiB is free";
        assert_eq!(told(failed(of_memory)), (ExitStatus::OutOfMemory, line.to_owned()));
        assert_eq!(told(failed("size mismatch")), (ExitStatus::Internal, "size mismatch".to_owned()));
        assert_eq!(told_by(&"one\ntwo"), (ExitStatus::Internal, "one".to_owned()));
    }
}
