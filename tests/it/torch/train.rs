//! Training: exact resume, divergence, the command's refusals.

use super::set_up;
use assert_cmd::Command;
use lossfloor::config::{ExperimentConfig, RunConfig, data_facts, load};
use lossfloor::data::{SyntheticSpec, synthetic};
use lossfloor::nn::Precision;
use lossfloor::ops::Backend;
use lossfloor::record::{RunStatus, StepMetrics};
use lossfloor::runs::{Attempt, Claim, Observer, RunFolder};
use lossfloor::train::ranks::Ranks;
use lossfloor::train::{Compute, Home, Outcome, Trainer, checkpoint};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;

const COMPUTE: Compute = Compute { device: Device::Cpu, precision: Precision::Fp32, backend: Backend::Fused };

/// A folder with a small corpus, and a configuration on it.
pub(super) struct Place {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        set_up();
        let folder = tempfile::tempdir().expect("a folder");
        let spec =
            SyntheticSpec { tokens: 20_000, validation_tokens: 4 * 257, seq_len: 64, ..SyntheticSpec::default() };
        synthetic::generate(&spec, &folder.path().join("corpus"), &|_| {}).expect("a corpus");
        let corpus = folder.path().join("corpus");
        let config = folder.path().join("run.yaml");
        let text = format!(
            "model: {{arch: sambay, depth: 4, d_model: 16, n_heads: 2, n_kv_heads: 1, head_dim: 8, window: 16, context: 64}}\n\
             data: {{train: {0}/train, val: {0}/validation}}\n\
             scaling: {{rule: mup++, lr: 1e-2, batch_tokens: 256}}\n\
             train: {{tokens: 2560}}\n\
             exec: {{device: cpu, micro_batch: 3, threads: 1}}\n",
            corpus.display()
        );
        std::fs::write(&config, text).expect("written");
        Self { folder, config }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn run(&self, set: &[&str]) -> RunConfig {
        let mut tree = load::read_tree(&self.config).expect("a tree");
        for assignment in set {
            load::set_from_text(&mut tree, assignment).expect("a key");
        }
        let written: ExperimentConfig = load::from_tree(tree, "test").expect("a configuration");
        RunConfig::resolve(&written, &data_facts).expect("a run")
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("lossfloor").expect("the program");
        command.current_dir(self.folder.path()).arg("train").arg("run.yaml").args(arguments);
        command
    }

    pub(super) fn refused(&self, arguments: &[&str], status: i32) -> String {
        let output = self.command(arguments).output().expect("it ran");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text.replace(&self.folder.path().display().to_string(), "DIR")
    }
}

/// Trains in `folder`, stopping before step `stop_at` when given; returns the losses seen.
fn attempt(run: &RunConfig, folder: &Path, stop_at: Option<u64>) -> (Outcome, Vec<f64>) {
    let claim = Claim::take(folder, &Observer::new(None)).expect("the folder is free");
    let stop = AtomicBool::new(false);
    let mut losses = Vec::new();
    let home = Home { claim: &claim, attempt: 1 };
    let trainer = Trainer::new(run, COMPUTE, Some(home), Ranks::alone(), &mut |_| {}).expect("a trainer");
    let outcome = trainer.train(&|| stop.load(Ordering::Relaxed), &mut |metrics: &StepMetrics| {
        losses.push(metrics.loss);
        if Some(metrics.step) == stop_at {
            stop.store(true, Ordering::Relaxed);
        }
    });
    (outcome.expect("trained"), losses)
}

fn final_params(folder: &Path) -> Vec<(String, Vec<f32>)> {
    let saved = checkpoint::latest(&RunFolder::at(folder)).expect("readable").0.expect("there");
    let mut params: Vec<(String, Vec<f32>)> = saved
        .params
        .into_iter()
        .chain(saved.optimizer)
        .map(|(name, tensor)| (name, Vec::<f32>::try_from(tensor.reshape([-1])).expect("values")))
        .collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    params
}

