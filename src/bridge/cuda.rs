//! LibTorch's CUDA libraries, opened when the program starts, so that one binary serves machines with and without a
//! GPU; and what `shim/cuda.cpp` does with them: streams, captured graphs, memory statistics, NCCL.

use super::BridgeError;
use super::distributed::Reduction;
use super::sys::{self, ErrorPtr, ErrorSlot, TensorPtr};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_NOW};
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Opens `libtorch_cuda` once; an error says why CUDA is not available. Call before the first device query.
pub fn load_cuda() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(open).as_ref().copied().map_err(String::as_str)
}

fn open() -> Result<(), String> {
    let path = libtorch_folder().join("libtorch_cuda.so");
    if !std::path::Path::new("/proc/driver/nvidia/version").exists() && !std::path::Path::new("/dev/nvidiactl").exists()
    {
        return Err("this machine has no NVIDIA driver".to_owned());
    }
    // SAFETY: the library's initialisers register kernels with the libtorch_cpu already loaded.
    match unsafe { Library::open(Some(&path), RTLD_LAZY | RTLD_GLOBAL) } {
        Ok(library) => {
            // It stays for the life of the process.
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("cannot open {}: {error}", path.display())),
    }
}

/// Folder of the libtorch_cpu that this process has loaded, which need not be that of the build.
pub fn libtorch_folder() -> PathBuf {
    let loaded = || {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
        let path = PathBuf::from(&line[line.find('/')?..]);
        path.parent().map(PathBuf::from)
    };
    loaded().unwrap_or_else(|| PathBuf::from(env!("LOSSFLOOR_LIBTORCH")))
}

/// Version of the LibTorch that this program was built against.
pub fn libtorch_version() -> &'static str {
    env!("LOSSFLOOR_LIBTORCH_VERSION")
}

/// Product names of the GPUs that the driver lists, such as `NVIDIA H200`.
pub fn gpu_names() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut names: Vec<(std::ffi::OsString, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let text = std::fs::read_to_string(entry.path().join("information")).ok()?;
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned();
            Some((entry.file_name(), model))
        })
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

/// `shim/cuda.cpp` as the build left it; empty where it was built without CUDA's headers.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lossfloor_cuda.so"));

type GraphPtr = *mut c_void;
type NcclPtr = *mut c_void;

/// The functions of `shim/cuda.h`.
struct Shim {
    stream: unsafe extern "C" fn(c_int, *mut *mut c_void, ErrorPtr) -> c_int,
    set_device: unsafe extern "C" fn(c_int, ErrorPtr) -> c_int,
    bus_id: unsafe extern "C" fn(c_int, *mut c_char, ErrorPtr) -> c_int,
    graph_begin: unsafe extern "C" fn(*mut GraphPtr, GraphPtr, ErrorPtr) -> c_int,
    graph_end: unsafe extern "C" fn(GraphPtr, ErrorPtr) -> c_int,
    graph_replay: unsafe extern "C" fn(GraphPtr, ErrorPtr) -> c_int,
    graph_free: unsafe extern "C" fn(GraphPtr),
    peak_memory: unsafe extern "C" fn(c_int, *mut i64, ErrorPtr) -> c_int,
    nccl_id: unsafe extern "C" fn(*mut u8, ErrorPtr) -> c_int,
    nccl_new: unsafe extern "C" fn(*const u8, c_int, c_int, c_int, *mut NcclPtr, ErrorPtr) -> c_int,
    nccl_all_reduce: unsafe extern "C" fn(NcclPtr, TensorPtr, c_int, ErrorPtr) -> c_int,
    nccl_broadcast: unsafe extern "C" fn(NcclPtr, TensorPtr, c_int, ErrorPtr) -> c_int,
    nccl_join: unsafe extern "C" fn(NcclPtr, ErrorPtr) -> c_int,
    nccl_free: unsafe extern "C" fn(NcclPtr),
}

