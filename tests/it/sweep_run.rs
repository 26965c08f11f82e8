//! Sweeps and studies as processes: a shell script stands in for `train`.

use crate::{program, text};
use lossfloor::runs::Observer;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Takes the lock, counts its starts, and after a while leaves a record of a loss that falls with width. What is in
/// `fate` decides how: `fail`, `diverge`, `unavailable` by seed 2; nothing ends before `go` exists.
const TRAIN: &str = r#"#!/bin/sh
config=$2; runs=$4; dir=$(dirname "$config"); id=$(basename "$dir")
[ "$1" = train ] && [ "$3" = --runs ] && [ "$5" = --attempt ] && [ "$runs/$id/config.yaml" = "$config" ] ||
  { echo "error: called $*"; exit 2; }
started=$(cut -d ' ' -f 22 /proc/$$/stat)
cat > "$dir/own.$$" <<END
{"host": "$(uname -n)", "boot_id": "$(cat /proc/sys/kernel/random/boot_id)", "pid": $$, "started": $started,
 "pid_namespace": "$(readlink /proc/$$/ns/pid)", "job": null, "token": "$$"}
END
ln "$dir/own.$$" "$dir/lock" || { echo "error: taken"; exit 1; }
trap 'rm -f "$dir/own.$$" "$dir/lock"' EXIT
echo start >> "$dir/starts"
get() { sed -n "s/^ *$1: //p" "$config" | head -1; }
width=$(get d_model); seed=$(get seed); arch=$(get arch); fate=$(cat fate 2>/dev/null)
record() {
  flops=$(awk "BEGIN { print $width * $width * 1e9 }")
  loss=$(awk "BEGIN { print 2 + 40 * $width ^ -1.2 + $seed * 0.001 }")
  [ "$1" = completed ] && val=$loss || val=null
  cat > "$dir/record.tmp" <<END
{"schema": 1, "run_id": "$id", "label": "x", "architecture": "$arch", "depth": 8, "d_model": $width,
 "params_total": 5, "params_embedding": 1, "params_matrix": 1, "params_vector": 1, "params_readout": 2,
 "tokens": 1000, "flops_six_n_formula": $flops, "flops_six_n_exact": $flops, "flops": $flops, "seq_len": 32,
 "batch_tokens": 128, "parametrization": "sp", "lr": 0.01, "weight_decay": 0.1, "seed": $seed,
 "precision": "fp32", "status": "$1", "reason": "$2", "steps": 10, "val_loss": $val, "val_loss_se": 0.01,
 "val_tokens": 100, "wall_s": 1.5, "tokens_per_s": 700, "device": "cpu", "finished_at": "now"}
END
  mv "$dir/record.tmp" "$dir/record.json"
  for step in 1 5 10; do
    echo "{\"schema\": 1, \"step\": $step, \"tokens\": ${step}00, \"loss\": $(awk "BEGIN { print $loss + 2 / $step }")," \
      '"grad_norm": 1, "lr": 0.01, "tokens_per_s": 700, "wall_s": 1}'
  done > "$dir/metrics.jsonl"
}
trap 'record interrupted "stopped by a signal"; exit 130' TERM
if [ "$seed" = 2 ]; then
  case "$fate" in
    fail) echo "error: the disk is on fire"; exit 1;;
    diverge) record diverged "loss is NaN"; exit 3;;
    unavailable) echo "error: no LibTorch here"; exit 6;;
  esac
fi
while [ ! -e go ]; do sleep 0.05; done
record completed ""
"#;

const SWEEP: &str = "sweep: trial
base:
  model: {arch: transformer, depth: 8, n_heads: 2, n_kv_heads: 1, head_dim: 8, context: 32, vocab_size: 64}
  data: {train: data/trial/train, val: data/trial/validation}
  scaling: {rule: none, lr: 1e-2, batch_tokens: 128}
  train: {tokens: 1280}