#[test]
fn ten_steps_equal_five_and_five_bit_for_bit() {
    let place = Place::new();
    let run = place.run(&[]);
    assert_eq!(run.steps(), 10);
    let (whole, halves) = (place.folder.path().join("whole"), place.folder.path().join("halves"));
    let (outcome, losses) = attempt(&run, &whole, None);
    let Outcome::Ended(record) = outcome else { panic!("{outcome:?}") };
    assert_eq!(record.status, RunStatus::Completed);
    assert!(record.val_loss.is_some_and(f64::is_finite));
    let floor = record.floor.expect("the corpus knows its floor");
    assert!(record.val_loss.is_some_and(|loss| loss > floor));

    let (outcome, first) = attempt(&run, &halves, Some(5));
    assert!(matches!(outcome, Outcome::Interrupted { step: 5 }), "{outcome:?}");
    // A killed process may have logged steps after its last checkpoint.
    let metrics = halves.join("metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).expect("metrics");
    let stray = text.lines().last().expect("a line").replace("\"step\":5", "\"step\":6");
    std::fs::write(&metrics, format!("{text}{stray}\n{{\"step\":7, cut")).expect("written");
    let (outcome, second) = attempt(&run, &halves, None);
    let Outcome::Ended(resumed) = outcome else { panic!("{outcome:?}") };
    assert_eq!([first, second].concat(), losses);
    assert_eq!(resumed.val_loss, record.val_loss);
    assert_eq!(final_params(&whole), final_params(&halves));
    let steps: Vec<u64> = std::fs::read_to_string(&metrics)
        .expect("metrics")
        .lines()
        .map(|line| serde_json::from_str::<StepMetrics>(line).expect("a whole line").step)
        .collect();
    assert_eq!(steps, (1..=10).collect::<Vec<u64>>());
}

#[test]
fn micro_batches_change_nothing_but_rounding() {
    let place = Place::new();
    let (_, one) = attempt(&place.run(&["exec.micro_batch=1"]), &place.folder.path().join("one"), None);
    let (_, all) = attempt(&place.run(&["exec.micro_batch=4"]), &place.folder.path().join("all"), None);
    for (one, all) in one.iter().zip(&all) {
        assert!((one - all).abs() < 1e-4, "{one} and {all}");
    }
}

#[test]
fn a_diverged_run_is_recorded() {
    let place = Place::new();
    let run = place.run(&["scaling.lr=1e30", "train.grad_clip=1e30"]);
    let (outcome, _) = attempt(&run, &place.folder.path().join("diverged"), None);
    let Outcome::Ended(record) = outcome else { panic!("{outcome:?}") };
    assert_eq!(record.status, RunStatus::Diverged);
    assert!(record.reason.is_some_and(|reason| reason.contains("in step")));
    assert!(place.folder.path().join("diverged/record.json").exists());
}

#[test]
fn how_a_run_is_executed_does_not_change_what_it_is() {
    let place = Place::new();
    let id = place.run(&[]).id();
    assert_eq!(place.run(&["exec.micro_batch=1", "label=other", "exec.checkpoint.every=1 h"]).id(), id);
    assert_ne!(place.run(&["seed=2"]).id(), id);
    assert_ne!(place.run(&["scaling.lr=2e-2"]).id(), id);
    // The resolved form resolves to the same run.
    let written = place.run(&[]).written();
    let yaml = load::to_yaml(&written);
    let path = place.folder.path().join("again.yaml");
    std::fs::write(&path, yaml).expect("written");
    let again: ExperimentConfig = load::read(&path).expect("the resolved form is a configuration");
    assert_eq!(RunConfig::resolve(&again, &data_facts).expect("a run").id(), id);
}

#[test]
fn bad_input_gets_one_clear_line() {
    let place = Place::new();
    for (set, expected) in [
        ("model.dept=4", "--set: unknown key 'model.dept'; hint: did you mean 'depth'?"),
        ("model.depth=6", "run.yaml: sambay cannot have depth 6: the depth must be a multiple of 4, such as 4 or 8"),
        ("model.n_kv_heads=3", "run.yaml: sambay: n_heads (2) must be a multiple of n_kv_heads (3), both at least 1"),
        (
            "model.arch=sambey",
            "run.yaml: unknown architecture 'sambey'; known: transformer, transformerls, samba, swayoco, sambayoco, \
             sambay, sambayda, mambay, sambayattn, sambayattnall, sambaymlp, phi4miniflash; hint: did you mean \
             'sambay'?",
        ),
        (
            "train.tokens=100",
            "run.yaml: train.tokens: 100 tokens are less than one batch of 256; raise the budget or lower \
             scaling.batch_tokens",
        ),
        ("model.vocab_size=64", "run.yaml: model.vocab_size: 64 is below the corpus's 256 token ids"),
        (
            "data.train=nowhere/train",
            "there is no complete data at nowhere/train; hint: make it with `lossfloor data synth` or `lossfloor data pack`",
        ),
        ("exec.device=gpu", "exec.device: 'gpu' is no device; use auto, cpu, cuda or cuda:N"),
        (
            "scaling.lr=fast",
            "--set: scaling.lr: invalid value: string \"fast\", expected a number such as 4e-4, 100B or 2^21",
        ),
    ] {
        assert_eq!(place.refused(&["--set", set], 2).trim_end(), format!("error: {expected}"));
    }
    std::fs::write(place.folder.path().join("run.yaml"), "model:\n  arch: sambay\n  widow: 3\n").expect("written");
    let text = place.refused(&[], 2);
    assert_eq!(text.trim_end(), "error: run.yaml: unknown key 'model.widow' (line 3); hint: did you mean 'window'?");
}

#[test]
fn a_missing_gpu_is_said() {
    let place = Place::new();
    let output = place.command(&["--set", "exec.device=cuda"]).env("CUDA_VISIBLE_DEVICES", "").output();
    let output = output.expect("it ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.starts_with("error: cuda was asked for, but") && text.lines().count() == 1, "{text}");
    let text = place.refused(&["--set", "exec.device=cuda:99"], 6);
    assert!(text.starts_with("error: cuda"), "{text}");
}

/// Before the first step, that of the validation corpus included.
#[test]
fn data_that_cannot_be_used_is_refused_by_name_and_reason() {
    for shard in ["train_synthetic_0000000000.bin", "validation_synthetic_0000000000.bin"] {
        let place = Place::new();
        let path = place.folder.path().join("corpus").join(shard);
        let whole = std::fs::read(&path).expect("a shard");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            place.refused(&[], 2)
        };
        let truncated = refused(&whole[..whole.len() - 7]);
        let expected = format!("error: run.yaml: data: DIR/corpus/{shard} is no readable shard: truncated: its header");
        assert!(truncated.starts_with(&expected), "{truncated}");
        let foreign = refused(b"PK\x03\x04 an archive, not tokens");
        assert!(foreign.trim_end().ends_with("is no readable shard: it does not begin with LITPKDS"), "{foreign}");
        let mut beyond = whole.clone();
        beyond[24 + 2 * 100 + 1] = 0xff;
        let beyond = refused(&beyond);
        let expected = format!("error: DIR/corpus/{shard}: token 100 has id ");
        assert!(beyond.starts_with(&expected), "{beyond}");
        assert!(beyond.contains("outside the vocabulary of 256; hint: set vocab_size"), "{beyond}");
        std::fs::remove_file(&path).expect("removed");
        let missing = place.refused(&[], 2);
        assert!(missing.starts_with("error: there is no complete data at DIR/corpus/"), "{missing}");
    }
    let place = Place::new();
    let text = place.refused(&["--set", "model.context=512", "--set", "scaling.batch_tokens=512"], 2);
    let expected = "error: run.yaml: data.val: DIR/corpus/validation has no row of 2049 tokens, its longest shard has 1028; \
                    hint: use more text, or lower train.validation_contexts or model.context";
    assert_eq!(text.trim_end(), expected);
}

#[test]
fn two_processes_cannot_share_a_run_and_foreign_checkpoints_are_refused() {
    let place = Place::new();
    let run = place.run(&[]);
    let folder = place.folder.path().join("runs").join(run.id().0);
    {
        let _held = Claim::take(&folder, &Observer::new(None)).expect("free");
        let text = place.refused(&[], 2);
        assert!(text.contains("is in use by process"), "{text}");
    }
    let other = place.run(&["model.d_model=24"]);
    attempt(&other, &place.folder.path().join("other"), Some(1));
    std::fs::rename(place.folder.path().join("other/checkpoint"), folder.join("checkpoint")).expect("moved");
    let text = place.refused(&[], 2);
    assert!(text.contains("it is of run"), "{text}");
}

/// Time limits too short for one step would otherwise go on for ever.
#[test]
fn three_attempts_without_a_step_are_the_last_that_a_scheduler_gets() {
    let place = Place::new();
    let run = place.run(&[]);
    let folder = RunFolder::new(&place.folder.path().join("runs"), &run.id());
    std::fs::create_dir_all(&folder.path).expect("a folder");
    std::fs::copy(&place.config, folder.config()).expect("copied");
    for _ in 0..3 {
        let attempt = Attempt::begin(&folder).expect("an attempt");
        attempt.set_environment(&serde_json::json!({ "step": 0 })).expect("written");
    }
    let fourth = Attempt::begin(&folder).expect("an attempt").number.to_string();
    let mut command = Command::cargo_bin("lossfloor").expect("the program");
    let config = folder.config();
    let command = command.current_dir(place.folder.path()).arg("train").arg(&config).args(["--attempt", &fourth]);
    let output = command.output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("3 attempts in a row ended before a step beyond 0 was saved"), "{said}");
}

