//! `lossfloor compare`

use super::input::{ColumnArgs, Unused};
use super::sheet::{Format, FormatArgs, Sheet};
use super::{forms_help, on_a_bound, parse_form, stuck};
use crate::analysis::compare::{
    CompareError, CompareGroup, CompareOptions, Comparison, LEVEL, PairTest, Shared, compare, p_value,
};
use crate::analysis::forms::Input;
use crate::analysis::{ConfidenceInterval, FitError, FitOptions, FitStatus, Form, Objective, display};
use crate::cli::{ExitStatus, exit, output, usage};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Arguments of `lossfloor compare`.
#[derive(clap::Args, Debug)]
pub struct CompareArgs {
    /// Table of results: .csv, .jsonl or .parquet
    file: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    #[arg(long, help = forms_help(), value_parser = parse_form)]
    form: &'static dyn Form,
    /// What is minimised: lsq or log-lsq
    #[arg(long, value_name = "LOSS", default_value = "lsq")]
    loss: Objective,
    /// Groups to compare, in this order; default all
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    groups: Vec<String>,
    /// The group that others are compared with; default the first
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Column that says which rows of different groups have the same budget; default equal inputs
    #[arg(long, value_name = "COL")]
    pair: Option<String>,
    /// Further columns of the scale: whether the order of the floors depends on what is counted
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    also_x: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
}

/// Floors with another definition of x.
struct Recount {
    x: String,
    comparison: Comparison,
}

/// Runs `lossfloor compare`.
pub fn run(args: CompareArgs) -> anyhow::Result<ExitStatus> {
    if args.columns.group.is_none() {
        return Err(usage("compare needs --group, the column that tells the groups apart"));
    }
    if !args.also_x.is_empty() && args.form.inputs() != [Input::X] {
        return Err(usage(format!("--also-x: {} is no law of one scale", args.form.name())));
    }
    let unused = [ColumnArgs::beyond(args.form), vec![Unused::Seed, Unused::Cluster]].concat();
    args.columns.without_use("compare", &unused);
    let first = one(&args, args.columns.inputs(args.form)?)?;
    let recounts = args
        .also_x
        .iter()
        .map(|x| Ok(Recount { x: x.clone(), comparison: one(&args, vec![x.clone()])?.0 }))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (comparison, provenance) = first;
    match args.format.chosen() {
        Format::Json => output::json(&document(&comparison, &recounts, provenance))?,
        Format::Table => output::print(&text(&comparison, &recounts, args.form))?,
        format => pair_sheet(&comparison).write(format, Map::new())?,
    }
    let each = || comparison.groups.iter().map(String::as_str).zip(&comparison.fits);
    let notes = each().filter_map(|(name, fit)| Some(format!("{name}: {}", on_a_bound(fit)?)));
    notes.for_each(|note| output::note(&note));
    stuck(each())?;
    Ok(ExitStatus::Done)
}

fn one(args: &CompareArgs, inputs: Vec<String>) -> anyhow::Result<(Comparison, Value)> {
    let source = args.columns.read_paired(&args.file, inputs, args.pair.clone())?;
    source.say();
    let mut groups: Vec<CompareGroup> = Vec::new();
    for group in source.groups() {
        groups.push(CompareGroup { name: group.label().to_owned(), rows: group.rows });
    }
    let fit = FitOptions { objective: args.loss, leave_one_out: false, ..FitOptions::new(args.form) };
    let options = CompareOptions { fit, groups: args.groups.clone(), baseline: args.baseline.clone() };
    let comparison = compare(&groups, &options).map_err(|error| {
        let status = match &error {
            CompareError::NoFit(_, FitError::NotDecreasing | FitError::NotFinite) => ExitStatus::NoFit,
            _ => ExitStatus::Usage,
        };
        exit(status, format!("{}: {error}", args.file.display()))
    })?;
    Ok((comparison, source.provenance()))
}

fn ends(interval: &ConfidenceInterval) -> Value {
    json!([interval.lo, interval.hi])
}

