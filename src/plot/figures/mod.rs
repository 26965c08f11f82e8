//! A builder for each figure of a study: data in, a [`Chart`](super::Chart) out.

mod allocation;
mod curve_fits;
mod curves;
mod evaluation;
mod grid;
mod isoflop;
pub(super) mod latency;
mod profile;
mod reducible;
mod scaling;
mod surface;

pub use allocation::{Allocation, AllocationPanel, LawSeries, forest};
pub use curve_fits::{CurveFitRun, CurveFits};
pub use curves::{LossCurves, RunCurve};
pub use evaluation::{Coverage, Evaluation, EvaluationPanel, EvaluationSeries, share_axis};
pub use grid::SettingGrid;
pub use isoflop::{Budget, Isoflop, Valley};
pub use latency::{Latency, LatencyPanel, LatencySeries};
pub use profile::{ProfileCurve, ProfileCurves};
pub use reducible::{Reducible, ReducibleSeries};
pub use scaling::{Curve, Figure, Floor, FloorLine, Series, SeriesPoint};
pub use surface::{Contour, Surface, SurfaceLevel, SurfacePoint};

use super::style::{Look, Stroke};
use super::xy::Line;

/// Sampled values by rising x at `x`, along straight lines on logarithmic axes where that is possible.
fn interpolated(samples: &[(f64, f64)], x: f64) -> Option<f64> {
    let pair = samples.windows(2).find(|pair| pair[0].0 <= x && x <= pair[1].0)?;
    let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
    let logs = x0 > 0.0 && y0 > 0.0 && y1 > 0.0;
    let t = match x1 - x0 {
        0.0 => 0.0,
        _ if logs => (x / x0).ln() / (x1 / x0).ln(),
        width => (x - x0) / width,
    };
    Some(if logs { y0 * (y1 / y0).powf(t) } else { y0 + t * (y1 - y0) })
}

/// A fitted curve: solid from `first` to `last`, the ends of its data, and dashed beyond.
fn fitted_lines(look: Look, samples: &[(f64, f64)], first: f64, last: f64) -> Vec<Line> {
    let between = |lo: f64, hi: f64| -> Vec<(f64, f64)> {
        let end = |x: f64| interpolated(samples, x).map(|y| (x, y));
        let inside = samples.iter().copied().filter(|(x, _)| *x > lo && *x < hi);
        end(lo).into_iter().chain(inside).chain(end(hi)).collect()
    };
    let line = |points: Vec<(f64, f64)>, stroke: Stroke| Line {
        look,
        points,
        stroke,
        thin: stroke != Stroke::Solid,
        ..Line::default()
    };
    let (Some(start), Some(end)) = (samples.first(), samples.last()) else { return Vec::new() };
    let pieces = [
        line(between(start.0, first.min(end.0)), Stroke::Dashed),
        line(between(first, last), Stroke::Solid),
        line(between(last.max(start.0), end.0), Stroke::Dashed),
    ];
    let long = |line: &Line| line.points.last().is_some_and(|end| end.0 > line.points[0].0);
    pieces.into_iter().filter(long).collect()
}

/// What ± is in a legend that has one, to follow a note.
fn standard_errors<'a>(details: impl IntoIterator<Item = &'a str>) -> &'static str {
    if details.into_iter().any(|detail| detail.contains('±')) { " ±: one standard error." } else { "" }
}

/// The least and the greatest of some values, if there are any.
fn extremes(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().fold(None, |so_far, value| match so_far {
        None => Some((value, value)),
        Some((lo, hi)) => Some((f64::min(lo, value), f64::max(hi, value))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_solid_where_there_are_data() {
        let samples: Vec<(f64, f64)> = (0..=10).map(|i| (2f64.powi(i), 8.0 * 2f64.powi(-i))).collect();
        let lines = fitted_lines(Look(0), &samples, 3.0, 100.0);
        let strokes: Vec<Stroke> = lines.iter().map(|line| line.stroke).collect();
        assert_eq!(strokes, [Stroke::Dashed, Stroke::Solid, Stroke::Dashed]);
        let (from, to) = (lines[1].points[0], lines[1].points[lines[1].points.len() - 1]);
        assert!((from.0, to.0) == (3.0, 100.0) && (from.1 - 8.0 / 3.0).abs() < 1e-12 && (to.1 - 0.08).abs() < 1e-12);
        assert_eq!(fitted_lines(Look(0), &samples, 1.0, 1024.0).len(), 1);
        assert_eq!(interpolated(&samples, 2000.0), None);
        assert_eq!(extremes([3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }
}
