//! LibTorch's CUDA libraries, opened when the program starts, so that one binary serves machines with and without a GPU.

use std::path::PathBuf;
use std::sync::OnceLock;

/// Opens `libtorch_cuda` once; an error says why CUDA is not available. Call before the first device query.
pub fn load_cuda() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(open).as_ref().copied().map_err(String::as_str)
}

fn open() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
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
