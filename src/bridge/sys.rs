//! Declarations of `shim/shim.h`.

use std::ffi::{c_char, c_int, c_void};

pub(super) type TensorPtr = *mut c_void;
pub(super) type ListPtr = *mut c_void;
pub(super) type ErrorPtr = *mut c_void;
pub(super) type StorePtr = *mut c_void;
pub(super) type GlooPtr = *mut c_void;
pub(super) type WorkPtr = *mut c_void;

#[repr(C)]
pub(super) struct Function {
    pub forward: unsafe extern "C" fn(*mut c_void, *const TensorPtr, usize, ListPtr, ListPtr, ErrorPtr) -> i64,
    pub backward:
        unsafe extern "C" fn(*mut c_void, *const TensorPtr, usize, *const TensorPtr, usize, ListPtr, ErrorPtr) -> i64,
    pub drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    pub(super) fn lf_list_push(list: ListPtr, tensor: TensorPtr);
    pub(super) fn lf_error_set(error: ErrorPtr, text: *const c_char, length: usize);
    pub(super) fn lf_error_new() -> ErrorPtr;
    pub(super) fn lf_error_text(error: ErrorPtr) -> *const c_char;
    pub(super) fn lf_error_free(error: ErrorPtr);
    pub(super) fn lf_apply(
        function: *const Function,
        state: *mut c_void,
        inputs: *const TensorPtr,
        n_inputs: usize,
        outputs: *mut TensorPtr,
        capacity: usize,
        n_outputs: *mut usize,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_fused_adamw(
        n: usize,
        params: *const TensorPtr,
        grads: *const TensorPtr,
        first: *const TensorPtr,
        second: *const TensorPtr,
        steps: *const TensorPtr,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_set_deterministic(on: c_int);
    pub(super) fn lf_is_deterministic() -> c_int;
    pub(super) fn lf_set_grad(leaf: TensorPtr, grad: TensorPtr);
    pub(super) fn lf_addmm_fp32(sum: TensorPtr, a: TensorPtr, b: TensorPtr, error: ErrorPtr) -> c_int;
    pub(super) fn lf_flash_attention(
        q: TensorPtr,
        k: TensorPtr,
        v: TensorPtr,
        scale: f64,
        window: i64,
        out: *mut TensorPtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_cudnn_attention(
        q: TensorPtr,
        k: TensorPtr,
        v: TensorPtr,
        scale: f64,
        out: *mut TensorPtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_profile_start(mark: unsafe extern "C" fn(*const c_char), error: ErrorPtr) -> c_int;
    pub(super) fn lf_profile_stop(error: ErrorPtr) -> c_int;
    pub(super) fn lf_store_new(
        host: *const c_char,
        port: u16,
        serve: c_int,
        processes: usize,
        timeout_ms: i64,
        store: *mut StorePtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_store_set(
        store: StorePtr,
        key: *const c_char,
        value: *const u8,
        length: usize,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_store_get(
        store: StorePtr,
        key: *const c_char,
        value: *mut u8,
        capacity: usize,
        length: *mut usize,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_store_free(store: StorePtr);
    pub(super) fn lf_gloo_new(
        store: StorePtr,
        rank: c_int,
        size: c_int,
        host: *const c_char,
        timeout_ms: i64,
        group: *mut GlooPtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_gloo_all_reduce(
        group: GlooPtr,
        tensor: TensorPtr,
        reduction: c_int,
        work: *mut WorkPtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_gloo_broadcast(
        group: GlooPtr,
        tensor: TensorPtr,
        root: c_int,
        work: *mut WorkPtr,
        error: ErrorPtr,
    ) -> c_int;
    pub(super) fn lf_gloo_free(group: GlooPtr);
    pub(super) fn lf_work_wait(work: WorkPtr, error: ErrorPtr) -> c_int;
    pub(super) fn lf_work_free(work: WorkPtr);
}

/// Owns the text of an error that may come.
pub(super) struct ErrorSlot(pub ErrorPtr);

impl ErrorSlot {
    pub(super) fn new() -> Self {
        // SAFETY: allocates an empty string, freed in Drop.
        Self(unsafe { lf_error_new() })
    }

    /// `Ok` for status 0, else the text.
    pub(super) fn check(&self, status: c_int) -> Result<(), super::BridgeError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the slot holds a live NUL-terminated string.
        let text = unsafe { std::ffi::CStr::from_ptr(lf_error_text(self.0)) };
        Err(super::BridgeError(text.to_string_lossy().into_owned()))
    }
}

impl Drop for ErrorSlot {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once.
        unsafe { lf_error_free(self.0) }
    }
}

/// The pointer of a tensor, for the length of a call.
pub(super) fn pointer(tensor: &tch::Tensor) -> TensorPtr {
    tensor.as_ptr().cast_mut().cast()
}

/// The pointers of tensors, for the length of a call.
pub(super) fn pointers<'a>(tensors: impl IntoIterator<Item = &'a tch::Tensor>) -> Vec<TensorPtr> {
    tensors.into_iter().map(pointer).collect()
}
