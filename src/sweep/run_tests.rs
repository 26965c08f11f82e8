use super::*;
use crate::config::{ExperimentConfig, RunConfig};
use crate::runs::Claim;
use crate::sweep::devices::Machine;
use crate::sweep::executor::ExecutorError;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What a pretended process does when it ends.
#[derive(Clone, Debug)]
enum Act {
    /// Writes a record of this status, then ends so.
    Record(RunStatus, i32),
    /// Says this and ends so, without a record.
    Die(&'static str, Ending),
    /// Runs until it is told to stop, then behaves.
    Endless,
}

/// Starts processes that exist in this test alone. A process ends at its second look.
#[derive(Default)]
struct MockExecutor {
    /// Acts of a label's attempts; completes where none is left.
    acts: HashMap<String, Vec<Act>>,
    started: Rc<RefCell<Vec<String>>>,
    locks: Rc<RefCell<Vec<Claim>>>,
}

struct MockProcess {
    act: Act,
    job: Job,
    config: RunConfig,
    looks: u32,
    told: Option<Ending>,
}

impl Executor for MockExecutor {
    fn start(&mut self, job: &Job) -> Result<Box<dyn Process>, ExecutorError> {
        let written: ExperimentConfig = load::read(&job.folder.config()).unwrap();
        let config = RunConfig::resolve(&written, &|_| Ok(None)).unwrap();
        assert_eq!(
            job.folder.path.file_name().unwrap().to_str().unwrap(),
            config.id().0,
            "the written config is the run"
        );
        assert!(job.folder.record().unwrap().is_none(), "an earlier record would be taken for this attempt's");
        self.started.borrow_mut().push(config.label.clone());
        let acts = self.acts.entry(config.label.clone()).or_default();
        let act = if acts.is_empty() { Act::Record(RunStatus::Completed, 0) } else { acts.remove(0) };
        Ok(Box::new(MockProcess { act, job: job.clone(), config, looks: 0, told: None }))
    }
}

impl Process for MockProcess {
    fn pid(&self) -> u32 {
        1
    }
    fn poll(&mut self) -> Result<Option<Ending>, ExecutorError> {
        self.looks += 1;
        let record = |status| {
            let record = self.job.folder.record_without_result(&self.config, status, "as told");
            self.job.folder.write_record_if_absent(&record).unwrap();
        };
        if self.looks < 2 {
            return Ok(None);
        }
        Ok(match &self.act {
            Act::Record(status, code) => {
                record(*status);
                Some(Ending::Code(*code))
            }
            Act::Die(words, ending) => {
                std::fs::write(self.job.attempt.log(), words).unwrap();
                Some(*ending)
            }
            Act::Endless => {
                if self.told == Some(Ending::Code(130)) {
                    record(RunStatus::Interrupted);
                }
                self.told
            }
        })
    }
    fn terminate(&mut self) {
        self.told = Some(Ending::Code(130));
    }
    fn kill(&mut self) {
        self.told = Some(Ending::Signal(9));
    }
}

const SWEEP: &str = "
sweep: trial
base:
  model: {arch: transformer, depth: 4, d_model: 16, n_heads: 2, n_kv_heads: 1, head_dim: 8, context: 32}
  data: {train: nowhere/train, val: nowhere/val}
  scaling: {rule: none, lr: 1e-2, batch_tokens: 128}
label: t{train.tokens}
grid: {train.tokens: [1280, 5120, 2560]}
";

struct Trial {
    folder: tempfile::TempDir,
    executor: MockExecutor,
    extra: String,
    machine: Machine,
}

impl Trial {
    fn new(extra: &str) -> Self {
        let machine = Machine { gpus: Vec::new(), cores: 1, ..Machine::default() };
        Self {
            folder: tempfile::tempdir().unwrap(),
            executor: MockExecutor::default(),
            extra: extra.to_owned(),
            machine,
        }
    }

    fn act(mut self, label: &str, acts: &[Act]) -> Self {
        self.executor.acts.insert(label.to_owned(), acts.to_vec());
        self
    }

    fn plan(&self) -> (SweepFile, SweepPlan) {
        let path = self.folder.path().join("sweep.yaml");
        std::fs::write(&path, format!("{SWEEP}{}", self.extra)).unwrap();
        let sweep = SweepFile::read(&path, &[]).unwrap();
        let plan = SweepPlan::new(&sweep, self.folder.path(), &self.machine, &Observer::new(None)).unwrap();
        (sweep, plan)
    }

    /// The folder of run `index` of the plan.
    fn at(&self, index: usize) -> RunFolder {
        RunFolder::new(self.folder.path(), &self.plan().1.runs[index].id)
    }

