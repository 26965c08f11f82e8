//! What a command computes on and how, as a user names it: device, backend, precision.

use super::{ExitStatus, exit};
use crate::bridge::load_cuda;
use crate::bridge::nvrtc::kernels_run_on;
use crate::nn::Precision;
use crate::ops::Backend;
use clap::ValueEnum;
use tch::Device;

/// `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Debug)]
pub enum DeviceArg {
    Auto,
    Cpu,
    Cuda(usize),
}

impl std::str::FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("'{other}' is no device; use auto, cpu, cuda or cuda:N")),
        }
    }
}

/// `--backend`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BackendArg {
    Reference,
    Fused,
}

impl From<BackendArg> for Backend {
    fn from(backend: BackendArg) -> Self {
        match backend {
            BackendArg::Reference => Self::Reference,
            BackendArg::Fused => Self::Fused,
        }
    }
}

/// `--precision`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionArg {
    Fp32,
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Fp32 => Self::Fp32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}

/// The device, or an error (exit status 6) that says what is missing.
pub fn pick(wanted: &DeviceArg) -> anyhow::Result<Device> {
    let available = || match load_cuda() {
        Err(why) => Err(why.to_owned()),
        Ok(()) if tch::Cuda::device_count() == 0 => Err("LibTorch sees no GPU".to_owned()),
        Ok(()) => Ok(tch::Cuda::device_count() as usize),
    };
    match *wanted {
        DeviceArg::Cpu => Ok(Device::Cpu),
        DeviceArg::Auto => Ok(if available().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
        DeviceArg::Cuda(index) => match available() {
            Err(why) => Err(exit(
                ExitStatus::Unavailable,
                format!("cuda was asked for, but {why}; hint: use cpu, or see `lossfloor doctor`"),
            )),
            Ok(count) if index >= count => Err(exit(
                ExitStatus::Unavailable,
                format!("cuda:{index} was asked for, but there are {count} GPUs, counted from 0"),
            )),
            Ok(_) => Ok(Device::Cuda(index)),
        },
    }
}

/// An error (exit status 6) when the fused kernels cannot run on a device: what is missing, and what else can be done.
pub fn check_kernels(device: Device, backend: Backend, instead: &str) -> anyhow::Result<()> {
    match (device, backend) {
        (Device::Cuda(index), Backend::Fused) => kernels_run_on(index).map_err(|why| {
            exit(
                ExitStatus::Unavailable,
                format!("the kernels of this program cannot run here: {why}; hint: {instead}"),
            )
        }),
        _ => Ok(()),
    }
}
