//! `lossfloor fit`

use super::input::{ColumnArgs, Group, Source};
use super::sheet::{Format, FormatArgs, Sheet};
use super::{forms_help, on_a_bound, parse_form, parse_pairs, stuck};
use crate::analysis::document::{FitEntry, SCHEMA};
use crate::analysis::presets::{PRESETS, Preset, lookup};
use crate::analysis::{
    self, Estimate, Fit, FitError, FitOptions, Form, Given, IntervalMethod, LeftOut, Noise, Objective, Row, display,
};
use crate::cli::{ExitStatus, exit, output, usage};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `lossfloor fit`.
#[derive(clap::Args, Debug)]
pub struct FitArgs {
    /// Table of results: .csv, .jsonl or .parquet; rows whose column `status` is not `completed` are set aside
    file: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    #[arg(long, help = forms_help(), value_parser = parse_form, required_unless_present = "as_published")]
    form: Option<&'static dyn Form>,
    /// What is minimised, as a sum over the points: lsq, log-lsq, huber:DELTA (of log losses) or lad
    #[arg(long, value_name = "LOSS")]
    loss: Option<Objective>,
    /// Kind of 95 % interval: profile, bootstrap:K, wald or none; default profile, of huber and lad bootstrap:1000
    #[arg(long, value_name = "KIND")]
    interval: Option<IntervalMethod>,
    /// Form, loss, interval and outlier rule of a published fit: arch-scale, epoch2024, hoffmann, gadre,
    /// muennighoff or porian (of --y n or t by --x flops; --weight 1/std²)
    #[arg(long = "as", id = "as_published", value_name = "PAPER", value_parser = parse_preset)]
    preset: Option<&'static Preset>,
    /// Parameters that keep a value instead of being fitted, such as C=1.69
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = parse_pairs)]
    hold: Vec<Vec<(String, f64)>>,
    /// Inputs at which to state the law's loss, such as x=1e24 or n=7e10,d=1.4e12; repeatable
    #[arg(long, value_name = "INPUT=VALUE,...", value_parser = parse_pairs)]
    at: Vec<Vec<(String, f64)>>,
    /// Standard deviation of one loss, when it is known; of its logarithm for losses other than lsq
    #[arg(long, value_name = "SD", conflicts_with = "seed", allow_negative_numbers = true)]
    sigma: Option<f64>,
    /// Independent starts that confirm the optimum
    #[arg(long, value_name = "K", default_value_t = 16)]
    starts: usize,
    /// Seed of starts and resampling
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    random_seed: u64,
    #[command(flatten)]
    format: FormatArgs,
}

fn parse_preset(text: &str) -> Result<&'static Preset, String> {
    lookup(text).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// One group and what became of it.
struct GroupFit {
    group: Group,
    outcome: Result<Fit, FitError>,
    outliers: Vec<Outlier>,
}

/// A row far from the law that fits the others.
struct Outlier {
    line: usize,
    y: f64,
    /// Residual in standard deviations of the other rows.
    t: f64,
}

impl FitArgs {
    fn options(&self, source: &Source, form: &'static dyn Form) -> anyhow::Result<FitOptions> {
        let objective = self.loss.or(self.preset.map(|preset| preset.objective)).unwrap_or_default();
        let asked = self.interval.or(self.preset.map(|preset| preset.interval));
        let interval = asked.unwrap_or(objective.usual_interval());
        interval.suits(objective).map_err(|problem| usage(format!("--interval: {problem}")))?;
        let mut given = self.preset.map(Preset::given).unwrap_or_default();
        let asked: Vec<&(String, f64)> = self.hold.iter().flatten().collect();
        given.retain(|of_preset| asked.iter().all(|(name, _)| *name != of_preset.name));
        given.extend(asked.into_iter().map(|(name, value)| Given { name: name.clone(), value: *value }));
        for given in &given {
            if !form.parameters().contains(&&*given.name) || given.value < 0.0 {
                let names = form.parameters().join(", ");
                let problem = format!(
                    "{}={}: the parameters of {} are {names}, none of them negative",
                    given.name,
                    given.value,
                    form.name()
                );
                return Err(usage(format!("--hold {problem}")));
            }
        }
        Ok(FitOptions {
            objective,
            interval,
            noise: self.noise(source, objective)?,
            starts: self.starts,
            seed: self.random_seed,
            given,
            predictions: self.at.iter().map(|pairs| point(form, pairs)).collect::<Result<_, _>>()?,
            ..FitOptions::new(form)
        })
    }

