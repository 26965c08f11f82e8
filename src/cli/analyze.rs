//! `lossfloor fit` and `lossfloor plot`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, ContentArrangement, Table as Printed, presets};
use serde::Serialize;

use super::{ExitStatus, exit, output, usage};
use crate::analysis::{
    self, Columns, ConfidenceInterval, Estimate, Fit, FitError, FitOptions, Form, IntervalMethod, Objective,
    ScalingPoint, Table, display,
};
use crate::plot::{Figure, FittedCurve, FloorLine, Series, SeriesPoint};

/// Arguments of `lossfloor fit`.
#[derive(clap::Args, Debug)]
pub struct FitArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The law: power (L = A·x^-b) or power+floor (L = A·x^-b + C)
    #[arg(long, value_parser = parse_form)]
    form: Form,
    /// What is minimised: lsq
    #[arg(long, value_name = "LOSS", default_value = "lsq", value_parser = parse_loss)]
    loss: Objective,
    /// Kind of 95 % interval: profile, wald or none
    #[arg(long, value_name = "KIND", default_value = "profile", value_parser = parse_interval)]
    interval: IntervalMethod,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// Arguments of `lossfloor plot`.
#[derive(clap::Args, Debug)]
pub struct PlotArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Column with the standard error of the loss, drawn as error bars
    #[arg(long, value_name = "COL")]
    y_se: Option<String>,
    /// True irreducible loss, drawn as a line
    #[arg(long, value_name = "LOSS")]
    floor: Option<f64>,
    /// The law to draw through each series: power or power+floor
    #[arg(long, value_parser = parse_form)]
    fit: Option<Form>,
    /// The figure to write: .svg or .png
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Title above the figure
    #[arg(long)]
    title: Option<String>,
}

/// A table and its columns.
#[derive(clap::Args, Debug)]
struct InputArgs {
    /// Table of results: .csv, .jsonl or .parquet; rows whose column `status` is not `completed` are set aside
    file: PathBuf,
    /// Column of the scale, such as FLOPs or tokens
    #[arg(long, value_name = "COL")]
    x: String,
    /// Column of the loss
    #[arg(long, value_name = "COL")]
    y: String,
    /// Column that splits the rows into series
    #[arg(long, value_name = "COL")]
    group: Option<String>,
}

fn parse_form(text: &str) -> Result<Form, String> {
    Form::ALL
        .into_iter()
        .find(|form| form.name() == text)
        .ok_or_else(|| "this version fits 'power' and 'power+floor'".to_owned())
}

fn parse_loss(text: &str) -> Result<Objective, String> {
    if text == "lsq" { Ok(Objective::LeastSquares) } else { Err("this version minimises 'lsq' only".to_owned()) }
}

fn parse_interval(text: &str) -> Result<IntervalMethod, String> {
    match text {
        "profile" => Ok(IntervalMethod::Profile),
        "wald" => Ok(IntervalMethod::Wald),
        "none" => Ok(IntervalMethod::None),
        _ => Err("this version makes 'profile', 'wald' or 'none'".to_owned()),
    }
}

/// One group's points and what became of them.
struct GroupFit {
    group: Option<String>,
    rows: Vec<analysis::Row>,
    excluded: BTreeMap<String, usize>,
    outcome: Result<Fit, FitError>,
}

impl GroupFit {
    fn name(&self) -> &str {
        self.group.as_deref().unwrap_or("all")
    }
}

impl InputArgs {
    fn read(&self, y_se: Option<&String>) -> anyhow::Result<Table> {
        let columns =
            Columns { inputs: vec![self.x.clone()], y: self.y.clone(), y_se: y_se.cloned(), group: self.group.clone() };
        Table::read(&self.file, &columns).map_err(usage)
    }
}

fn fit_groups(table: &Table, options: &FitOptions) -> Vec<GroupFit> {
    let groups = table.groups().into_iter().map(|group| {
        let rows: Vec<_> = table.rows.iter().filter(|row| row.group == group).cloned().collect();
        let points: Vec<_> = rows.iter().map(|row| ScalingPoint { x: row.inputs[0], y: row.y }).collect();
        let mut excluded = BTreeMap::new();
        for row in table.excluded.iter().filter(|row| row.group == group) {
            *excluded.entry(row.status.clone()).or_insert(0) += 1;
        }
        GroupFit { outcome: analysis::fit(&points, options), group, rows, excluded }
    });
    groups.collect()
}

