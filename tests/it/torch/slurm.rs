//! Sweeps on a real Slurm of two simulated nodes, with the faults that a cluster has. `scripts/test.sh --slow` starts it:
//! these tests need `SLURM_CONF` of `scripts/slurm-testbed.sh start`, and run one after another.

use crate::text;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// One, two, and two times two processes for a run; a minute for a job, of which a run has twenty seconds.
const SWEEP: &str = "sweep: mix
base:
  model: {arch: transformer, depth: 4, d_model: 32, n_heads: 2, n_kv_heads: 1, head_dim: 16, context: 64}
  data: {train: data/train, val: data/validation}
  scaling: {rule: none, lr: 1e-2, batch_tokens: 512}
  train: {tokens: 256000, validation_rows: 16}
grid: {model.arch: [transformer, sambay]}
include:
  - {set: {model.depth: 8, seed: 2}}
  - {set: {model.depth: 8, seed: 3}}
exec:
  threads: 1
  checkpoint: {every: 3 s}
  rules:
    - {when: model.depth == 8, gpus: 2}
    - {when: seed == 3, nodes: 2}
run: {retries: 1}
backends:
  slurm: {partition: preempt, time: 1 min, signal_lead: 40 s}
";

struct Place {
    folder: tempfile::TempDir,
}

