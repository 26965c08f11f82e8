//! `lossfloor isoflop`

use super::input::{ColumnArgs, Group, Unused};
use super::sheet::{Format, FormatArgs, Sheet};
use super::{parse_scale, reservation};
use crate::analysis::forms::{FLOPS_PER_PARAMETER_TOKEN, Input};
use crate::analysis::isoflop::{
    self, Allocation, AllocationIntervals, Budget, Flaw, LogLog, Method, Optimum, Size, allocation,
    allocation_intervals,
};
use crate::analysis::{ConfidenceInterval, Fit, FitOptions, IntervalMethod, Objective, Sample, fit, forms};
use crate::cli::{ExitStatus, exit, output, usage};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Which of the tables to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// The smallest loss of each budget
    Optima,
    /// The power laws through them, beside the exponents of the law of N and D
    Laws,
    /// The best N and D for each budget, by either
    Allocation,
}

/// Find compute-optimal sizes from runs at equal compute, and beside them by a law of N and D
#[derive(clap::Args, Debug)]
pub struct IsoflopArgs {
    /// Table of results: .csv, .jsonl or .parquet
    file: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Column of the training FLOPs; with --d it need not be 6·N·D, without it the tokens are FLOPs/6N
    #[arg(long, value_name = "COL")]
    flops: Option<String>,
    /// Compute budgets; runs go to the nearest. Default: FLOPs that agree to three digits are one budget
    #[arg(long, value_name = "FLOPS,...", value_delimiter = ',', value_parser = parse_scale)]
    budgets: Vec<f64>,
    /// How far a run may be from its budget, as a share
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "budgets")]
    tolerance: f64,
    /// Weigh each optimum of a power law by its standard error instead of all alike
    #[arg(long)]
    by_error: bool,
    /// Budgets for which to state the best N and D; default those of the runs
    #[arg(long, value_name = "FLOPS,...", value_delimiter = ',', value_parser = parse_scale)]
    at: Vec<f64>,
    /// Loss of the fit of the law of N and D
    #[arg(long, value_name = "LOSS", default_value = "huber:1e-3")]
    loss: Objective,
    /// Resamples for the intervals of the law of N and D
    #[arg(long, value_name = "K", default_value_t = 400)]
    draws: usize,
    /// Seed of the resamples
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    random_seed: u64,
    /// Print one of the tables; default optima and laws, and with --at the allocation; for CSV, Markdown and LaTeX the
    /// laws
    #[arg(long, value_enum)]
    show: Option<Show>,
    #[command(flatten)]
    format: FormatArgs,
}

/// What was found for one group.
struct Found {
    group: Option<String>,
    /// FLOPs per parameter and token.
    per: f64,
    /// Runs far from every budget.
    stray: usize,
    budgets: Vec<Budget>,
    /// The optima of each method.
    optima: Vec<(Method, Vec<Optimum>)>,
    fit: Result<Fit, String>,
}

impl IsoflopArgs {
    /// Positions of N, D and FLOPs among the columns to read, and these.
    fn inputs(&self) -> anyhow::Result<(Vec<String>, Option<usize>, Option<usize>)> {
        let n = self.columns.n.clone().ok_or_else(|| usage("--n has to name the column of the parameters"))?;
        let mut inputs = vec![n];
        let mut place = |column: &Option<String>| {
            column.clone().map(|column| {
                inputs.push(column);
                inputs.len() - 1
            })
        };
        let (d, flops) = (place(&self.columns.d), place(&self.flops));
        if d.is_none() && flops.is_none() {
            return Err(usage("--d or --flops has to name the column of the tokens or of the FLOPs"));
        }
        Ok((inputs, d, flops))
    }