/// The document of `compare --json`; its first keys are a contract.
fn document(of: &Comparison, recounts: &[Recount], provenance: Value) -> Value {
    let group = |(name, fit): (&String, &crate::analysis::Fit)| {
        let estimate = |e: &crate::analysis::Estimate| {
            (e.name.to_owned(), json!({ "value": e.value, "se": e.se, "interval": e.interval.as_ref().map(ends) }))
        };
        json!({
            "group": name, "n": fit.n, "status": fit.status.name(),
            "params": fit.estimates.iter().map(estimate).collect::<Map<String, Value>>(),
        })
    };
    let floors = |of: &Comparison, values: &[f64]| {
        of.groups.iter().cloned().zip(values.iter().map(|c| json!(c))).collect::<Map<String, Value>>()
    };
    let tests = of.tests.iter().map(|t| {
        json!({
            "null": t.null, "statistic": t.statistic, "df": [t.freedom.0, t.freedom.1], "p": t.p,
            "status": t.status.name(),
            "floors": floors(of, &t.floors),
            "shapes": t.shapes.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>(),
        })
    });
    let pairs = of.pairs.iter().map(|t| {
        json!({
            "baseline": t.baseline, "group": t.group, "floor_difference": t.difference, "interval": ends(&t.interval),
            "statistic": t.statistic, "df": [t.freedom.0, t.freedom.1], "p": t.p, "p_holm": t.p_holm,
            "no_claim": t.no_claim, "same_sign": t.same_sign.0, "subsets": t.same_sign.1,
            "floor_difference_with_shared_exponents": t.with_shared_shapes,
        })
    });
    let paired = of.paired.iter().map(|d| {
        let points = d
            .points
            .iter()
            .map(|p| json!({ "inputs": p.inputs, "baseline_loss": p.baseline, "difference": p.difference }));
        json!({
            "baseline": d.baseline, "group": d.group, "n": d.points.len(), "mean": d.mean,
            "interval": d.interval.as_ref().map(ends), "p": d.p, "points": points.collect::<Vec<_>>(),
        })
    });
    let multipliers = of.multipliers.iter().map(|m| {
        json!({
            "baseline": m.baseline, "group": m.group, "loss": m.loss, "multiplier": m.multiplier,
            "interval": ends(&m.interval),
        })
    });
    let efficiencies = of.efficiencies.iter().map(|e| {
        json!({
            "baseline": e.baseline, "group": e.group, "term": e.term, "efficiency": e.efficiency,
            "interval": e.interval.as_ref().map(ends),
        })
    });
    let recounted = recounts.iter().map(|r| {
        let values: Vec<f64> =
            r.comparison.fits.iter().map(|fit| fit.floor().map_or(f64::NAN, |floor| floor.value)).collect();
        json!({ "x": r.x, "floors": floors(&r.comparison, &values) })
    });
    json!({
        "schema": 1,
        "groups": of.groups.iter().zip(&of.fits).map(group).collect::<Vec<_>>(),
        "tests": tests.collect::<Vec<_>>(),
        "paired": paired.collect::<Vec<_>>(),
        "compute_multiplier": multipliers.collect::<Vec<_>>(),
        "verdict": of.verdict,
        "pairs": pairs.collect::<Vec<_>>(),
        "efficiencies": efficiencies.collect::<Vec<_>>(),
        "definitions_of_x": recounted.collect::<Vec<_>>(),
        "data": provenance,
    })
}

fn pair_sheet(of: &Comparison) -> Sheet {
    let mut sheet =
        Sheet::new(&["group", "minus", "difference", "low", "high", "F", "p", "p (Holm)", "same sign", "no claim"]);
    for t in &of.pairs {
        let sign = format!("{} of {}", t.same_sign.0, t.same_sign.1);
        sheet.rows.push(vec![
            json!(t.group),
            json!(t.baseline),
            json!(t.difference),
            json!(t.interval.lo),
            json!(t.interval.hi),
            json!(t.statistic),
            json!(t.p),
            json!(t.p_holm),
            json!(sign),
            json!(t.no_claim),
        ]);
    }
    sheet
}