    fn noise(&self, source: &Source, objective: Objective) -> anyhow::Result<Noise> {
        if let Some(sd) = self.sigma {
            if !(sd > 0.0 && sd.is_finite()) {
                return Err(usage(format!("--sigma {sd}: a standard deviation is a positive number")));
            }
            return Ok(Noise::Known { sd, freedom: None });
        }
        let Some(column) = &self.columns.seed else { return Ok(Noise::FromResiduals) };
        source.seed_noise(objective.is_logarithmic()).ok_or_else(|| {
            usage(format!("--seed {column}: no two rows agree in everything else, so seeds say nothing of the noise"))
        })
    }
}

/// The inputs of a form from `x=...` or `n=...,d=...`.
fn point(form: &dyn Form, pairs: &[(String, f64)]) -> anyhow::Result<Vec<f64>> {
    let value = |input: &analysis::forms::Input| {
        let name = input.letter();
        let found = pairs.iter().find(|(key, value)| key == name && *value > 0.0).map(|(_, value)| *value);
        found.ok_or_else(|| usage(format!("--at: {} needs {name}=NUMBER, a positive one", form.name())))
    };
    form.inputs().iter().map(value).collect()
}

/// Rows whose loss lies far from the law of the others, such as those of runs that diverged without saying so.
fn outliers(rows: &[Row], fit: &Fit, options: &FitOptions) -> Vec<Outlier> {
    analysis::deleted_residuals(&analysis::Sample::of_rows(rows), fit, options)
        .into_iter()
        .map(|(at, t)| Outlier { line: rows[at].line, y: rows[at].y, t })
        .collect()
}

/// The error when no group has a fit: bad input if all have too few points, otherwise a fit without a result.
fn no_fit(file: &Path, groups: &[GroupFit]) -> Option<anyhow::Error> {
    let errors: Vec<(&GroupFit, &FitError)> =
        groups.iter().filter_map(|group| group.outcome.as_ref().err().map(|error| (group, error))).collect();
    if errors.len() < groups.len() {
        return None;
    }
    let few = |error: &FitError| error.is_input();
    let status = if errors.iter().all(|(_, error)| few(error)) { ExitStatus::Usage } else { ExitStatus::NoFit };
    let (group, error) = errors.iter().find(|(_, error)| !few(error)).or(errors.first())?;
    let which = group.group.name.as_ref().map_or(String::new(), |name| format!(", group '{name}'"));
    let more = if errors.len() > 1 { format!(" (no fit in any of {} groups)", errors.len()) } else { String::new() };
    let hint = match error {
        FitError::TooFewPoints { .. } => "; hint: add points, drop --group, or fit a form with fewer parameters",
        _ => "",
    };
    Some(exit(status, format!("{}{which}: {error}{more}{hint}", file.display())))
}