    fn found(&self, group: &Group, (d, flops): (Option<usize>, Option<usize>)) -> Found {
        let raw = group.sample();
        let column = |at: usize| raw.inputs.columns[at].clone();
        let n = column(0);
        let mut per = FLOPS_PER_PARAMETER_TOKEN;
        let (tokens, spent) = match (d.map(column), flops.map(column)) {
            (Some(d), Some(flops)) => {
                // What the FLOPs count may be more than 6·N·D; the mean ratio turns a budget into tokens.
                let ratios = flops.iter().zip(&n).zip(&d).map(|((f, n), d)| (f / (n * d)).ln());
                per = (ratios.sum::<f64>() / n.len() as f64).exp();
                (d, flops)
            }
            (Some(d), None) => {
                let flops = n.iter().zip(&d).map(|(n, d)| per * n * d).collect();
                (d, flops)
            }
            (None, flops) => {
                let flops = flops.unwrap_or_default();
                (flops.iter().zip(&n).map(|(flops, n)| flops / per / n).collect(), flops)
            }
        };
        let sample = Sample { inputs: forms::Inputs { columns: vec![n, tokens] }, ..raw };
        let budgets = isoflop::budgets(&spent, &self.budgets, self.tolerance);
        let options = FitOptions {
            objective: self.loss,
            interval: IntervalMethod::Bootstrap(self.draws),
            leave_one_out: false,
            seed: self.random_seed,
            ..FitOptions::new(forms::chinchilla())
        };
        let fit = fit(&sample, &options).map_err(|error| error.to_string());
        let law = fit.as_ref().ok().map(|fit| &fit.law);
        let optima = Method::ALL.map(|method| (method, isoflop::optima(&sample, &budgets, method, law, per)));
        Found {
            group: group.name.clone(),
            per,
            stray: sample.len() - budgets.iter().map(|budget| budget.runs.len()).sum::<usize>(),
            budgets,
            optima: optima.to_vec(),
            fit,
        }
    }
}

fn ends(interval: Option<(f64, f64)>) -> [Value; 2] {
    [json!(interval.map(|(lo, _)| lo)), json!(interval.map(|(_, hi)| hi))]
}

fn confidence(interval: Option<&ConfidenceInterval>) -> [Value; 2] {
    [json!(interval.and_then(|i| i.lo)), json!(interval.and_then(|i| i.hi))]
}

impl Found {
    fn optima_rows(&self) -> Vec<Vec<Value>> {
        let row = |optimum: &Optimum| {
            let minimum = optimum.minimum.as_ref().ok();
            let [low, high] = ends(minimum.and_then(isoflop::Minimum::interval));
            let d = minimum.map(|minimum| optimum.budget.flops / self.per / minimum.n);
            let flaws: Vec<&str> = optimum.flaws().into_iter().map(Flaw::name).collect();
            vec![
                json!(self.group),
                json!(optimum.method.name()),
                json!(optimum.budget.flops),
                json!(optimum.budget.runs.len()),
                json!(minimum.map(|minimum| minimum.n)),
                low,
                high,
                json!(d),
                json!(d.zip(minimum).map(|(d, minimum)| d / minimum.n)),
                json!(minimum.map(|minimum| minimum.loss)),
                json!(optimum.bias),
                json!(flaws.join(" ")),
            ]
        };
        self.optima.iter().flat_map(|(_, optima)| optima.iter().map(row)).collect()
    }

    fn law(&self, optima: &[Optimum], size: Size, by_error: bool) -> Option<LogLog> {
        isoflop::power_law(optima, size, by_error, self.per)
    }

    fn law_rows(&self, by_error: bool) -> Vec<Vec<Value>> {
        let mut out = Vec::new();
        for (method, optima) in &self.optima {
            let bias = self.fit.as_ref().ok().and_then(|fit| isoflop::exponent_bias(optima, &fit.law));
            for (size, letter, sign) in [(Size::Parameters, "N", 1.0), (Size::Tokens, "D", -1.0)] {
                let law = self.law(optima, size, by_error);
                let [low, high] = ends(law.as_ref().and_then(LogLog::interval));
                out.push(vec![
                    json!(self.group),
                    json!(method.name()),
                    json!(letter),
                    json!(law.as_ref().map(|law| law.exponent)),
                    low,
                    high,
                    json!(law.as_ref().map(|law| law.coefficient)),
                    json!(optima.iter().filter(|optimum| optimum.usable().is_some()).count()),
                    json!(law.as_ref().map(|law| law.r2)),
                    json!(bias.map(|bias| sign * bias)),
                ]);
            }
        }
        if let Ok(fit) = &self.fit {
            let interval = fit.resamples.as_ref().map(|resamples| resamples.interval_of(isoflop::optimal_exponent));
            let share = isoflop::optimal_exponent(&fit.law).unwrap_or(f64::NAN);
            // N·D is the budget, so that the coefficient is the allocation of one FLOP.
            let unit = allocation(&fit.law, 1.0, self.per);
            let other =
                interval.map(|i| ConfidenceInterval { lo: i.hi.map(|hi| 1.0 - hi), hi: i.lo.map(|lo| 1.0 - lo) });
            for (letter, exponent, interval, coefficient) in
                [("N", share, interval, unit.map(|unit| unit.n)), ("D", 1.0 - share, other, unit.map(|unit| unit.d))]
            {
                let [low, high] = confidence(interval.as_ref());
                out.push(vec![
                    json!(self.group),
                    json!("chinchilla"),
                    json!(letter),
                    json!(exponent),
                    low,
                    high,
                    json!(coefficient),
                    json!(fit.n),
                    json!(fit.r2),
                    Value::Null,
                ]);
            }
        }
        out
    }

