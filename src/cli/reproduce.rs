//! `lossfloor reproduce`: a whole study, each step only where it is needed.

use super::data::Bar;
use super::sweep::{failure, finished, machine, observer, run_plan, status};
use super::{ExitStatus, exit, output, usage};
use crate::study::{Evaluated, PendingEvaluation, Step, Study, StudyError, Unmeasured};
use crate::sweep::SweepPlan;
use anyhow::Context;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `lossfloor reproduce`
#[derive(Args, Debug)]
pub struct ReproduceArgs {
    /// Study file
    file: PathBuf,
    /// Change a key of the study (data.pack.inputs=[DIR]), or with the prefix sweep. of its sweep
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Program that is started as PROGRAM train CONFIG --runs DIR; default this one
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
}

/// What the user gave is status 2, what the system refused status 1.
fn broken(error: StudyError) -> anyhow::Error {
    match error {
        // Other errors of one of fits or figures are of a table that the study names.
        StudyError::Of { ref source, .. } if matches!(**source, StudyError::Write(_)) => {
            exit(ExitStatus::Internal, error)
        }
        StudyError::Sweep(error) => failure(error),
        StudyError::Data(error) if !error.is_input() => exit(ExitStatus::Internal, error),
        StudyError::Results(_) | StudyError::Plot { .. } | StudyError::Write(_) | StudyError::Read(_) => {
            exit(ExitStatus::Internal, error)
        }
        StudyError::Config(_)
        | StudyError::Data(_)
        | StudyError::Frame(_)
        | StudyError::Ambiguous { .. }
        | StudyError::Of { .. }
        | StudyError::Compare { .. } => usage(error),
    }
}

/// Says what a step did and how long it took.
struct Diary {
    began: Instant,
    step: Instant,
    made: usize,
}

impl Diary {
    fn tell(&mut self, what: &str, step: Step) {
        let seconds = self.step.elapsed().as_secs_f64();
        self.step = Instant::now();
        let word = match step {
            Step::Made => format!("done in {seconds:.1} s"),
            Step::Current => "current".to_owned(),
        };
        self.made += usize::from(step == Step::Made);
        output::note(&format!("{what:<8} {word}"));
    }
}

/// Runs `lossfloor reproduce`.
pub fn reproduce(args: &ReproduceArgs) -> anyhow::Result<ExitStatus> {
    let study = Study::read(&args.file, &args.assignments, &args.results, &args.runs).map_err(broken)?;
    #[cfg(feature = "torch")]
    if !study.file.evaluations.is_empty() {
        super::runtime::use_threads(None)?;
    }
    let machine = machine();
    let mut diary = Diary { began: Instant::now(), step: Instant::now(), made: 0 };
    // A mistake in the sweep shows before anything is made for it.
    study.plan(&machine, &observer()).map_err(broken)?;
    let bar = Bar::new();
    let data = study.prepare_data(&|progress| bar.show(progress));
    bar.clear();
    let data = data.map_err(broken)?;
    if study.file.sweep.is_some() {
        diary.tell("data", data);
    }

    let mut ending = ExitStatus::Done;
    let mut planned = study.plan(&machine, &observer()).map_err(broken)?;
    if let Some((sweep, plan)) = &mut planned {
        let needed = !finished(plan);
        if needed {
            let outcome = run_plan(sweep, plan, &machine, &args.runs, args.program.as_deref(), &mut |plan| {
                study.write_runs(plan).map(drop).map_err(broken)
            })?;
            ending = status(&outcome);
            if let Some(reason) = outcome.unavailable {
                return Err(exit(ExitStatus::Unavailable, reason));
            }
            *plan = study.plan(&machine, &observer()).map_err(broken)?.expect("it has a sweep").1;
        } else if plan.runs.iter().any(|run| run.state == crate::sweep::RunState::Diverged) {
            ending = ExitStatus::Diverged;
        }
        study.write_runs(plan).map_err(broken)?;
        study.write_metrics(plan).map_err(broken)?;
        diary.tell("sweep", if needed { Step::Made } else { Step::Current });
        if ending == ExitStatus::Interrupted {
            output::note("interrupted: the same command carries on");
            return Ok(ending);
        }
    }
    let plan = planned.as_ref().map(|(_, plan)| plan);

    let evaluations = evaluations(&study, plan, &mut diary)?;
    if evaluations.interrupted {
        output::note("interrupted: the same command carries on");
        return Ok(ExitStatus::Interrupted);
    }
    if !evaluations.unmeasured.is_empty() && ending == ExitStatus::Done {
        ending = ExitStatus::SweepFailed;
    }

    let (fits, nothing_fits) = study.fit(plan).map_err(broken)?;
    diary.tell("fit", fits);
    let Evaluations { evaluated, unmeasured, .. } = evaluations;
    diary.tell("figure", study.draw(plan, &evaluated).map_err(broken)?);
    for name in study.empty_figures(plan, &evaluated) {
        output::note(&format!("figure {name}: nothing to show"));
    }
    diary.tell("report", study.report(plan, &evaluated, &unmeasured).map_err(broken)?);
    if nothing_fits && ending == ExitStatus::Done {
        ending = ExitStatus::NoFit;
    }
    let all = diary.began.elapsed().as_secs_f64();
    let summary =
        if diary.made == 0 { "nothing to do: everything is current".to_owned() } else { format!("{all:.1} s in all") };
    output::note(&format!("{}: {summary}", study.file.study));
    output::print(&study.report_path().display().to_string())?;
    Ok(ending)
}

