//! Evaluations in studies: a phonebook corpus is made, two runs are trained, their checkpoints are evaluated, drawn and
//! reported; what is measured is not measured again. And the figures of `eval`.

use super::super::{program, text};
use super::train::Place as Corpus;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

const SWEEP: &str = "sweep: books
base:
  model: {depth: 4, d_model: 16, n_heads: 2, n_kv_heads: 1, head_dim: 8, window: 16, context: 64}
  data: {train: data/books/train, val: data/books/validation}
  scaling: {rule: mup++, d0: 8, lr: 1e-2, batch_tokens: 256}
  train: {tokens: 1536, validation_rows: 4, validation_contexts: 1}
grid: {model.arch: [transformer, sambay]}
exec: {device: cpu, threads: 1, checkpoint: {every: 512 tokens, keep: 9}}
";

const STUDY: &str = "study: books
data: {phonebook: {documents: 300, entries: 3..4, seed: 1, tokenizer: 'train:300'}}
sweep: sweep.yaml
evaluations:
  - {name: growth, task: phonebook, entries: [3, 5], measurements: 1, checkpoints: all, batch: 16}
  - {name: losses, task: loss, rows: 2, length: 64}
figures:
  - {name: growth, kind: evaluation, evaluation: {of: growth, x: tokens, group: architecture, where: entries == 3}}
";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.write("sweep.yaml", SWEEP);
        place.write("study.yaml", STUDY);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    fn reproduce(&self, more: &[&str]) -> Output {
        program(self.folder.path(), &[&["reproduce", "study.yaml"], more].concat()).output().expect("it ran")
    }

    fn done(&self, more: &[&str]) -> String {
        let output = self.reproduce(more);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    }

    /// The rows of a table, as maps from column to cell.
    fn table(&self, name: &str) -> Vec<std::collections::HashMap<String, String>> {
        let bytes = self.read(name);
        let mut reader = csv::Reader::from_reader(bytes.as_bytes());
        reader.deserialize().map(|row| row.expect("a row")).collect()
    }

    /// Files of runs whose names begin so.
    fn kept(&self, start: &str) -> Vec<PathBuf> {
        let runs = std::fs::read_dir(self.path("runs")).expect("runs").map(|entry| entry.expect("an entry").path());
        let files =
            runs.filter(|run| run.join("record.json").exists()).flat_map(|run| std::fs::read_dir(run).expect("a run"));
        let mut found: Vec<PathBuf> = files.map(|entry| entry.expect("an entry").path()).collect();
        found.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
        found.sort();
        found
    }
}

