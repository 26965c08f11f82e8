//! CUDA kernels from source text: compiled for the chip at first use, kept on disk, launched on LibTorch's current stream.

use super::{BridgeError, cuda, libtorch_folder};
use cudarc::driver::{CudaContext, result as driver, sys};
use cudarc::nvrtc::{result as compiler, sys as nvrtc};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use tch::{Device, Tensor};

/// A source text and the name that errors show.
#[derive(Debug)]
pub struct KernelSource {
    pub name: &'static str,
    pub text: &'static str,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// An address on the launch's device, or null.
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
}

impl From<&Tensor> for Argument {
    /// The address of its first element; null for an undefined tensor.
    fn from(tensor: &Tensor) -> Self {
        Self::Address(if tensor.defined() { tensor.data_ptr() as u64 } else { 0 })
    }
}

impl From<Option<&Tensor>> for Argument {
    fn from(tensor: Option<&Tensor>) -> Self {
        tensor.map_or(Self::Address(0), Self::from)
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

/// Blocks, threads of a block, and bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: (i64, i64, i64),
    pub block: (i64, i64),
    pub shared: i64,
}

impl Shape {
    /// Two axes of blocks and of threads, no dynamic shared memory.
    pub fn plane(grid: (i64, i64), block: (i64, i64)) -> Self {
        Self { grid: (grid.0, grid.1, 1), block, shared: 0 }
    }

    /// `blocks` of `threads`, no dynamic shared memory.
    pub fn line(blocks: i64, threads: i64) -> Self {
        Self::plane((blocks, 1), (threads, 1))
    }
}

/// When a kernel may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When the one in front of it has ended.
    InTurn,
    /// Before that, on chips that can: it waits by itself where it must.
    Early,
}

fn refused(what: &str, error: impl std::fmt::Display) -> BridgeError {
    BridgeError(format!("kernel {what}: {error}"))
}

/// Where compiled kernels are kept; without it they are compiled again in every process.
static CACHE_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Names the folder of compiled kernels, once, before the first launch.
pub fn keep_kernels_in(folder: PathBuf) {
    // A second call has nothing to add.
    let _ = CACHE_FOLDER.set(folder);
}

/// A function on a device; its module is never unloaded.
#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: a handle that any thread may launch.
unsafe impl Send for Function {}

/// The context that LibTorch uses too, current in this thread.
fn context(ordinal: usize) -> Result<Arc<CudaContext>, BridgeError> {
    static CONTEXTS: Mutex<Vec<Arc<CudaContext>>> = Mutex::new(Vec::new());
    let mut known = CONTEXTS.lock().expect("nothing panics while it holds the contexts");
    let context = match known.iter().find(|c| c.ordinal() == ordinal) {
        Some(context) => Arc::clone(context),
        None => {
            let context = CudaContext::new(ordinal).map_err(|e| refused("context", e))?;
            known.push(Arc::clone(&context));
            context
        }
    };
    context.bind_to_thread().map_err(|e| refused("context", e))?;
    Ok(context)
}

/// Whether kernels of a device can start before the one in front of them has ended.
fn starts_early(ordinal: usize) -> Result<bool, BridgeError> {
    static KNOWN: Mutex<Vec<(usize, bool)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().expect("nothing panics while it holds what is known");
    if let Some((_, early)) = known.iter().find(|(device, _)| *device == ordinal) {
        return Ok(*early);
    }
    let (major, _) = context(ordinal)?.compute_capability().map_err(|e| refused("launch", e))?;
    known.push((ordinal, major >= 9));
    Ok(major >= 9)
}

/// Opens NVRTC where LibTorch's wheels put it, so that it is found by its name afterwards.
fn load_nvrtc() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
        let packages = libtorch_folder();
        let Some(packages) = packages.ancestors().nth(2) else { return };
        let path = packages.join("nvidia/cu13/lib/libnvrtc.so.13");
        // SAFETY: the library's initialisers have no preconditions. Where it is absent the system's may do.
        if let Ok(library) = unsafe { Library::open(Some(&path), RTLD_LAZY | RTLD_GLOBAL) } {
            std::mem::forget(library);
        }
    });
}

