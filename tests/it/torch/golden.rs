//! Every golden file, with the kernels and with the references.

use lossfloor::nn::Precision;
use lossfloor::ops::Backend;
use lossfloor::verify::{VerifyOptions, verify_file};
use std::path::{Path, PathBuf};
use tch::Device;

fn files(prefix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("golden files are in the tree")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    files
}

fn all_pass(prefix: &str, count: usize, backend: Backend) {
    super::set_up();
    let files = files(prefix);
    assert_eq!(files.len(), count);
    let options = VerifyOptions { device: Device::Cpu, backend, precision: Precision::Fp32 };
    for file in files {
        let checks = verify_file(&file, options).expect("a golden file");
        assert!(!checks.is_empty());
        let failed: Vec<_> = checks.iter().filter(|check| !check.pass).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

#[test]
fn models_with_kernels() {
    all_pass("model_", 18, Backend::Fused);
}

#[test]
fn models_with_references() {
    all_pass("model_", 18, Backend::Reference);
}

#[test]
fn modules_with_kernels() {
    all_pass("mod_", 9, Backend::Fused);
}

#[test]
fn modules_with_references() {
    all_pass("mod_", 9, Backend::Reference);
}

#[test]
fn twenty_steps_of_training() {
    all_pass("train_", 2, Backend::Fused);
}
