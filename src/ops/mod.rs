//! Functions on tensors, without parameters. Each has a naive reference in plain tensor code beside it, which is the
//! oracle for outputs and gradients.
//!
//! Shape letters: b batch, t time, d channels, n state, h heads, k key-value heads, e head channels.

pub mod argmax;
pub mod attention;
pub mod boundary;
pub mod cached_attention;
pub mod causal_conv1d;
pub mod embedding;
pub mod gate;
pub mod linear;
pub mod mamba;
pub mod norm;
pub mod optimizer;
pub mod readout;
pub mod rope;
pub mod selective_scan;
pub mod swiglu;

mod cpu;
mod cuda;
mod lanes;
mod skinny;

use tch::{Device, Kind, Tensor};

/// Which implementation of an op runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Plain tensor code, one time step after the other where the paper does so.
    Reference,
    /// The kernels of this crate.
    #[default]
    Fused,
}

impl Backend {
    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Fused => "fused",
        }
    }
}

/// Whether kernels of this crate serve a tensor: asked for, in fp32 or, on a GPU, in bf16.
fn fused(backend: Backend, x: &Tensor) -> bool {
    match x.device() {
        Device::Cpu => backend == Backend::Fused && x.kind() == Kind::Float,
        _ => cuda::serves(backend, x),
    }
}