/// Two hundred steps leave more metrics than fit; a checkpoint is larger still.
#[test]
fn a_full_disk_costs_no_more_than_the_steps_since_the_last_checkpoint() {
    let place = Place::new();
    let cramped = |blocks: u32, arguments: &[&str]| {
        let mut command = crate::cramped(blocks);
        let output = command.current_dir(place.folder.path()).args(["train", "run.yaml"]).args(arguments).output();
        let output = output.expect("it ran");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{text}");
        errors[0].to_owned()
    };
    let names = |folder: &Path| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let run = place.run(&[]);
    let folder = place.folder.path().join("runs").join(run.id().0);
    let refused = |file: &str| format!("error: cannot write runs/{}/{file}: File too large (os error 27)", run.id());

    assert_eq!(cramped(1, &[]), refused("config.yaml"));
    assert_eq!(names(&folder), ["attempts"]);

    attempt(&run, &folder, Some(5));
    let saved = std::fs::read(folder.join("checkpoint/step-00000005.safetensors")).expect("saved");
    // What a process that was killed while it wrote leaves.
    std::fs::write(folder.join("checkpoint/.part-x"), "half").expect("written");
    assert_eq!(cramped(16, &[]), refused("checkpoint/step-00000010.safetensors"));
    assert_eq!(names(&folder), ["attempts", "checkpoint", "config.yaml", "metrics.jsonl", "state.json"]);
    assert_eq!(names(&folder.join("checkpoint")), ["step-00000005.safetensors"]);
    assert_eq!(std::fs::read(folder.join("checkpoint/step-00000005.safetensors")).expect("there"), saved);

    place.command(&[]).assert().success();
    let whole = place.folder.path().join("whole");
    attempt(&run, &whole, None);
    assert_eq!(final_params(&folder), final_params(&whole), "as if nothing had happened");

    let long = ["--set", "train.tokens=51200"];
    let run = place.run(&long[1..]);
    let folder = place.folder.path().join("runs").join(run.id().0);
    let expected = format!("error: cannot write runs/{}/metrics.jsonl: File too large (os error 27)", run.id());
    assert_eq!(cramped(16, &long), expected);
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    assert!(!metrics.ends_with('\n'), "its last line was cut");
    place.command(&long).assert().success();
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    let steps: Vec<u64> =
        metrics.lines().map(|line| serde_json::from_str::<StepMetrics>(line).expect("a whole line").step).collect();
    assert_eq!(steps, (1..=200).collect::<Vec<u64>>());
}