/// Everything for a terminal, the verdict last, where it is read.
fn text(of: &Comparison, recounts: &[Recount], form: &dyn Form) -> String {
    let mut out = Vec::new();
    let mut own = output::table(&["group", "n", "floor ± se", "95 %", "exponents ± se"]);
    for (name, fit) in of.groups.iter().zip(&of.fits) {
        let floor = fit.floor();
        let shapes = fit.estimates.iter().filter(|e| form.shapes().iter().any(|shape| shape.name == e.name));
        own.add_row([
            name.clone(),
            fit.n.to_string(),
            floor.map_or("-".to_owned(), display::with_error),
            floor.and_then(|e| e.interval.as_ref()).map_or("-".to_owned(), display::interval),
            shapes.map(display::with_error).collect::<Vec<_>>().join(", "),
        ]);
    }
    out.push(own.to_string());
    let mut tests = output::table(&["null hypothesis", "F", "df", "p"]);
    for t in &of.tests {
        let freedom = format!("{:.0}, {:.0}", t.freedom.0, t.freedom.1);
        tests.add_row([t.null.clone(), format!("{:.2}", t.statistic), freedom, format!("{:.2e}", t.p)]);
    }
    out.push(tests.to_string());
    let stuck = of.tests.iter().filter(|t| t.status == FitStatus::Stuck);
    out.extend(stuck.map(|t| format!("{}: the fit reached no optimum, so that F is too large", t.null)));
    if !of.pairs.is_empty() {
        let mut pairs = output::table(&["floor of", "minus", "difference", "95 %", "p (Holm)", "same sign"]);
        for t in &of.pairs {
            pairs.add_row([
                t.group.clone(),
                t.baseline.clone(),
                format!("{:+.4}", t.difference),
                display::interval(&t.interval),
                p_value(t.p_holm),
                format!("{} of {}", t.same_sign.0, t.same_sign.1),
            ]);
        }
        out.push(pairs.to_string());
        let unclaimed =
            |t: &PairTest| Some(format!("{} minus {}: no claim: {}", t.group, t.baseline, t.no_claim.as_ref()?));
        let unclaimed: Vec<String> = of.pairs.iter().filter_map(unclaimed).collect();
        out.extend((!unclaimed.is_empty()).then(|| unclaimed.join("\n")));
    }
    if !of.multipliers.is_empty() {
        let mut table = output::table(&["to reach loss", "of", "group needs", "times", "95 %"]);
        for m in &of.multipliers {
            table.add_row([
                format!("{:.4}", m.loss),
                m.group.clone(),
                m.baseline.clone(),
                display::significant(m.multiplier, 4),
                display::interval(&m.interval),
            ]);
        }
        out.push(table.to_string());
    }
    if !of.efficiencies.is_empty() {
        let mut table = output::table(&["with one floor and exponents", "counts", "times", "95 %"]);
        for e in &of.efficiencies {
            table.add_row([
                format!("{} of {} against {}", e.term, e.group, e.baseline),
                "its scale".to_owned(),
                display::significant(e.efficiency, 4),
                e.interval.as_ref().map_or("-".to_owned(), display::interval),
            ]);
        }
        out.push(table.to_string());
        let assumed = of.tests.iter().find(|test| test.shared == Shared::FloorAndShapes);
        let rejected = assumed.filter(|test| test.p < LEVEL);
        out.extend(
            rejected.map(|test| format!("These assume {}, which is rejected (p = {}).", test.null, p_value(test.p))),
        );
    }
    for r in recounts {
        let fits = r.comparison.groups.iter().zip(&r.comparison.fits);
        let floors: Vec<String> =
            fits.filter_map(|(name, fit)| Some(format!("{name} {}", display::with_error(fit.floor()?)))).collect();
        out.push(format!("with x = {}: {}", r.x, floors.join(", ")));
    }
    out.push(of.verdict.clone());
    out.join("\n\n")
}
