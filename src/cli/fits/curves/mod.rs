//! `lossfloor curves`: laws of whole loss curves. A command of its own, because its input is not one row for each run
//! and its law is of every learning rate of a run: of the options of `fit` hardly any means the same here.

mod show;

use super::sheet::{Format, FormatArgs};
use super::{parse_pairs, unknown_form};
use crate::analysis::learning_curve::log::{self, LogColumns, LogOptions, RunLog};
use crate::analysis::learning_curve::{
    self, CURVE_FORMS, Curve, CurveError, CurveFit, CurveForm, CurveOptions, Logged, Scores,
};
use crate::analysis::{FitStatus, Given, Objective};
use crate::cli::{ExitStatus, exit, output, picture, usage};
use crate::expression::Expression;
use std::path::{Path, PathBuf};

/// Where a run's folder keeps the loss of each step.
const METRICS: &str = "metrics.jsonl";

/// Fit a law to loss curves under several learning-rate schedules, and predict the curve under another
#[derive(clap::Args, Debug)]
pub struct CurvesArgs {
    /// Loss curves, one row for each logged step: .csv, .jsonl, .parquet, or the folder of a run
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The law: annealing (Tissue et al.) or multi-power (Luo et al.)
    #[arg(long, value_parser = parse_curve_form, default_value = "annealing")]
    form: &'static dyn CurveForm,
    /// Column of the step
    #[arg(long, value_name = "COL", default_value = "step")]
    step: String,
    /// Column of the step's learning rate; between rows it is on a straight line
    #[arg(long, value_name = "COL", default_value = "lr")]
    lr: String,
    /// Column of the loss; a cell may be empty
    #[arg(long, value_name = "COL", default_value = "loss")]
    y: String,
    /// Column that tells the runs of a table apart; without it a table is one run
    #[arg(long, value_name = "COL")]
    curve: Option<String>,
    /// Rows to take, such as "curve in [cosine, constant]"
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Where a table begins later: the step by which the rate had risen, in a line from 0, to that of its first row
    #[arg(long, value_name = "STEP")]
    warmup: Option<usize>,
    /// First step whose loss is fitted; default where the rate is highest first
    #[arg(long, value_name = "STEP")]
    from: Option<usize>,
    /// Runs of these files that are predicted instead of being fitted; repeatable
    #[arg(long, value_name = "RUN,...", value_delimiter = ',')]
    hold_out: Vec<String>,
    /// More runs to predict, where the loss may be missing: a schedule of steps and rates is enough; repeatable
    #[arg(long, value_name = "FILE")]
    predict: Vec<PathBuf>,
    /// Write the predicted curves as .csv: curve, step, lr, loss, predicted
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What is minimised, as a sum over the points: lsq, log-lsq, huber:DELTA (of log losses) or lad
    #[arg(long, value_name = "LOSS", default_value = "huber:1e-3")]
    loss: Objective,
    /// Parameters that keep a value instead of being fitted, such as lambda=0.999
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = parse_pairs)]
    hold: Vec<Vec<(String, f64)>>,
    /// Fit also without each curve in turn: errors on unseen schedules, and how far the parameters move
    #[arg(long)]
    leave_one_out: bool,
    /// Independent starts that confirm the optimum
    #[arg(long, value_name = "K", default_value_t = 8)]
    starts: usize,
    /// Seed of the starts
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    random_seed: u64,
    #[command(flatten)]
    figure: picture::BesideArgs,
    #[command(flatten)]
    format: FormatArgs,
}

fn parse_curve_form(text: &str) -> Result<&'static dyn CurveForm, String> {
    learning_curve::lookup(text).ok_or_else(|| unknown_form(text, CURVE_FORMS.iter().map(|form| form.name())))
}

/// What a run is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Fitted,
    HeldOut,
    Predicted,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Fitted => "fitted",
            Self::HeldOut => "held out",
            Self::Predicted => "predicted",
        }
    }
}