/// The shim, opened once; an error says why there is none.
fn shim() -> Result<&'static Shim, BridgeError> {
    static OPENED: OnceLock<Result<Shim, String>> = OnceLock::new();
    OPENED.get_or_init(open_shim).as_ref().map_err(|why| BridgeError(why.clone()))
}

fn open_shim() -> Result<Shim, String> {
    use std::io::Write;
    load_cuda()?;
    if SHIM.is_empty() {
        return Err("this program was built without CUDA's headers".to_owned());
    }
    // A file in memory: nothing to install beside the program, and nothing left behind.
    let memory = rustix::fs::memfd_create("lossfloor_cuda", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| format!("cannot make a file in memory: {e}"))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(SHIM).map_err(|e| format!("cannot write a file in memory: {e}"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: our own library; its initialisers do nothing, and the CUDA libraries that it needs are loaded.
    let library =
        unsafe { Library::open(Some(&path), RTLD_NOW) }.map_err(|e| format!("cannot open its CUDA part: {e}"))?;
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: declared in shim/cuda.h with this signature; the library is never closed.
            *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|e| e.to_string())?
        };
    }
    let shim = Shim {
        stream: function!("lf_cuda_stream"),
        set_device: function!("lf_cuda_set_device"),
        bus_id: function!("lf_cuda_bus_id"),
        graph_begin: function!("lf_cuda_graph_begin"),
        graph_end: function!("lf_cuda_graph_end"),
        graph_replay: function!("lf_cuda_graph_replay"),
        graph_free: function!("lf_cuda_graph_free"),
        peak_memory: function!("lf_cuda_peak_memory"),
        nccl_id: function!("lf_nccl_id"),
        nccl_new: function!("lf_nccl_new"),
        nccl_all_reduce: function!("lf_nccl_all_reduce"),
        nccl_broadcast: function!("lf_nccl_broadcast"),
        nccl_join: function!("lf_nccl_join"),
        nccl_free: function!("lf_nccl_free"),
    };
    std::mem::forget(library);
    Ok(shim)
}

/// LibTorch's current stream of a GPU; the default one where the shim cannot tell.
pub(super) fn current_stream(device: usize) -> Result<*mut c_void, BridgeError> {
    let mut stream = std::ptr::null_mut();
    let Ok(shim) = shim() else { return Ok(stream) };
    let error = ErrorSlot::new();
    // SAFETY: writes one pointer.
    let status = unsafe { (shim.stream)(device as c_int, &mut stream, error.0) };
    error.check(status)?;
    Ok(stream)
}

/// Makes a GPU the one that this thread's work goes to where nothing else says so.
pub fn use_gpu(device: usize) -> Result<(), BridgeError> {
    let error = ErrorSlot::new();
    // SAFETY: sets a number of this thread.
    error.check(unsafe { (shim()?.set_device)(device as c_int, error.0) })
}

/// Where a GPU is on its machine's bus: tells GPUs apart whatever numbers a process sees them by.
pub fn bus_id(device: usize) -> Result<String, BridgeError> {
    let error = ErrorSlot::new();
    let mut id = [0u8; 32];
    // SAFETY: writes a text of at most 32 bytes, its end included.
    error.check(unsafe { (shim()?.bus_id)(device as c_int, id.as_mut_ptr().cast(), error.0) })?;
    let end = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());
    Ok(String::from_utf8_lossy(&id[..end]).into_owned())
}

/// Work on a GPU, recorded once and replayed at the cost of one launch. Tensors that it reads and writes must outlive it
/// and keep their memory.
#[derive(Debug)]
pub struct CudaGraph(GraphPtr);

