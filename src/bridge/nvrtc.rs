//! CUDA kernels from source text: compiled for the chip at first use, launched on LibTorch's stream.

use super::{BridgeError, libtorch_folder};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tch::{Device, Kind, Tensor};

/// A source text and the name that errors show.
#[derive(Debug)]
pub struct KernelSource {
    pub name: &'static str,
    pub text: &'static str,
}

/// An argument of a kernel.
pub enum Argument<'a> {
    /// Address of a contiguous fp32 tensor on the launch's device; null when `None`.
    Values(Option<&'a Tensor>),
    Int(i32),
}

/// What was compiled, by device and source name.
type Modules = Mutex<HashMap<(usize, &'static str), Arc<CudaModule>>>;

fn refused(what: &str, error: impl std::fmt::Display) -> BridgeError {
    BridgeError(format!("{what}: {error}"))
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

fn module(context: &Arc<CudaContext>, source: &KernelSource) -> Result<Arc<CudaModule>, BridgeError> {
    static MODULES: OnceLock<Modules> = OnceLock::new();
    let key = (context.ordinal(), source.name);
    let mut modules = MODULES.get_or_init(Modules::default).lock().expect("no kernel panics while compiling");
    if let Some(module) = modules.get(&key) {
        return Ok(Arc::clone(module));
    }
    load_nvrtc();
    let (major, minor) = context.compute_capability().map_err(|e| refused("compute capability", e))?;
    let options =
        CompileOptions { options: vec![format!("--gpu-architecture=compute_{major}{minor}")], ..Default::default() };
    let ptx = compile_ptx_with_opts(source.text, options)
        .map_err(|e| BridgeError(format!("kernel {} does not compile: {e:?}", source.name)))?;
    let module = context.load_module(ptx).map_err(|e| refused(source.name, e))?;
    modules.insert(key, Arc::clone(&module));
    Ok(module)
}

/// Launches `function` of `source` on LibTorch's default stream of a CUDA device.
///
/// # Panics
/// When a tensor is not contiguous fp32 on that device.
pub fn launch(
    source: &KernelSource,
    function: &str,
    device: Device,
    grid: (u32, u32, u32),
    block: u32,
    arguments: &[Argument],
) -> Result<(), BridgeError> {
    let Device::Cuda(ordinal) = device else { return Err(BridgeError("kernels run on CUDA devices".to_owned())) };
    // The primary context, which LibTorch uses too.
    let context = CudaContext::new(ordinal).map_err(|e| refused("CUDA context", e))?;
    let stream: Arc<CudaStream> = context.default_stream();
    let function: CudaFunction =
        module(&context, source)?.load_function(function).map_err(|e| refused(source.name, e))?;
    let mut addresses = Vec::with_capacity(arguments.len());
    for argument in arguments {
        addresses.push(match argument {
            Argument::Values(Some(tensor)) => {
                assert!(
                    tensor.device() == device && tensor.kind() == Kind::Float && tensor.is_contiguous(),
                    "a CUDA kernel takes contiguous fp32 tensors of its device"
                );
                tensor.data_ptr() as u64
            }
            Argument::Values(None) | Argument::Int(_) => 0,
        });
    }
    let mut builder = stream.launch_builder(&function);
    for (argument, address) in arguments.iter().zip(&addresses) {
        match argument {
            Argument::Values(_) => builder.arg(address),
            Argument::Int(value) => builder.arg(value),
        };
    }
    let config = LaunchConfig { grid_dim: grid, block_dim: (block, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the source's functions take these arguments in this order (stated beside each), and tensors outlive the
    // launch because LibTorch's allocator reuses memory in stream order.
    unsafe { builder.launch(config) }.map(|_| ()).map_err(|e| refused(source.name, e))
}