/// The error when no group has a fit: bad input if all have too few points, otherwise a fit without a result.
fn no_fit(file: &Path, groups: &[GroupFit]) -> Option<anyhow::Error> {
    let errors: Vec<(&GroupFit, &FitError)> =
        groups.iter().filter_map(|group| group.outcome.as_ref().err().map(|error| (group, error))).collect();
    if errors.len() < groups.len() {
        return None;
    }
    let few = |error: &FitError| matches!(error, FitError::TooFewPoints { .. });
    let status = if errors.iter().all(|(_, error)| few(error)) { ExitStatus::Usage } else { ExitStatus::NoFit };
    let (group, error) = errors.iter().find(|(_, error)| !few(error)).or(errors.first())?;
    let which = group.group.as_ref().map_or(String::new(), |name| format!(", group '{name}'"));
    let more = if errors.len() > 1 { format!(" (no fit in any of {} groups)", errors.len()) } else { String::new() };
    let hint = match error {
        FitError::TooFewPoints { .. } => "; hint: add points or drop --group, or fit --form power",
        _ => "",
    };
    Some(exit(status, format!("{}{which}: {error}{more}{hint}", file.display())))
}

/// Runs `lossfloor fit`.
pub fn fit(args: FitArgs) -> anyhow::Result<ExitStatus> {
    let table = args.input.read(None)?;
    let options = FitOptions { form: args.form, objective: args.loss, interval: args.interval };
    let groups = fit_groups(&table, &options);
    let none = no_fit(&args.input.file, &groups);
    let usable_input = groups.iter().any(|group| !matches!(group.outcome, Err(FitError::TooFewPoints { .. })));
    if args.json && usable_input {
        mixed_notes(&table).iter().for_each(|note| output::note(note));
        output::json(&FitDocument::new(&groups, args.form))?;
    } else if none.is_none() {
        let notes = notes(&table, &groups, args.interval).join("\n");
        output::print(&format!("{}\n{notes}", fit_table(&groups, args.form)))?;
    }
    none.map_or(Ok(ExitStatus::Done), Err)
}

/// The document of `fit --json`; its keys are a contract.
#[derive(Serialize)]
struct FitDocument {
    schema: u32,
    fits: Vec<FitEntry>,
}

#[derive(Serialize)]
struct FitEntry {
    group: Option<String>,
    form: &'static str,
    n: usize,
    status: &'static str,
    objective: Option<f64>,
    params: BTreeMap<&'static str, f64>,
    se: BTreeMap<&'static str, Option<f64>>,
    /// `null` for an end that the data leave open.
    interval: BTreeMap<&'static str, [Option<f64>; 2]>,
    r2: Option<f64>,
    residual_sd: Option<f64>,
    kappa: Option<f64>,
    leave_one_out_c: Option<[f64; 2]>,
    bounds: Vec<String>,
    /// Rows set aside, by status.
    excluded: BTreeMap<String, usize>,
    /// Why there is no fit.
    reason: Option<String>,
}

impl FitDocument {
    fn new(groups: &[GroupFit], form: Form) -> Self {
        let entry = |group: &GroupFit| {
            let fit = group.outcome.as_ref().ok();
            let estimates = fit.map_or(&[][..], |fit| &fit.estimates);
            FitEntry {
                group: group.group.clone(),
                form: form.name(),
                n: group.rows.len(),
                status: fit.map_or("no_fit", |fit| fit.status.name()),
                objective: fit.map(|fit| fit.objective),
                params: estimates.iter().map(|e| (e.name, e.value)).collect(),
                se: estimates.iter().map(|e| (e.name, e.se)).collect(),
                interval: estimates.iter().filter_map(|e| Some((e.name, e.interval.map(|i| [i.lo, i.hi])?))).collect(),
                r2: fit.map(|fit| fit.r2),
                residual_sd: fit.map(|fit| fit.residual_sd),
                kappa: fit.and_then(|fit| fit.kappa),
                leave_one_out_c: fit.and_then(|fit| fit.leave_one_out_floor).map(|(lo, hi)| [lo, hi]),
                bounds: fit.map_or_else(Vec::new, |fit| fit.bounds.clone()),
                excluded: group.excluded.clone(),
                reason: group.outcome.as_ref().err().map(FitError::to_string),
            }
        };
        Self { schema: 1, fits: groups.iter().map(entry).collect() }
    }
}

