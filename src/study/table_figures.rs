//! The figures of a study that show a table of runs, without a fit of a study in between.

use super::file::{CurvesSection, GridSection, IsoflopSection};
use super::{FigureSection, StudyError};
use crate::analysis::forms::{FLOPS_PER_PARAMETER_TOKEN, Inputs};
use crate::analysis::isoflop::{self, Method, Optimum, Size, budgets, optima, power_law};
use crate::analysis::{Columns, FrameError, Sample, Table, display, ends};
use crate::expression::Expression;
use crate::plot::figures::{Budget, Isoflop, LossCurves, RunCurve, SettingGrid, Valley};
use crate::plot::{Axis, Best, Chart, DataPoint, Span};
use std::collections::HashMap;
use std::path::Path;

/// Points of a drawn curve.
const SAMPLES: usize = 60;
/// Share of the logarithmic range by which a power law goes on beyond its points, on either side.
const BEYOND: f64 = 0.1;

/// The chart of a kind that shows a table of runs, which lies at `table`; `None` for other kinds.
pub(super) fn chart(section: &FigureSection, table: &Path) -> Option<Result<Chart, StudyError>> {
    use super::FigureKind::{Curves, Grid, Isoflop};
    match section.kind {
        Isoflop => section.isoflop.as_ref().map(|of| isoflop_chart(section, of, table)),
        Grid => section.grid.as_ref().map(|of| grid_chart(section, of, table)),
        Curves => section.curves.as_ref().map(|of| curves_chart(section, of, table)),
        _ => None,
    }
}

/// `where`, which was checked when the file was read.
pub(super) fn condition(text: &Option<String>) -> Result<Option<Expression>, FrameError> {
    Ok(text.as_deref().map(Expression::parse).transpose()?)
}

/// Values in ascending order, each once.
pub(super) fn levels(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut out: Vec<f64> = values.collect();
    out.sort_by(f64::total_cmp);
    out.dedup();
    out
}

/// Places at equal ratios.
pub(super) fn spaced(from: f64, to: f64) -> impl Iterator<Item = f64> {
    (0..SAMPLES).map(move |i| from * (to / from).powf(i as f64 / (SAMPLES - 1) as f64))
}

/// Runs with their sizes and tokens, and the optimum of each budget among them.
pub(super) fn isoflop_optima(of: &IsoflopSection, table: &Path) -> Result<(Sample, Vec<Optimum>), StudyError> {
    let columns = Columns {
        inputs: vec![of.n.clone(), of.flops.clone()],
        y: of.y.clone(),
        condition: condition(&of.condition)?,
        ..Columns::default()
    };
    let table = Table::read(table, &columns)?;
    let raw = Sample::of_rows(&table.rows);
    let (n, flops) = (raw.inputs.columns[0].clone(), raw.inputs.columns[1].clone());
    let tokens = flops.iter().zip(&n).map(|(flops, n)| flops / FLOPS_PER_PARAMETER_TOKEN / n).collect();
    let sample = Sample { inputs: Inputs { columns: vec![n, tokens] }, ..raw };
    let optima = optima(&sample, &budgets(&flops, &[], 0.0), Method::Parabola, None, FLOPS_PER_PARAMETER_TOKEN);
    Ok((sample, optima))
}

fn isoflop_chart(section: &FigureSection, of: &IsoflopSection, table: &Path) -> Result<Chart, StudyError> {
    let (sample, mut optima) = isoflop_optima(of, table)?;
    // Points of the valley look like the budgets at their place, so that budgets without one come last.
    optima.sort_by_key(|optimum| optimum.usable().is_none());
    let figure = Isoflop {
        title: section.title.clone().unwrap_or_default(),
        size_label: of.n_label.clone().unwrap_or_else(|| of.n.clone()),
        loss_label: section.y_label.clone().unwrap_or_else(|| of.y.clone()),
        budgets: optima.iter().map(|optimum| budget(&sample, optimum)).collect(),
        valley: valley(&optima),
        width: section.width,
    };
    Ok(figure.chart())
}