#[test]
fn truncated_checkpoints_are_refused_by_name() {
    let place = Place::new();
    let run = place.run(&[]);
    let folder = place.folder.path().join("runs").join(run.id().0);
    attempt(&run, &folder, Some(2));
    let path = folder.join("checkpoint/step-00000002.safetensors");
    let bytes = std::fs::read(&path).expect("saved");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    let text = place.refused(&[], 2);
    assert!(text.contains("step-00000002.safetensors cannot be used"), "{text}");
}

#[test]
fn a_profile_names_what_a_step_does_and_keeps_nothing_else() {
    let place = Place::new();
    let output = place.command(&["--profile", "2", "--json"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let profile = &seen["profile"];
    let phases = profile["phases"].as_array().expect("phases");
    let phase = |name: &str| phases.iter().find(|phase| phase["name"] == name).unwrap_or_else(|| panic!("{name}"));
    for name in ["forward", "backward"] {
        let operations = phase(name)["operations"].as_array().expect("operations");
        for kernel in ["selective scan", "swiglu", "linear", "residual add and norm"] {
            let found = operations.iter().find(|o| o["name"] == kernel).unwrap_or_else(|| panic!("{kernel} in {name}"));
            // Two micro-batches of the four rows, an MLP in each of four layers.
            if kernel == "swiglu" {
                assert_eq!(found["calls"], 8.0, "{name}");
            }
        }
        let inside: f64 = operations.iter().filter_map(|o| o["seconds"].as_f64()).sum();
        assert!(inside <= phase(name)["seconds"].as_f64().expect("a number") * 1.000_001);
    }
    let all: f64 = phases.iter().filter_map(|phase| phase["seconds"].as_f64()).sum();
    assert!(all <= profile["profiled_s"].as_f64().expect("a number") * 1.000_001);

    let folder = place.folder.path().join("runs").join(seen["run_id"].as_str().expect("an id"));
    let svg = std::fs::read_to_string(folder.join("profile.svg")).expect("a figure");
    assert!(svg.contains("selective scan") && svg.contains("backward"));
    assert!(!folder.join("record.json").exists() && !folder.join("checkpoints").exists());
    place.command(&["--profile", "0"]).assert().failure();
}
