//! Figures of laws of parameters and tokens: the fitted surface, and what it says of the best allocation.

use super::outputs::Fitted;
use super::table_figures::{isoflop_optima, spaced};
use super::{FigureSection, FitSection, StudyError};
use crate::analysis::forms::{FLOPS_PER_PARAMETER_TOKEN as PER, Input};
use crate::analysis::isoflop::{
    AllocationIntervals, LogLog, Optimum, Size, allocation, allocation_intervals, optimal_exponent, power_law,
};
use crate::analysis::{ConfidenceInterval, Fit, Law, Row, ends};
use crate::plot::figures::{Allocation, AllocationPanel, Contour, LawSeries, Surface, SurfaceLevel, SurfacePoint};
use crate::plot::{Axis, Chart, DataPoint, ForestPanel, ForestRow, Look, Span};
use crate::units;
use std::path::Path;

/// Ranges of N that get a curve each, at most.
const LEVELS: usize = 6;
/// Lines of equal loss.
const CONTOURS: usize = 8;
/// Share of the logarithmic range of the data by which laws are drawn beyond them.
const BEYOND: f64 = 0.15;

/// The ends of some values, farther apart by [`BEYOND`] on either side.
fn widened(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (lo, hi) = ends(&values.collect::<Vec<f64>>());
    let more = (hi / lo).powf(BEYOND);
    (lo / more, hi * more)
}

/// The first group that has a fit, for a surface is one law; without any, the runs of the first group alone.
pub(super) fn surface_chart(section: &FigureSection, fit: &FitSection, groups: Vec<Fitted>) -> Chart {
    let labels = |input: Input| fit.label(input).to_owned();
    let mut figure = Surface {
        title: section.title.clone().unwrap_or_default(),
        n_label: labels(Input::Parameters),
        d_label: labels(Input::Tokens),
        loss_label: section.y_label.clone().unwrap_or_else(|| fit.y.clone()),
        width: section.width,
        ..Surface::default()
    };
    let shown = groups.iter().find(|group| group.outcome.is_ok()).or(groups.first());
    let Some(group) = shown.filter(|group| !group.rows.is_empty()) else { return figure.chart() };
    let fitted = group.outcome.as_ref().ok();
    let point = |(i, row): (usize, &Row)| {
        let residual = fitted.map(|fit| fit.residuals[i]);
        SurfacePoint { n: row.inputs[0], d: row.inputs[1], loss: row.y, residual }
    };
    let points: Vec<SurfacePoint> = group.rows.iter().enumerate().map(point).collect();
    let law = fitted.map(|fit| &fit.law);
    if let Some(law) = law {
        let (n, d) = (widened(points.iter().map(|p| p.n)), widened(points.iter().map(|p| p.d)));
        let inside = |(x, y): &(f64, f64)| *x >= n.0 && *x <= n.1 && *y >= d.0 && *y <= d.1;
        let best = spaced(PER * n.0 * d.0, PER * n.1 * d.1).filter_map(|flops| allocation(law, flops, PER));
        figure.best = best.map(|best| (best.n, best.d)).filter(inside).collect();
        figure.contours = contours(law, &points, n, d);
    }
    figure.levels = levels(law, points);
    figure.chart()
}

/// Runs by size: by each size where there are few, otherwise by ranges of equal ratio.
fn levels(law: Option<&Law>, mut points: Vec<SurfacePoint>) -> Vec<SurfaceLevel> {
    points.sort_by(|a, b| a.n.total_cmp(&b.n));
    let sizes = points.chunk_by(|a, b| b.n / a.n < 1.0 + 1e-3).count();
    let (lo, hi) = (points[0].n, points[points.len() - 1].n);
    let range = |n: f64| match sizes <= LEVELS {
        true => points.iter().position(|point| point.n / n > 1.0 - 1e-3).unwrap_or(0),
        false => (((n / lo).ln() / (hi / lo).ln() * LEVELS as f64) as usize).min(LEVELS - 1),
    };
    points.chunk_by(|a, b| range(a.n) == range(b.n)).map(|points| level(law, points)).collect()
}

fn level(law: Option<&Law>, points: &[SurfacePoint]) -> SurfaceLevel {
    let (lo, hi) = (points[0].n, points[points.len() - 1].n);
    let middle = (lo * hi).sqrt();
    let (from, to) = widened(points.iter().map(|point| point.d));
    let name = match units::si(lo) == units::si(hi) {
        true => format!("N = {}", units::si(lo)),
        false => format!("N {} to {}", units::si(lo), units::si(hi)),
    };
    let curve = |law: &Law| spaced(from, to).map(|d| (d, law.loss(&[middle, d]))).collect::<Vec<_>>();
    SurfaceLevel { name, points: points.to_vec(), curve: law.filter(|_| from < to).map(curve).unwrap_or_default() }
}