    fn allocation_rows(&self, by_error: bool, at: &[f64]) -> Vec<Vec<Value>> {
        let own = self.budgets.iter().map(|budget| budget.flops);
        let mut flops: Vec<f64> = if at.is_empty() { own.collect() } else { at.to_vec() };
        flops.sort_by(f64::total_cmp);
        flops.dedup();
        let mut out = Vec::new();
        for (method, optima) in &self.optima {
            let laws = (self.law(optima, Size::Parameters, by_error), self.law(optima, Size::Tokens, by_error));
            let (Some(n), Some(d)) = laws else { continue };
            for flops in &flops {
                let head = [json!(self.group), json!(method.name()), json!(flops)];
                let size = |law: &LogLog| {
                    let [low, high] = ends(law.interval_at(*flops));
                    [json!(law.value(*flops)), low, high]
                };
                let ratio = d.value(*flops) / n.value(*flops);
                let tail = [json!(ratio), Value::Null, Value::Null, Value::Null];
                out.push(head.into_iter().chain(size(&n)).chain(size(&d)).chain(tail).collect());
            }
        }
        let Ok(fit) = &self.fit else { return out };
        for flops in &flops {
            let Some(Allocation { n, d, loss }) = allocation(&fit.law, *flops, self.per) else { continue };
            let of = fit.resamples.as_ref().map(|resamples| allocation_intervals(resamples, *flops, self.per));
            let part = |value: f64, of: Option<&ConfidenceInterval>| {
                let [low, high] = confidence(of);
                [json!(value), low, high]
            };
            let interval = |part: fn(&AllocationIntervals) -> &ConfidenceInterval| of.as_ref().map(part);
            let head = [json!(self.group), json!("chinchilla"), json!(flops)];
            let sizes = part(n, interval(|of| &of.n)).into_iter().chain(part(d, interval(|of| &of.d)));
            let tail = [json!(d / n)].into_iter().chain(part(loss, interval(|of| &of.loss)));
            out.push(head.into_iter().chain(sizes).chain(tail).collect());
        }
        out
    }

    /// What has to be said about the law of N and D.
    fn law_notes(&self, fit: &Fit) -> Vec<String> {
        let mut out: Vec<String> = reservation(fit).map(|note| format!("law of N and D: {note}")).into_iter().collect();
        let resamples = fit.resamples.as_ref().map_or(&[][..], |resamples| &resamples.parameters);
        let without = resamples.iter().filter(|law| allocation(law, 1.0, self.per).is_none()).count();
        if without > 0 {
            let all = resamples.len();
            out.push(format!(
                "{without} of {all} resamples have no best N and D; its intervals are those of the others"
            ));
        }
        out
    }

    fn notes(&self, by_error: bool) -> Vec<String> {
        let name = self.group.as_ref().map_or(String::new(), |group| format!("{group}: "));
        let mut out = Vec::new();
        if self.stray > 0 {
            let one = self.stray == 1;
            out.push(format!(
                "{name}{} run{} near no budget left out of the optima",
                self.stray,
                if one { "" } else { "s" }
            ));
        }
        if (self.per / FLOPS_PER_PARAMETER_TOKEN - 1.0).abs() > 0.01 {
            out.push(format!("{name}FLOPs are {:.3}·N·D on average; budgets become tokens by that", self.per));
        }
        match &self.fit {
            Err(reason) => out.push(format!("{name}no law of N and D: {reason}")),
            Ok(fit) => out.extend(self.law_notes(fit).into_iter().map(|note| name.clone() + &note)),
        }
        for (method, optima) in &self.optima {
            let unusable = optima.iter().filter(|optimum| optimum.usable().is_none()).count();
            if unusable > 0 {
                out.push(format!(
                    "{name}{}: {unusable} of {} budgets have no minimum among the sizes run, and are left out of its \
                     laws",
                    method.name(),
                    optima.len()
                ));
            }
            if by_error && optima.iter().filter_map(Optimum::usable).any(|minimum| minimum.se.is_none()) {
                let method = method.name();
                out.push(format!(
                    "{name}{method}: not every optimum has a standard error; all count alike in its laws"
                ));
            }
            let biased = optima.iter().filter(|optimum| optimum.flaws().contains(&Flaw::Biased)).count();
            if biased > 0 {
                out.push(format!(
                    "{name}{}: the grid alone moves the optimum by more than 5 % in {biased} of {} budgets (column \
                     bias), as it does when it is wide or off centre (Czech et al. 2026, arXiv:2603.22339)",
                    method.name(),
                    optima.len()
                ));
            }
        }
        out
    }
}

