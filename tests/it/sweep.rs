//! Sweeps as users write them: expansion of the reference layouts, refusals, and the command line.

use lossfloor::runs::Observer;
use lossfloor::sweep::{SweepFile, SweepPlan, devices::Machine, grid};
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn example(name: &str) -> SweepFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sweeps").join(name);
    SweepFile::read(&path, &[]).expect("reads")
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("s.yaml");
    std::fs::write(&path, text).expect("written");
    (folder, path)
}

/// What reading, expanding or planning `text` is refused with, the file's folder taken out.
fn refusal(text: &str, assignments: &[&str]) -> String {
    let (folder, path) = written(text);
    let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
    let machine = Machine { gpus: Vec::new(), cores: 2, ..Machine::default() };
    let result = SweepFile::read(&path, &assignments)
        .and_then(|sweep| SweepPlan::new(&sweep, &folder.path().join("runs"), &machine, &Observer::new(None)));
    let message = result.expect_err("refused").to_string();
    message.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn the_reference_sweeps_have_the_counts_they_promise() {
    for (name, count) in
        [("1-flops-scaling.yaml", 42), ("2-data-scaling.yaml", 14), ("3-lr-batch.yaml", 78), ("4-ablations.yaml", 20)]
    {
        let points = grid::expand(&example(name)).expect("expands");
        assert_eq!(points.len(), count, "{name}");
        let different: HashSet<String> = points.iter().map(|p| p.tree.to_string()).collect();
        assert_eq!(different.len(), count, "{name}");
    }
}

#[test]
fn points_carry_their_values_rules_and_names() {
    let flops = grid::expand(&example("1-flops-scaling.yaml")).expect("expands");
    let deep = flops.iter().find(|p| p.flat["model.depth"] == 24).expect("there");
    assert_eq!(deep.tree["exec"]["gpus"], 8);
    assert_eq!(deep.tree["exec"]["micro_batch"], 8);
    assert_eq!(deep.tree["exec"]["activation_checkpointing"], true);
    assert_eq!(deep.tree["exec"]["checkpoint"]["every"], "15 min");
    assert_eq!(flops[0].tree["exec"]["gpus"], 1);
    assert_eq!(flops[41].name(), "model.depth=8 model.arch=sambay seed=3");
    let data = grid::expand(&example("2-data-scaling.yaml")).expect("expands");
    assert_eq!(data[13].tree["tag"], "large-batch");
    assert_eq!(data[13].flat["scaling.lr"], 8e-4);
    let sweep = example("3-lr-batch.yaml");
    let rates = grid::expand(&sweep).expect("expands");
    assert_eq!(rates.last().expect("some").flat["scaling.lr"], 6.4e-3);
    let label = grid::label(&sweep, sweep.label.as_deref().expect("has one"), &rates[0]).expect("filled");
    assert_eq!(label, "lr1e-4-bs2^18-s1");
    let ablations = grid::expand(&example("4-ablations.yaml")).expect("expands");
    assert_eq!(ablations.iter().filter(|p| p.variant.as_deref() == Some("no-sqrt-gate")).count(), 5);
}

#[test]
fn resolved_reference_sweeps_keep_their_counts_or_say_what_is_missing() {
    let machine = Machine { gpus: vec!["0".to_owned()], cores: 8, ..Machine::default() };
    let nowhere = Path::new("no/such/runs");
    for (name, count) in [("2-data-scaling.yaml", 14), ("3-lr-batch.yaml", 78)] {
        let plan = SweepPlan::new(&example(name), nowhere, &machine, &Observer::new(None)).expect("plans");
        assert_eq!(plan.runs.len(), count);
    }
    for (name, expected) in [
        ("1-flops-scaling.yaml", "unknown architecture 'transformer_gqa4'"),
        ("4-ablations.yaml", "unknown key 'base.model.sparsity' (line 5)"),
    ] {
        let error =
            SweepPlan::new(&example(name), nowhere, &machine, &Observer::new(None)).expect_err("for later").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

const SMALL: &str = "sweep: small
base:
  model: {arch: transformer, depth: 4, d_model: 16, n_heads: 2, n_kv_heads: 1, head_dim: 8, context: 32}
  data: {train: nowhere/train, val: nowhere/val}
  scaling: {rule: none, lr: 1e-2, batch_tokens: 128}
  train: {tokens: 1280}
";

#[test]
fn mistakes_are_refused_with_their_place() {
    let with = |extra: &str| refusal(&format!("{SMALL}{extra}"), &[]);
    insta::assert_snapshot!(with("gird: {seed: [1]}\n"), @"s.yaml: unknown key 'gird' (line 7); hint: did you mean 'grid'?");
    insta::assert_snapshot!(with("grid: {seed: [1], seed: [2]}\n"), @r#"s.yaml: grid: duplicate entry with key "seed" (line 7)"#);
    insta::assert_snapshot!(with("grid: {model.dpth: [4]}\n"), @"s.yaml: model.dpth=4: unknown key 'model.dpth'; hint: did you mean 'depth'?");
    insta::assert_snapshot!(with("grid: {model.arch: [sambey]}\n"), @"s.yaml: model.arch=sambey: unknown architecture 'sambey'; known: transformer, transformerls, samba, swayoco, sambayoco, sambay, sambayda, mambay, sambayattn, sambayattnall, sambaymlp, phi4miniflash; hint: did you mean 'sambay'?");
    insta::assert_snapshot!(with("grid: {seed: []}\n"), @"s.yaml: grid.seed: an empty list leaves no run; hint: remove the axis");
    insta::assert_snapshot!(with("grid: {seed: {rnage: [1, 3]}}\n"), @"s.yaml: grid.seed: an axis is a list, one value, {log: [a, b], num: n} or {range: [a, b, step]}");
    insta::assert_snapshot!(with("grid: {seed: {range: [1, 3, -1]}}\n"), @"s.yaml: grid.seed: the range's step does not lead from its first value to its last");
    insta::assert_snapshot!(with("zip: {seed: [1, 2], scaling.lr: [1]}\n"), @"s.yaml: zip: lists that move together must be equally long: seed has 2, scaling.lr has 1");
    insta::assert_snapshot!(with("exclude: [\"scaling.lr > \"]\n"), @r#"s.yaml: exclude[0]: in "scaling.lr > " at character 14: expected a value, the condition ends"#);
    insta::assert_snapshot!(with("exec: {rules: [{when: model.dpth > 3, threads: 2}]}\n"), @r#"s.yaml: exec.rules[0].when: in "model.dpth > 3" at character 1: no run of this sweep sets 'model.dpth'; hint: did you mean 'model.depth'?"#);
    insta::assert_snapshot!(with("run: {retrys: 3}\n"), @"s.yaml: unknown key 'run.retrys' (line 7); hint: did you mean 'retries'?");
    insta::assert_snapshot!(with("label: \"{sead}\"\ngrid: {seed: [1]}\n"), @"s.yaml: label: seed=1 has no 'sead'; hint: did you mean 'seed'?");
    insta::assert_snapshot!(refusal(&SMALL.replace("depth: 4", "detph: 4"), &[]), @"s.yaml: unknown key 'base.model.detph' (line 3); hint: did you mean 'depth'?");
    insta::assert_snapshot!(refusal(&SMALL.replace("small", "a/b"), &[]), @"s.yaml: sweep: 'a/b' becomes a file name: use letters, digits, '-', '_' and '.'");
    insta::assert_snapshot!(refusal(SMALL, &["modle.depth=8"]), @"s.yaml: the only run: unknown key 'modle'; hint: did you mean 'model'?");
    insta::assert_snapshot!(refusal(SMALL, &["run.max_runing=8"]), @"--set run.max_runing: unknown key 'max_runing'; hint: did you mean 'max_running'?");
    insta::assert_snapshot!(refusal(SMALL, &["exec.gpus=8"]), @"s.yaml: the only run: exec.gpus: 8 processes cannot share a batch of 4 rows; hint: use fewer, or a larger batch");
    insta::assert_snapshot!(refusal(SMALL, &["seed"]), @"s.yaml: --set: 'seed' is not of the form key=value");
}

#[test]
fn equal_points_are_one_run_and_equal_labels_are_told_apart() {
    let (folder, path) = written(&format!("{SMALL}grid: {{scaling.lr: [1e-2, 0.01, 0.010000000001], seed: [1, 2]}}\n"));
    let machine = Machine { gpus: Vec::new(), cores: 2, ..Machine::default() };
    let sweep = SweepFile::read(&path, &[]).expect("reads");
    let plan = SweepPlan::new(&sweep, folder.path(), &machine, &Observer::new(None)).expect("plans");
    assert_eq!(plan.runs.len(), 2);
    assert_eq!(plan.runs[0].points, 3);
    assert!(plan.notes.iter().any(|note| note.contains("4 points equal another")), "{:?}", plan.notes);
    let labels: Vec<&str> = plan.runs.iter().map(|run| run.config.label.as_str()).collect();
    assert_eq!(labels, ["transformer-d4-w16-seed1", "transformer-d4-w16-seed2"]);
    let json: Value = plan.to_json();
    assert_eq!(json["count"], 2);
    assert_eq!(json["runs"][0]["state"], "data missing");
    let sets = ["grid.seed=[5]".to_owned(), "scaling.lr=3e-3".to_owned(), "exec.threads=2".to_owned()];
    let plan =
        SweepPlan::new(&SweepFile::read(&path, &sets).expect("reads"), folder.path(), &machine, &Observer::new(None))
            .expect("plans");
    assert_eq!(plan.runs.len(), 1);
    assert_eq!((plan.runs[0].config.lr, plan.runs[0].config.seed), (3e-3, 5));
    assert_eq!(plan.runs[0].config.exec.threads, Some(2));
}

proptest::proptest! {
    #[test]
    fn a_grid_is_the_product_of_its_axes(a in 1usize..5, b in 1usize..5, c in 1usize..4) {
        let axis = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "sweep: s\ngrid: {{seed: [{}], model.depth: [{}]}}\nzip: {{x.y: [{}], x.z: [{}]}}\n",
            axis(a), axis(b), axis(c), axis(c)
        );
        let (_folder, path) = written(&text);
        let points = grid::expand(&SweepFile::read(&path, &[]).expect("reads")).expect("expands");
        proptest::prop_assert_eq!(points.len(), a * b * c);
        proptest::prop_assert!(points.iter().all(|p| p.flat["x.y"] == p.flat["x.z"]));
    }
}
