//! `lossfloor sweep status | logs | cancel | retry | clean`.

use super::output::status_rows;
use super::{SweepArgs, failure, observer, out};
use crate::cli::{ExitStatus, usage};
use crate::runs::{Attempt, Claim, Fate, RunFolder};
use crate::slurm;
use crate::sweep::select::Selection;
use crate::sweep::{PlannedRun, RunState, SweepFile, SweepPlan};
use crate::units;
use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Which runs of a sweep.
#[derive(Args, Debug)]
pub struct SelectArgs {
    #[command(flatten)]
    pub(super) sweep: SweepArgs,
    /// Runs, by row, by four or more digits of their id, or by label; all unless given
    #[arg(value_name = "RUN")]
    names: Vec<String>,
    /// Only those for which this holds: 'model.depth >= 16 and state == failed'
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
}

impl SelectArgs {
    pub(super) fn plan(&self) -> anyhow::Result<(SweepFile, SweepPlan, Vec<usize>)> {
        let (sweep, _, plan) = self.sweep.plan()?;
        let selection = Selection { names: self.names.clone(), condition: self.condition.clone() };
        let rows = selection.of(&sweep, &plan).map_err(failure)?;
        Ok((sweep, plan, rows))
    }

    fn folder(&self, run: &PlannedRun) -> RunFolder {
        RunFolder::new(&self.sweep.runs, &run.id)
    }
}

