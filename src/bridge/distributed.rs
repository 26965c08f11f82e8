//! Several processes as one: where they meet ([`Store`]), and adding up their tensors, on a CPU by [`Gloo`], on GPUs by
//! `Nccl` (`bridge/cuda.rs`).

use super::BridgeError;
use super::sys::{self, ErrorSlot};
use std::ffi::{CString, c_int};
use std::time::Duration;
use tch::Tensor;

/// How values of several processes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Reduction {
    /// Their sum.
    Sum = 0,
    /// The largest.
    Max = 1,
}

fn text(value: &str) -> Result<CString, BridgeError> {
    CString::new(value).map_err(|_| BridgeError(format!("{value:?} has a zero byte")))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Keys and values that all processes of a group see: c10d's TCP store.
#[derive(Debug)]
pub struct Store(sys::StorePtr);

// SAFETY: the store serialises its calls with a mutex of its own.
unsafe impl Send for Store {}

impl Store {
    /// Meets the other processes at `host`:`port`; the one that serves keeps the values. Waits for all of them.
    pub fn meet(host: &str, port: u16, serve: bool, processes: usize, patience: Duration) -> Result<Self, BridgeError> {
        let (error, host) = (ErrorSlot::new(), text(host)?);
        let mut store = std::ptr::null_mut();
        let (serve, patience) = (c_int::from(serve), milliseconds(patience));
        // SAFETY: writes one pointer, which is ours from then on.
        let status = unsafe { sys::lf_store_new(host.as_ptr(), port, serve, processes, patience, &mut store, error.0) };
        error.check(status)?;
        Ok(Self(store))
    }

    /// Gives `key` a value for all to see.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), BridgeError> {
        let (error, key) = (ErrorSlot::new(), text(key)?);
        // SAFETY: the store is alive; `value` is read during the call.
        error.check(unsafe { sys::lf_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len(), error.0) })
    }

    /// The value of `key`, at most 1 KiB; waits until somebody has set it.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, BridgeError> {
        let (error, key) = (ErrorSlot::new(), text(key)?);
        let (mut value, mut length) = (vec![0; 1024], 0);
        // SAFETY: writes at most `value.len()` bytes and their number.
        let status =
            unsafe { sys::lf_store_get(self.0, key.as_ptr(), value.as_mut_ptr(), value.len(), &mut length, error.0) };
        error.check(status)?;
        value.truncate(length);
        Ok(value)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `meet`, freed once.
        unsafe { sys::lf_store_free(self.0) }
    }
}

/// Something that goes on in the background.
#[derive(Debug)]
pub struct Work(sys::WorkPtr);

// SAFETY: waited for by one thread at a time.
unsafe impl Send for Work {}

impl Work {
    /// Waits for its end.
    pub fn wait(self) -> Result<(), BridgeError> {
        let error = ErrorSlot::new();
        // SAFETY: the work is alive.
        error.check(unsafe { sys::lf_work_wait(self.0, error.0) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by a group, freed once.
        unsafe { sys::lf_work_free(self.0) }
    }
}

/// A group of processes that add up tensors on the CPU. All must ask for the same things in the same order.
#[derive(Debug)]
pub struct Gloo(sys::GlooPtr);

// SAFETY: used by one thread at a time; the group's own threads do the work.
unsafe impl Send for Gloo {}

impl Gloo {
    /// Joins as process `rank` of `size`. `host` is the address to be reached at; without one that of this machine's
    /// name, or of the interface that `GLOO_SOCKET_IFNAME` names.
    pub fn join(
        store: &Store,
        rank: usize,
        size: usize,
        host: Option<&str>,
        patience: Duration,
    ) -> Result<Self, BridgeError> {
        let error = ErrorSlot::new();
        let host = host.map(text).transpose()?;
        let host = host.as_ref().map_or(std::ptr::null(), |host| host.as_ptr());
        let mut group = std::ptr::null_mut();
        let (rank, size, patience) = (rank as c_int, size as c_int, milliseconds(patience));
        // SAFETY: the store is alive; writes one pointer, which is ours from then on.
        error.check(unsafe { sys::lf_gloo_new(store.0, rank, size, host, patience, &mut group, error.0) })?;
        Ok(Self(group))
    }

    /// Begins to combine a contiguous CPU tensor with those of the other processes, in place.
    pub fn all_reduce(&self, tensor: &Tensor, reduction: Reduction) -> Result<Work, BridgeError> {
        self.begin(|work, error| {
            // SAFETY: the group is alive; the shim keeps a reference to the tensor.
            unsafe { sys::lf_gloo_all_reduce(self.0, sys::pointer(tensor), reduction as c_int, work, error) }
        })
    }

    /// Begins to copy a contiguous CPU tensor of process `root` into those of the others.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work, BridgeError> {
        self.begin(|work, error| {
            // SAFETY: as in `all_reduce`.
            unsafe { sys::lf_gloo_broadcast(self.0, sys::pointer(tensor), root as c_int, work, error) }
        })
    }

    fn begin(&self, start: impl FnOnce(*mut sys::WorkPtr, sys::ErrorPtr) -> c_int) -> Result<Work, BridgeError> {
        let error = ErrorSlot::new();
        let mut work = std::ptr::null_mut();
        error.check(start(&mut work, error.0))?;
        Ok(Work(work))
    }
}

impl Drop for Gloo {
    fn drop(&mut self) {
        // SAFETY: made by `join`, freed once.
        unsafe { sys::lf_gloo_free(self.0) }
    }
}