// SAFETY: a graph may be replayed from any thread, one at a time; `&mut self` sees to that.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Records what `body` launches on the current device, without running it. Uses the memory of `beside`, which must
    /// not run at the same time.
    pub fn capture(beside: Option<&Self>, body: impl FnOnce()) -> Result<Self, BridgeError> {
        let shim = shim()?;
        let error = ErrorSlot::new();
        let mut pointer = std::ptr::null_mut();
        // SAFETY: writes one pointer, which is ours from then on.
        let beside = beside.map_or(std::ptr::null_mut(), |graph| graph.0);
        error.check(unsafe { (shim.graph_begin)(&mut pointer, beside, error.0) })?;
        let graph = Self(pointer);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: the graph is alive and recording; this ends it, after a failure too.
        let status = unsafe { (shim.graph_end)(graph.0, error.0) };
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            return Err(BridgeError(format!("a step could not be recorded: {text}")));
        }
        error.check(status)?;
        Ok(graph)
    }

    /// Runs what was recorded.
    pub fn replay(&mut self) -> Result<(), BridgeError> {
        let error = ErrorSlot::new();
        // SAFETY: the graph is alive and complete.
        error.check(unsafe { (shim()?.graph_replay)(self.0, error.0) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `graph_begin`, freed once.
            unsafe { (shim.graph_free)(self.0) }
        }
    }
}

/// The most bytes of a GPU that this process's tensors have held at once.
pub fn peak_memory(device: usize) -> Result<u64, BridgeError> {
    let error = ErrorSlot::new();
    let mut bytes = 0;
    // SAFETY: writes one number.
    error.check(unsafe { (shim()?.peak_memory)(device as c_int, &mut bytes, error.0) })?;
    Ok(bytes as u64)
}

/// Processes that add up tensors of their GPUs: NCCL. All must ask for the same things in the same order. Work goes on on
/// a stream of the group's own.
#[derive(Debug)]
pub struct NcclGroup(NcclPtr);

// SAFETY: NCCL allows any thread, one at a time; `ranks` sees to that.
unsafe impl Send for NcclGroup {}

impl NcclGroup {
    /// What one process makes for all that shall join.
    pub fn id() -> Result<[u8; 128], BridgeError> {
        let error = ErrorSlot::new();
        let mut id = [0; 128];
        // SAFETY: writes 128 bytes.
        error.check(unsafe { (shim()?.nccl_id)(id.as_mut_ptr(), error.0) })?;
        Ok(id)
    }

    /// Joins as process `rank` of `size` with a GPU; waits for the others.
    pub fn join(id: &[u8; 128], rank: usize, size: usize, device: usize) -> Result<Self, BridgeError> {
        let error = ErrorSlot::new();
        let mut group = std::ptr::null_mut();
        let [rank, size, device] = [rank, size, device].map(|n| n as c_int);
        // SAFETY: reads 128 bytes; writes one pointer, which is ours from then on.
        error.check(unsafe { (shim()?.nccl_new)(id.as_ptr(), rank, size, device, &mut group, error.0) })?;
        Ok(Self(group))
    }

    /// Combines a contiguous fp32 or fp64 tensor of the GPU with those of the other processes, in place. It is done once
    /// the current stream has passed the next [`Self::wait`]; the tensor must live until then.
    pub fn all_reduce(&self, tensor: &tch::Tensor, reduction: Reduction) -> Result<(), BridgeError> {
        let error = ErrorSlot::new();
        // SAFETY: the group is alive, the tensor a live one.
        error.check(unsafe { (shim()?.nccl_all_reduce)(self.0, sys::pointer(tensor), reduction as c_int, error.0) })
    }

    /// Copies the tensor of process `root` into those of the others, as [`Self::all_reduce`].
    pub fn broadcast(&self, tensor: &tch::Tensor, root: usize) -> Result<(), BridgeError> {
        let error = ErrorSlot::new();
        // SAFETY: as in `all_reduce`.
        error.check(unsafe { (shim()?.nccl_broadcast)(self.0, sys::pointer(tensor), root as c_int, error.0) })
    }

    /// Makes the current stream wait for everything asked for so far.
    pub fn wait(&self) -> Result<(), BridgeError> {
        let error = ErrorSlot::new();
        // SAFETY: the group is alive.
        error.check(unsafe { (shim()?.nccl_join)(self.0, error.0) })
    }
}

impl Drop for NcclGroup {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `join`, freed once.
            unsafe { (shim.nccl_free)(self.0) }
        }
    }
}