/// Lines of equal loss at round values between those of the law at the runs.
fn contours(law: &Law, points: &[SurfacePoint], n: (f64, f64), d: (f64, f64)) -> Vec<Contour> {
    let losses: Vec<f64> = points.iter().map(|point| law.loss(&[point.n, point.d])).collect();
    let values = round_values(ends(&losses));
    let line = |(loss, label): (f64, String)| {
        let points: Vec<(f64, f64)> =
            spaced(n.0, n.1).filter_map(|n| Some((n, tokens_for(law, loss, n, d)?))).collect();
        Contour { label, points }
    };
    values.into_iter().map(line).filter(|contour| contour.points.len() > 1).collect()
}

/// About [`CONTOURS`] multiples of 1, 2 or 5 times a power of ten within a range, with their text.
fn round_values((lo, hi): (f64, f64)) -> Vec<(f64, String)> {
    let rough = (hi - lo) / CONTOURS as f64;
    let unit = 10f64.powf(rough.log10().floor());
    let Some(step) = [1.0, 2.0, 5.0, 10.0].map(|m| m * unit).into_iter().find(|step| *step >= rough) else {
        return Vec::new();
    };
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let multiples = (lo / step).ceil() as i64..=(hi / step).floor() as i64;
    multiples.map(|k| k as f64 * step).map(|value| (value, format!("{value:.decimals$}"))).collect()
}

/// The tokens between `lo` and `hi` at which a model of `n` parameters has that loss, which falls with tokens.
fn tokens_for(law: &Law, loss: f64, n: f64, (lo, hi): (f64, f64)) -> Option<f64> {
    let above = |d: f64| law.loss(&[n, d]) > loss;
    if !above(lo) || above(hi) {
        return None;
    }
    let (mut lo, mut hi) = (lo, hi);
    while hi / lo > 1.0 + 1e-6 {
        let middle = (lo * hi).sqrt();
        if above(middle) { lo = middle } else { hi = middle }
    }
    Some((lo * hi).sqrt())
}

/// Best N and D against compute: of the law of each group, and of optima at equal compute.
pub(super) fn allocation_chart(
    section: &FigureSection,
    fit: &FitSection,
    groups: Vec<Fitted>,
    isoflop_table: Option<&Path>,
) -> Result<Chart, StudyError> {
    let mut out = Parts::default();
    let several = groups.len() > 1;
    for group in groups {
        let Ok(fitted) = group.outcome else { continue };
        let name = if several { group.group } else { format!("{} law", fit.form) };
        let flops = widened(group.rows.iter().map(|row| PER * row.inputs[0] * row.inputs[1]));
        let data = ends(&group.rows.iter().map(|row| PER * row.inputs[0] * row.inputs[1]).collect::<Vec<f64>>());
        out.law(&name, &fitted, flops, data);
    }
    if let (Some(isoflop), Some(table)) = (&section.isoflop, isoflop_table) {
        out.optima(&isoflop_optima(isoflop, table)?.1);
    }
    let labels = |input: Input| format!("best {}", fit.label(input));
    let exponents = ForestPanel {
        title: None,
        x: Axis::linear("exponent of compute"),
        rows: out.exponents,
        reference: Some((0.5, "N and D grow alike".to_owned())),
    };
    let panel = |y_label: String, series: Vec<LawSeries>| AllocationPanel { y_label, series };
    let figure = Allocation {
        title: section.title.clone().unwrap_or_default(),
        compute_label: "training compute 6 N D (FLOPs)".to_owned(),
        panels: vec![panel(labels(Input::Parameters), out.n), panel(labels(Input::Tokens), out.d)],
        exponents: (!exponents.rows.is_empty()).then_some(exponents),
        width: section.width,
    };
    Ok(figure.chart())
}

/// What an allocation figure is put together from.
#[derive(Default)]
struct Parts {
    n: Vec<LawSeries>,
    d: Vec<LawSeries>,
    exponents: Vec<ForestRow>,
}