fn slurm(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().expect("Slurm is here");
    assert!(output.status.success(), "{command} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn testbed(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/slurm-testbed.sh");
    let output = Command::new(script).args(arguments).output().expect("started");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

impl Place {
    fn new(sweep: &str) -> Self {
        assert!(std::env::var_os("SLURM_CONF").is_some(), "hint: export SLURM_CONF=$(scripts/slurm-testbed.sh start)");
        // Another test's jobs would take the nodes.
        slurm("scancel", &["--me"]);
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(place.path("sweep.yaml"), sweep).expect("written");
        place.good(&[
            "data",
            "synth",
            "--out",
            "data",
            "--tokens",
            "300K",
            "--seq-len",
            "64",
            "--validation-tokens",
            "20K",
        ]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn call(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("lossfloor"));
        command.current_dir(self.folder.path()).args(arguments).output().expect("started")
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn submit(&self) -> String {
        self.good(&["sweep", "submit", "sweep.yaml", "--yes"])
    }

    fn runs(&self, runs_dir: &str) -> Vec<Value> {
        let said = self.good(&["sweep", "status", "sweep.yaml", "--json", "--runs", runs_dir]);
        let document: Value = serde_json::from_str(&said).expect("one document");
        document["runs"].as_array().expect("a list").clone()
    }

    fn states(&self) -> Vec<String> {
        self.runs("runs").iter().map(|run| run["state"].as_str().expect("a word").to_owned()).collect()
    }

    fn wait(&self, what: &str, patience: u64, holds: impl Fn(&[Value]) -> bool) {
        let began = Instant::now();
        loop {
            let runs = self.runs("runs");
            if holds(&runs) {
                return;
            }
            let queue = slurm("squeue", &["--me"]);
            assert!(began.elapsed() < Duration::from_secs(patience), "{what}:\n{runs:#?}\n{queue}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn logs(&self) -> String {
        let mut out = String::new();
        for entry in walkdir::WalkDir::new(self.path("runs")).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "log" || name == "exit.json" || name.ends_with(".log") {
                let said = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(6).collect();
                out += &format!(
                    "== {}\n{}\n",
                    entry.path().display(),
                    last.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        }
        out
    }

    /// Of each attempt of a run, why it ended.
    fn causes(&self, run: &Value) -> Vec<String> {
        let folder = self.path("runs").join(run["run_id"].as_str().expect("an id"));
        let folder = lossfloor::runs::RunFolder::at(&folder);
        folder.attempts().iter().map(|a| a.exit().map_or("?".to_owned(), |exit| exit.cause.name().to_owned())).collect()
    }

    /// Losses of the same runs, by as many processes, on this machine and without disturbance.
    fn undisturbed(&self) -> Vec<f64> {
        let local = SWEEP.replace("nodes: 2", "gpus: 4");
        std::fs::write(self.path("local.yaml"), local).expect("written");
        self.good(&["sweep", "run", "local.yaml", "--runs", "local"]);
        self.runs("local").iter().map(|run| run["val_loss"].as_f64().expect("a loss")).collect()
    }
}

fn all_done(runs: &[Value]) -> bool {
    assert!(runs.iter().all(|run| run["state"] != "failed"), "{runs:#?}");
    runs.iter().all(|run| run["state"] == "done")
}

#[test]
#[ignore = "needs Slurm"]
fn slurm_preemption_time_limits_and_requeues_leave_the_losses_as_they_are() {
    let place = Place::new(SWEEP);
    let said = place.submit();
    assert_eq!(said.lines().count(), 4, "two arrays, one job of two nodes, the results: {said}");
    assert_eq!(place.submit(), "", "a second submission finds nothing to do");
    place.wait("all at work", 60, |runs| runs.iter().all(|run| run["step"].as_u64() > Some(10)));
    // Somebody more important takes both nodes.
    slurm(
        "sbatch",
        &["--wrap=sleep 3", "-N2", "--exclusive", "--gres=gpu:8", "--partition=main", "--output=/dev/null"],
    );
    place.wait("all done", 600, all_done);
    let runs = place.runs("runs");
    for run in &runs {
        let causes = place.causes(run);
        assert!(causes.len() >= 2, "a run goes through several jobs: {causes:?}");
        let (last, before) = causes.split_last().expect("some");
        assert_eq!(last, "done");
        // One that was killed before it could save itself lost its steps since the last checkpoint, and nothing else.
        assert!(before.iter().all(|cause| cause == "saved" || cause == "lost"), "{causes:?}");
        assert!(before.contains(&"saved".to_owned()), "{causes:?}");
    }
    let losses: Vec<f64> = runs.iter().map(|run| run["val_loss"].as_f64().expect("a loss")).collect();
    assert_eq!(losses, place.undisturbed());
    let began = Instant::now();
    while !place.path("results/mix.csv").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the results follow by themselves");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "needs Slurm"]
fn slurm_a_killed_controller_and_a_lost_node_cost_no_run() {
    let place = Place::new(&SWEEP.replace("time: 1 min, signal_lead: 40 s", "time: 30 min").replace("preempt", "main"));
    place.submit();
    place.wait("all at work", 60, |runs| runs.iter().all(|run| run["step"].as_u64() > Some(10)));
    // State is saved every few seconds; a younger job would be forgotten.
    std::thread::sleep(Duration::from_secs(6));
    testbed(&["kill-controller"]);
    let output = place.call(&["sweep", "status", "sweep.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("running"), "what runs is known without Slurm: {}", text(&output.stdout));
    let refused = place.call(&["sweep", "submit", "sweep.yaml", "--yes"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("squeue does not answer"), "{}", text(&refused.stderr));
    testbed(&["start-controller"]);
    testbed(&["kill-node", "sim2"]);
    slurm("scontrol", &["update", "nodename=sim2", "state=down", "reason=test"]);
    std::thread::sleep(Duration::from_secs(3));
    testbed(&["start-node", "sim2"]);
    place.wait("all done", 600, all_done);
    let losses: Vec<f64> = place.runs("runs").iter().map(|run| run["val_loss"].as_f64().expect("a loss")).collect();
    assert_eq!(losses, place.undisturbed());
}

#[test]
#[ignore = "needs Slurm"]
fn slurm_jobs_that_never_start_are_shown_and_cancelled() {
    let place = Place::new(&SWEEP.replace("signal_lead: 40 s", "signal_lead: 40 s, sbatch: {hold: true}"));
    // Two submissions at once: one of them submits.
    let begin = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("lossfloor"));
        command.current_dir(place.folder.path()).args(["sweep", "submit", "sweep.yaml", "--yes"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("started")
    };
    let both = [begin(), begin()];
    for child in both {
        let output = child.wait_with_output().expect("ended");
        let said = text(&output.stderr);
        let refused = output.status.code() == Some(2) && said.contains("somebody else is submitting");
        assert!(output.status.success() || refused, "{said}");
    }
    let jobs = slurm("squeue", &["--me", "--noheader", "--array", "--format=%j"]);
    assert_eq!(jobs.lines().filter(|name| !name.ends_with("after")).count(), 4, "{jobs}");
    assert_eq!(place.states(), vec!["queued"; 4]);
    place.good(&["sweep", "cancel", "sweep.yaml", "--where", "model.depth == 8"]);
    place.wait("two are cancelled", 30, |runs| runs.iter().filter(|run| run["state"] == "queued").count() == 2);
    place.good(&["sweep", "cancel", "sweep.yaml"]);
    place.wait("none is left", 30, |runs| runs.iter().all(|run| run["state"] == "pending"));
    slurm("scancel", &["--me"]);
}

#[test]
#[ignore = "needs Slurm"]
fn slurm_a_crash_is_tried_again_as_often_as_the_sweep_says() {
    // A shell function in the place of `srun`: every start of a run ends at once.
    let sweep = SWEEP.replace("signal_lead: 40 s", "signal_lead: 40 s, setup: ['srun() { return 9; }']");
    let place = Place::new(&sweep);
    place.submit();
    place.wait("all failed", 120, |runs| runs.iter().all(|run| run["state"] == "failed"));
    for run in place.runs("runs") {
        let folder = place.path("runs").join(run["run_id"].as_str().expect("an id")).join("attempts");
        assert_eq!(std::fs::read_dir(folder).expect("attempts").count(), 2);
    }
    let table = place.good(&["sweep", "results", "sweep.yaml"]);
    assert_eq!(table.lines().filter(|line| line.contains("failed")).count(), 4, "{table}");
}
