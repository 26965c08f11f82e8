//! Differentiable functions written in Rust: [`CustomFunction`] and [`apply`].

use super::{profile, sys};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;

/// What a forward pass leaves.
pub struct Forward {
    /// In the order that [`apply`] returns them.
    pub outputs: Vec<Tensor>,
    /// Kept by the graph for the backward pass.
    pub saved: Vec<Tensor>,
    /// How many of the last outputs carry no gradient.
    pub constant_outputs: usize,
}

/// A function with its own gradient. Both directions run without gradient recording.
pub trait CustomFunction: Send + 'static {
    /// What profiles call it.
    const NAME: &'static str;
    /// Computes the outputs; an absent optional input comes as an undefined tensor.
    fn forward(&mut self, inputs: &[Tensor]) -> Forward;
    /// One gradient (or `None`) per input. `grads` has `None` where an output was not used.
    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>>;
}

/// Shares a tensor whose pointer was lent by C++.
///
/// # Safety
/// `pointer` is null or an `at::Tensor*` alive for the call.
unsafe fn lent(pointer: sys::TensorPtr) -> Option<Tensor> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the pointer is a live at::Tensor*; the clone has its own reference.
    Some(unsafe { Tensor::clone_from_ptr(pointer.cast()) })
}

/// # Safety
/// As [`lent`], for `n` pointers.
unsafe fn lent_all(pointers: *const sys::TensorPtr, n: usize) -> Vec<Option<Tensor>> {
    if n == 0 {
        return Vec::new();
    }
    // SAFETY: C++ passes `n` valid entries.
    unsafe { std::slice::from_raw_parts(pointers, n).iter().map(|&p| lent(p)).collect() }
}

/// # Safety
/// `list` is a live list of the shim.
unsafe fn push(list: sys::ListPtr, tensor: Option<&Tensor>) {
    let pointer = tensor.map_or(std::ptr::null_mut(), |t| t.as_ptr().cast_mut().cast());
    // SAFETY: the shim copies the tensor.
    unsafe { sys::lf_list_push(list, pointer) }
}

/// Runs `body`; a panic becomes an error on the C++ side.
fn guarded(error: sys::ErrorPtr, body: impl FnOnce() -> i64) -> i64 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a custom function panicked");
            // SAFETY: `error` is a live string of the shim for the call.
            unsafe { sys::lf_error_set(error, text.as_ptr().cast(), text.len()) }
            -1
        }
    }
}

unsafe extern "C" fn forward<F: CustomFunction>(
    state: *mut c_void,
    inputs: *const sys::TensorPtr,
    n_inputs: usize,
    outputs: sys::ListPtr,
    saved: sys::ListPtr,
    error: sys::ErrorPtr,
) -> i64 {
    guarded(error, || {
        // SAFETY: `state` is the box made in `apply`; autograd calls one direction at a time.
        let function = unsafe { &mut *state.cast::<F>() };
        // SAFETY: C++ lends its inputs for the call.
        let inputs = unsafe { lent_all(inputs, n_inputs) };
        let inputs: Vec<Tensor> = inputs.into_iter().map(|t| t.unwrap_or_else(Tensor::new)).collect();
        let result = {
            let _scope = profile::operation(F::NAME);
            tch::no_grad(|| function.forward(&inputs))
        };
        for tensor in &result.outputs {
            // SAFETY: `outputs` is alive for the call.
            unsafe { push(outputs, Some(tensor)) };
        }
        for tensor in &result.saved {
            // SAFETY: `saved` is alive for the call.
            unsafe { push(saved, tensor.defined().then_some(tensor)) };
        }
        result.constant_outputs as i64
    })
}

unsafe extern "C" fn backward<F: CustomFunction>(
    state: *mut c_void,
    saved: *const sys::TensorPtr,
    n_saved: usize,
    grads: *const sys::TensorPtr,
    n_grads: usize,
    grad_inputs: sys::ListPtr,
    error: sys::ErrorPtr,
) -> i64 {
    guarded(error, || {
        // SAFETY: as in `forward`.
        let function = unsafe { &mut *state.cast::<F>() };
        // SAFETY: C++ lends these for the call.
        let (saved, grads) = unsafe { (lent_all(saved, n_saved), lent_all(grads, n_grads)) };
        let saved: Vec<Tensor> = saved.into_iter().map(|t| t.unwrap_or_else(Tensor::new)).collect();
        let gradients = {
            let _scope = profile::operation(F::NAME);
            tch::no_grad(|| function.backward(&saved, &grads))
        };
        for gradient in &gradients {
            // SAFETY: `grad_inputs` is alive for the call.
            unsafe { push(grad_inputs, gradient.as_ref()) };
        }
        0
    })
}

unsafe extern "C" fn drop_state<F: CustomFunction>(state: *mut c_void) {
    // SAFETY: `state` is the box made in `apply`, dropped once by its owner.
    drop(unsafe { Box::from_raw(state.cast::<F>()) });
}

/// Applies `function` to `inputs` (`None` for an absent optional one), recording it for the backward pass.
///
/// # Panics
/// When the function panics or LibTorch refuses its result, as tensor operations of `tch` do.
pub fn apply<F: CustomFunction>(function: F, inputs: &[Option<&Tensor>]) -> Vec<Tensor> {
    const CAPACITY: usize = 8;
    let table = sys::Function { forward: forward::<F>, backward: backward::<F>, drop: drop_state::<F> };
    let state = Box::into_raw(Box::new(function));
    let pointers: Vec<sys::TensorPtr> =
        inputs.iter().map(|t| t.map_or(std::ptr::null_mut(), |t| t.as_ptr().cast_mut().cast())).collect();
    let mut outputs = [std::ptr::null_mut(); CAPACITY];
    let mut n_outputs = 0;
    let error = sys::ErrorSlot::new();
    // SAFETY: all pointers live for the call; the shim takes ownership of `state`.
    let status = unsafe {
        sys::lf_apply(
            &table,
            state.cast(),
            pointers.as_ptr(),
            pointers.len(),
            outputs.as_mut_ptr(),
            CAPACITY,
            &mut n_outputs,
            error.0,
        )
    };
    if let Err(error) = error.check(status) {
        panic!("{error}");
    }
    // SAFETY: the shim wrote `n_outputs` tensors that are ours now.
    outputs[..n_outputs].iter().map(|&p| unsafe { Tensor::from_ptr(p.cast()) }).collect()
}