/// Machine code of a source for a chip such as `sm_90`.
fn compile(source: &KernelSource, chip: &str) -> Result<Vec<u8>, BridgeError> {
    load_nvrtc();
    let refuse = |e: compiler::NvrtcError| refused(source.name, format!("NVRTC: {e:?}"));
    let text = CString::new(source.text).map_err(|e| refused(source.name, e))?;
    let name = CString::new(source.name).map_err(|e| refused(source.name, e))?;
    let program = compiler::create_program(&text, Some(&name)).map_err(refuse)?;
    let options = [format!("--gpu-architecture={chip}"), "--std=c++17".to_owned()];
    // SAFETY: the program is alive until it is destroyed below, and buffers have the sizes that NVRTC states.
    unsafe {
        if let Err(error) = compiler::compile_program(program, &options) {
            let log = compiler::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|&c| c != 0).collect();
            return Err(refused(source.name, format!("{error:?}: {}", String::from_utf8_lossy(&log))));
        }
        let mut size = 0;
        nvrtc::nvrtcGetCUBINSize(program, &mut size).result().map_err(refuse)?;
        let mut code = vec![0u8; size];
        nvrtc::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result().map_err(refuse)?;
        compiler::destroy_program(program).map_err(refuse)?;
        Ok(code)
    }
}

/// The file of a compiled source: named by all that its content depends on. The LibTorch release stands for the
/// version of NVRTC that comes with it.
fn cached(folder: &Path, source: &KernelSource, chip: &str) -> PathBuf {
    let digest = Sha256::new()
        .chain_update(cuda::libtorch_version())
        .chain_update([0])
        .chain_update(chip)
        .chain_update([0])
        .chain_update(source.text)
        .finalize();
    let hash: String = digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{}-{chip}-{hash}.cubin", source.name))
}

/// Machine code from the folder, or compiled and put there. A folder that cannot be written costs time, no more.
fn machine_code(source: &KernelSource, chip: &str) -> Result<Vec<u8>, BridgeError> {
    let Some(folder) = CACHE_FOLDER.get() else { return compile(source, chip) };
    let path = cached(folder, source, chip);
    if let Ok(code) = std::fs::read(&path)
        && !code.is_empty()
    {
        return Ok(code);
    }
    let code = compile(source, chip)?;
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&code)?;
        file.persist(&path)?;
        Ok(())
    };
    let _ = write();
    Ok(code)
}

