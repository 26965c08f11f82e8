//! [`Scheduler`]: carries out a plan, one process per run, as many at once as there are slots.
//!
//! A run's own record decides how it ended. A run whose lock is held by a process that this scheduler did not start is
//! waited for, never started a second time: that is how a scheduler takes over from one that died. Among the runs that
//! wait, the first that fits goes next, so cores may pass by a run that needs many of them until the others are done.

use super::devices::Slots;
use super::executor::{Ending, Executor, Job, Process};
use super::file::{NoRetry, Order, RunSection};
use super::plan::{PlannedRun, SweepPlan};
use super::state::{RunFolder, RunState, Worker, record_without_result};
use super::{SweepError, SweepFile};
use crate::config::load;
use crate::files;
use crate::record::{RunRecord, RunStatus};
use std::path::Path;
use std::time::Duration;

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
    Started { run: usize, attempt: u32, gpu: Option<&'a str> },
    /// Another process is at work on it; waits for that one.
    Elsewhere(usize),
    /// It crashed and will be tried again.
    Retrying { run: usize, reason: &'a str },
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
    gpu: Option<String>,
    log_from: u64,
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
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let mut work = Work {
            plan: self.plan,
            runs_dir: self.runs_dir,
            slots: &self.slots,
            options: &self.options,
            executor,
            stop,
            on_event,
            host,
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
    slots: &'a Slots,
    options: &'a RunSection,
    executor: &'a mut dyn Executor,
    stop: &'a dyn Fn() -> usize,
    on_event: &'a mut dyn FnMut(Event),
    host: String,
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
            let locked = folder.is_locked();
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
            if self.places[run] != Place::Elsewhere || folder.is_locked() {
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
        for &run in order {
            if self.places[run] != Place::Waiting {
                continue;
            }
            let Some(gpu) = self.free_slot(run) else { continue };
            let folder = self.folder(run);
            // Another sweep may share this run and have come first.
            let locked = folder.is_locked();
            if let Some(end) = final_end(folder.record()?.as_ref()) {
                self.end(run, end);
            } else if locked {
                self.places[run] = Place::Elsewhere;
                (self.on_event)(Event::Elsewhere(run));
            } else {
                self.start(run, &folder, gpu)?;
            }
        }
        Ok(())
    }

    /// A place for `run`: its GPU, or none where it takes cores. The outer `None` says that all is taken.
    fn free_slot(&self, run: usize) -> Option<Option<String>> {
        // Processes that a dead scheduler left behind use this machine as ours do.
        let orphans: Vec<(usize, Worker)> = (0..self.places.len())
            .filter(|&other| self.places[other] == Place::Elsewhere)
            .filter_map(|other| Some((other, self.folder(other).worker()?)))
            .filter(|(_, worker)| worker.host == self.host)
            .collect();
        if self.running.len() + orphans.len() >= self.slots.most {
            return None;
        }
        let wanted = &self.plan.runs[run];
        if wanted.on_gpu {
            let mut free = self.slots.gpus.clone();
            let ours = self.running.iter().filter_map(|running| running.gpu.clone());
            for taken in ours.chain(orphans.into_iter().filter_map(|(_, worker)| worker.gpu)) {
                if let Some(position) = free.iter().position(|gpu| *gpu == taken) {
                    free.remove(position);
                }
            }
            return free.into_iter().next().map(Some);
        }
        let ours = self.running.iter().filter(|running| running.gpu.is_none()).map(|running| running.run);
        let theirs = orphans.iter().filter(|(_, worker)| worker.gpu.is_none()).map(|(other, _)| *other);
        let taken: usize = ours.chain(theirs).map(|other| self.plan.runs[other].threads()).sum();
        // A run that wants more than there is runs alone.
        let fits = taken == 0 || taken + wanted.threads() <= self.slots.cores;
        fits.then_some(None)
    }

    fn start(&mut self, run: usize, folder: &RunFolder, gpu: Option<String>) -> Result<(), SweepError> {
        let config = &self.plan.runs[run].config;
        files::write_atomic(&folder.config(), load::to_yaml(&config.written()).as_bytes())?;
        folder.archive_record()?;
        let log_from = folder.log_length();
        let job = Job { folder: folder.clone(), runs_dir: self.runs_dir.to_owned(), gpu: gpu.clone() };
        let process = self.executor.start(&job)?;
        folder.set_worker(&Worker { host: self.host.clone(), pid: process.pid(), gpu: gpu.clone() })?;
        self.attempts[run] += 1;
        self.places[run] = Place::Running;
        (self.on_event)(Event::Started { run, attempt: self.attempts[run], gpu: gpu.as_deref() });
        self.running.push(Running { run, process, gpu, log_from });
        Ok(())
    }

    /// What became of a process of ours.
    fn ended(&mut self, ended: &Running, ending: Ending) -> Result<(), SweepError> {
        let run = ended.run;
        let folder = self.folder(run);
        let locked = folder.is_locked();
        let record = folder.record()?;
        if let Some(end) = final_end(record.as_ref()) {
            self.end(run, end);
            return Ok(());
        }
        let interrupted = record.as_ref().is_some_and(|record| record.status == RunStatus::Interrupted);
        if interrupted || ending == Ending::Code(130) || (self.asked > 0 && matches!(ending, Ending::Signal(_))) {
            self.end(run, End::Interrupted);
            return Ok(());
        }
        if locked {
            // Ours found the run taken: a process of an earlier scheduler locked it after we had looked.
            self.places[run] = Place::Elsewhere;
            (self.on_event)(Event::Elsewhere(run));
            return Ok(());
        }
        let said = folder.last_words(ended.log_from);
        let reason = record.as_ref().and_then(|record| record.reason.clone()).or_else(|| said.clone());
        let reason = match (ending, reason) {
            (Ending::Code(_), Some(reason)) => reason,
            (Ending::Code(0), None) => "ended without a record".to_owned(),
            (Ending::Code(code), None) => format!("ended with status {code} and said nothing"),
            (Ending::Signal(signal), Some(reason)) => format!("killed by signal {signal}; last said: {reason}"),
            (Ending::Signal(signal), None) => format!("killed by signal {signal}"),
        };
        let status = if ending == Ending::Code(3) { RunStatus::Diverged } else { RunStatus::Failed };
        let config = &self.plan.runs[run].config;
        folder.write_record_if_absent(&record_without_result(config, status, &reason, folder.last_metrics()))?;
        match ending {
            Ending::Code(3) => self.end(run, End::Diverged(reason)),
            Ending::Code(2) => self.fail(run, reason),
            Ending::Code(6) => {
                self.unavailable.get_or_insert(reason.clone());
                self.fail(run, reason);
            }
            Ending::Code(_) | Ending::Signal(_) => self.crashed(run, reason),
        }
        Ok(())
    }

    /// Tries a crashed run again, as often as the sweep says.
    fn crashed(&mut self, run: usize, reason: String) {
        let out_of_memory = ["out of memory", "memory allocation of"].iter().any(|s| reason.to_lowercase().contains(s));
        let hopeless = out_of_memory && self.options.no_retry.contains(&NoRetry::Oom);
        let retries = self.options.retries.unwrap_or(1);
        if self.attempts[run] > retries || hopeless || self.asked > 0 || self.halted {
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