/// Two lines per group, value above error, so that everything fits in 80 columns.
fn fit_table(groups: &[GroupFit], form: Form) -> Printed {
    let mut table = Printed::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(80);
    let mut header = vec!["group", "n", "A ± se", "b ± se"];
    if form == Form::PowerFloor {
        header.extend(["C ± se", "95 % of C"]);
    }
    header.push("R2");
    table.set_header(header);
    for group in groups {
        let mut cells = vec![group.name().to_owned(), group.rows.len().to_string()];
        match &group.outcome {
            Ok(fit) => {
                for estimate in &fit.estimates {
                    let (value, error) = display::value_and_error(estimate);
                    cells
                        .push(format!("{value}\n{}", error.map_or("no s.e.".to_owned(), |error| format!("± {error}"))));
                    if estimate.name == "C" {
                        cells.push(estimate.interval.as_ref().map_or("-".into(), display::interval));
                    }
                }
                cells.push(format!("{:.6}", fit.r2));
            }
            Err(_) => cells.push("no fit".to_owned()),
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Runs on different machines or in different precisions, side by side.
fn mixed_notes(table: &Table) -> Vec<String> {
    let note = |(column, values): &(&str, Vec<String>)| {
        format!("rows differ in {column} ({}): their losses differ by rounding, too", values.join(", "))
    };
    table.mixed.iter().map(note).collect()
}

/// What has to be said below the table.
fn notes(table: &Table, groups: &[GroupFit], interval: IntervalMethod) -> Vec<String> {
    let mut out = mixed_notes(table);
    for group in groups {
        let name = group.name();
        match &group.outcome {
            Err(error) => out.push(format!("{name}: no fit: {error}")),
            Ok(fit) => {
                if !fit.bounds.is_empty() {
                    out.push(format!(
                        "{name}: the optimum lies on a bound ({}); no standard error",
                        fit.bounds.join(", ")
                    ));
                }
                let open =
                    |e: &&Estimate| e.name == "C" && e.interval.is_some_and(|i: ConfidenceInterval| i.lo.is_none());
                if fit.estimates.iter().any(|e| open(&e)) {
                    out.push(format!("{name}: C is not bounded from below by these points"));
                }
                if let (Some(kappa), Some((lo, hi))) = (fit.kappa, fit.leave_one_out_floor) {
                    out.push(format!(
                        "{name}: κ = se(C)/σ = {kappa:.1}; C with any one point left out: {lo:.4} to {hi:.4}"
                    ));
                }
            }
        }
        for (status, count) in &group.excluded {
            out.push(format!("{name}: {count} {status} row{} left out", if *count == 1 { "" } else { "s" }));
        }
    }
    match interval {
        IntervalMethod::Profile => out.push("intervals: 95 % profile likelihood (F)".to_owned()),
        IntervalMethod::Wald => out.push("intervals: 95 % Wald (t)".to_owned()),
        IntervalMethod::None => {}
    }
    out
}

/// Runs `lossfloor plot`.
pub fn plot(args: PlotArgs) -> anyhow::Result<ExitStatus> {
    let extension = args.out.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if !["svg", "png"].contains(&extension.as_str()) {
        return Err(usage(format!("--out {}: a figure is written as .svg or .png", args.out.display())));
    }
    if let Some(floor) = args.floor.filter(|floor| !(*floor > 0.0 && floor.is_finite())) {
        return Err(usage(format!("--floor {floor}: a loss floor is a positive number")));
    }
    let table = args.input.read(args.y_se.as_ref())?;
    let options = FitOptions::new(args.fit.unwrap_or(Form::PowerFloor));
    let groups = fit_groups(&table, &options);
    if let Some(error) = args.fit.and_then(|_| no_fit(&args.input.file, &groups)) {
        return Err(error);
    }
    mixed_notes(&table).iter().for_each(|note| output::note(note));
    let mut series = Vec::new();
    for group in &groups {
        for (status, count) in &group.excluded {
            output::note(&format!("{}: {count} {status} row(s) left out", group.name()));
        }
        if let (Some(_), Err(error)) = (args.fit, &group.outcome) {
            output::note(&format!("{}: drawn without a curve: {error}", group.name()));
        }
        let points = group.rows.iter().map(|row| SeriesPoint { x: row.inputs[0], y: row.y, y_se: row.y_se }).collect();
        let curve = args.fit.and(group.outcome.as_ref().ok()).map(FittedCurve::from);
        series.push(Series { name: group.name().to_owned(), points, curve });
    }
    let figure = Figure {
        title: args.title.unwrap_or_default(),
        x_label: args.input.x,
        y_label: args.input.y,
        series,
        floor: args.floor.map(|loss| FloorLine { loss, label: "true floor".to_owned() }),
    };
    let bytes = if extension == "svg" { figure.svg().map(String::into_bytes) } else { figure.png() }.map_err(usage)?;
    crate::files::write_atomic(&args.out, &bytes)?;
    output::note(&format!("wrote {}", args.out.display()));
    Ok(ExitStatus::Done)
}