impl Parts {
    fn exponent(&mut self, size: Size, name: &str, estimate: f64, (lo, hi): (Option<f64>, Option<f64>)) {
        let group = match size {
            Size::Parameters => "N ∝ compute^a",
            Size::Tokens => "D ∝ compute^b",
        };
        // Three panels beside each other leave little room for words.
        let text = match (lo, hi) {
            (Some(lo), Some(hi)) => format!("{estimate:.2} [{lo:.2}, {hi:.2}]"),
            _ => format!("{estimate:.2}"),
        };
        let known = lo.is_some() && hi.is_some();
        self.exponents.push(ForestRow {
            label: name.to_owned(),
            group: Some(group.to_owned()),
            estimate,
            // Without an interval it is a point.
            lo: if known { lo } else { Some(estimate) },
            hi: if known { hi } else { Some(estimate) },
            text,
            look: Look(0),
        });
        // Rows of one size stand together.
        self.exponents.sort_by(|a, b| b.group.cmp(&a.group));
    }

    fn law(&mut self, name: &str, fit: &Fit, (from, to): (f64, f64), data: (f64, f64)) {
        let best = |flops: f64| allocation(&fit.law, flops, PER);
        let bands: Vec<(f64, AllocationIntervals)> = fit
            .resamples
            .iter()
            .flat_map(|resamples| {
                spaced(from, to).map(move |flops| (flops, allocation_intervals(resamples, flops, PER)))
            })
            .collect();
        let series = |of: fn(&crate::analysis::isoflop::Allocation) -> f64,
                      interval: fn(&AllocationIntervals) -> ConfidenceInterval| LawSeries {
            name: name.to_owned(),
            points: Vec::new(),
            // A straight line on logarithmic axes.
            law: [from, to].into_iter().filter_map(|flops| Some((flops, of(&best(flops)?)))).collect(),
            band: bands
                .iter()
                .filter_map(|(flops, all)| {
                    let interval = interval(all);
                    Some((*flops, interval.lo?, interval.hi?))
                })
                .collect(),
            data: Some(data),
        };
        self.n.push(series(|best| best.n, |all| all.n));
        self.d.push(series(|best| best.d, |all| all.d));
        let Some(share) = optimal_exponent(&fit.law) else { return };
        let interval = fit.resamples.as_ref().map(|resamples| resamples.interval_of(optimal_exponent));
        let ends = interval.map_or((None, None), |interval| (interval.lo, interval.hi));
        self.exponent(Size::Parameters, name, share, ends);
        self.exponent(Size::Tokens, name, 1.0 - share, (ends.1.map(|hi| 1.0 - hi), ends.0.map(|lo| 1.0 - lo)));
    }

    fn optima(&mut self, optima: &[Optimum]) {
        let name = "parabolas".to_owned();
        for size in [Size::Parameters, Size::Tokens] {
            let points = optima.iter().filter_map(|optimum| best_of(optimum, size));
            let points: Vec<DataPoint> = points.collect();
            let law = power_law(optima, size, false, PER);
            let (from, to) = widened(points.iter().map(|point| point.x));
            let drawn = |law: &LogLog| [from, to].map(|x| (x, law.value(x))).to_vec();
            let band = |law: &LogLog| {
                spaced(from, to).filter_map(|x| law.interval_at(x).map(|(lo, hi)| (x, lo, hi))).collect::<Vec<_>>()
            };
            let series = LawSeries {
                name: name.clone(),
                law: law.as_ref().map(drawn).unwrap_or_default(),
                band: law.as_ref().map(band).unwrap_or_default(),
                points,
                data: None,
            };
            if let Some(law) = &law {
                let ends = law.interval().map_or((None, None), |(lo, hi)| (Some(lo), Some(hi)));
                self.exponent(size, &name, law.exponent, ends);
            }
            match size {
                Size::Parameters => self.n.push(series),
                Size::Tokens => self.d.push(series),
            }
        }
    }
}

/// The optimum of a budget that lies among its sizes, with its interval.
fn best_of(optimum: &Optimum, size: Size) -> Option<DataPoint> {
    let minimum = optimum.usable()?;
    let flops = optimum.budget.flops;
    let tokens = |n: f64| flops / PER / n;
    let interval = minimum.interval();
    let (y, bar) = match size {
        Size::Parameters => (minimum.n, interval),
        Size::Tokens => (tokens(minimum.n), interval.map(|(lo, hi)| (tokens(hi), tokens(lo)))),
    };
    Some(DataPoint { x: flops, y, x_bar: None, y_bar: bar.map(|(lo, hi)| Span::new(lo, hi)) })
}