/// The runs of one budget and their parabola.
fn budget(sample: &Sample, optimum: &Optimum) -> Budget {
    let sizes = optimum.budget.runs.iter().map(|i| sample.inputs.columns[0][*i]);
    let points: Vec<DataPoint> =
        sizes.clone().zip(&optimum.budget.runs).map(|(n, i)| DataPoint::new(n, sample.y[*i])).collect();
    let (lo, hi) = ends(&sizes.collect::<Vec<f64>>());
    let parabola = optimum
        .minimum
        .as_ref()
        .ok()
        .map(|minimum| spaced(lo, hi).filter_map(|n| Some((n, minimum.parabola(n)?))).collect());
    Budget {
        name: format!("{} FLOPs", display::significant(optimum.budget.flops, 3)),
        points,
        parabola: parabola.unwrap_or_default(),
        minimum: optimum.usable().map(|minimum| (minimum.n, minimum.loss)),
    }
}

/// The power law through the minima; `None` with fewer than two.
fn valley(optima: &[Optimum]) -> Option<Valley> {
    let law = power_law(optima, Size::Parameters, false, FLOPS_PER_PARAMETER_TOKEN)?;
    let point = |optimum: &Optimum| {
        let minimum = optimum.usable()?;
        let y_bar = isoflop::Minimum::interval(minimum).map(|(lo, hi)| Span::new(lo, hi));
        Some(DataPoint { x: optimum.budget.flops, y: minimum.n, x_bar: None, y_bar })
    };
    let points: Vec<DataPoint> = optima.iter().filter_map(point).collect();
    let (lo, hi) = ends(&points.iter().map(|point| point.x).collect::<Vec<f64>>());
    let more = (hi / lo).powf(BEYOND);
    let places = || spaced(lo / more, hi * more);
    let exponent = display::significant(law.exponent, 3);
    let interval = law.interval().map(|(lo, hi)| format!(" [{lo:.3}, {hi:.3}]")).unwrap_or_default();
    Some(Valley {
        x_label: "training compute (FLOPs)".to_owned(),
        optima: points,
        law: places().map(|x| (x, law.value(x))).collect(),
        band: places().filter_map(|x| law.interval_at(x).map(|(lo, hi)| (x, lo, hi))).collect(),
        legend: format!("N ∝ C^{exponent}{interval}"),
    })
}

fn grid_chart(section: &FigureSection, of: &GridSection, table: &Path) -> Result<Chart, StudyError> {
    let columns = Columns {
        inputs: vec![of.x.clone(), of.y.clone()],
        y: of.loss.clone(),
        condition: condition(&of.condition)?,
        ..Columns::default()
    };
    let table = Table::read(table, &columns)?;
    let along = |k: usize| levels(table.rows.iter().map(|row| row.inputs[k]));
    let (x, y) = (along(0), along(1));
    let least = |x: f64, y: f64| {
        let here = table.rows.iter().filter(|row| row.inputs == [x, y]).map(|row| row.y);
        here.min_by(f64::total_cmp)
    };
    let figure = SettingGrid {
        title: section.title.clone().unwrap_or_default(),
        x_label: of.x_label.clone().unwrap_or_else(|| of.x.clone()),
        y_label: section.y_label.clone().unwrap_or_else(|| of.y.clone()),
        values: y.iter().map(|y| x.iter().map(|x| least(*x, *y)).collect()).collect(),
        x,
        y,
        value_label: of.loss.clone(),
        decimals: 3,
        range: None,
        best: Best::Least,
        width: section.width,
    };
    Ok(figure.chart())
}

fn curves_chart(section: &FigureSection, of: &CurvesSection, table: &Path) -> Result<Chart, StudyError> {
    let columns = Columns {
        inputs: vec![of.x.clone()],
        y: of.y.clone(),
        group: Some(of.name.clone().unwrap_or_else(|| of.run.clone())),
        cluster: Some(of.run.clone()),
        condition: condition(&of.condition)?,
        ..Columns::default()
    };
    let table = Table::read(table, &columns)?;
    let mut runs: Vec<RunCurve> = Vec::new();
    let mut known: HashMap<&Option<String>, usize> = HashMap::new();
    for row in &table.rows {
        let run = *known.entry(&row.cluster).or_insert_with(|| {
            runs.push(RunCurve { name: row.group.clone().unwrap_or_default(), points: Vec::new() });
            runs.len() - 1
        });
        runs[run].points.push((row.inputs[0], row.y));
    }
    runs.iter_mut().for_each(|run| run.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let figure = LossCurves {
        title: section.title.clone().unwrap_or_default(),
        x: Axis::log(of.x_label.as_ref().unwrap_or(&of.x)),
        y: Axis::linear(section.y_label.as_ref().unwrap_or(&of.y)),
        runs,
        width: section.width,
    };
    Ok(figure.chart())
}
