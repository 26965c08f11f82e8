//! Checkpoints that PyTorch saved, through the command: the files of tests/data/torch.

use super::{program, text};
use lossfloor::exchange::{ModelFolder, open};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

/// Imports a file of the little transformer: the status, what was told and what was said.
fn import(folder: &Path, name: &str, more: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let source = data(name);
    let out = format!("out-{name}");
    let fixed = ["import", source.to_str().unwrap(), "--arch", "transformer", "--out", &out, "--json"];
    let set = ["--set", "scaling.rule=mup++", "--set", "scaling.d0=2", "--set", "model.head_dim=4"];
    let output = program(folder, &[&fixed[..], &set, more].concat()).output().unwrap();
    (output.status.code(), output.stdout, text(&output.stderr))
}

/// Name, shape and bytes of every parameter.
fn parameters(folder: &ModelFolder) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    folder.params().map(|p| (p.spec().name.clone(), p.spec().shape.clone(), p.bytes().unwrap())).collect()
}

#[test]
fn a_torch_checkpoint_is_the_model_that_its_safetensors_twin_is() {
    let folder = tempfile::tempdir().unwrap();
    for (names, tied, dtype) in [
        (&["plain.safetensors", "plain.pth", "protocol_5.pt", "views.bin"][..], false, "fp32"),
        (&["checkpoint.safetensors", "checkpoint.ckpt"], true, "bf16"),
    ] {
        let mut twin = None;
        for name in names {
            // Both names of the tied matrix are in the checkpoint, and only the user knows that they are one.
            let more: &[&str] = if tied { &["--set", "model.tie_embeddings=true"] } else { &[] };
            let (status, told, said) = import(folder.path(), name, more);
            assert_eq!(status, Some(0), "{name}: {said}");
            let told: Value = serde_json::from_slice(&told).unwrap();
            assert_eq!(told["shape"]["tie_embeddings"], tied, "{name}");
            let model = open(&folder.path().join(format!("out-{name}"))).unwrap();
            assert_eq!((model.model.shape.depth, model.model.shape.n_kv_heads), (4, 2), "{name}");
            let element = serde_json::to_value(model.params().next().unwrap().element().unwrap()).unwrap();
            assert_eq!(element, dtype, "{name}");
            let all = parameters(&model);
            assert_eq!(&all, twin.get_or_insert_with(|| all.clone()), "{name}");
        }
    }
}

#[test]
fn a_torch_file_that_is_no_model_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (name, end) in [
        ("transposed.pth", "is not contiguous; save tensor.contiguous() in its place"),
        ("legacy.pth", "written as before PyTorch 1.6; load it and save it again with torch.save of a newer one"),
        ("big_endian.pth", "its numbers are big-endian; save it again on a little-endian machine"),
        ("module.pth", "save model.state_dict()"),
        ("small.pth", ", …"),
    ] {
        let (status, told, said) = import(folder.path(), name, &[]);
        assert_eq!((status, told.len(), said.lines().count()), (Some(2), 0, 1), "{name}: {said}");
        assert!(said.contains(&format!("{name}: ")) && said.trim_end().ends_with(end), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let source = data("plain.pth");
    let output = program(folder.path(), &["import", source.to_str().unwrap(), "--out", "out"]).output().unwrap();
    assert!(text(&output.stderr).trim_end().ends_with("hint: import it with --arch"), "{}", text(&output.stderr));
}