    /// Runs the sweep; the story of it, and its outcome.
    fn run(&mut self, stop: &dyn Fn() -> usize) -> (Vec<String>, Outcome) {
        let (sweep, plan) = self.plan();
        let slots = self.machine.slots(&sweep).unwrap();
        let observer = Observer::new(None);
        let scheduler = Scheduler {
            plan: &plan,
            runs_dir: self.folder.path(),
            observer: &observer,
            slots,
            options: sweep.run.clone(),
            poll: Duration::ZERO,
        };
        let mut story = Vec::new();
        let label = |run: usize| plan.runs[run].config.label.clone();
        let locks = self.executor.locks.clone();
        let mut on_event = |event: Event| match event {
            Event::Already(run, end) => story.push(format!("already {} {}", label(run), word(end))),
            Event::Started { run, gpus: [], .. } => story.push(format!("start {}", label(run))),
            Event::Started { run, gpus, .. } => story.push(format!("start {} on {}", label(run), gpus.join(" "))),
            Event::Saved(run) => story.push(format!("saved {}", label(run))),
            Event::Elsewhere(run) => story.push(format!("elsewhere {}", label(run))),
            Event::Retrying { run, reason } => story.push(format!("retry {}: {reason}", label(run))),
            Event::Ended(run, end) => story.push(format!("{} {}", word(end), label(run))),
            Event::Halted(failures) => story.push(format!("halt after {failures}")),
            Event::Stopping => story.push("stopping".to_owned()),
            Event::Tick(_) => locks.borrow_mut().clear(),
        };
        let outcome = scheduler.run(&mut self.executor, stop, &mut on_event).unwrap();
        (story, outcome)
    }
}

fn word(end: &End) -> String {
    match end {
        End::Completed => "completed".to_owned(),
        End::Diverged(_) => "diverged".to_owned(),
        End::Failed(reason) => format!("failed ({reason})"),
        End::Interrupted => "interrupted".to_owned(),
        End::Elsewhere | End::NotStarted => unreachable!("no event tells of these"),
    }
}

fn never() -> usize {
    0
}

#[test]
fn the_longest_goes_first_and_done_runs_are_not_repeated() {
    let mut trial = Trial::new("");
    let (story, _) = trial.run(&never);
    assert_eq!(
        story,
        ["start t5120", "completed t5120", "start t2560", "completed t2560", "start t1280", "completed t1280"]
    );
    let (story, outcome) = trial.run(&never);
    assert_eq!(story, ["already t1280 completed", "already t5120 completed", "already t2560 completed"]);
    assert_eq!(outcome.ends, vec![End::Completed; 3]);
}

#[test]
fn listed_order_and_several_at_once() {
    let mut trial = Trial::new("run: {order: listed}\n");
    trial.machine.cores = 2;
    let (story, _) = trial.run(&never);
    assert_eq!(story[..3], ["start t1280", "start t5120", "completed t1280"]);
    let mut trial = Trial::new("run: {max_running: 1, order: listed}\n");
    trial.machine.cores = 2;
    assert_eq!(trial.run(&never).0[..2], ["start t1280", "completed t1280"]);
    let mut trial = Trial::new("exec: {threads: 4}\n");
    trial.machine.cores = 2;
    assert_eq!(trial.run(&never).0[..3], ["start t5120", "completed t5120", "start t2560"]);
}

#[test]
fn each_gpu_gets_one_run_before_any_gets_two() {
    let mut trial = Trial::new("backends: {local: {gpus: [1, 0], runs_per_gpu: 2}}\n");
    trial.machine.gpus = vec!["4".to_owned(), "7".to_owned()];
    assert_eq!(trial.run(&never).0[..3], ["start t5120 on 7", "start t2560 on 4", "start t1280 on 7"]);
}

#[test]
fn a_crash_is_retried_and_then_a_failed_record_stays() {
    let crash = Act::Die("step 1\nerror: no luck\n\n", Ending::Code(101));
    let mut trial = Trial::new("").act("t5120", std::slice::from_ref(&crash)).act("t2560", &[crash.clone(), crash]);
    let (story, outcome) = trial.run(&never);
    assert_eq!(
        story[..6],
        [
            "start t5120",
            "retry t5120: error: no luck",
            "start t5120",
            "completed t5120",
            "start t2560",
            "retry t2560: error: no luck"
        ]
    );
    assert_eq!(outcome.ends[2], End::Failed("error: no luck".to_owned()));
    let folder = trial.at(2);
    assert_eq!(RunState::of(&folder, &Observer::new(None)).unwrap(), RunState::Failed);
    assert_eq!(folder.record().unwrap().unwrap().reason.as_deref(), Some("error: no luck"));
    assert!(folder.path.join("attempts/001/record.json").exists(), "the first attempt's record is kept");
    // The next call tries again.
    let (story, outcome) = trial.run(&never);
    assert!(story.contains(&"start t2560".to_owned()));
    assert_eq!(outcome.ends, vec![End::Completed; 3]);
}

#[test]
fn divergence_and_bad_configs_are_not_retried() {
    let mut trial = Trial::new("")
        .act("t5120", &[Act::Record(RunStatus::Diverged, 3)])
        .act("t2560", &[Act::Die("error: bad key", Ending::Code(2))]);
    let (story, outcome) = trial.run(&never);
    assert_eq!(story[1], "diverged t5120");
    assert_eq!(story[3], "failed (error: bad key) t2560");
    assert!(matches!(outcome.ends[..], [End::Completed, End::Diverged(_), End::Failed(_)]));
    // Diverged stays as it is, failed is tried again.
    let (story, _) = trial.run(&never);
    assert_eq!(story[1], "already t5120 diverged");
    assert!(story.contains(&"completed t2560".to_owned()));
}

#[test]
fn a_build_that_cannot_train_stops_the_sweep() {
    let mut trial = Trial::new("").act("t5120", &[Act::Die("error: no LibTorch", Ending::Code(6))]);
    let (story, outcome) = trial.run(&never);
    assert_eq!(story, ["start t5120", "failed (error: no LibTorch) t5120"]);
    assert_eq!(outcome.unavailable.as_deref(), Some("error: no LibTorch"));
}

#[test]
fn memory_and_many_failures_end_a_sweep_early_when_it_says_so() {
    let oom = Act::Die("CUDA out of memory", Ending::Code(1));
    let mut trial = Trial::new("run: {stop_sweep_after: 1}\n").act("t5120", std::slice::from_ref(&oom));
    let (story, outcome) = trial.run(&never);
    assert_eq!(story, ["start t5120", "failed (CUDA out of memory) t5120", "halt after 1"]);
    assert_eq!(outcome.ends[0], End::NotStarted);
    let mut trial = Trial::new("run: {no_retry: [nan]}\n").act("t5120", &[oom]);
    assert_eq!(trial.run(&never).0[1], "retry t5120: CUDA out of memory");
}

#[test]
fn one_signal_saves_and_the_next_call_carries_on() {
    let mut trial = Trial::new("").act("t5120", &[Act::Endless]);
    let started = trial.executor.started.clone();
    let (story, outcome) = trial.run(&move || usize::from(!started.borrow().is_empty()));
    assert_eq!(story, ["start t5120", "stopping", "interrupted t5120"]);
    assert!(outcome.interrupted);
    assert_eq!(RunState::of(&trial.at(1), &Observer::new(None)).unwrap(), RunState::Resumable);
    let (story, _) = trial.run(&never);
    assert_eq!(story[..2], ["start t5120", "completed t5120"]);
}

#[test]
fn a_second_signal_kills_and_leaves_no_failure() {
    let mut trial = Trial::new("").act("t5120", &[Act::Endless]);
    let started = trial.executor.started.clone();
    let (story, _) = trial.run(&move || 2 * usize::from(!started.borrow().is_empty()));
    assert_eq!(story, ["start t5120", "stopping", "interrupted t5120"]);
    assert_eq!(RunState::of(&trial.at(1), &Observer::new(None)).unwrap(), RunState::Pending);
}

#[test]
fn a_locked_run_is_waited_for() {
    let mut trial = Trial::new("");
    let (_, plan) = trial.plan();
    let folder = RunFolder::new(trial.folder.path(), &plan.runs[1].id);
    let lock = Claim::take(&folder.path, &Observer::new(None)).unwrap();
    assert_eq!(RunState::of(&trial.at(1), &Observer::new(None)).unwrap(), RunState::Running);
    folder
        .write_record_if_absent(&folder.record_without_result(&plan.runs[1].config, RunStatus::Failed, "lost its disk"))
        .unwrap();
    trial.executor.locks.borrow_mut().push(lock);
    // It takes the only core until it lets go of its lock; its failure then counts as one attempt.
    let (story, _) = trial.run(&never);
    assert_eq!(story[..4], ["elsewhere t5120", "retry t5120: lost its disk", "start t5120", "completed t5120"]);
}

#[test]
fn a_run_that_makes_room_goes_on_free_of_charge() {
    let saved = Act::Die("error: asked to make room", Ending::Code(75));
    let mut trial = Trial::new("run: {retries: 0}\n").act("t5120", &vec![saved; 3]);
    let (story, outcome) = trial.run(&never);
    assert_eq!(story[..4], ["start t5120", "saved t5120", "start t5120", "saved t5120"]);
    assert_eq!(outcome.ends, vec![End::Completed; 3]);
    let causes: Vec<Cause> = trial.at(1).attempts().iter().filter_map(|a| Some(a.exit()?.cause)).collect();
    assert_eq!(causes, [Cause::Saved, Cause::Saved, Cause::Saved, Cause::Done]);
}

#[test]
fn a_run_of_several_gpus_gets_different_ones() {
    let mut trial =
        Trial::new("exec: {rules: [{when: train.tokens > 5K, gpus: 2}]}\nbackends: {local: {runs_per_gpu: 2}}\n");
    trial.machine.gpus = vec!["4".to_owned(), "7".to_owned()];
    assert_eq!(trial.run(&never).0[..3], ["start t5120 on 4 7", "start t2560 on 4", "start t1280 on 7"]);
}
