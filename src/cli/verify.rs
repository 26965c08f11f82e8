//! `lossfloor verify`: this build against golden files.

use super::device::{BackendArg, DeviceArg, PrecisionArg, check_kernels, pick};
use super::output;
use super::{ExitStatus, runtime, usage};
use crate::verify::{Check, VerifyOptions, verify_file};
use clap::Args;
use std::path::{Path, PathBuf};

/// Compare this build with reference tensors
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Golden files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// Which implementation of scans, convolutions and attention
    #[arg(long, value_enum, default_value = "fused")]
    backend: BackendArg,
    /// Dtype of activations
    #[arg(long, value_enum, default_value = "fp32")]
    precision: PrecisionArg,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Golden files at a path: itself, or all `model_*`, `mod_*` and `train_*` in a folder.
fn golden_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".safetensors") && ["model_", "mod_", "train_"].iter().any(|p| name.starts_with(p))
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(usage(format!("{} has no golden files (model_*, mod_*, train_*.safetensors)", path.display())));
    }
    Ok(files)
}

pub fn run(args: VerifyArgs) -> anyhow::Result<ExitStatus> {
    let options =
        VerifyOptions { device: pick(&args.device)?, backend: args.backend.into(), precision: args.precision.into() };
    check_kernels(options.device, options.backend, "--backend reference runs plain tensor code")?;
    runtime::use_threads(None)?;
    let mut checks: Vec<Check> = Vec::new();
    for path in &args.paths {
        for file in golden_files(path)? {
            checks.extend(verify_file(&file, options).map_err(usage)?);
        }
    }
    let failed = checks.iter().filter(|c| !c.pass).count();
    let passed = checks.len() - failed;
    if args.json {
        output::json(&serde_json::json!({ "checks": checks, "passed": passed, "failed": failed }))?;
    } else {
        let mut table = output::table(&["file", "quantity", "error", "tolerance", ""]);
        for check in &checks {
            let verdict = if check.pass { "ok" } else { "FAIL" };
            table.add_row([
                check.file.clone(),
                check.quantity.clone(),
                format!("{:.1e}", check.error),
                format!("{:.0e}", check.tolerance),
                verdict.to_owned(),
            ]);
        }
        output::print(&format!("{table}\n{passed} passed, {failed} failed"))?;
    }
    Ok(if failed == 0 { ExitStatus::Done } else { ExitStatus::Internal })
}