/// Runs `lossfloor fit`.
pub fn run(args: FitArgs) -> anyhow::Result<ExitStatus> {
    let form = args.form.or(args.preset.map(Preset::form)).expect("clap asks for one of the two");
    let mut columns = args.columns.clone();
    columns.without_use("fit", &ColumnArgs::beyond(form));
    columns.drop_highest = columns.drop_highest.or(args.preset.map(|preset| preset.drop_highest));
    let source = columns.read(&args.file, columns.inputs(form)?)?;
    let options = args.options(&source, form)?;
    let fitted = source.groups().into_iter().map(|group| {
        let outcome = analysis::fit(&group.sample(), &options);
        let outliers = outcome.as_ref().map_or_else(|_| Vec::new(), |fit| outliers(&group.rows, fit, &options));
        GroupFit { group, outcome, outliers }
    });
    let groups: Vec<GroupFit> = fitted.collect();
    let none = no_fit(&args.file, &groups);
    let usable_input = groups.iter().any(|group| !group.outcome.as_ref().is_err_and(FitError::is_input));
    match args.format.chosen() {
        Format::Json if usable_input => {
            source.say();
            output::json(&document(&source, &groups, &options))?;
        }
        Format::Table if none.is_none() => output::print(&text(&source, &groups, &options))?,
        format if none.is_none() => {
            source.say();
            groups.iter().flat_map(|group| group_notes(group, &options)).for_each(|note| output::note(&note));
            rows(&groups, form).write(format, Map::new())?;
        }
        _ => {}
    }
    stuck(groups.iter().filter_map(|group| Some((group.group.label(), group.outcome.as_ref().ok()?))))?;
    none.map_or(Ok(ExitStatus::Done), Err)
}

