//! `lossfloor sweep submit`: what is neither done nor in the queue becomes jobs of Slurm.

use super::{SweepArgs, failure, observer, out, tell_left_out};
use crate::cli::{ExitStatus, exit, usage};
use crate::runs::{Claim, ClaimError};
use crate::slurm;
use crate::sweep::devices::Machine;
use crate::sweep::home::SweepHome;
use crate::sweep::run::ready;
use crate::sweep::slurm::{Site, Submission, analysis_script, backend, prepare, submissions, submit as hand_in};
use crate::sweep::{RunState, SweepPlan};
use crate::units;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// `lossfloor sweep submit`
#[derive(Args, Debug)]
pub struct SubmitArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Print the scripts and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on although data have changed under finished runs: everything is trained on what is there now
    #[arg(long)]
    new_data: bool,
    /// Do not ask before submitting
    #[arg(long)]
    yes: bool,
    /// Folder of the results table that follows the runs
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn submit(args: &SubmitArgs) -> anyhow::Result<ExitStatus> {
    let sweep = args.sweep.read()?;
    let backend = backend(&sweep).map_err(failure)?;
    let home = SweepHome::new(&args.sweep.runs, &sweep.sweep);
    // Taken for the whole submission: what is queued must not change between looking and submitting.
    let observer = observer();
    let _claim = if args.dry_run {
        None
    } else {
        Some(Claim::take(&home.path, &observer).map_err(|error| match error {
            ClaimError::Held { .. } | ClaimError::OutOfSight { .. } => {
                usage(format!("somebody else is submitting this sweep: {error}"))
            }
            other => other.into(),
        })?)
    };
    let plan = SweepPlan::new(&sweep, &args.sweep.runs, &Machine::with_gpus(), &observer).map_err(failure)?;
    ready(&sweep, &plan).map_err(failure)?;
    if !args.new_data {
        home.check_data(&sweep, &plan).map_err(failure)?;
    }
    if !args.dry_run && observer.queue().is_none() {
        return Err(exit(
            ExitStatus::Unavailable,
            "squeue does not answer, so it is not known what is queued already; nothing was submitted",
        ));
    }
    let site = Site {
        program: std::env::current_exe().context("cannot tell where this program lies")?,
        runs_dir: std::path::absolute(&args.sweep.runs)?,
        work_dir: std::env::current_dir()?,
        largest_array: if args.dry_run { slurm::largest_array().unwrap_or(1000) } else { slurm::largest_array()? },
    };
    let wanted: Vec<usize> = (0..plan.runs.len()).filter(|&run| plan.runs[run].state.is_startable()).collect();
    let made = submissions(&sweep, &plan, &wanted, &site).map_err(failure)?;
    let after = |jobs: &[String]| -> anyhow::Result<String> {
        Ok(analysis_script(&sweep, backend, jobs, &after_command(args, &site)?, &site))
    };
    if args.dry_run {
        let mut text: Vec<String> = made.iter().map(|submission| submission.script.clone()).collect();
        if !made.is_empty() {
            text.push(after(&["JOBS".to_owned()])?);
        }
        if args.json {
            out::json(&json!({ "sweep": plan.name, "scripts": text, "runs": wanted.len() }))?;
        } else if text.is_empty() {
            out::note("nothing to submit");
        } else {
            out::print(text.join("\n").trim_end())?;
        }
        return Ok(ExitStatus::Done);
    }
    if made.is_empty() {
        out::note(&format!("nothing to submit: {}", standing(&plan)));
        return report(&plan, &[], None, args.json);
    }
    if !args.yes && !agreed(&plan, &wanted, &made)? {
        return Err(exit(ExitStatus::Interrupted, "nothing was submitted"));
    }
    tell_left_out(&home.keep(&sweep, &plan).map_err(failure)?);
    let mut jobs = Vec::new();
    for submission in &made {
        prepare(&plan, submission, &home, &site).map_err(failure)?;
        let job = hand_in(&submission.script).map_err(|error| {
            let done: usize = made.iter().take(jobs.len()).map(|submission| submission.runs.len()).sum();
            failure(error).context(format!("{done} of {} runs were submitted before this", wanted.len()))
        })?;
        let ids: Vec<&str> = submission.runs.iter().map(|&run| plan.runs[run].id.0.as_str()).collect();
        home.tell("submitted", json!({ "job": job, "tag": submission.tag, "runs": ids }))?;
        jobs.push(job);
    }
    // An analysis job that an earlier submission left waiting would come too early.
    let queue = observer.queue();
    let waiting = queue.iter().flat_map(|queue| queue.jobs());
    let old: Vec<String> = waiting
        .filter(|job| job.name == home.job_name("after") && job.is_waiting())
        .map(|job| job.id.clone())
        .collect();
    let others = plan.runs.iter().filter(|run| !run.state.is_startable()).filter_map(|run| run.job.clone());
    let all: Vec<String> = jobs.iter().cloned().chain(others).collect();
    slurm::cancel(&old)?;
    let follows = hand_in(&after(&all)?).map_err(failure)?;
    home.tell("submitted", json!({ "job": follows, "tag": "after" }))?;
    report(&plan, &jobs.iter().zip(&made).collect::<Vec<_>>(), Some(&follows), args.json)
}