grid: {model.d_model: [16, 24, 32, 48], seed: [1, 2]}
run: {max_running: 2}
";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A folder with a corpus, a sweep and a `train`; `go` lets runs end at once.
    fn new(go: bool) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("temporary folder") };
        let script = place.path("train.sh");
        std::fs::write(&script, TRAIN).expect("written");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
        std::fs::write(place.path("sweep.yaml"), SWEEP).expect("written");
        if go {
            std::fs::write(place.path("go"), "").expect("written");
        }
        let made = place.call(&[
            "data",
            "synth",
            "--out",
            "data/trial",
            "--tokens",
            "4K",
            "--validation-tokens",
            "1K",
            "--vocab-size",
            "64",
            "--seq-len",
            "32",
            "--document-tokens",
            "64",
        ]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        program(self.folder.path(), arguments)
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("started")
    }

    fn sweep(&self, more: &[&str]) -> Output {
        self.call(&[&["sweep", "run", "sweep.yaml", "--program", "./train.sh"], more].concat())
    }

    fn begin(&self) -> Child {
        let mut command = self.command(&["sweep", "run", "sweep.yaml", "--program", "./train.sh"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
    }

    fn states(&self) -> Vec<String> {
        let output = self.call(&["sweep", "status", "sweep.yaml", "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let runs = document["runs"].as_array().expect("a list").iter();
        runs.map(|run| run["state"].as_str().expect("a word").to_owned()).collect()
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let began = Instant::now();
        while !holds(&self.states()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", self.states());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How often each begun run was started.
    fn starts(&self) -> Vec<usize> {
        let folders = std::fs::read_dir(self.path("runs")).expect("there").flatten();
        let files = folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("starts")).ok());
        files.map(|text| text.lines().count()).collect()
    }
}

fn count(states: &[String], state: &str) -> usize {
    states.iter().filter(|s| *s == state).count()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn kill(signal: &str, child: &Child) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().expect("sh");
    assert!(sent.success());
}

#[test]
fn a_sweep_runs_once_and_leaves_a_table() {
    let place = Place::new(true);
    let output = place.sweep(&["--json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let runs = document["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), 8);
    assert!(runs.iter().all(|run| run["state"] == "done" && run["step"] == 10 && run["val_loss"].is_number()));
    let table = std::fs::read_to_string(place.path("results/trial.csv")).expect("a table");
    assert_eq!(table.lines().count(), 9);
    assert!(text(&output.stderr).contains("[8/8] done transformer-d8-w"), "{}", text(&output.stderr));
    let again = place.sweep(&[]);
    assert_eq!(code(&again), Some(0));
    assert_eq!(place.starts(), vec![1; 8], "nothing is run twice");
    let plan = text(&place.call(&["plan", "sweep.yaml"]).stdout);
    assert!(plan.lines().all(|line| line.chars().count() <= 80), "{plan}");
    assert!(plan.contains("8 done") && plan.contains("finished runs of the same architecture"), "{plan}");
}

#[test]
fn failures_and_divergence_decide_the_status_and_are_shown() {
    let place = Place::new(true);
    std::fs::write(place.path("fate"), "diverge").expect("written");
    let output = place.sweep(&[]);
    assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("diverged: transformer-d8-w16-seed2: loss is NaN (log: runs/"));
    assert_eq!(code(&place.sweep(&[])), Some(3), "it stays so");
    assert_eq!(place.starts(), vec![1; 8]);

    let place = Place::new(true);
    std::fs::write(place.path("fate"), "fail").expect("written");
    let output = place.sweep(&[]);
    assert_eq!(code(&output), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("failed: transformer-d8-w16-seed2: error: the disk is on fire (log: runs/"));
    assert_eq!(count(&place.states(), "failed"), 4);
    let mut starts = place.starts();
    starts.sort_unstable();
    assert_eq!(starts, [1, 1, 1, 1, 2, 2, 2, 2], "one retry each");
    std::fs::remove_file(place.path("fate")).expect("removed");
    assert_eq!(code(&place.sweep(&[])), Some(0), "failed runs are tried again by the next call");

    let place = Place::new(true);
    std::fs::write(place.path("fate"), "unavailable").expect("written");
    let output = place.sweep(&[]);
    assert_eq!(code(&output), Some(6));
    assert!(text(&output.stderr).contains("error: no LibTorch here"), "{}", text(&output.stderr));
}

#[test]
fn a_killed_scheduler_is_taken_over_from() {
    let place = Place::new(false);
    let mut first = place.begin();
    place.wait_until("two at work", |states| count(states, "running") == 2);
    kill("KILL", &first);
    first.wait().expect("gone");
    assert_eq!(count(&place.states(), "running"), 2, "runs outlive their scheduler");
    let mut second = place.begin();
    // The limit of two counts the orphans: as long as they work, nothing new starts.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(place.starts(), vec![1; 2]);
    std::fs::write(place.path("go"), "").expect("written");
    assert_eq!(second.wait().expect("ended").code(), Some(0));
    assert_eq!(place.starts(), vec![1; 8], "each run was started once, by one scheduler or the other");
    assert_eq!(count(&place.states(), "done"), 8);
}

#[test]
fn an_interrupted_sweep_carries_on() {
    let place = Place::new(false);
    let mut first = place.begin();
    place.wait_until("two at work", |states| count(states, "running") == 2);
    kill("INT", &first);
    assert_eq!(first.wait().expect("ended").code(), Some(130));
    let states = place.states();
    assert_eq!((count(&states, "resumable"), count(&states, "pending")), (2, 6), "{states:?}");
    std::fs::write(place.path("go"), "").expect("written");
    assert_eq!(code(&place.sweep(&[])), Some(0));
    assert_eq!(count(&place.states(), "done"), 8);
}

#[test]
fn a_study_is_made_once() {
    let place = Place::new(true);
    let study = "study: small
data: {synth: {tokens: 4K, validation_tokens: 1K, vocab_size: 64, seq_len: 32, document_tokens: 64}}
sweep: sweep.yaml
fits: [{name: flops, form: power+floor, x: flops, y: val_loss, group: architecture}]
figures:
  - {name: loss, fit: flops, title: Loss, palette: grey}
  - {name: losses, kind: curves, curves: {x: tokens, y: loss, run: run_id, name: architecture}}
  - {name: widths, kind: grid, grid: {x: d_model, y: seed, loss: val_loss}}
report: {title: A small study}
";
    std::fs::write(place.path("study.yaml"), study).expect("written");
    let call = |more: &[&str]| {
        place.call(&[&["reproduce", "study.yaml", "--program", "./train.sh", "--set", "sweep.seed=3"], more].concat())
    };
    let output = call(&[]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().last(), Some("results/small/report.html"));
    for name in ["runs.csv", "fits.json", "fits.csv", "loss.svg", "loss.png", "report.md", "report.html"] {
        assert!(place.path("results/small").join(name).exists(), "{name}");
    }
    let fits: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("results/small/fits.json")).expect("read"))
            .expect("JSON");
    let floor = fits["fits"][0]["params"]["C"].as_f64().expect("a floor");
    assert!((floor - 2.003).abs() < 0.01, "{fits}");
    let report = std::fs::read_to_string(place.path("results/small/report.md")).expect("read");
    assert!(report.contains("A small study") && report.contains("4 of 4 runs completed"), "{report}");

    let drawn = |name: &str| std::fs::read_to_string(place.path("results/small").join(name)).expect("read");
    let metrics = drawn("metrics.csv");
    assert!(
        metrics.starts_with("run_id,label,architecture,depth,d_model,params_total,batch_tokens,seed,step,tokens,loss,")
    );
    assert_eq!(metrics.lines().count(), 1 + 4 * 3, "{metrics}");
    let (losses, widths) = (drawn("losses.svg"), drawn("widths.svg"));
    // Four runs of one architecture have one entry.
    assert!(losses.matches("\ntransformer\n").count() == 1 && losses.contains("\ntokens\n"), "{losses}");
    assert!(widths.contains("\nd_model\n") && widths.contains("\nval_loss\n"), "{widths}");
    let hues =
        |svg: &str| svg.split('"').filter(|word| word.starts_with('#')).any(|colour| colour[1..3] != colour[3..5]);
    assert!(!hues(&drawn("loss.svg")) && hues(&losses));

    let before = modified(&place.path("results/small"));
    let again = call(&[]);
    assert_eq!(code(&again), Some(0));
    assert!(text(&again.stderr).contains("nothing to do: everything is current"), "{}", text(&again.stderr));
    assert_eq!(modified(&place.path("results/small")), before, "a finished study is only read");

    std::fs::remove_file(place.path("results/small/loss.svg")).expect("removed");
    let drawn = call(&[]);
    assert!(text(&drawn.stderr).contains("figure   done"), "{}", text(&drawn.stderr));
    assert!(text(&drawn.stderr).contains("report   current"), "{}", text(&drawn.stderr));
}

