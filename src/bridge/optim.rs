//! Multi-tensor operations of an optimiser step.

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

/// One AdamW step in place; all lists have the same length. `steps` are fp32 scalars that count up.
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

/// 2-norm over all tensors, 0-dimensional, on their device.
pub fn global_norm(tensors: &[Tensor]) -> Result<Tensor, BridgeError> {
    let error = sys::ErrorSlot::new();
    let list = sys::pointers(tensors);
    let mut norm = std::ptr::null_mut();
    // SAFETY: a list of live tensors; `norm` receives a tensor that is ours.
    let status = unsafe { sys::lf_global_norm(list.len(), list.as_ptr(), &mut norm, error.0) };
    error.check(status)?;
    // SAFETY: status 0 means a tensor was written.
    Ok(unsafe { Tensor::from_ptr(norm.cast()) })
}

/// Multiplies all tensors in place by a 0-dimensional one.
pub fn scale(tensors: &[Tensor], factor: &Tensor) -> Result<(), BridgeError> {
    let error = sys::ErrorSlot::new();
    let list = sys::pointers(tensors);
    // SAFETY: live tensors for the call.
    let status = unsafe { sys::lf_scale(list.len(), list.as_ptr(), factor.as_ptr().cast_mut().cast(), error.0) };
    error.check(status)
}
