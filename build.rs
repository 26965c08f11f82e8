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

    pub fn build() {
        println!("cargo:rerun-if-changed=shim");
        // Published by torch-sys: the folder it linked against.
        let lib = PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where LibTorch is"));
        let lib = lib.canonicalize().unwrap_or(lib);
        let root = lib.parent().expect("lib has a parent").to_owned();
        cc::Build::new()
            .cpp(true)
            .std("c++20")
            .pic(true)
            .warnings(false)
            .flag("-w")
            .opt_level(2)
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .define("_GLIBCXX_USE_CXX11_ABI", "1")
            .files(["shim/autograd.cpp", "shim/aten_ext.cpp"])
            .compile("lossfloor_shim");
        println!("cargo:rustc-link-search=native={}", lib.display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        println!("cargo:rustc-env=LOSSFLOOR_LIBTORCH={}", lib.display());
        println!("cargo:rustc-env=LOSSFLOOR_LIBTORCH_VERSION={}", version(&root));
    }
}