const OPTIMA: &[&str] =
    &["group", "method", "flops", "runs", "n_opt", "n_low", "n_high", "d_opt", "d_per_n", "loss_opt", "bias", "flags"];
const LAWS: &[&str] =
    &["group", "method", "size", "exponent", "low", "high", "coefficient", "points", "r2", "exponent_bias"];
const ALLOCATION: &[&str] = &[
    "group",
    "method",
    "flops",
    "n",
    "n_low",
    "n_high",
    "d",
    "d_low",
    "d_high",
    "d_per_n",
    "loss",
    "loss_low",
    "loss_high",
];

/// Columns that say nothing when no loss or interval is known.
const OPTIONAL: &[&str] = &["n_low", "n_high", "loss", "loss_low", "loss_high"];

/// Runs `lossfloor isoflop`.
pub fn run(args: IsoflopArgs) -> anyhow::Result<ExitStatus> {
    if !(args.tolerance > 0.0 && args.tolerance < 1.0) || args.draws < 20 {
        return Err(usage("--tolerance is a share between 0 and 1, and --draws 20 or more"));
    }
    args.columns.without_use("isoflop", &[Unused::Input(Input::X), Unused::Input(Input::Unique), Unused::Seed]);
    let (inputs, d, flops) = args.inputs()?;
    let source = args.columns.read(&args.file, inputs)?;
    source.say();
    let groups: Vec<Group> = source.groups().into_iter().filter(|group| !group.rows.is_empty()).collect();
    let found: Vec<Found> = groups.iter().map(|group| args.found(group, (d, flops))).collect();
    let format = args.format.chosen();
    let sheet = |show: Show| {
        let (columns, rows): (&[&'static str], Vec<Vec<Value>>) = match show {
            Show::Optima => (OPTIMA, found.iter().flat_map(Found::optima_rows).collect()),
            Show::Laws => (LAWS, found.iter().flat_map(|found| found.law_rows(args.by_error)).collect()),
            Show::Allocation => {
                let rows = found.iter().flat_map(|found| found.allocation_rows(args.by_error, &args.at));
                (ALLOCATION, rows.collect())
            }
        };
        let sheet = Sheet { columns: columns.to_vec(), rows };
        let sheet = if args.columns.group.is_none() { sheet.without("group") } else { sheet };
        // On a terminal without what follows from the other columns.
        let derived: &[&str] = if format == Format::Table { &["runs", "d_opt", "d_low", "d_high"] } else { &[] };
        derived.iter().fold(sheet, |sheet, column| sheet.without(column))
    };
    found.iter().flat_map(|found| found.notes(args.by_error)).for_each(|note| output::note(&note));
    match (format, args.show) {
        (Format::Json, _) => {
            let laws = [("laws".to_owned(), json!(sheet(Show::Laws).objects()))];
            let rest = [
                ("allocation".to_owned(), json!(sheet(Show::Allocation).objects())),
                ("data".to_owned(), source.provenance()),
            ];
            sheet(Show::Optima).write(Format::Json, laws.into_iter().chain(rest).collect::<Map<_, _>>())?;
        }
        (format, Some(show)) => sheet(show).write_short(format, Map::new(), OPTIONAL)?,
        (Format::Table, None) => {
            sheet(Show::Optima).write_short(Format::Table, Map::new(), OPTIONAL)?;
            output::print("")?;
            sheet(Show::Laws).write_short(Format::Table, Map::new(), OPTIONAL)?;
            if !args.at.is_empty() {
                output::print("")?;
                sheet(Show::Allocation).write_short(Format::Table, Map::new(), OPTIONAL)?;
            }
        }
        (format, None) => sheet(Show::Laws).write_short(format, Map::new(), OPTIONAL)?,
    }
    let usable = |found: &Found| found.optima.iter().flat_map(|(_, optima)| optima).any(|o| o.usable().is_some());
    if !found.iter().any(usable) {
        return Err(exit(
            ExitStatus::NoFit,
            "no budget has a minimum among its sizes; hint: --budgets, or more sizes on either side",
        ));
    }
    Ok(ExitStatus::Done)
}
