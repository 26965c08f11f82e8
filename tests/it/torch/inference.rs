//! `generate` and `eval`: a checkpoint's text and losses from the command line.

use super::super::{program, text};
use super::train::Place;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Trains the run of `config` in `folder` and returns its folder.
fn trained(folder: &Path, config: &str) -> PathBuf {
    let output = program(folder, &["train", config]).output().expect("it ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let runs = std::fs::read_dir(folder.join("runs")).expect("runs");
    runs.map(|entry| entry.expect("an entry").path()).next().expect("a run")
}

/// A run on text read as bytes.
fn text_run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let lines =
        |from: usize| (from..from + 400).map(|i| format!("{i} bottles of beer on the wall\n")).collect::<String>();
    std::fs::write(at.join("a.txt"), lines(0)).expect("written");
    std::fs::write(at.join("b.txt"), lines(400)).expect("written");
    let packed =
        ["data", "pack", "a.txt", "b.txt", "--out", "corpus", "--tokenizer", "bytes", "--validation-fraction", "0.2"];
    let output = program(at, &packed).output().expect("it ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config = "model: {arch: sambay, depth: 4, d_model: 32, n_heads: 2, n_kv_heads: 1, head_dim: 16, window: 16, context: 64}\n\
                  data: {train: corpus/train, val: corpus/validation}\n\
                  scaling: {rule: mup++, lr: 2e-2}\n\
                  train: {tokens: 12800, batch_tokens: 256, validation_rows: 8, validation_contexts: 1}\n\
                  exec: {device: cpu, threads: 1}\n";
    std::fs::write(at.join("run.yaml"), config).expect("written");
    let run = trained(at, "run.yaml");
    (folder, run)
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = program(folder, arguments).arg("--json").output().expect("it ran");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one document")
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = program(folder, arguments).output().expect("it ran");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn evaluation_repeats_the_validation_loss_and_so_does_an_export() {
    let place = Place::new();
    let run = trained(place.path(), "run.yaml");
    let name = run.to_str().expect("a path");
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("record.json")).expect("a record")).expect("JSON");
    let of_run = record["val_loss"].as_f64().expect("a loss");
    let rows = |checkpoint: &str, more: &[&str]| {
        let arguments = [&["eval", checkpoint, "--task", "loss", "--precision", "fp32"], more].concat();
        json(place.path(), &arguments)["rows"].as_array().expect("rows").clone()
    };
    let own = rows(name, &[]);
    // The run's loss is that of the first context.
    assert_eq!((own[0]["from"].as_u64(), own[0]["below"].as_u64()), (Some(0), Some(64)));
    let value = |row: &Value| row["value"].as_f64().expect("a value");
    assert!((value(&own[0]) - of_run).abs() < 1e-6, "{} for {of_run}", own[0]);
    assert_eq!(own[0]["floor"].as_f64(), record["floor"].as_f64());
    assert!(run.join("eval-loss-step-10.json").exists(), "kept beside the record");

    let exported = program(place.path(), &["export", name, "--out", "exported"]).output().expect("it ran");
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let data = place.path().join("corpus/validation");
    let again = rows("exported", &["--data", data.to_str().expect("a path"), "--length", "256"]);
    assert_eq!(own.len(), again.len());
    for (own, again) in own.iter().zip(&again) {
        assert!((value(own) - value(again)).abs() < 1e-9, "{own} and {again}");
    }
    let recalls = json(place.path(), &["eval", name, "--task", "recall"]);
    assert_eq!(recalls["task"], "recall");
}