/// The document of `fit --json`; its keys are a contract.
fn document(source: &Source, groups: &[GroupFit], options: &FitOptions) -> Value {
    let entry = |group: &GroupFit| {
        let (name, n) = (group.group.name.clone(), group.group.rows.len());
        let how = (options.objective, options.interval);
        let entry = FitEntry::new(name, options.form.name(), how, n, group.group.excluded.clone(), &group.outcome);
        let mut value = serde_json::to_value(entry).expect("string keys and finite numbers");
        let outliers = group.outliers.iter().map(|o| json!({ "line": o.line, "y": o.y, "t": o.t }));
        value["outliers"] = outliers.collect();
        value
    };
    json!({
        "schema": SCHEMA,
        "fits": groups.iter().map(entry).collect::<Vec<_>>(),
        "data": source.provenance(),
        "options": {
            "form": options.form.name(), "formula": options.form.formula(), "loss": options.objective.name(),
            "interval": options.interval.name(), "confidence": analysis::CONFIDENCE, "seed": options.seed,
            "held": options.given.iter().map(|g| (g.name.clone(), json!(g.value))).collect::<Map<String, Value>>(),
        },
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// One row for each group and parameter.
fn rows(groups: &[GroupFit], form: &dyn Form) -> Sheet {
    let mut sheet = Sheet::new(&["group", "form", "n", "status", "parameter", "value", "se", "low", "high"]);
    for group in groups {
        let head = |status: &str| {
            vec![json!(group.group.name), json!(form.name()), json!(group.group.rows.len()), json!(status)]
        };
        match &group.outcome {
            Ok(fit) => {
                for e in &fit.estimates {
                    let (lo, hi) = e.interval.map_or((None, None), |i| (i.lo, i.hi));
                    let more = [json!(e.name), json!(e.value), json!(e.se), json!(lo), json!(hi)];
                    sheet.rows.push(head(fit.status.name()).into_iter().chain(more).collect());
                }
            }
            Err(_) => sheet.rows.push(head("no_fit").into_iter().chain(vec![Value::Null; 5]).collect()),
        }
    }
    sheet
}

/// Everything for a terminal: two lines per group, value above error, so that it fits in 80 columns; then notes.
fn text(source: &Source, groups: &[GroupFit], options: &FitOptions) -> String {
    let form = options.form;
    let floor = form.floor_name();
    let mut header = vec!["group".to_owned(), "n".to_owned()];
    header.extend(form.parameters().iter().map(|name| format!("{name} ± se")));
    if let Some(floor) = floor.filter(|_| options.interval != IntervalMethod::None) {
        header.push(format!("95 % of {floor}"));
    }
    header.push("R2".to_owned());
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = output::table(&header);
    table.set_width(80);
    for group in groups {
        let mut cells = vec![group.group.label().to_owned(), group.group.rows.len().to_string()];
        match &group.outcome {
            Ok(fit) => {
                for estimate in &fit.estimates {
                    let (value, error) = display::value_and_error(estimate);
                    let held = options.given.iter().any(|given| given.name == estimate.name);
                    let without = if held { "held" } else { "no s.e." };
                    cells.push(format!("{value}\n{}", error.map_or(without.to_owned(), |error| format!("± {error}"))));
                }
                let interval = fit.floor().and_then(|floor| floor.interval.as_ref());
                if floor.is_some() && options.interval != IntervalMethod::None {
                    cells.push(interval.map_or("-".to_owned(), display::interval));
                }
                cells.push(format!("{:.6}", fit.r2));
            }
            Err(_) => cells.push("no fit".to_owned()),
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    let notes = source.notes().into_iter().chain(groups.iter().flat_map(|group| group_notes(group, options)));
    let mut out = vec![format!("{}   {}", form.formula(), options.objective.name()), table.to_string()];
    out.extend(notes);
    out.extend(certificate_note(groups));
    if let Some(note) = interval_note(options) {
        out.push(note);
    }
    out.join("\n")
}

fn interval_note(options: &FitOptions) -> Option<String> {
    match options.interval {
        IntervalMethod::Profile => Some("intervals: 95 % profile likelihood (F)".to_owned()),
        IntervalMethod::Wald => Some("intervals: 95 % Wald (t)".to_owned()),
        IntervalMethod::Bootstrap(draws) => {
            Some(format!("errors and intervals: {draws} resamples, percentiles at 95 %"))
        }
        IntervalMethod::None => None,
    }
}

/// How sure the optima are: the worst of all groups.
fn certificate_note(groups: &[GroupFit]) -> Option<String> {
    let fits: Vec<&Fit> = groups.iter().filter_map(|group| group.outcome.as_ref().ok()).collect();
    let most = |f: fn(&Fit) -> f64| fits.iter().map(|fit| f(fit)).fold(0.0, f64::max);
    let least = fits.iter().map(|fit| fit.certificate.reached).min()?;
    let starts = fits[0].certificate.starts;
    let (at_most, at_least) = if fits.len() > 1 { ("at most ", "at least ") } else { ("", "") };
    Some(format!(
        "optimum: |gradient| {at_most}{:.0e}, condition {at_most}{:.0e}; {at_least}{least} of {starts} independent starts agree",
        most(|fit| fit.certificate.gradient),
        most(|fit| fit.certificate.condition)
    ))
}

/// What has to be said about one group.
fn group_notes(group: &GroupFit, options: &FitOptions) -> Vec<String> {
    let name = group.group.label();
    let mut out = Vec::new();
    match &group.outcome {
        Err(error) => out.push(format!("{name}: no fit: {error}")),
        Ok(fit) => {
            out.extend(verdict(fit).map(|verdict| format!("{name}: {verdict}")));
            let none = if fit.resamples.is_none() { "; no standard error" } else { "" };
            out.extend(on_a_bound(fit).map(|note| format!("{name}: {note}{none}")));
            if let (Some(kappa), Some(range), Some(floor)) = (fit.kappa, fit.left_out, fit.floor()) {
                let c = floor.name;
                let lost = match range.without_fit {
                    0 => String::new(),
                    lost => format!(" (no fit without {lost} of the {} points)", fit.n),
                };
                let LeftOut { least, most, .. } = range;
                out.push(format!(
                    "{name}: κ = se({c})/σ = {kappa:.1}; {c} with any one point left out: {least:.4} to {most:.4}{lost}"
                ));
            }
            out.extend(unbounded(fit).into_iter().map(|note| format!("{name}: {note}")));
            out.extend(below_floor(group, fit).map(|note| format!("{name}: {note}")));
            out.extend(residual_note(fit).map(|note| format!("{name}: {note}")));
            out.extend(fit.exact.then(|| {
                format!(
                    "{name}: the law goes through all points: there is no noise, of which errors and intervals are made"
                )
            }));
            for p in &fit.predictions {
                let at: Vec<String> = p.inputs.iter().map(|x| format!("{x:.3e}")).collect();
                let interval = p.interval.as_ref().map_or("no interval".to_owned(), display::interval);
                out.push(format!("{name}: loss at {}: {:.4} ({interval})", at.join(", "), p.loss));
            }
            if matches!(options.interval, IntervalMethod::Bootstrap(_)) && fit.resamples.is_none() {
                out.push(format!("{name}: all rows are of one run, which leaves nothing to resample: no intervals"));
            }
            if let Some(resamples) = &fit.resamples {
                let (draws, lost) = (resamples.draws, resamples.draws - resamples.parameters.len());
                for (count, what) in [
                    (resamples.at_bound, "ended on a bound"),
                    (lost, "have no optimum or too few different points, and do not count"),
                ] {
                    out.extend((count > 0).then(|| format!("{name}: {count} of {draws} resamples {what}")));
                }
            }
            if fit.certificate.starts > 0 && fit.certificate.reached == 0 {
                out.push(format!("{name}: no independent start came to this optimum; another may exist"));
            }
        }
    }
    for outlier in &group.outliers {
        let (side, check) = match outlier.t > 0.0 {
            true => ("above", "check whether it diverged"),
            false => ("below", "check its loss and its scale"),
        };
        out.push(format!(
            "{name}: line {}: loss {:.4} lies {:.0} standard deviations {side} the law of the other rows; it counts; \
             {check}; hint: --where leaves it out",
            outlier.line,
            outlier.y,
            outlier.t.abs()
        ));
    }
    out
}

/// How the residuals of a robust fit are distributed: what the criterion is there for.
fn residual_note(fit: &Fit) -> Option<String> {
    let (spread, inside) = (&fit.spread, fit.spread.inside.filter(|_| !fit.exact)?);
    Some(format!(
        "residuals: robust σ {}, sd {}, kurtosis {:.1}, {:.0} % within δ",
        display::significant(spread.robust_sd, 3),
        display::significant(spread.sd, 3),
        spread.kurtosis,
        100.0 * inside
    ))
}

/// Parameters that resamples carry to the edge of the search.
fn unbounded(fit: &Fit) -> Vec<String> {
    let resampled = fit.estimates.iter().filter(|_| fit.resamples.is_some());
    let open = |estimate: &Estimate| {
        let name = estimate.name;
        let value = |end: f64| display::significant(end, 3);
        match estimate.interval.as_ref().map(|interval| (interval.lo, interval.hi))? {
            (Some(lo), None) => Some(format!("{name} is not identified: {} or more", value(lo))),
            (None, Some(hi)) => Some(format!("{name} is not identified: {} or less", value(hi))),
            (None, None) => Some(format!("{name} is not identified by these points")),
            (Some(_), Some(_)) => None,
        }
    };
    resampled.filter_map(open).collect()
}

/// Losses below the floor of their own law.
fn below_floor(group: &GroupFit, fit: &Fit) -> Option<String> {
    let floor = fit.floor()?;
    let count = group.group.rows.iter().filter(|row| row.y < floor.value).count();
    let losses = if count == 1 { "loss lies" } else { "losses lie" };
    let of = format!("{count} of {} {losses} below {} = {}", fit.n, floor.name, display::significant(floor.value, 4));
    (count > 0).then(|| format!("{of}: the law does not hold for them"))
}

/// Whether the data determine the floor, in words.
fn verdict(fit: &Fit) -> Option<String> {
    let floor: &Estimate = fit.floor()?;
    let interval = floor.interval.as_ref()?;
    match (interval.lo, interval.hi) {
        (None, Some(hi)) => Some(format!(
            "{} is not identified: [0, {}]; it is not bounded from below by these points",
            floor.name,
            display::significant(hi, 4)
        )),
        (None, None) => Some(format!("{} is not identified at all by these points", floor.name)),
        _ => None,
    }
}