/// What is known of a study's evaluations.
#[derive(Default)]
struct Evaluations {
    evaluated: Vec<Evaluated>,
    unmeasured: Vec<Unmeasured>,
    interrupted: bool,
}

/// Measures the checkpoints that are not measured yet and writes the tables. One that cannot be measured is named, and the
/// others go on.
fn evaluations(study: &Study, plan: Option<&SweepPlan>, diary: &mut Diary) -> anyhow::Result<Evaluations> {
    if study.file.evaluations.is_empty() {
        return Ok(Evaluations::default());
    }
    let pending = study.pending_evaluations(plan).map_err(broken)?;
    let (failed, interrupted) = measure_all(&pending)?;
    let (evaluated, lost) = study.evaluated(plan).map_err(broken)?;
    let written = study.write_evaluations(&evaluated).map_err(broken)?;
    for one in &lost {
        output::note(&format!("not evaluated: {one}"));
    }
    let unmeasured = lost.into_iter().chain(failed).collect();
    diary.tell("evaluate", if pending.is_empty() { written } else { Step::Made });
    Ok(Evaluations { evaluated, unmeasured, interrupted })
}

/// Whether SIGINT or SIGTERM has come: the checkpoint at work is finished first. The next one ends the process at once,
/// which costs no more than that checkpoint.
fn stop_request() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let listen = || -> std::io::Result<()> {
            let status = ExitStatus::Interrupted as i32;
            signal_hook::flag::register_conditional_shutdown(signal, status, asked.clone())?;
            signal_hook::flag::register(signal, asked.clone())?;
            Ok(())
        };
        listen().context("cannot listen for Ctrl-C")?;
    }
    Ok(asked)
}

/// Measures one checkpoint after another; those that could not be, and whether somebody asked to stop.
fn measure_all(pending: &[PendingEvaluation]) -> anyhow::Result<(Vec<Unmeasured>, bool)> {
    let mut failed = Vec::new();
    if pending.is_empty() {
        return Ok((failed, false));
    }
    let asked = stop_request()?;
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} checkpoints {eta:>4}");
        indicatif::ProgressBar::new(pending.len() as u64).with_style(style.expect("the template is well-formed"))
    });
    for (done, one) in pending.iter().enumerate() {
        if asked.load(Ordering::Relaxed) {
            break;
        }
        if let Some(bar) = &bar {
            bar.set_message(format!("{} {}", one.name, one.label));
            bar.set_position(done as u64);
        }
        if let Err(error) = measure(one) {
            if super::status_of(&error) == ExitStatus::Unavailable {
                return Err(error);
            }
            let unmeasured = one.failed(format!("{error:#}"));
            let tell = || output::note(&format!("not evaluated: {unmeasured}"));
            bar.as_ref().map_or_else(tell, |bar| bar.suspend(tell));
            failed.push(unmeasured);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok((failed, asked.load(Ordering::Relaxed)))
}

/// Measures a checkpoint and keeps the result beside its run's record.
#[cfg(feature = "torch")]
fn measure(one: &PendingEvaluation) -> anyhow::Result<()> {
    let model = super::inference::ModelArgs::plain(one.checkpoint.clone());
    let (evaluation, _) = super::eval::measure(&model, one.measurement.clone(), one.batch, &mut |_, _| {})?;
    Ok(evaluation.write(&one.kept_at)?)
}

#[cfg(not(feature = "torch"))]
fn measure(_: &PendingEvaluation) -> anyhow::Result<()> {
    Err(exit(ExitStatus::Unavailable, "this build cannot evaluate checkpoints: it was made without LibTorch"))
}
