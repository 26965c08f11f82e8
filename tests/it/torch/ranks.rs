//! Several processes training one run: the same losses as one process, and an end for all when one is lost.

use super::train::Place;
use lossfloor::record::{RunRecord, StepMetrics};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run in `folder` of the place left.
struct Left {
    losses: Vec<f64>,
    norms: Vec<f64>,
    record: RunRecord,
}

fn trained(place: &Place, folder: &str, set: &[&str]) -> Left {
    let set: Vec<&str> = set.iter().flat_map(|assignment| ["--set", assignment]).collect();
    let output = place.command(&[&["--runs", folder], &set[..]].concat()).output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    left(place, folder)
}

fn run_folder(place: &Place, folder: &str) -> PathBuf {
    place.path().join(folder).join(place.run(&[]).id().0)
}

fn left(place: &Place, folder: &str) -> Left {
    let run = run_folder(place, folder);
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let metrics: Vec<StepMetrics> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(metrics.iter().map(|m| m.step).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    let record = std::fs::read_to_string(run.join("record.json")).expect("a record");
    Left {
        losses: metrics.iter().map(|m| m.loss).collect(),
        norms: metrics.iter().map(|m| m.grad_norm).collect(),
        record: serde_json::from_str(&record).expect("a record"),
    }
}

/// Sums in another order: ten steps of rounding.
fn assert_same(one: &Left, other: &Left) {
    for (a, b) in one.losses.iter().zip(&other.losses).chain(one.norms.iter().zip(&other.norms)) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
    }
    let val = |left: &Left| left.record.val_loss.expect("a loss");
    assert!((val(one) - val(other)).abs() < 1e-5, "{} and {}", val(one), val(other));
}

#[test]
fn any_number_of_processes_takes_the_same_steps() {
    let place = Place::new();
    let one = trained(&place, "one", &[]);
    for (folder, set) in [
        ("two", vec!["exec.gpus=2"]),
        ("four", vec!["exec.gpus=4"]),
        ("three-sharded", vec!["exec.gpus=3", "exec.optimizer=sharded"]),
    ] {
        let several = trained(&place, folder, &set);
        assert_same(&one, &several);
        assert_eq!(several.record.val_tokens, one.record.val_tokens);
        assert!(several.record.processes > 1);
    }
}

#[test]
fn a_checkpoint_moves_between_numbers_of_processes() {
    let place = Place::new();
    let one = trained(&place, "one", &[]);
    // Stopped by its time again and again, each time with other ranks: 2, 4 sharded, 1, 3.
    let ranks = [vec!["exec.gpus=2"], vec!["exec.gpus=4", "exec.optimizer=sharded"], vec![], vec!["exec.gpus=3"]];
    for (round, set) in ranks.iter().cycle().enumerate() {
        assert!(round < 20, "it takes a step each time");
        let set: Vec<&str> = set.iter().flat_map(|assignment| ["--set", assignment]).collect();
        let stop = ["--runs", "moved", "--time-left", "0.001 s"];
        let output = place.command(&[&stop[..], &set[..]].concat()).output().expect("it ran");
        match output.status.code() {
            Some(0) => break,
            code => assert_eq!(code, Some(75), "{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    assert_same(&one, &left(&place, "moved"));
    let attempts = std::fs::read_dir(run_folder(&place, "moved").join("attempts")).expect("attempts").count();
    assert!(attempts >= 4, "{attempts}");
}

/// The ranks that a launcher has started: children of its process.
fn ranks_of(launcher: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
    let listed = children.expect("its children are listed");
    listed.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// Ends a process at once; whether there was one.
pub(super) fn kill(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("no process is zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
}

#[test]
fn a_lost_rank_ends_the_others_with_one_line() {
    let place = Place::new();
    for lost in [0, 1] {
        let run = ["--runs", "lost", "--set", "exec.gpus=2", "--set", "train.tokens=25600000"];
        let mut command: Command = std::process::Command::new(assert_cmd::cargo::cargo_bin("lossfloor"));
        let log = std::fs::File::create(place.path().join("log")).expect("a log");
        let launcher = command.current_dir(place.path()).args(["train", "run.yaml"]).args(run).stdout(Stdio::null());
        let mut launcher = launcher.stderr(log).spawn().expect("started");
        let folder = place.path().join("lost").join(place.run(&["train.tokens=25600000"]).id().0);
        let began = Instant::now();
        while !std::fs::metadata(folder.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0) {
            assert!(began.elapsed() < Duration::from_secs(60), "it trains");
            std::thread::sleep(Duration::from_millis(50));
        }
        let ranks = ranks_of(launcher.id());
        assert_eq!(ranks.len(), 2);
        let killed = Instant::now();
        assert!(kill(ranks[lost]));
        let status = launcher.wait().expect("ended");
        assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
        assert_eq!(status.code(), Some(1));
        let said = std::fs::read_to_string(place.path().join("log")).expect("a log");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors[0].starts_with(&format!("error: rank {lost} has ended, and the others")), "{said}");
        assert_eq!(errors.last(), Some(&&*format!("error: rank {lost} was killed by signal 9")), "{said}");
        assert_eq!(errors.len(), 2, "{said}");
        // Nothing is left that holds the run: the same command takes it up.
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}

#[test]
fn ranks_that_cannot_work_are_refused_in_one_line() {
    let place = Place::new();
    for (set, expected) in [
        (
            "exec.gpus=5",
            "run.yaml: exec.gpus: 5 processes cannot share a batch of 4 rows; hint: use fewer, or a larger batch",
        ),
        ("exec.gpus=0", "run.yaml: exec.gpus: must be at least 1"),
        (
            "exec.nodes=2",
            "exec.nodes = 2: one command starts the ranks of one machine; hint: `lossfloor sweep submit`, or torchrun on \
             each machine",
        ),
    ] {
        assert_eq!(place.refused(&["--set", set], 2).trim_end(), format!("error: {expected}"));
    }
    let alone = |name: &str, value: &str| {
        let output = place.command(&[]).env(name, value).output().expect("it ran");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
    };
    assert_eq!(alone("RANK", "0"), "error: RANK is set but WORLD_SIZE is not; hint: torchrun sets both");
}