/// A function of a source on a device, compiled and loaded at most once.
fn function(source: &KernelSource, name: &'static str, ordinal: usize) -> Result<Function, BridgeError> {
    type Functions = HashMap<(usize, &'static str, &'static str), Function>;
    static FUNCTIONS: OnceLock<Mutex<Functions>> = OnceLock::new();
    static MODULES: OnceLock<Mutex<HashMap<(usize, &'static str), usize>>> = OnceLock::new();
    let mut functions = FUNCTIONS.get_or_init(Mutex::default).lock().expect("no kernel panics while compiling");
    if let Some(&function) = functions.get(&(ordinal, source.name, name)) {
        return Ok(function);
    }
    let context = context(ordinal)?;
    let mut modules = MODULES.get_or_init(Mutex::default).lock().expect("no kernel panics while compiling");
    let module = match modules.get(&(ordinal, source.name)) {
        Some(&module) => module as sys::CUmodule,
        None => {
            let (major, minor) = context.compute_capability().map_err(|e| refused(source.name, e))?;
            let code = machine_code(source, &format!("sm_{major}{minor}"))?;
            // SAFETY: a complete image for this chip.
            let module =
                unsafe { driver::module::load_data(code.as_ptr().cast()) }.map_err(|e| refused(source.name, e))?;
            modules.insert((ordinal, source.name), module as usize);
            module
        }
    };
    let symbol = CString::new(name).map_err(|e| refused(name, e))?;
    // SAFETY: the module is loaded and stays so.
    let handle = unsafe { driver::module::get_function(module, symbol) }.map_err(|e| refused(name, e))?;
    let limit = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // More than 48 KB of dynamic shared memory must be asked for; what does not fit is refused at the launch.
    // SAFETY: a live function of the current context.
    let _ = unsafe { driver::function::set_function_attribute(handle, limit, LARGEST_SHARED) };
    let function = Function(handle);
    functions.insert((ordinal, source.name, name), function);
    Ok(function)
}

/// Dynamic shared memory that kernels here may ask for, bytes: with the static kind, under the 227 KB of Hopper.
const LARGEST_SHARED: i32 = 200 * 1024;

/// Oldest compute capability that the kernels are written for: bf16 and asynchronous copies.
const OLDEST: (i32, i32) = (8, 0);

/// Whether kernels can be compiled for and launched on a GPU; an error says what is missing.
pub fn kernels_run_on(ordinal: usize) -> Result<(), BridgeError> {
    // SAFETY: looks for a library by its names.
    if !unsafe { sys::is_culib_present() } {
        return Err(BridgeError("the NVIDIA driver library (libcuda) is missing".to_owned()));
    }
    let chip = context(ordinal)?.compute_capability().map_err(|e| refused("compute capability", e))?;
    if chip < OLDEST {
        let (have, need) = (chip, OLDEST);
        return Err(BridgeError(format!(
            "GPU {ordinal} has compute capability {}.{}, they need {}.{} or newer",
            have.0, have.1, need.0, need.1
        )));
    }
    load_nvrtc();
    // SAFETY: as above.
    match unsafe { nvrtc::is_culib_present() } {
        true => Ok(()),
        false => Err(BridgeError("NVRTC (libnvrtc.so.13 of CUDA 13) is missing".to_owned())),
    }
}

/// Launches `name` of `source` on LibTorch's current stream of a CUDA device.
///
/// The arguments must be those of the source's function, in its order and its types, with tensors on this device large
/// enough for what it reads and writes: the callers in `ops` check shapes and dtypes.
pub fn launch(
    source: &KernelSource,
    name: &'static str,
    device: Device,
    shape: Shape,
    start: Start,
    arguments: &[Argument],
) -> Result<(), BridgeError> {
    let Device::Cuda(ordinal) = device else { return Err(refused(name, "runs on CUDA devices")) };
    if shape.grid.0 == 0 || shape.grid.1 == 0 || shape.grid.2 == 0 {
        return Ok(());
    }
    let function = function(source, name, ordinal)?;
    context(ordinal)?;
    let grid = (shape.grid.0 as u32, shape.grid.1 as u32, shape.grid.2 as u32);
    let block = (shape.block.0 as u32, shape.block.1 as u32, 1);
    let stream = cuda::current_stream(ordinal)?;
    let mut parameters: Vec<*mut c_void> = arguments
        .iter()
        .map(|argument| match argument {
            Argument::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Argument::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Argument::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Argument::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Argument::Double(value) => std::ptr::from_ref(value).cast_mut().cast(),
        })
        .collect();
    let mut early: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    early.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    early.value.programmaticStreamSerializationAllowed = 1;
    let config = sys::CUlaunchConfig {
        gridDimX: grid.0,
        gridDimY: grid.1,
        gridDimZ: grid.2,
        blockDimX: block.0,
        blockDimY: block.1,
        blockDimZ: block.2,
        sharedMemBytes: shape.shared as u32,
        hStream: stream.cast(),
        attrs: &mut early,
        numAttrs: u32::from(start == Start::Early && starts_early(ordinal)?),
    };
    // SAFETY: the source's function takes these arguments (see above), and tensors outlive the launch because LibTorch's
    // allocator reuses memory in stream order. The attribute lives until the call returns.
    unsafe { sys::cuLaunchKernelEx(&config, function.0, parameters.as_mut_ptr(), std::ptr::null_mut()) }
        .result()
        .map_err(|e| refused(name, e))
}