fn standing(plan: &SweepPlan) -> String {
    let count = |states: &[RunState]| plan.runs.iter().filter(|run| states.contains(&run.state)).count();
    format!(
        "{} runs are over, {} at work or waiting",
        count(&[RunState::Done, RunState::Diverged]),
        count(&[RunState::Running, RunState::Unknown, RunState::Queued])
    )
}

/// `lossfloor sweep results` for the same sweep, by absolute paths.
fn after_command(args: &SubmitArgs, site: &Site) -> anyhow::Result<Vec<String>> {
    let text = |path: &std::path::Path| path.display().to_string();
    let file = std::path::absolute(&args.sweep.file)?;
    let results = std::path::absolute(&args.results)?;
    let mut command = vec![text(&site.program), "sweep".to_owned(), "results".to_owned(), text(&file)];
    for assignment in &args.sweep.assignments {
        command.extend(["--set".to_owned(), assignment.clone()]);
    }
    command.extend(["--runs".to_owned(), text(&site.runs_dir), "--after".to_owned(), text(&results)]);
    Ok(command)
}

/// Shows the price and asks.
fn agreed(plan: &SweepPlan, wanted: &[usize], made: &[Submission]) -> anyhow::Result<bool> {
    let hours: f64 = wanted
        .iter()
        .map(|&run| &plan.runs[run])
        .map(|run| run.seconds_left() * run.config.exec.processes() as f64 / 3600.0)
        .sum();
    let question = format!(
        "{}: {} runs in {} jobs, about {} on one GPU after another ({}). Submit?",
        plan.name,
        wanted.len(),
        made.len(),
        units::duration(hours * 3600.0),
        standing(plan)
    );
    if !std::io::stdin().is_terminal() {
        return Err(usage(format!(
            "{question} There is no terminal to ask; hint: --yes, or --dry-run to see the scripts"
        )));
    }
    out::note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn report(
    plan: &SweepPlan,
    jobs: &[(&String, &Submission)],
    after: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    if json {
        let jobs: Vec<_> = jobs
            .iter()
            .map(|(job, made)| {
                let runs: Vec<&str> = made.runs.iter().map(|&run| plan.runs[run].id.0.as_str()).collect();
                json!({ "job": job, "tag": made.tag, "runs": runs })
            })
            .collect();
        out::json(&json!({ "sweep": plan.name, "jobs": jobs, "after": after }))?;
        return Ok(ExitStatus::Done);
    }
    let lines: Vec<String> =
        jobs.iter().map(|(job, made)| format!("job {job}: {} runs ({})", made.runs.len(), made.tag)).collect();
    let after = after.map(|job| format!("job {job}: results, when all others have ended"));
    let lines: Vec<String> = lines.into_iter().chain(after).collect();
    if !lines.is_empty() {
        out::print(&lines.join("\n"))?;
    }
    Ok(ExitStatus::Done)
}
