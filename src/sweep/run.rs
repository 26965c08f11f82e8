//! [`Scheduler`]: carries out a plan, one process per run, as many at once as there are slots.
//!
//! A run's own record decides how it ended. A run whose lock is held by a process that this scheduler did not start is
//! waited for, never started a second time: that is how a scheduler takes over from one that died. Which run goes next,
//! [`packing`](super::packing) says.

use super::devices::Slots;
use super::executor::{Ending, Executor, Job, Process};
use super::file::{NoRetry, Order, RunSection};
use super::packing::{self, Candidate};
use super::plan::{PlannedRun, SweepPlan};
use super::state::RunState;
use super::{SweepError, SweepFile};
use crate::config::load;
use crate::files;
use crate::record::{RunRecord, RunStatus};
use crate::runs::{Attempt, Cause, Exit, Observer, RunFolder, tells_of_memory};
use std::path::Path;
use std::time::{Duration, Instant};

/// How one run of a sweep ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All steps were taken.
    Completed,
    /// Its loss became NaN or infinite.
    Diverged(String),
    /// Why it failed, for the last time.
    Failed(String),
    /// Stopped by a signal; it carries on next time.
    Interrupted,
    /// Still at work in a process that this scheduler does not own.
    Elsewhere,
    /// Never started.
    NotStarted,
}

/// How a sweep ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each run of the plan, in its order.
    pub ends: Vec<End>,
    /// Somebody stopped it.
    pub interrupted: bool,
    /// This build or machine cannot train; why.
    pub unavailable: Option<String>,
}

