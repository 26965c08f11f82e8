//! `bench decode` on a machine without a GPU.

use super::super::{program, text};
use serde_json::Value;

/// Small models, read and continued in a moment.
const SMALL: [&str; 8] = ["transformer:4", "sambay:4", "--device", "cpu", "--precision", "fp32", "--width", "64"];

#[test]
fn decoding_is_measured_and_drawn_and_drawn_again_from_what_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let more = ["--batches", "1,2", "--prompt", "16", "--new", "16,8", "--json", "--plot", "decode.svg"];
    let output = program(at, &[&["bench", "decode"], &SMALL[..], &more].concat()).output().expect("it ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((document["device"].as_str(), document["ceilings"].to_string()), (Some("cpu"), "{}".to_owned()));
    let rows = document["rows"].as_array().expect("rows");
    let jobs: Vec<(&str, u64, u64)> = rows
        .iter()
        .map(|row| {
            let number = |key: &str| row[key].as_u64().expect("a number");
            let (step_ms, rate) = (row["step_ms"].as_f64().expect("ms"), row["tokens_per_s"].as_f64().expect("a rate"));
            assert!((step_ms * rate - 1e3 * number("batch") as f64).abs() < 1e-6 * step_ms * rate, "{row}");
            assert!(row["first_token_s"].as_f64().is_some_and(|s| s > 0.0) && row["peak_gib"].is_null(), "{row}");
            assert_eq!(number("prompt"), 16);
            (row["model"].as_str().expect("a name"), number("batch"), number("new"))
        })
        .collect();
    let expected: Vec<(&str, u64, u64)> = ["transformer:4", "sambay:4"]
        .into_iter()
        .flat_map(|model| [(model, 1, 8), (model, 1, 16), (model, 2, 8), (model, 2, 16)])
        .collect();
    assert_eq!(jobs, expected);
    // The longer context is more to read.
    let bytes = |i: usize| rows[i]["step_bytes"].as_f64().expect("bytes");
    assert!(bytes(1) > bytes(0) && bytes(2) > bytes(0), "{} {} {}", bytes(0), bytes(1), bytes(2));
    let svg = std::fs::read_to_string(at.join("decode.svg")).expect("a figure");
    for words in ["(a) 16 new tokens after 16", "(b) 1 sequence, prompts of 16", "(c) 2 sequences", "sambay, depth 4"] {
        assert!(svg.contains(words), "{words}");
    }
    std::fs::write(at.join("kept.json"), &output.stdout).expect("written");
    let again = program(at, &["bench", "plot", "kept.json", "--out", "again.svg"]).output().expect("it ran");
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(at.join("again.svg")).expect("a figure"), svg);
}

#[test]
fn reading_of_prompts_is_measured_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let more = ["--prefill", "32,64", "--plot", "read.png"];
    let output = program(at, &[&["bench", "decode"], &SMALL[..], &more].concat()).output().expect("it ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert_eq!(table.lines().filter(|line| line.contains("sambay:4")).count(), 2, "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let image = image::load_from_memory(&std::fs::read(at.join("read.png")).expect("a figure")).expect("PNG");
    assert_eq!(image.width(), 1400);
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: [(&[&str], &str); 4] = [
        (&["decode", "sambay:4", "--device", "cpu", "--plot", "a.pdf"], "--plot a.pdf: a figure is written as"),
        (&["decode", "sambay", "--device", "cpu"], "'sambay' is no model; write ARCH:DEPTH[:BATCH]"),
        (&["decode", "nothing:4", "--device", "cpu"], "nothing"),
        (&["train", "sambay:4:0", "--device", "cpu"], "'sambay:4:0' is no model; write ARCH:DEPTH:ROWS"),
    ];
    for (arguments, expected) in cases {
        let output = program(folder.path(), &[&["bench"], arguments].concat()).output().expect("it ran");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    for option in ["--batches", "--new", "--prompt"] {
        let arguments = ["bench", "decode", "sambay:4", "--device", "cpu", option, "0"];
        let output = program(folder.path(), &arguments).output().expect("it ran");
        assert_eq!(output.status.code(), Some(2), "{option}: {}", text(&output.stderr));
    }
}
