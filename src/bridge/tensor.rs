//! Tensors' memory as slices, for kernels that run on the CPU.

use tch::{Device, Kind, Tensor};

/// The values of a contiguous fp32 CPU tensor.
///
/// # Panics
/// When the tensor is anything else.
pub fn values(tensor: &Tensor) -> &[f32] {
    check(tensor);
    // SAFETY: checked: contiguous, fp32, on the CPU; the borrow keeps the storage alive. Nothing writes to it while
    // the slice lives, as kernels write to tensors they have just made.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The values of a contiguous fp32 CPU tensor that was just made and is not shared.
///
/// # Panics
/// When the tensor is anything else.
pub fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor);
    // SAFETY: as in `values`; `&mut` and the caller's promise that the storage is new make it unique.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check(tensor: &Tensor) {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous(),
        "a CPU kernel takes contiguous fp32 tensors of the CPU"
    );
}