#[test]
fn a_study_evaluates_every_checkpoint_once() {
    let place = Place::new();
    place.done(&[]);
    // Two runs with checkpoints after 2, 4 and 6 steps, two sizes of phonebooks.
    let rows = place.table("results/books/growth.csv");
    assert_eq!(rows.len(), 12);
    let distinct = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(distinct("tokens"), ["1024", "1536", "512"].map(str::to_owned).into());
    assert_eq!(distinct("architecture"), ["sambay", "transformer"].map(str::to_owned).into());
    for row in &rows {
        let number = |key: &str| row[key].parse::<f64>().unwrap_or_else(|_| panic!("{key}: {row:?}"));
        assert!(
            number("low") <= number("value") && number("value") <= number("high") && number("n") == 32.0,
            "{row:?}"
        );
        assert_eq!(row["window"].is_empty(), row["architecture"] == "transformer", "{row:?}");
    }
    // The loss of the last checkpoint is what the run itself measured on the same rows' beginning.
    let losses = place.table("results/books/losses.csv");
    assert!(losses.iter().all(|row| row["step"] == "6" && row["value"].parse::<f64>().is_ok()), "{losses:?}");
    let growth = place.kept("eval-books-growth-step-");
    assert_eq!(growth.len(), 6);
    let first: Value = serde_json::from_str(&std::fs::read_to_string(&growth[0]).expect("read")).expect("JSON");
    assert_eq!((&first["settings"]["entries"][1], &first["device"]), (&Value::from(5), &Value::from("cpu")));
    for name in ["growth.svg", "growth.png"] {
        assert!(place.path("results/books").join(name).exists(), "{name}");
    }
    let report = place.read("results/books/report.md");
    for words in ["Evaluation: growth", "growth.svg", "lossfloor eval runs/RUN_ID/checkpoint/step-STEP.safetensors"] {
        assert!(report.contains(words), "{words}: {report}");
    }

    // Nothing is done twice, not even where checkpoints are gone.
    let modified = |files: &[PathBuf]| -> Vec<_> {
        files.iter().map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).expect("known")).collect()
    };
    let before = modified(&growth);
    let run = growth[0].parent().expect("a run").to_owned();
    std::fs::remove_dir_all(run.join("checkpoint")).expect("removed");
    let said = place.done(&[]);
    assert!(said.contains("nothing to do: everything is current"), "{said}");
    assert_eq!(modified(&growth), before);

    // Other settings want the checkpoints: one is unreadable, those of the other run are gone.
    let mut others = place.kept("record.json").into_iter().map(|file| file.parent().expect("a run").to_owned());
    let other = others.find(|folder| *folder != run).expect("two runs");
    std::fs::write(other.join("checkpoint/step-00000004.safetensors"), "no tensors").expect("written");
    place.write("study.yaml", &STUDY.replace("entries: [3, 5]", "entries: [3, 4]"));
    let output = place.reproduce(&[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(said.matches("not evaluated: growth").count(), 2, "{said}");
    assert!(said.contains("step 4:") && said.contains("it has no checkpoint"), "{said}");
    let rows = place.table("results/books/growth.csv");
    assert_eq!(rows.len(), 4, "two checkpoints are left");
    assert!(rows.iter().all(|row| ["3", "4"].contains(&row["entries"].as_str())), "{rows:?}");
    let report = place.read("results/books/report.md");
    assert!(report.contains("2 checkpoints are not evaluated") && report.contains("it has no checkpoint"), "{report}");
}

fn refused(place: &Place, study: &str, words: &[&str]) {
    place.write("study.yaml", study);
    let output = place.reproduce(&[]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
}

#[test]
fn studies_that_evaluate_nothing_are_refused() {
    let place = Place::new();
    let with = |old: &str, new: &str| {
        assert!(STUDY.contains(old), "{old}");
        STUDY.replacen(old, new, 1)
    };
    refused(&place, &with("task: loss", "task: poem"), &["study.yaml", "poem"]);
    refused(&place, &with("rows: 2", "lines: 2"), &["study.yaml", "lines"]);
    refused(&place, &with("entries: [3, 5]", "entries: [2]"), &["growth", "entries", "3 to"]);
    refused(&place, &with("name: losses", "name: growth"), &["two evaluations"]);
    refused(&place, &with("name: losses", "name: runs"), &["another name"]);
    refused(&place, &with("of: growth", "of: grwth"), &["grwth", "none of evaluations"]);
    refused(&place, &with("where: entries == 3", "trials: 3"), &["trials"]);
    refused(&place, &with("3..4", "3..x"), &["3..6"]);
    refused(&place, &with("seed: 1,", "sede: 1,"), &["sede", "seed"]);
    assert!(!place.path("data").exists(), "nothing is made for a study that is refused");
}

fn drawn(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = program(folder, &[arguments, &["--plot", "out.svg", "--no-save"]].concat()).output().expect("it ran");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let svg = std::fs::read_to_string(folder.join("out.svg")).expect("drawn");
    assert!(words.iter().all(|word| svg.contains(word)), "{words:?} in {svg}");
}

#[test]
fn every_task_has_a_figure() {
    let place = Corpus::new();
    let trained = place.command(&[]).output().expect("it ran");
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let runs = std::fs::read_dir(place.path().join("runs")).expect("runs");
    let run = runs.map(|entry| entry.expect("an entry").path()).next().expect("a run");
    let run = run.to_str().expect("a path");
    let at = place.path();
    drawn(at, &["eval", run, "--task", "loss", "--rows", "4"], &["Loss by position", "true floor of that mean"]);
    drawn(at, &["eval", run, "--task", "recall", "--rows", "4"], &["Recall by distance", "without recall"]);
    let output = program(at, &["eval", run, "--task", "loss", "--plot", "out.pdf"]).output().expect("it ran");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--plot out.pdf"), "{}", text(&output.stderr));
}
