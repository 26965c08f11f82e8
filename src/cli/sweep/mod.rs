//! `lossfloor plan` and `lossfloor sweep`.

mod export;
mod manage;
mod output;
mod results;
mod submit;

use self::output::{EventLog, ending_lines, plan_text, status_text};
use super::output as out;
use super::{ExitStatus, exit, usage};
use crate::runs::Observer;
use crate::sweep::devices::Machine;
use crate::sweep::home::SweepHome;
use crate::sweep::price::Price;
use crate::sweep::run::{End, Event, ready};
use crate::sweep::{Outcome, ProcessExecutor, Scheduler, SweepError, SweepFile, SweepPlan, plan};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// `lossfloor plan`
#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `sweep` can do.
#[derive(Subcommand, Debug)]
pub enum SweepCommand {
    /// Run everything of a sweep that is not done, on this machine
    Run(SweepRunArgs),
    /// Hand everything of a sweep that is not done to Slurm
    Submit(submit::SubmitArgs),
    /// Show how far a sweep is; changes nothing
    Status(manage::StatusArgs),
    /// Show what a run has said
    Logs(manage::LogsArgs),
    /// Stop runs, and take their jobs out of the queue
    Cancel(manage::SelectArgs),
    /// Forget that runs failed or diverged, so that the next `run` or `submit` tries them again
    Retry(manage::SelectArgs),
    /// Print one table of every run that has ended
    Results(results::ResultsArgs),
    /// Remove what finished runs no longer need
    Clean(manage::CleanArgs),
    /// Write the runs for another engine: shell lines, or a HyperQueue job file
    Export(export::ExportArgs),
}

/// `lossfloor sweep run`
#[derive(Args, Debug)]
pub struct SweepRunArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Folder of the results table
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Go on although data have changed under finished runs: everything is trained on what is there now
    #[arg(long)]
    new_data: bool,
    /// Program that is started as PROGRAM train CONFIG --runs DIR --attempt N; default this one
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A sweep and where its runs live.
#[derive(Args, Debug)]
pub struct SweepArgs {
    /// Sweep file
    file: PathBuf,
    /// Change a key: of the sweep (run.max_running=4, grid.seed=[1,2]) or of every run's config (train.tokens=2M)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

impl SweepArgs {
    fn plan(&self) -> anyhow::Result<(SweepFile, Machine, SweepPlan)> {
        let machine = machine();
        let sweep = self.read()?;
        let plan = SweepPlan::new(&sweep, &self.runs, &machine, &observer()).map_err(failure)?;
        Ok((sweep, machine, plan))
    }

