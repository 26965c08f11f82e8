//! Sweeps of real runs under the faults of one machine.

use super::ranks::kill;
use crate::{program, text};
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Twelve runs of mixed sizes over four places, some of two processes.
const SWEEP: &str = "sweep: mixed
base:
  model: {arch: transformer, depth: 4, d_model: 16, n_heads: 2, n_kv_heads: 1, head_dim: 8, context: 64, window: 16}
  data: {train: data/train, val: data/validation}
  scaling: {rule: none, lr: 1e-2, batch_tokens: 256}
  train: {tokens: 25600, validation_rows: 8}
grid: {model.arch: [transformer, sambay], model.d_model: [16, 32], seed: [1, 2, 3]}
exec:
  threads: 1
  checkpoint: {every: 0.3 s}
  rules:
    - {when: model.d_model == 32 and seed == 1, gpus: 2}
run: {retries: 40}
backends: {local: {cores: 4}}
";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(sweep: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(place.path("sweep.yaml"), sweep).expect("written");
        place.data("data", "0");
        place
    }

    fn data(&self, folder: &str, seed: &str) {
        let sizes = ["--tokens", "30K", "--seq-len", "64", "--validation-tokens", "4K", "--seed", seed];
        let made = self.call(&[&["data", "synth", "--out", folder], &sizes[..]].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
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

    fn begin(&self, runs: &str) -> Child {
        let mut command = self.command(&["sweep", "run", "sweep.yaml", "--runs", runs]);
        let log = std::fs::File::create(self.path("log")).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("started")
    }

    fn status(&self, runs: &str) -> Vec<Value> {
        let said = self.call(&["sweep", "status", "sweep.yaml", "--json", "--runs", runs]);
        let document: Value = serde_json::from_slice(&said.stdout).expect("one document");
        document["runs"].as_array().expect("a list").clone()
    }

    fn count(&self, runs: &str, state: &str) -> usize {
        self.status(runs).iter().filter(|run| run["state"] == state).count()
    }

    /// Training losses of every step and the losses of the record, of each run.
    fn results(&self, runs: &str) -> Vec<(String, Vec<Value>)> {
        let one = |run: Value| {
            let id = run["run_id"].as_str().expect("an id").to_owned();
            let folder = self.path(runs).join(&id);
            let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
            let mut values: Vec<Value> = Vec::new();
            for (index, line) in lines.lines().enumerate() {
                let metrics: Value = serde_json::from_str(line).expect("a whole line");
                assert_eq!(metrics["step"], index + 1, "no step is missing or there twice");
                values.extend([metrics["loss"].clone(), metrics["grad_norm"].clone()]);
            }
            let record = std::fs::read_to_string(folder.join("record.json")).expect("a record");
            let record: Value = serde_json::from_str(&record).expect("a record");
            values.extend(["train_loss", "val_loss", "val_loss_4x"].map(|key| record[key].clone()));
            (id, values)
        };
        self.status(runs).into_iter().map(one).collect()
    }
}

/// Processes that train in `folder`: launchers, ranks and runs of one process.
fn trainers(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let trains = command.split(|byte| *byte == 0).any(|word| word == b"train");
        let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
        if trains && here {
            found.push(pid);
        }
    }
    found
}

#[test]
fn twenty_kills_and_a_dead_scheduler_change_no_bit() {
    let place = Place::new(SWEEP);
    let calm = Instant::now();
    let mut undisturbed = place.begin("calm");
    assert!(
        undisturbed.wait().expect("ended").success(),
        "{}",
        std::fs::read_to_string(place.path("log")).expect("log")
    );
    // Twenty kills within half of what a sweep takes, whatever the machine.
    let longest_pause = (calm.elapsed().as_millis() as u64 / 20).clamp(100, 900);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut kills = 0;
    let folder = place.folder.path().canonicalize().expect("a path");
    let mut scheduler = place.begin("runs");
    let began = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(rng.random_range(longest_pause / 10..longest_pause)));
        assert!(began.elapsed() < Duration::from_secs(400), "{:#?}", place.status("runs"));
        if let Some(status) = scheduler.try_wait().expect("watched") {
            assert!(status.success(), "{}", std::fs::read_to_string(place.path("log")).expect("log"));
            break;
        }
        let at_work = trainers(&folder);
        if kills < 20 && !at_work.is_empty() && kill(at_work[rng.random_range(0..at_work.len())]) {
            kills += 1;
            if kills == 10 {
                // The scheduler too; its runs go on, and the next one takes them over.
                scheduler.kill().expect("killed");
                scheduler.wait().expect("gone");
                scheduler = place.begin("runs");
            }
        }
    }
    assert_eq!(kills, 20, "the sweep was over before it was disturbed enough");
    assert_eq!(place.results("runs"), place.results("calm"));
    assert!(trainers(&folder).is_empty(), "nothing is left behind");
}

/// One run, stopped in its middle with two checkpoints.
fn halfway(place: &Place) -> PathBuf {
    let mut child = place.begin("runs");
    let began = Instant::now();
    let folder = place.path("runs").join(place.status("runs")[0]["run_id"].as_str().expect("an id"));
    let run = lossfloor::runs::RunFolder::at(&folder);
    while run.checkpoint_steps().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("no process is zero");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    folder
}