/// A run, and what the law says of it.
struct Judged {
    log: RunLog,
    role: Role,
    /// The loss by the law at each logged step.
    predicted: Vec<f64>,
    /// How far the law is from its losses, where it has any.
    scores: Option<Scores>,
    /// How far it is when it was fitted without this run.
    unseen: Option<Result<Scores, CurveError>>,
}

/// A law fitted to runs.
struct Study<'a> {
    args: &'a CurvesArgs,
    fit: CurveFit,
    runs: Vec<Judged>,
    /// For each parameter the least and the greatest value over the fits that lack a curve.
    moved: Option<Vec<(f64, f64)>>,
}

impl CurvesArgs {
    fn read(&self, file: &Path, schedule_alone: bool) -> anyhow::Result<Vec<RunLog>> {
        let named = |of: Option<&std::ffi::OsStr>| of.unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let (path, name) = match file.is_dir() {
            true => (file.join(METRICS), named(file.file_name())),
            false => (file.to_owned(), named(file.file_stem())),
        };
        let condition = self.condition.as_deref().map(Expression::parse).transpose();
        let columns = LogColumns {
            step: self.step.clone(),
            lr: self.lr.clone(),
            loss: self.y.clone(),
            curve: self.curve.clone(),
            condition: condition.map_err(|error| usage(format!("--where: {error}")))?,
        };
        let options = LogOptions { warm_up: self.warmup, from: self.from, schedule_alone };
        log::read(&path, &name, &columns, options).map_err(usage)
    }

    /// All runs, each with what it is there for.
    fn runs(&self) -> anyhow::Result<Vec<(RunLog, Role)>> {
        let mut out: Vec<(RunLog, Role)> = Vec::new();
        for file in &self.files {
            let role = |log: &RunLog| if self.hold_out.contains(&log.name) { Role::HeldOut } else { Role::Fitted };
            out.extend(self.read(file, false)?.into_iter().map(|log| (role(&log), log)).map(|(role, log)| (log, role)));
        }
        let known = |name: &&String| out.iter().any(|(log, _)| log.name == **name);
        if let Some(name) = self.hold_out.iter().find(|name| !known(name)) {
            let names: Vec<&str> = out.iter().map(|(log, _)| log.name.as_str()).collect();
            return Err(usage(format!("--hold-out {name}: no such run; there are {}", names.join(", "))));
        }
        for file in &self.predict {
            out.extend(self.read(file, true)?.into_iter().map(|log| (log, Role::Predicted)));
        }
        let twice = |name: &str| out.iter().filter(|(log, _)| log.name == name).count() > 1;
        if let Some((log, _)) = out.iter().find(|(log, _)| twice(&log.name)) {
            return Err(usage(format!("two runs are called '{}'; hint: --curve, or other names of files", log.name)));
        }
        Ok(out)
    }

    fn options(&self) -> anyhow::Result<CurveOptions> {
        let held = self.hold.iter().flatten();
        let given: Vec<Given> = held.map(|(name, value)| Given { name: name.clone(), value: *value }).collect();
        let names = self.form.parameters();
        if let Some(Given { name, value }) = given.iter().find(|g| !names.contains(&&*g.name) || g.value < 0.0) {
            let names = names.join(", ");
            let form = self.form.name();
            let problem = format!("--hold {name}={value}: the parameters of {form} are {names}, none of them negative");
            return Err(usage(problem));
        }
        Ok(CurveOptions {
            objective: self.loss,
            starts: self.starts,
            seed: self.random_seed,
            given,
            ..CurveOptions::new(self.form)
        })
    }

    fn check_outputs(&self) -> anyhow::Result<()> {
        self.figure.check()?;
        match &self.out {
            Some(file) if file.extension().is_none_or(|ending| ending != "csv") => {
                Err(usage(format!("--out {}: predicted curves are written as .csv", file.display())))
            }
            _ => Ok(()),
        }
    }
}

