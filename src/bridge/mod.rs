//! Everything that crosses the C boundary: custom autograd functions, ATen functions that `tch` does not bind, views of
//! tensors' memory, and LibTorch's CUDA libraries, which are opened at run time. The only unsafe code of the crate.
#![expect(unsafe_code, reason = "this module is the boundary to C")]

pub mod aten;
pub mod autograd;
pub mod distributed;
pub mod nvrtc;
pub mod profile;
pub mod tensor;

mod cuda;
mod sys;

pub use cuda::{
    CudaGraph, NcclGroup, bus_id, gpu_names, libtorch_folder, libtorch_version, load_cuda, peak_memory, use_gpu,
};

/// LibTorch refused something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BridgeError(pub String);
