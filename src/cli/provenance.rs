//! What a run was computed with: the program, the source, the driver, and those variables of the environment that matter.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::process::Command;

/// Beginnings of the names of variables that are noted. No others are: some hold secrets.
const NOTED: [&str; 8] = [
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "GLOO_SOCKET_IFNAME",
    "LD_LIBRARY_PATH",
    "MASTER_",
    "NCCL_",
    "OMP_",
    "SLURM_",
];
/// Longest difference from the commit that is kept.
const LONGEST_PATCH: usize = 1 << 20;

/// SHA-256 of this program's file.
pub(super) fn program() -> Option<String> {
    let bytes = std::fs::read("/proc/self/exe").ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Commit of the repository that the program was started in, if it is one.
pub(super) fn commit() -> Option<String> {
    git(&["rev-parse", "HEAD"]).map(|text| text.trim().to_owned())
}

/// What the files of that repository differ in from the commit.
pub(super) fn difference() -> Option<String> {
    let mut patch = git(&["diff", "HEAD"]).filter(|patch| !patch.is_empty())?;
    if patch.len() > LONGEST_PATCH {
        let end = (0..=LONGEST_PATCH).rev().find(|&at| patch.is_char_boundary(at)).unwrap_or(0);
        patch.truncate(end);
        patch.push_str("\n... cut\n");
    }
    Some(patch)
}

/// Version of the NVIDIA driver.
pub(super) fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let line = text.lines().next()?;
    line.split_whitespace().find(|word| word.contains('.')).map(str::to_owned)
}

/// Variables of the environment that a run depends on.
pub(super) fn environment() -> BTreeMap<String, String> {
    let noted = |name: &str| NOTED.iter().any(|start| name.starts_with(start));
    let pairs = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    pairs.filter(|(name, _)| noted(name)).map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
}