/// What happens while a sweep runs. Runs are named by their place in the plan.
#[derive(Debug)]
pub enum Event<'a> {
    /// Has been done before.
    Already(usize, &'a End),
    /// A process was started on it.
    Started { run: usize, attempt: u32, gpus: &'a [String] },
    /// Another process is at work on it; waits for that one.
    Elsewhere(usize),
    /// It crashed and will be tried again.
    Retrying { run: usize, reason: &'a str },
    /// It was asked to make room by somebody else, has saved itself and will go on.
    Saved(usize),
    /// It ended.
    Ended(usize, &'a End),
    /// Starts nothing new, because of so many failures.
    Halted(usize),
    /// Was asked to stop; passes it on.
    Stopping,
    /// Some time has passed; these are at work.
    Tick(&'a [usize]),
}

struct Running {
    run: usize,
    process: Box<dyn Process>,
    gpus: Vec<String>,
    attempt: Attempt,
    since: Instant,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Waiting,
    Running,
    Elsewhere,
    Ended(End),
}

/// Carries out a plan.
#[derive(Debug)]
pub struct Scheduler<'a> {
    /// What is run.
    pub plan: &'a SweepPlan,
    /// Where each run has its folder.
    pub runs_dir: &'a Path,
    /// Looks after processes that this scheduler did not start.
    pub observer: &'a Observer,
    /// What the runs share.
    pub slots: Slots,
    /// Order, retries and limits.
    pub options: RunSection,
    /// Time between two looks at the processes.
    pub poll: Duration,
}

impl Scheduler<'_> {
    /// Runs everything that is not done, to its end or until it is stopped. `stop` tells how often somebody asked for
    /// that: once lets runs save themselves, twice kills them.
    pub fn run(
        &self,
        executor: &mut dyn Executor,
        stop: &dyn Fn() -> usize,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Outcome, SweepError> {
        let count = self.plan.runs.len();
        let mut work = Work {
            plan: self.plan,
            runs_dir: self.runs_dir,
            observer: self.observer,
            slots: &self.slots,
            options: &self.options,
            executor,
            stop,
            on_event,
            places: vec![Place::Waiting; count],
            attempts: vec![0; count],
            running: Vec::new(),
            failures: 0,
            halted: false,
            asked: 0,
            unavailable: None,
        };
        let result = work.carry_out(self.poll);
        if result.is_err() {
            // Whatever went wrong here, the runs may save themselves.
            work.running.iter_mut().for_each(|running| running.process.terminate());
        }
        result?;
        let ends = work.places.iter().map(|place| match place {
            Place::Ended(end) => end.clone(),
            Place::Elsewhere => End::Elsewhere,
            Place::Waiting | Place::Running => End::NotStarted,
        });
        Ok(Outcome { ends: ends.collect(), interrupted: work.asked > 0, unavailable: work.unavailable })
    }
}

/// A scheduler at work.
struct Work<'a> {
    plan: &'a SweepPlan,
    runs_dir: &'a Path,
    observer: &'a Observer,
    slots: &'a Slots,
    options: &'a RunSection,
    executor: &'a mut dyn Executor,
    stop: &'a dyn Fn() -> usize,
    on_event: &'a mut dyn FnMut(Event),
    places: Vec<Place>,
    attempts: Vec<u32>,
    running: Vec<Running>,
    failures: usize,
    halted: bool,
    asked: usize,
    unavailable: Option<String>,
}

impl Work<'_> {
    fn folder(&self, run: usize) -> RunFolder {
        RunFolder::new(self.runs_dir, &self.plan.runs[run].id)
    }

    fn carry_out(&mut self, poll: Duration) -> Result<(), SweepError> {
        for run in 0..self.plan.runs.len() {
            let folder = self.folder(run);
            // The lock goes first here and below: what a process that has let go of it wrote is there to be read.
            let locked = folder.is_held(self.observer)?;
            if let Some(end) = final_end(folder.record()?.as_ref()) {
                (self.on_event)(Event::Already(run, &end));
                self.places[run] = Place::Ended(end);
            } else if locked {
                self.places[run] = Place::Elsewhere;
                (self.on_event)(Event::Elsewhere(run));
            }
        }
        let order = self.order();
        loop {
            self.pass_on_stop();
            self.poll_running()?;
            self.poll_elsewhere()?;
            if self.asked == 0 && !self.halted && self.unavailable.is_none() {
                self.start_what_fits(&order)?;
            }
            let at_work: Vec<usize> = self.running.iter().map(|running| running.run).collect();
            let waiting = |place: &Place| match place {
                Place::Elsewhere => self.asked == 0,
                Place::Waiting => self.asked == 0 && !self.halted && self.unavailable.is_none(),
                Place::Running | Place::Ended(_) => false,
            };
            if at_work.is_empty() && !self.places.iter().any(waiting) {
                return Ok(());
            }
            (self.on_event)(Event::Tick(&at_work));
            std::thread::sleep(poll);
        }
    }

    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.plan.runs.len()).collect();
        if self.options.order == Order::LongestFirst {
            let left = |run: &usize| self.plan.runs[*run].seconds_left();
            order.sort_by(|a, b| left(b).total_cmp(&left(a)));
        }
        order
    }

    fn pass_on_stop(&mut self) {
        let asked = (self.stop)();
        if asked > 0 && self.asked == 0 {
            (self.on_event)(Event::Stopping);
            self.running.iter_mut().for_each(|running| running.process.terminate());
        }
        if asked > 1 && self.asked <= 1 {
            self.running.iter_mut().for_each(|running| running.process.kill());
        }
        self.asked = self.asked.max(asked);
    }

    fn poll_running(&mut self) -> Result<(), SweepError> {
        let mut index = 0;
        while index < self.running.len() {
            match self.running[index].process.poll()? {
                None => index += 1,
                Some(ending) => {
                    let ended = self.running.remove(index);
                    self.ended(&ended, ending)?;
                }
            }
        }
        Ok(())
    }

    /// Runs that another process works on: their lock says when they are over, their record how.
    fn poll_elsewhere(&mut self) -> Result<(), SweepError> {
        for run in 0..self.places.len() {
            let folder = self.folder(run);
            if self.places[run] != Place::Elsewhere || folder.is_held(self.observer)? {
                continue;
            }
            let record = folder.record()?;
            match (final_end(record.as_ref()), record) {
                (Some(end), _) => self.end(run, end),
                (None, Some(record)) if record.status == RunStatus::Failed => {
                    self.attempts[run] += 1;
                    self.crashed(run, record.reason.unwrap_or_default());
                }
                // Interrupted, or gone without a word: carries on from its checkpoint, here.
                (None, _) => self.places[run] = Place::Waiting,
            }
        }
        Ok(())
    }

    fn start_what_fits(&mut self, order: &[usize]) -> Result<(), SweepError> {
        loop {
            let waiting: Vec<usize> = order.iter().copied().filter(|&run| self.places[run] == Place::Waiting).collect();
            let orphans = self.orphans();
            if waiting.is_empty() || self.running.len() + orphans.len() >= self.slots.most {
                return Ok(());
            }
            let at_work = self.running.iter().map(|running| (running.run, Some(running.since)));
            let at_work: Vec<Candidate> = at_work
                .chain(orphans.iter().map(|(run, _)| (*run, None)))
                .map(|(run, since)| self.left(run, since))
                .collect();
            let wanted: Vec<Candidate> = waiting.iter().map(|&run| self.left(run, None)).collect();
            let Some(next) = packing::choose(&wanted, &at_work, self.slots.whole()) else { return Ok(()) };
            let run = waiting[next];
            let folder = self.folder(run);
            // Another sweep may share this run and have come first.
            let locked = folder.is_held(self.observer)?;
            if let Some(end) = final_end(folder.record()?.as_ref()) {
                self.end(run, end);
            } else if locked {
                self.places[run] = Place::Elsewhere;
                (self.on_event)(Event::Elsewhere(run));
            } else {
                let ours = self.running.iter().flat_map(|running| running.gpus.clone());
                let taken: Vec<String> = ours.chain(orphans.into_iter().flat_map(|(_, gpus)| gpus)).collect();
                let gpus = self.slots.pick(self.plan.runs[run].need().gpus, &taken);
                self.start(run, &folder, gpus)?;
            }
        }
    }

    /// What a run takes, and for how long: by its own pace where it has one.
    fn left(&self, run: usize, since: Option<Instant>) -> Candidate {
        let planned = &self.plan.runs[run];
        let pace = || {
            let last = self.folder(run).last_metrics()?;
            let left = planned.config.tokens.saturating_sub(last.tokens) as f64;
            (last.tokens_per_s > 0.0).then(|| left / last.tokens_per_s)
        };
        let estimate = || (planned.seconds_left() - since.map_or(0.0, |since| since.elapsed().as_secs_f64())).max(0.0);
        let seconds = if since.is_some() { pace().unwrap_or_else(estimate) } else { estimate() };
        Candidate { need: planned.need(), seconds }
    }

    /// Runs that processes of a dead scheduler work on, and their GPUs: they use this machine as ours do.
    fn orphans(&self) -> Vec<(usize, Vec<String>)> {
        let elsewhere = (0..self.places.len()).filter(|&run| self.places[run] == Place::Elsewhere);
        let here = elsewhere
            .filter(|&run| self.folder(run).owner().ok().flatten().is_some_and(|owner| self.observer.is_here(&owner)));
        here.map(|run| {
            let environment = self.folder(run).attempts().last().and_then(Attempt::environment);
            let visible =
                environment.and_then(|env| Some(env["environment"]["CUDA_VISIBLE_DEVICES"].as_str()?.to_owned()));
            let gpus = visible.unwrap_or_default();
            (run, gpus.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect())
        })
        .collect()
    }

    fn start(&mut self, run: usize, folder: &RunFolder, gpus: Vec<String>) -> Result<(), SweepError> {
        let config = &self.plan.runs[run].config;
        files::write_atomic(&folder.config(), load::to_yaml(&config.written()).as_bytes())?;
        folder.archive_record()?;
        let attempt = Attempt::begin(folder)?;
        let job = Job {
            folder: folder.clone(),
            runs_dir: self.runs_dir.to_owned(),
            attempt: attempt.clone(),
            gpus: gpus.clone(),
        };
        let process = self.executor.start(&job)?;
        self.attempts[run] += 1;
        self.places[run] = Place::Running;
        (self.on_event)(Event::Started { run, attempt: self.attempts[run], gpus: &gpus });
        self.running.push(Running { run, process, gpus, attempt, since: Instant::now() });
        Ok(())
    }

    /// What became of a process of ours.
    fn ended(&mut self, ended: &Running, ending: Ending) -> Result<(), SweepError> {
        let run = ended.run;
        let folder = self.folder(run);
        let held = folder.is_held(self.observer)?;
        let record = folder.record()?;
        let exit = match ended.attempt.exit() {
            Some(exit) => exit,
            None => {
                let exit = self.judge(ended, ending, &folder, record.as_ref());
                ended.attempt.end_if_open(&exit)?;
                exit
            }
        };
        if let Some(end) = final_end(record.as_ref()) {
            self.end(run, end);
            return Ok(());
        }
        if exit.cause == Cause::Interrupted || (exit.cause == Cause::Saved && self.asked > 0) {
            self.end(run, End::Interrupted);
            return Ok(());
        }
        if exit.cause == Cause::Saved {
            // Free of charge: nothing went wrong.
            self.attempts[run] -= 1;
            self.places[run] = Place::Waiting;
            (self.on_event)(Event::Saved(run));
            return Ok(());
        }
        if held || exit.cause == Cause::Taken {
            // A process of another scheduler took it after we had looked.
            self.attempts[run] -= 1;
            self.places[run] = Place::Elsewhere;
            (self.on_event)(Event::Elsewhere(run));
            return Ok(());
        }
        let reason = exit.reason.clone().unwrap_or_else(|| "ended without a record".to_owned());
        let status = if exit.cause == Cause::Diverged { RunStatus::Diverged } else { RunStatus::Failed };
        let config = &self.plan.runs[run].config;
        folder.write_record_if_absent(&folder.record_without_result(config, status, &reason))?;
        match exit.cause {
            Cause::Diverged => self.end(run, End::Diverged(reason)),
            Cause::Config => self.fail(run, reason),
            Cause::Unavailable => {
                self.unavailable.get_or_insert(reason.clone());
                self.fail(run, reason);
            }
            Cause::Oom if self.options.refuses(NoRetry::Oom) => self.fail(run, reason),
            _ => self.crashed(run, reason),
        }
        Ok(())
    }

    /// How an attempt ended that did not say so itself.
    fn judge(&self, ended: &Running, ending: Ending, folder: &RunFolder, record: Option<&RunRecord>) -> Exit {
        let said = ended.attempt.last_words();
        let reason = record.and_then(|record| record.reason.clone()).or(said);
        let interrupted = record.is_some_and(|record| record.status == RunStatus::Interrupted);
        let completed = record.is_some_and(|record| record.status == RunStatus::Completed);
        let cause = match ending {
            _ if interrupted => Cause::Interrupted,
            Ending::Signal(_) if self.asked > 0 => Cause::Interrupted,
            Ending::Code(code) => Cause::of_status(code),
            Ending::Signal(_) => Cause::Crash,
        };
        let cause = match cause {
            Cause::Done | Cause::Crash if reason.as_deref().is_some_and(tells_of_memory) => Cause::Oom,
            Cause::Done if !completed => Cause::Crash,
            cause => cause,
        };
        let (status, reason) = match (ending, reason) {
            (Ending::Code(code), Some(reason)) => (Some(code), reason),
            (Ending::Code(0), None) => (Some(0), "ended without a record".to_owned()),
            (Ending::Code(code), None) => (Some(code), format!("ended with status {code} and said nothing")),
            (Ending::Signal(signal), Some(reason)) => (None, format!("killed by signal {signal}; last said: {reason}")),
            (Ending::Signal(signal), None) => (None, format!("killed by signal {signal}")),
        };
        let step = folder.saved_step();
        Exit::now(cause, status, Some(reason), step)
    }

    /// Tries a crashed run again, as often as the sweep says.
    fn crashed(&mut self, run: usize, reason: String) {
        let retries = self.options.retries.unwrap_or(1);
        if self.attempts[run] > retries || self.asked > 0 || self.halted {
            self.fail(run, reason);
        } else {
            self.places[run] = Place::Waiting;
            (self.on_event)(Event::Retrying { run, reason: &reason });
        }
    }

    fn fail(&mut self, run: usize, reason: String) {
        self.end(run, End::Failed(reason));
        self.failures += 1;
        if !self.halted && self.options.stop_sweep_after.is_some_and(|most| self.failures >= most) {
            self.halted = true;
            (self.on_event)(Event::Halted(self.failures));
        }
    }

    fn end(&mut self, run: usize, end: End) {
        (self.on_event)(Event::Ended(run, &end));
        self.places[run] = Place::Ended(end);
    }
}

/// The end that a record tells of, where it is one that is not tried again.
fn final_end(record: Option<&RunRecord>) -> Option<End> {
    let record = record?;
    match record.status {
        RunStatus::Completed => Some(End::Completed),
        RunStatus::Diverged => Some(End::Diverged(record.reason.clone().unwrap_or_default())),
        RunStatus::Failed | RunStatus::Interrupted => None,
    }
}

/// Refuses to run a plan of which data is missing.
pub fn ready(sweep: &SweepFile, plan: &SweepPlan) -> Result<(), SweepError> {
    match plan.runs.iter().find(|run| run.state == RunState::DataMissing) {
        Some(PlannedRun { config, .. }) => {
            let (train, val) = (config.train_data.display(), config.val_data.display());
            let hint = "hint: make it with `lossfloor data synth` or `lossfloor data pack`";
            Err(sweep.layout("data", format!("there is no corpus at {train} or at {val}; {hint}")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