const ONE: &str = "grid: {model.arch: [transformer], seed: [2]}\n";

fn one_run() -> String {
    let grid = SWEEP.lines().find(|line| line.starts_with("grid")).expect("a grid");
    SWEEP.replace(&format!("{grid}\n"), ONE).replace("tokens: 25600", "tokens: 102400")
}

#[test]
fn a_truncated_checkpoint_costs_the_steps_since_the_one_before() {
    let place = Place::new(&one_run());
    let folder = halfway(&place);
    let run = lossfloor::runs::RunFolder::at(&folder);
    let last = *run.checkpoint_steps().last().expect("some");
    let newest = run.checkpoints().join(format!("step-{last:08}.safetensors"));
    let whole = std::fs::read(&newest).expect("a checkpoint");
    std::fs::write(&newest, &whole[..whole.len() / 2]).expect("truncated");
    let done = place.call(&["sweep", "run", "sweep.yaml"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let log = std::fs::read_to_string(run.log()).expect("a log");
    assert!(
        log.contains(&format!("warning: checkpoint runs/{}", folder.file_name().expect("a name").to_string_lossy())),
        "{log}"
    );
    let steps = place.results("runs")[0].1.len();
    assert_eq!(steps, 2 * 400 + 3, "every step once");
    // With none that can be read, nothing is begun anew by itself.
    std::fs::remove_file(folder.join("record.json")).expect("removed");
    for step in run.checkpoint_steps() {
        std::fs::write(run.checkpoints().join(format!("step-{step:08}.safetensors")), "half").expect("truncated");
    }
    let refused = place.call(&["sweep", "run", "sweep.yaml"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains("cannot be used"), "{}", text(&refused.stderr));
}

#[test]
fn folders_removed_points_edited_and_data_changed() {
    let place = Place::new(&SWEEP.replace("seed: [1, 2, 3]", "seed: [2]").replace("tokens: 25600", "tokens: 2560"));
    assert!(place.call(&["sweep", "run", "sweep.yaml"]).status.success());
    let before = place.results("runs");
    // A folder removed by hand: that run alone is done again, with the same numbers.
    std::fs::remove_dir_all(place.path("runs").join(&before[1].0)).expect("removed");
    assert_eq!((place.count("runs", "done"), place.count("runs", "pending")), (3, 1));
    assert!(place.call(&["sweep", "run", "sweep.yaml"]).status.success());
    assert_eq!(place.results("runs"), before);
    // A point out, another one in.
    let edited = std::fs::read_to_string(place.path("sweep.yaml")).expect("read").replace("[16, 32]", "[16, 24]");
    std::fs::write(place.path("sweep.yaml"), &edited).expect("written");
    let done = place.call(&["sweep", "run", "sweep.yaml"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(
        text(&done.stderr).contains("2 runs of an earlier version of this file are in it no longer"),
        "{}",
        text(&done.stderr)
    );
    assert!(place.path("runs").join(&before[1].0).join("record.json").exists(), "nothing is removed");
    // Other text at the same place.
    std::fs::remove_dir_all(place.path("data")).expect("removed");
    place.data("data", "5");
    let refused = place.call(&["sweep", "run", "sweep.yaml"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("has changed since 4 runs of this sweep were finished on it"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // A run that was started before the change does not go on with other data.
    let config = place.path("runs").join(&before[0].0).join("config.yaml");
    let stale = place.call(&["train", &config.display().to_string(), "--attempt", "9"]);
    assert_eq!(stale.status.code(), Some(2), "{}", text(&stale.stderr));
    assert!(text(&stale.stderr).contains("its data or its configuration have changed"), "{}", text(&stale.stderr));
    assert!(place.call(&["sweep", "run", "sweep.yaml", "--new-data"]).status.success());
}

#[test]
fn two_sweeps_at_once_share_the_runs() {
    let place = Place::new(&SWEEP.replace("seed: [1, 2, 3]", "seed: [2]").replace("tokens: 25600", "tokens: 12800"));
    let mut both = [place.begin("runs"), place.begin("runs")];
    for child in &mut both {
        assert!(child.wait().expect("ended").success());
    }
    for (id, _) in place.results("runs") {
        let run = lossfloor::runs::RunFolder::at(&place.path("runs").join(&id));
        let worked = run.attempts().iter().filter(|attempt| attempt.environment().is_some()).count();
        assert_eq!(worked, 1, "{id} was trained once");
    }
}

#[test]
fn a_loss_that_goes_too_high_ends_a_run_and_retry_forgets_it() {
    let place = Place::new(&format!(
        "{}run: {{stop_run: {{when: loss is nan or loss > 1, after: 1K tokens}}}}\n",
        one_run().replace("run: {retries: 40}\n", "")
    ));
    let output = place.call(&["sweep", "run", "sweep.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("given up in step 4: loss is nan or loss > 1"), "{}", text(&output.stderr));
    let again = place.call(&["sweep", "retry", "sweep.yaml", "1"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(place.count("runs", "pending"), 1);
    let refused = place.call(&["plan", "sweep.yaml", "--set", "run.stop_run={when: los > 3}"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("did you mean 'loss'"), "{}", text(&refused.stderr));
}