/// `lossfloor sweep status`
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Show it again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitStatus> {
    loop {
        let (_, plan, rows) = args.select.plan()?;
        if args.json {
            let mut document = plan.status_json();
            if let Some(runs) = document["runs"].as_array_mut() {
                let mut row = 0;
                runs.retain(|_| {
                    row += 1;
                    rows.contains(&(row - 1))
                });
            }
            out::json(&document)?;
        } else {
            let clear = if args.watch.is_some() && std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
            out::print(&format!("{clear}{}", status_rows(&plan, &rows)))?;
        }
        let Some(seconds) = args.watch else { return Ok(ExitStatus::Done) };
        if plan.runs.iter().all(|run| run.state.is_final()) {
            return Ok(ExitStatus::Done);
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// `lossfloor sweep logs`
#[derive(Args, Debug)]
pub struct LogsArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// Which attempt; default the latest
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
}

pub(super) fn logs(args: &LogsArgs) -> anyhow::Result<ExitStatus> {
    let (_, plan, rows) = args.select.plan()?;
    let [row] = rows[..] else {
        return Err(usage(format!("name one run, by row or id; {} are meant", rows.len())));
    };
    let folder = args.select.folder(&plan.runs[row]);
    let mut attempt = match args.attempt {
        Some(number) => Attempt::of(&folder, number),
        None => folder.attempts().pop().ok_or_else(|| usage("nobody has worked on this run yet"))?,
    };
    let mut shown = 0;
    loop {
        // Asked before the log is read: what is written before the end is then shown.
        let at_work = folder.is_held(&observer())? || attempt.exit().is_none() && attempt.environment().is_none();
        shown += copy_from(&attempt.log(), shown)?;
        if args.follow && at_work {
            std::thread::sleep(Duration::from_millis(500));
            continue;
        }
        match folder.attempts().pop().filter(|last| args.follow && args.attempt.is_none() && *last != attempt) {
            Some(next) => {
                out::note(&format!("attempt {}", next.number));
                attempt = next;
                shown = 0;
            }
            None => break,
        }
    }
    if shown == 0 {
        out::note(&format!(
            "{} is empty or not there: a run started from a terminal has said it there",
            attempt.log().display()
        ));
    }
    if let Some(exit) = attempt.exit() {
        let reason = exit.reason.map_or(String::new(), |reason| format!(": {reason}"));
        out::note(&format!("attempt {}: {}{reason}", attempt.number, exit.cause.name()));
    }
    Ok(ExitStatus::Done)
}

/// Prints a file from byte `from` on; how many bytes.
fn copy_from(path: &Path, from: u64) -> anyhow::Result<u64> {
    let Ok(mut file) = File::open(path) else { return Ok(0) };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
        // Nobody reads any more: no failure of ours.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        other => other.map(|()| bytes.len() as u64).context("cannot write to standard output"),
    }
}

pub(super) fn cancel(args: &SelectArgs) -> anyhow::Result<ExitStatus> {
    let (_, plan, rows) = args.plan()?;
    let observer = observer();
    let mut jobs = Vec::new();
    let (mut stopped, mut out_of_reach) = (0, Vec::new());
    for &row in &rows {
        let run = &plan.runs[row];
        if let Some(job) = &run.job {
            jobs.push(job.clone());
            continue;
        }
        let Some((owner, fate)) = args.folder(run).holder(&observer)? else { continue };
        match Pid::from_raw(owner.pid as i32) {
            // As Ctrl-C would: it saves itself, and its scheduler does not start it again.
            Some(pid) if fate == Fate::Alive && observer.is_here(&owner) => {
                kill_process(pid, Signal::INT).with_context(|| format!("cannot stop {owner}"))?;
                stopped += 1;
            }
            _ if fate != Fate::Gone => out_of_reach.push(format!("{}: {owner}", run.config.label)),
            _ => {}
        }
    }
    slurm::cancel(&jobs)?;
    out::note(&format!("{} jobs cancelled, {stopped} processes of this machine asked to save themselves", jobs.len()));
    for line in &out_of_reach {
        out::note(&format!("cannot be reached from here: {line}"));
    }
    Ok(if out_of_reach.is_empty() { ExitStatus::Done } else { ExitStatus::Internal })
}

pub(super) fn retry(args: &SelectArgs) -> anyhow::Result<ExitStatus> {
    let (_, plan, rows) = args.plan()?;
    let observer = observer();
    let mut again = 0;
    for &row in &rows {
        let run = &plan.runs[row];
        if !matches!(run.state, RunState::Failed | RunState::Diverged) {
            continue;
        }
        let folder = args.folder(run);
        let claim = Claim::take(&folder.path, &observer)?;
        claim.archive_record()?;
        forget_attempts(&claim, run.state == RunState::Diverged)?;
        // Its last attempt must not count as a failure any more.
        Attempt::begin(&claim)?.end_if_open(&crate::runs::Exit::now(
            crate::runs::Cause::Interrupted,
            None,
            Some("somebody asked for another try".to_owned()),
            claim.saved_step(),
        ))?;
        out::print(&format!("{} {} will be tried again (was {})", run.id, run.config.label, run.state.name()))?;
        again += 1;
    }
    out::note(&match again {
        0 => "none of these runs has failed or diverged".to_owned(),
        _ => format!("{again} runs: the next `sweep run` or `sweep submit` starts them"),
    });
    Ok(ExitStatus::Done)
}

/// Takes away what earlier attempts count by: the statuses of their jobs, and, of a run that diverged, its checkpoints,
/// from which the same steps would lead to the same end.
fn forget_attempts(claim: &Claim, diverged: bool) -> anyhow::Result<()> {
    let attempts = claim.attempts();
    let mut unwanted: Vec<_> = attempts.iter().map(|attempt| attempt.path.join("status")).collect();
    if diverged {
        let steps = claim.checkpoint_steps();
        unwanted.extend(steps.iter().map(|&step| claim.checkpoint(step)));
        if let Some(last) = attempts.last() {
            let _ = std::fs::rename(claim.file("metrics.jsonl"), last.path.join("metrics.jsonl"));
        }
    }
    for path in unwanted {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `lossfloor sweep clean`
#[derive(Args, Debug)]
pub struct CleanArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Keep the last checkpoint of each run
    #[arg(long)]
    keep_last: bool,
    /// Do it; without this, only what would be removed is shown
    #[arg(long)]
    yes: bool,
}

pub(super) fn clean(args: &CleanArgs) -> anyhow::Result<ExitStatus> {
    let (_, plan, rows) = args.select.plan()?;
    let observer = observer();
    let (mut bytes, mut files) = (0, 0);
    for &row in &rows {
        let run = &plan.runs[row];
        if run.state != RunState::Done {
            continue;
        }
        let folder = args.select.folder(run);
        let kept = args.keep_last.then(|| folder.checkpoint(folder.saved_step()));
        let Ok(entries) = std::fs::read_dir(folder.checkpoints()) else { continue };
        // A run that somebody works on again is not finished.
        let _claim = if args.yes { Some(Claim::take(&folder.path, &observer)?) } else { None };
        for entry in entries.flatten() {
            if kept.as_deref() == Some(&*entry.path()) {
                continue;
            }
            bytes += entry.metadata().map_or(0, |meta| meta.len());
            files += 1;
            if args.yes {
                std::fs::remove_file(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
    }
    let size = units::bytes(bytes as f64);
    out::note(&match args.yes {
        true => format!("removed {files} checkpoints of finished runs, {size}"),
        false => format!("{files} checkpoints of finished runs, {size}; hint: --yes removes them"),
    });
    Ok(ExitStatus::Done)
}
