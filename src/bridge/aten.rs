//! ATen functions that `tch` does not bind.

use super::{BridgeError, sys};
use tch::Tensor;

/// Settings of one AdamW step of one group.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    pub lr: f64,
    pub betas: (f64, f64),
    /// Decoupled: p ← p (1 − lr x decay).
    pub weight_decay: f64,
    pub eps: f64,
}

/// One AdamW step in place; all lists have the same length. `steps` are fp32 scalars: the number of this step, from 1.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    first: &[Tensor],
    second: &[Tensor],
    steps: &[Tensor],
    step: AdamW,
) -> Result<(), BridgeError> {
    let error = sys::ErrorSlot::new();
    let lists = [params, grads, first, second, steps].map(sys::pointers);
    // SAFETY: five lists of `params.len()` live tensors.
    let status = unsafe {
        sys::lf_fused_adamw(
            params.len(),
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            lists[4].as_ptr(),
            step.lr,
            step.betas.0,
            step.betas.1,
            step.weight_decay,
            step.eps,
            error.0,
        )
    };
    error.check(status)
}

/// Asks LibTorch's own operations for the same bits on every run, at a cost in speed.
pub fn set_deterministic(on: bool) {
    // SAFETY: sets a flag of LibTorch's global context.
    unsafe { sys::lf_set_deterministic(i32::from(on)) }
}

/// Whether that was asked for.
pub fn is_deterministic() -> bool {
    // SAFETY: reads a flag.
    unsafe { sys::lf_is_deterministic() != 0 }
}

/// Makes `grad` the gradient of `leaf`: backward passes add to it in place.
pub fn set_grad(leaf: &Tensor, grad: &Tensor) {
    // SAFETY: both are live tensors; the shim keeps its own reference.
    unsafe { sys::lf_set_grad(sys::pointer(leaf), sys::pointer(grad)) }
}

/// sum [m, n] += a [m, k] b [k, n]: fp32 sum of products of one dtype, accumulated in fp32 (bf16 on CUDA only).
pub fn addmm_fp32(sum: &Tensor, a: &Tensor, b: &Tensor) -> Result<(), BridgeError> {
    let error = sys::ErrorSlot::new();
    // SAFETY: live tensors for the call.
    let status = unsafe { sys::lf_addmm_fp32(sys::pointer(sum), sys::pointer(a), sys::pointer(b), error.0) };
    error.check(status)
}

/// LibTorch's attention kernels for CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaAttention {
    /// FlashAttention-2; `window` counts the keys that a query sees.
    Flash { window: Option<i64> },
    /// cuDNN's, without a window.
    Cudnn,
}

/// Causal attention of bf16 tensors [b, t, h, e] on CUDA, key-value heads shared by groups; recorded by autograd.
pub fn cuda_attention(
    kernel: CudaAttention,
    q_bthe: &Tensor,
    k_bske: &Tensor,
    v_bske: &Tensor,
    scale: f64,
) -> Result<Tensor, BridgeError> {
    let error = sys::ErrorSlot::new();
    let [q, k, v] = [q_bthe, k_bske, v_bske].map(sys::pointer);
    let mut out = std::ptr::null_mut();
    // SAFETY: live tensors for the call; `out` receives a tensor that is ours.
    let status = unsafe {
        match kernel {
            CudaAttention::Flash { window } => {
                sys::lf_flash_attention(q, k, v, scale, window.unwrap_or(0), &mut out, error.0)
            }
            CudaAttention::Cudnn => sys::lf_cudnn_attention(q, k, v, scale, &mut out, error.0),
        }
    };
    error.check(status)?;
    // SAFETY: status 0 means a tensor was written.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}