/// What has to be said about the logs.
fn notes(runs: &[(RunLog, Role)]) -> Vec<String> {
    let mut out = Vec::new();
    let early: usize = runs.iter().filter(|(_, role)| *role != Role::Predicted).map(|(log, _)| log.early).sum();
    if early > 0 {
        let start = "before the highest rate (or --from) left out";
        out.push(format!("{early} loss{} {start}; hint: --from STEP", if early == 1 { "" } else { "es" }));
    }
    for (log, _) in runs.iter().filter(|(log, _)| log.largest_unseen_change() > 0.05) {
        out.push(format!(
            "{}: the rate changes by {:.0} % of its highest between two rows up to {} steps apart; a straight line \
             stands for it; hint: add rows with an empty loss",
            log.name,
            100.0 * log.largest_unseen_change(),
            log.widest_gap
        ));
    }
    out
}

/// The error of a fit that failed: bad input, or no result.
fn no_fit(error: &CurveError) -> anyhow::Error {
    match error {
        CurveError::Fit(inner) if !inner.is_input() => exit(ExitStatus::NoFit, error),
        _ => usage(error),
    }
}

/// Runs `lossfloor curves`.
pub fn run(args: &CurvesArgs) -> anyhow::Result<ExitStatus> {
    args.check_outputs()?;
    let options = args.options()?;
    let runs = args.runs()?;
    notes(&runs).iter().for_each(|note| output::note(note));
    let study = judge(args, &options, runs)?;
    match args.format.chosen() {
        Format::Json => output::json(&study.document())?,
        Format::Table => study.print()?,
        format => study.parameters().write(format, Default::default())?,
    }
    if let Some(file) = &args.out {
        crate::files::write_atomic(file, study.predictions()?.as_bytes())?;
        output::note(&format!("wrote {}", file.display()));
    }
    args.figure.draw(|width| study.chart(width))?;
    if study.fit.status == FitStatus::Stuck {
        return Err(exit(ExitStatus::NoFit, "no optimum was reached; hint: another form or loss, or --hold"));
    }
    Ok(ExitStatus::Done)
}

/// Fits the law and says how far it is from every run.
fn judge<'a>(args: &'a CurvesArgs, options: &CurveOptions, runs: Vec<(RunLog, Role)>) -> anyhow::Result<Study<'a>> {
    let curves: Vec<Curve> =
        runs.iter().filter(|(_, role)| *role == Role::Fitted).filter_map(|(log, _)| log.curve.clone()).collect();
    if curves.is_empty() {
        return Err(usage("--hold-out leaves no run to fit"));
    }
    if args.leave_one_out && curves.len() < 2 {
        return Err(usage("--leave-one-out needs two fitted runs or more"));
    }
    let fit = learning_curve::fit(&curves, options).map_err(|error| no_fit(&error))?;
    let left_out = if args.leave_one_out { learning_curve::leave_one_out(&curves, options) } else { Vec::new() };
    let mut unseen = left_out.iter().zip(&curves).map(|(fit, curve)| match fit {
        Ok(fit) => Ok(fit.law.scores(curve)),
        Err(error) => Err(error.clone()),
    });
    let judged = runs.into_iter().map(|(log, role)| Judged {
        predicted: fit.law.losses(Logged { schedule: &log.schedule, steps: &log.steps }),
        scores: log.curve.as_ref().map(|curve| fit.law.scores(curve)),
        unseen: if role == Role::Fitted { unseen.next() } else { None },
        log,
        role,
    });
    let runs = judged.collect();
    Ok(Study { args, moved: moved(&left_out), fit, runs })
}

/// See [`Study::moved`].
fn moved(fits: &[Result<CurveFit, CurveError>]) -> Option<Vec<(f64, f64)>> {
    let laws: Vec<&[f64]> = fits.iter().flatten().map(|fit| fit.law.parameters.as_slice()).collect();
    let range = |k: usize| crate::analysis::ends(&laws.iter().map(|law| law[k]).collect::<Vec<f64>>());
    Some((0..laws.first()?.len()).map(range).collect())
}