#[test]
fn text_is_generated_alike_alone_and_in_a_batch() {
    let (folder, run) = text_run();
    let (at, run) = (folder.path(), run.to_str().expect("a path"));
    let prompts = ["1", "12 bottles of", "7 bottles of beer on the wall\n8 bottles of beer on the"];
    let lines: String =
        prompts.iter().map(|prompt| serde_json::json!({ "prompt": prompt }).to_string() + "\n").collect();
    std::fs::write(at.join("prompts.jsonl"), lines).expect("written");
    let together = json(at, &["generate", run, "--prompts", "prompts.jsonl", "--max-new", "24", "--batch", "2"]);
    for (row, prompt) in together["rows"].as_array().expect("rows").iter().zip(prompts) {
        let alone = json(at, &["generate", run, "--prompt", prompt, "--max-new", "24"]);
        assert_eq!(row["text"], alone["rows"][0]["text"], "{prompt}");
        assert_eq!(row["prompt"], prompt);
    }
    // What is streamed is what the document has, a newline after it.
    let streamed = program(at, &["generate", run, "--prompt", prompts[1], "--max-new", "24"]).output().expect("it ran");
    assert_eq!(text(&streamed.stdout), format!("{}\n", together["rows"][1]["text"].as_str().expect("text")));
    let drawn = |seed: &str| {
        let options = ["--max-new", "40", "--temperature", "1.5", "--seed", seed];
        json(at, &[&["generate", run, "--prompt", "5"], options.as_slice()].concat())["rows"][0]["text"].clone()
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
    let whole = together["rows"][1]["text"].as_str().expect("text").to_owned();
    let stop: String = whole.chars().skip(3).take(2).collect();
    let stopped = json(at, &["generate", run, "--prompt", prompts[1], "--max-new", "24", "--stop", &stop]);
    assert_eq!(stopped["rows"][0]["ended"], "stop");
    assert_eq!(stopped["rows"][0]["text"].as_str().expect("text"), &whole[..whole.find(&stop).expect("it is there")]);
}

#[test]
fn questions_are_asked_and_bad_ones_refused() {
    let (folder, run) = text_run();
    let (at, run) = (folder.path(), run.to_str().expect("a path"));
    let books = json(at, &["eval", run, "--task", "phonebook", "--entries", "3,5", "--measurements", "2"]);
    let rows = books["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["n"] == 64 && row["low"].as_f64() <= row["value"].as_f64()));
    let needles = json(at, &["eval", run, "--task", "niah", "--lengths", "600", "--repeats", "1"]);
    assert_eq!(needles["rows"].as_array().expect("rows").len(), 11);
    let map = ["eval", run, "--task", "niah", "--lengths", "600,800", "--repeats", "1", "--plot", "map.svg"];
    assert_eq!(json(at, &map)["rows"].as_array().expect("rows").len(), 22);
    let svg = std::fs::read_to_string(at.join("map.svg")).expect("drawn");
    assert!(svg.contains("depth (0 beginning, 1 end)") && svg.contains("share of right answers"), "{svg}");
    let by = ["--entries", "5,9", "--measurements", "1", "--by", "entries,distance", "--plot", "far.svg"];
    let far = [&["eval", run, "--task", "phonebook"], by.as_slice()].concat();
    for row in json(at, &far)["rows"].as_array().expect("rows") {
        assert_eq!(row["below"].as_u64(), row["from"].as_u64().map(|from| 2 * from), "{row}");
    }
    let svg = std::fs::read_to_string(at.join("far.svg")).expect("drawn");
    assert!(svg.contains("entries 5") && svg.contains("entries 9"), "{svg}");

    for (arguments, word) in [
        (vec!["generate", run, "--prompt", "a", "--temperature", "-1"], "--temperature is -1"),
        (vec!["generate", run, "--prompt", "a", "--top-p", "1.5"], "--top-p is 1.5"),
        (vec!["generate", run, "--file", "none.txt"], "none.txt"),
        (vec!["generate", "run.yaml", "--prompt", "a"], "run.yaml"),
        (vec!["eval", run, "--task", "recall"], "not of a synthetic corpus"),
        (vec!["eval", run, "--task", "niah", "--needles", "4:1"], "KEYS:ASKED:VALUES"),
        (vec!["eval", run, "--task", "phonebook", "--by", "length"], "length is no part of phonebook"),
        (vec!["eval", "nowhere", "--task", "loss"], "nowhere"),
    ] {
        let said = refused(at, &arguments);
        assert!(said.contains(word), "{said}");
    }
}
