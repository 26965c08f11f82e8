//! Compiles `shim/` and tells the linker where LibTorch is, when the feature `torch` is on; nothing else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
}

#[cfg(feature = "torch")]
mod torch {
    use std::path::PathBuf;

    /// `2.11.0`, from LibTorch's own header.
    fn version(root: &std::path::Path) -> String {
        let header = std::fs::read_to_string(root.join("include/torch/headeronly/version.h"))
            .or_else(|_| std::fs::read_to_string(root.join("include/torch/version.h")))
            .unwrap_or_default();
        let part = |name: &str| {
            let define = format!("#define TORCH_VERSION_{name} ");
            header.lines().find_map(|line| line.strip_prefix(&define)).unwrap_or("?").trim().to_owned()
        };
        format!("{}.{}.{}", part("MAJOR"), part("MINOR"), part("PATCH"))
    }

    /// Linker scripts that stand in for `libtorch` and `libtorch_cuda`, which torch-sys asks for: the real ones need
    /// every CUDA library when the program starts, and this program opens them itself where there is a GPU.
    fn write_stand_ins() -> PathBuf {
        let folder = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("link");
        std::fs::create_dir_all(&folder).expect("OUT_DIR can be written");
        for name in ["libtorch.so", "libtorch_cuda.so"] {
            std::fs::write(folder.join(name), "INPUT(-ltorch_cpu)\n").expect("OUT_DIR can be written");
        }
        folder
    }

    /// `shim/cuda.cpp` as a shared library, which the program carries in itself and opens where there is a GPU. Its
    /// LibTorch symbols stay open until then. Empty where the CUDA headers are missing: kernels then run on the default
    /// stream, without captured graphs.
    fn build_cuda_shim(root: &std::path::Path) {
        let library = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("lossfloor_cuda.so");
        let headers = root.parent().expect("LibTorch has a parent").join("nvidia/cu13/include");
        let complete = headers.join("cuda_runtime.h").exists() && headers.join("crt/host_config.h").exists();
        if !complete || !root.join("include/ATen/cuda/CUDAGraph.h").exists() {
            std::fs::write(&library, []).expect("OUT_DIR can be written");
            return;
        }
        let status = shim(root)
            .include(headers)
            .get_compiler()
            .to_command()
            .args(["-shared", "shim/cuda.cpp", "-o"])
            .arg(&library)
            .status()
            .expect("the C++ compiler starts");
        assert!(status.success(), "shim/cuda.cpp does not compile");
    }

    /// How everything in `shim/` is compiled.
    fn shim(root: &std::path::Path) -> cc::Build {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .pic(true)
            .warnings(false)
            .flag("-w")
            .opt_level(2)
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .define("_GLIBCXX_USE_CXX11_ABI", "1");
        build
    }

    pub fn build() {
        println!("cargo:rerun-if-changed=shim");
        // Published by torch-sys: the folder it linked against.
        let lib = PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where LibTorch is"));
        println!("cargo:rerun-if-changed={}", lib.join("../build-version").display());
        let named = std::path::absolute(&lib).unwrap_or_else(|_| lib.clone());
        let real = lib.canonicalize().unwrap_or_else(|_| lib.clone());
        let root = real.parent().expect("lib has a parent").to_owned();
        let parts = ["autograd", "aten_ext", "distributed", "profile"].map(|name| format!("shim/{name}.cpp"));
        shim(&root).include("shim").files(parts).compile("lossfloor_shim");
        build_cuda_shim(&root);
        println!("cargo:rustc-link-search=native={}", write_stand_ins().display());
        println!("cargo:rustc-link-search=native={}", real.display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
        // By name first: a link that is turned to another LibTorch takes effect without a rebuild. RUNPATH, so that
        // LD_LIBRARY_PATH can override it; the third entry serves a binary carried with its checkout.
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
        for folder in [named.display().to_string(), real.display().to_string(), "$ORIGIN/../../.libtorch/lib".into()] {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        }
        println!("cargo:rustc-env=LOSSFLOOR_LIBTORCH={}", named.display());
        println!("cargo:rustc-env=LOSSFLOOR_LIBTORCH_VERSION={}", version(&root));
    }
}