#[test]
fn a_study_with_a_diverged_run_has_a_report_that_says_so() {
    let place = Place::new(true);
    std::fs::write(place.path("fate"), "diverge").expect("written");
    let study = "study: small
data: {path: data/trial}
sweep: sweep.yaml
fits: [{name: flops, form: power+floor, x: flops, y: val_loss, group: architecture}]
figures: [{name: loss, fit: flops}]
";
    std::fs::write(place.path("study.yaml"), study).expect("written");
    let call = || place.call(&["reproduce", "study.yaml", "--program", "./train.sh"]);
    let output = call();
    assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    let report = std::fs::read_to_string(place.path("results/small/report.md")).expect("read");
    assert!(report.contains("4 of 8 runs completed") && report.contains("loss is NaN"), "{report}");
    assert_eq!(code(&call()), Some(3));
}

fn modified(folder: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let entries = std::fs::read_dir(folder).expect("there").flatten();
    let mut out: Vec<_> =
        entries.map(|e| (e.path(), e.metadata().expect("there").modified().expect("known"))).collect();
    out.sort();
    out
}

/// No committed sweep or study may rot.
#[test]
fn every_committed_study_and_sweep_plans() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let machine = lossfloor::sweep::devices::Machine { gpus: Vec::new(), cores: 2, ..Default::default() };
    let counts = [
        ("ablations", 20),
        ("data-scaling", 14),
        ("flops-scaling", 42),
        ("lr-batch", 78),
        ("phonebook", 5),
        ("quick", 24),
        ("text", 24),
    ];
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(root.join("sweeps")).expect("there").flatten() {
        let sweep = lossfloor::sweep::SweepFile::read(&entry.path(), &[]).expect("reads");
        let plan = lossfloor::sweep::SweepPlan::new(&sweep, &root.join("no-runs"), &machine, &Observer::new(None))
            .expect("plans");
        for run in &plan.runs {
            let written = lossfloor::config::load::to_yaml(&run.config.written());
            let file = tempfile::NamedTempFile::new().expect("temporary file");
            std::fs::write(file.path(), written).expect("written");
            let read = lossfloor::config::load::read(file.path()).expect("a written config is a config");
            let again = lossfloor::config::RunConfig::resolve(&read, &lossfloor::config::data_facts).expect("resolves");
            assert_eq!(again.id(), run.id, "{}: what a run is started with is what was planned", run.config.label);
        }
        seen.push((sweep.sweep, plan.runs.len()));
    }
    seen.sort();
    assert_eq!(seen.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>(), counts);
    let experiments = std::fs::read_dir(root.join("experiments")).expect("there").flatten().map(|entry| entry.path());
    for file in experiments.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")) {
        lossfloor::study::Study::read(&file, &[], Path::new("results"), Path::new("runs")).expect("reads");
    }
}