    fn read(&self) -> anyhow::Result<SweepFile> {
        SweepFile::read(&self.file, &self.assignments).map_err(failure)
    }
}

/// This machine, as the environment lets it be seen.
pub(super) fn machine() -> Machine {
    Machine::detect(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// What tells this process from others that work on runs.
pub(super) fn observer() -> Observer {
    let variable = |name: &str| std::env::var(name).ok();
    let job = match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
        (Some(array), Some(task)) => Some(format!("{array}_{task}")),
        _ => variable("SLURM_JOB_ID"),
    };
    let restarts = variable("SLURM_RESTART_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0);
    Observer::new(job.map(|job| (job, restarts)))
}

/// What the user gave is status 2, what the system refused status 1.
pub(super) fn failure(error: SweepError) -> anyhow::Error {
    match error {
        SweepError::Slurm(_)
        | SweepError::Read(_)
        | SweepError::Run(_)
        | SweepError::Write(_)
        | SweepError::Executor(_) => exit(ExitStatus::Internal, error),
        _ => usage(error),
    }
}

/// Runs `lossfloor plan`.
pub fn plan(args: PlanArgs) -> anyhow::Result<ExitStatus> {
    let sweep = args.sweep.read()?;
    // A login node has no GPU, the cluster has.
    let here = machine();
    let on_cluster = here.gpus.is_empty() && sweep.backends.slurm.is_some();
    let machine = if on_cluster { Machine::with_gpus() } else { here };
    let plan = SweepPlan::new(&sweep, &args.sweep.runs, &machine, &observer()).map_err(failure)?;
    let slots = if on_cluster { None } else { Some(machine.slots(&sweep).map_err(failure)?) };
    let price = Price::of(&sweep, &plan, slots.as_ref(), &machine, &args.sweep.runs);
    if args.json {
        let mut document = plan.to_json();
        let changes = price.changes.iter().map(|change| {
            let keys: serde_json::Map<_, _> =
                change.keys.iter().map(|(key, old, new)| (key.clone(), serde_json::json!([old, new]))).collect();
            serde_json::json!({ "run_id": plan.runs[change.run].id, "nearest": change.nearest, "differs": keys })
        });
        document["changes"] = changes.collect();
        document["price"] = serde_json::json!({
            "wall_s": price.here.map(|here| here.seconds), "utilisation": price.here.map(|here| here.utilisation),
            "longest_s": price.longest.map(|run| plan.runs[run].seconds_left()),
            "disk_bytes": price.disk, "disk_free_bytes": price.disk_free,
            "gpu_memory_bytes": machine.gpu_memory, "over_memory": price.too_large.len(), "over_machine": price.too_wide.len(),
        });
        out::json(&document)?
    } else {
        out::print(&plan_text(&plan, &price))?
    }
    Ok(ExitStatus::Done)
}

/// Runs `lossfloor sweep ...`.
pub fn sweep(command: SweepCommand) -> anyhow::Result<ExitStatus> {
    match command {
        SweepCommand::Run(args) => run(&args),
        SweepCommand::Submit(args) => submit::submit(&args),
        SweepCommand::Status(args) => manage::status(&args),
        SweepCommand::Logs(args) => manage::logs(&args),
        SweepCommand::Cancel(args) => manage::cancel(&args),
        SweepCommand::Retry(args) => manage::retry(&args),
        SweepCommand::Results(args) => results::results(&args),
        SweepCommand::Clean(args) => manage::clean(&args),
        SweepCommand::Export(args) => export::export(&args),
    }
}

fn show_status(plan: &SweepPlan, json: bool) -> anyhow::Result<()> {
    if json { out::json(&plan.status_json()) } else { out::print(&status_text(plan)) }
}

/// Says which runs an earlier version of the file had; their folders stay.
fn tell_left_out(left_out: &[crate::config::RunId]) {
    if !left_out.is_empty() {
        const SHOWN: usize = 4;
        let ids: Vec<&str> = left_out.iter().take(SHOWN).map(|id| id.0.as_str()).collect();
        let more = if left_out.len() > SHOWN { ", ..." } else { "" };
        out::note(&format!(
            "{} runs of an earlier version of this file are in it no longer: {}{more}; their folders are kept",
            left_out.len(),
            ids.join(", ")
        ));
    }
}

fn run(args: &SweepRunArgs) -> anyhow::Result<ExitStatus> {
    let (sweep, machine, plan) = args.sweep.plan()?;
    let table = args.results.join(format!("{}.csv", plan.name));
    ready(&sweep, &plan).map_err(failure)?;
    refuse_several_nodes(&sweep, &plan)?;
    let home = SweepHome::new(&args.sweep.runs, &plan.name);
    if !args.new_data {
        home.check_data(&sweep, &plan).map_err(failure)?;
    }
    tell_left_out(&home.keep(&sweep, &plan).map_err(failure)?);
    let outcome = run_plan(&sweep, &plan, &machine, &args.sweep.runs, args.program.as_deref(), &mut |plan| {
        write_results(plan, &args.sweep.runs, &table)
    })?;
    let after = SweepPlan::new(&sweep, &args.sweep.runs, &machine, &observer()).map_err(failure)?;
    write_results(&after, &args.sweep.runs, &table)?;
    for line in ending_lines(&plan, &outcome, &args.sweep.runs) {
        out::note(&line);
    }
    if table.exists() {
        out::note(&format!("results: {}", table.display()));
    }
    show_status(&after, args.json)?;
    match &outcome.unavailable {
        Some(reason) => Err(exit(ExitStatus::Unavailable, reason)),
        None => Ok(status(&outcome)),
    }
}

fn refuse_several_nodes(sweep: &SweepFile, plan: &SweepPlan) -> anyhow::Result<()> {
    match plan.runs.iter().find(|run| run.config.exec.nodes > 1 && !run.state.is_final()) {
        Some(run) => {
            let problem = format!(
                "{} needs {} machines; hint: `lossfloor sweep submit`",
                run.config.label, run.config.exec.nodes
            );
            Err(failure(sweep.layout("exec.nodes", problem)))
        }
        None => Ok(()),
    }
}

/// Writes the table of every run of `plan` that has ended.
pub(super) fn write_results(plan: &SweepPlan, runs_dir: &Path, table: &Path) -> anyhow::Result<()> {
    let records = plan::collect(plan, runs_dir).map_err(failure)?;
    if records.is_empty() {
        return Ok(());
    }
    Ok(crate::report::results::write(table, &records)?)
}

/// Carries out `plan` with a process per run; `on_end` is called after each.
pub(super) fn run_plan(
    sweep: &SweepFile,
    plan: &SweepPlan,
    machine: &Machine,
    runs_dir: &Path,
    program: Option<&Path>,
    on_end: &mut dyn FnMut(&SweepPlan) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    ready(sweep, plan).map_err(failure)?;
    let home = SweepHome::new(runs_dir, &plan.name);
    let program = match program {
        Some(program) => program.to_owned(),
        None if !cfg!(feature = "torch") && !finished(plan) => {
            return Err(exit(ExitStatus::Unavailable, "this build cannot train: it was made without LibTorch"));
        }
        None => std::env::current_exe().context("cannot tell where this program lies")?,
    };
    let asked = stop_requests()?;
    let observer = observer();
    let scheduler = Scheduler {
        plan,
        runs_dir,
        observer: &observer,
        slots: machine.slots(sweep).map_err(failure)?,
        options: sweep.run.clone(),
        poll: Duration::from_millis(100),
    };
    let mut log = EventLog::new(plan, runs_dir);
    let mut broken = None;
    let outcome =
        scheduler.run(&mut ProcessExecutor::new(&program), &|| asked.load(Ordering::Relaxed), &mut |event: Event| {
            log.show(&event);
            if let Some((what, details)) = story(plan, &event)
                && let Err(error) = home.tell(what, details)
            {
                broken = Some(error.into());
            }
            if let Event::Ended(..) = event
                && let Err(error) = on_end(plan)
            {
                // Reported when all is done: the runs need not suffer for their table.
                broken = Some(error);
            }
        });
    log.clear();
    let outcome = outcome.map_err(failure)?;
    broken.map_or(Ok(outcome), Err)
}

/// What `events.jsonl` says of an event.
fn story(plan: &SweepPlan, event: &Event) -> Option<(&'static str, serde_json::Value)> {
    use serde_json::json;
    let run = |run: usize| plan.runs[run].id.0.as_str();
    Some(match event {
        Event::Started { run: index, attempt, gpus } => {
            ("started", json!({ "run": run(*index), "attempt": attempt, "gpus": gpus }))
        }
        Event::Retrying { run: index, reason } => ("crashed", json!({ "run": run(*index), "reason": reason })),
        Event::Saved(index) => ("saved", json!({ "run": run(*index) })),
        Event::Ended(index, end) => {
            let (how, reason) = match end {
                End::Completed => ("done", None),
                End::Diverged(reason) => ("diverged", Some(reason)),
                End::Failed(reason) => ("failed", Some(reason)),
                End::Interrupted => ("interrupted", None),
                End::Elsewhere | End::NotStarted => return None,
            };
            (how, json!({ "run": run(*index), "reason": reason }))
        }
        Event::Halted(failures) => ("halted", json!({ "failures": failures })),
        Event::Stopping => ("stopping", json!({})),
        Event::Already(..) | Event::Elsewhere(_) | Event::Tick(_) => return None,
    })
}

/// Counts SIGINT and SIGTERM from now on, in place of dying of them.
fn stop_requests() -> anyhow::Result<Arc<AtomicUsize>> {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
        .context("cannot listen for Ctrl-C")?;
    let count = asked.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(asked)
}

/// What the process ends with.
pub(super) fn status(outcome: &Outcome) -> ExitStatus {
    let any = |wanted: fn(&End) -> bool| outcome.ends.iter().any(wanted);
    if outcome.unavailable.is_some() {
        ExitStatus::Unavailable
    } else if outcome.interrupted || any(|end| matches!(end, End::Interrupted)) {
        ExitStatus::Interrupted
    } else if any(|end| matches!(end, End::Failed(_))) {
        ExitStatus::SweepFailed
    } else if any(|end| matches!(end, End::Diverged(_))) {
        ExitStatus::Diverged
    } else {
        ExitStatus::Done
    }
}

/// Whether nothing of a plan is left to run.
pub(super) fn finished(plan: &SweepPlan) -> bool {
    plan.runs.iter().all(|run| run.state.is_final())
}
