//! `bench plot`: figures of documents that were measured before.

use super::{program, text};
use serde_json::{Value, json};
use std::path::Path;

fn row(model: &str, batch: usize, new: usize, step_ms: Option<f64>) -> Value {
    json!({
        "model": model, "batch": batch, "prompt": 2000, "new": new, "first_token_s": 0.1, "step_ms": step_ms,
        "tokens_per_s": step_ms.map(|ms| 1e3 * batch as f64 / ms), "step_bytes": step_ms.map(|ms| 2e9 * ms),
        "peak_gib": null, "expected_gib": 2.5,
    })
}

fn keep(folder: &Path, name: &str, device: &str, rows: &[Value]) {
    let document = json!({ "device": device, "ceilings": { "copy_tbps": 4.2, "matmul_tflops": 780.0 }, "rows": rows });
    std::fs::write(folder.join(name), document.to_string()).expect("written");
}

#[test]
fn kept_documents_of_one_device_are_one_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let steps = [row("transformer:16", 1, 1000, Some(1.0)), row("transformer:16", 16, 1000, Some(1.5))];
    keep(at, "a.json", "some GPU", &steps);
    keep(at, "b.json", "some GPU", &[row("transformer:16", 16, 32_000, Some(3.6)), row("sambay:16", 1, 1, None)]);
    let output = program(at, &["bench", "plot", "a.json", "b.json", "--out", "all.svg"]).output().expect("it ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((text(&output.stderr).as_str(), text(&output.stdout).as_str()), ("wrote all.svg\n", ""));
    let svg = std::fs::read_to_string(at.join("all.svg")).expect("a figure");
    let said = [
        "Decoding on some GPU",
        "(a) 1,000 new tokens after 2,000",
        "(b) 16 sequences, prompts of 2,000",
        "(c) reading one prompt",
        "transformer, depth 16",
        "sambay, depth 16",
        "4.2 TB/s",
    ];
    for words in said {
        assert!(svg.contains(words), "{words}");
    }
    let column = ["bench", "plot", "a.json", "--out", "a.png", "--column", "--grey"];
    assert!(program(at, &column).output().expect("it ran").status.success());
    let image = image::load_from_memory(&std::fs::read(at.join("a.png")).expect("a figure")).expect("PNG").to_rgb8();
    assert!(image.width() == 680 && image.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
}

#[test]
fn what_cannot_be_drawn_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    keep(at, "a.json", "some GPU", &[row("sambay:16", 1, 1000, Some(1.0))]);
    keep(at, "other.json", "another GPU", &[row("sambay:16", 1, 1000, Some(1.0))]);
    keep(at, "none.json", "some GPU", &[]);
    keep(at, "zero.json", "some GPU", &[row("sambay:16", 0, 1000, Some(1.0))]);
    keep(at, "train.json", "some GPU", &[json!({ "model": "sambay:8:8", "step_ms": 74.2 })]);
    let cases: [(&[&str], &str); 7] = [
        (&["a.json", "--out", "a.pdf"], "--out a.pdf: a figure is written as .svg or .png"),
        (&["missing.json", "--out", "a.svg"], "cannot read missing.json"),
        (&["none.json", "--out", "a.svg"], "none.json: it has no rows"),
        (&["train.json", "--out", "a.svg"], "train.json: not a document of bench decode"),
        (&["a.json", "other.json", "--out", "a.svg"], "other.json: measured on another GPU, not on some GPU"),
        (&["zero.json", "--out", "a.svg"], "series 'sambay, depth 16' has a point"),
        (&["/", "--out", "a.svg"], "cannot read /"),
    ];
    for (arguments, expected) in cases {
        let output = program(at, &[&["bench", "plot"], arguments].concat()).output().expect("it ran");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    assert!(!at.join("a.svg").exists());
}
