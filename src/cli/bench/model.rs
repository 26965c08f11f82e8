//! What models are timed on, and their shapes.

use super::super::device::{BackendArg, DeviceArg, PrecisionArg, check_kernels, pick};
use crate::arch::{Architecture, ModelShape};
use crate::nn::Precision;
use crate::ops::Backend;
use tch::Device;

/// Device, implementation and dtype.
#[derive(clap::Args, Debug)]
pub(super) struct ComputeArgs {
    /// Where to compute
    #[arg(long, default_value = "cuda")]
    device: DeviceArg,
    /// Implementation
    #[arg(long, value_enum, default_value = "fused")]
    backend: BackendArg,
    /// Dtype of activations
    #[arg(long, value_enum, default_value = "bf16")]
    precision: PrecisionArg,
}

impl ComputeArgs {
    /// The device, where the kernels that are asked for run.
    pub(super) fn device(&self) -> anyhow::Result<Device> {
        let device = pick(&self.device)?;
        check_kernels(device, self.backend(), "--backend reference times plain tensor code")?;
        Ok(device)
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend.into()
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision.into()
    }
}

/// The published shape, or of another width: heads of 64 channels, four queries to a key.
pub(super) fn shape_of(architecture: &dyn Architecture, depth: usize, width: Option<usize>) -> ModelShape {
    let published = ModelShape::published(architecture, depth);
    let Some(d_model) = width else { return published };
    let n_heads = (d_model / 64).max(1);
    let n_kv_heads = (n_heads / 4).max(1);
    ModelShape { d_model, d_mlp: 4 * d_model, n_heads, n_kv_heads, head_dim: 64, ..published }
}

/// A number of things of which there is at least one.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "expected a whole number from 1, such as 8".to_owned())
}
