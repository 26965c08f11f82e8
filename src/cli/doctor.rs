//! `lossfloor doctor`: what this machine can do, and what each missing thing would enable.

use super::{ExitStatus, output};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Show what this machine can do
#[derive(clap::Args, Debug)]
pub struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One thing that may be there.
#[derive(Serialize)]
struct Feature {
    present: bool,
    /// What was found, or what having it would enable.
    detail: String,
}

impl Feature {
    fn found(detail: impl Into<String>) -> Self {
        Self { present: true, detail: detail.into() }
    }

    fn missing(enables: &str) -> Self {
        Self { present: false, detail: format!("would enable {enables}") }
    }

    fn from(found: Option<String>, enables: &str) -> Self {
        found.map_or_else(|| Self::missing(enables), Self::found)
    }
}

#[derive(Serialize)]
struct DeviceInfo {
    name: String,
    memory_bytes: Option<u64>,
    bf16: bool,
}

pub fn run(args: DoctorArgs) -> anyhow::Result<ExitStatus> {
    let (libtorch, cuda) = libtorch();
    let devices = devices();
    let features = [
        ("libtorch", Feature::from(libtorch.clone(), "training, verify and bench (build with the feature `torch`)")),
        ("cuda", Feature::from(cuda, "training on a GPU, in bf16")),
        ("nvrtc", Feature::from(library("libnvrtc.so.13"), "kernels compiled for the GPU at run time")),
        ("nccl", Feature::from(library("libnccl.so.2"), "runs over several GPUs")),
        (
            "gloo",
            Feature::from(libtorch.as_ref().map(|_| "inside LibTorch".to_owned()), "runs over several CPU processes"),
        ),
        ("slurm", Feature::from(first_line("sinfo", "--version"), "sweeps on a cluster")),
        ("fonts", Feature::found("embedded; figures need none of the machine's")),
        ("nvidia driver", Feature::from(driver(), "any use of a GPU")),
    ];
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if args.json {
        let map: serde_json::Map<_, _> = features.iter().map(|(name, f)| ((*name).to_owned(), json!(f))).collect();
        output::json(&json!({ "libtorch": libtorch, "devices": devices, "features": map, "cpu_cores": cores }))?;
        return Ok(ExitStatus::Done);
    }
    let mut table = output::table(&["what", "here", ""]);
    for (name, feature) in &features {
        let here = if feature.present { "yes" } else { "no" };
        table.add_row([*name, here, &feature.detail]);
    }
    let mut lines = vec![table.to_string(), String::new(), format!("cpu: {cores} cores, fp32")];
    for (index, device) in devices.iter().enumerate() {
        let memory = device.memory_bytes.map_or("unknown memory".to_owned(), |b| crate::units::bytes(b as f64));
        let bf16 = if device.bf16 { "bf16" } else { "no bf16" };
        lines.push(format!("cuda:{index}: {}, {memory}, {bf16}", device.name));
    }
    output::print(&lines.join("\n"))?;
    Ok(ExitStatus::Done)
}

/// LibTorch's version, and CUDA as LibTorch sees it.
#[cfg(feature = "torch")]
fn libtorch() -> (Option<String>, Option<String>) {
    let cuda = crate::bridge::load_cuda()
        .ok()
        .filter(|()| tch::Cuda::is_available())
        .map(|()| format!("{} devices", tch::Cuda::device_count()));
    (Some(crate::bridge::libtorch_version().to_owned()), cuda)
}

#[cfg(not(feature = "torch"))]
fn libtorch() -> (Option<String>, Option<String>) {
    (None, None)
}

fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    text.lines().next().map(|line| line.trim_start_matches("NVRM version:").trim().to_owned())
}

/// GPUs as nvidia-smi lists them.
fn devices() -> Vec<DeviceInfo> {
    let query = "--query-gpu=name,memory.total,compute_cap";
    let Ok(out) = Command::new("nvidia-smi").args([query, "--format=csv,noheader,nounits"]).output() else {
        return Vec::new();
    };
    if !out.status.success() {
        return Vec::new();
    }
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [name, mebibytes, capability] = cells.as_slice() else { return None };
            Some(DeviceInfo {
                name: (*name).to_owned(),
                memory_bytes: mebibytes.parse::<u64>().ok().map(|m| m << 20),
                // Tensor cores multiply bf16 from compute capability 8.0 on.
                bf16: capability.parse::<f64>().is_ok_and(|c| c >= 8.0),
            })
        })
        .collect()
}

fn first_line(program: &str, argument: &str) -> Option<String> {
    let out = Command::new(program).arg(argument).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Where a CUDA library lies: beside LibTorch as its wheels put them, or in the system's folders.
fn library(name: &str) -> Option<String> {
    let mut folders: Vec<std::path::PathBuf> = Vec::new();
    #[cfg(feature = "torch")]
    if let Some(packages) = crate::bridge::libtorch_folder().ancestors().nth(2) {
        folders.extend(["cu13/lib", "nccl/lib", "cuda_nvrtc/lib"].map(|part| packages.join("nvidia").join(part)));
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu"].map(|f| Path::new(f).to_owned()));
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .map(|path| path.display().to_string())
}
