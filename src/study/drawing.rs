//! From fits to what figures are drawn from.

use crate::analysis::{Fit, FitError, FitOptions, IntervalMethod, Sample, display, ends, fit};
use crate::plot::{Curve, Floor, Series, SeriesPoint, Span};

/// Share of the data's logarithmic range in x by which curves go on beyond the data, to the right.
const BEYOND: f64 = 0.3;
/// Points of a drawn curve, and of its band.
const SAMPLES: usize = 160;
const BAND: usize = 33;

/// A group fitted by a law of one scale, and its curve; with the confidence band of the law where `band`.
pub fn fitted(sample: &Sample, options: &FitOptions, band: bool) -> Result<(Fit, Curve), FitError> {
    let xs = &sample.inputs.columns[0];
    let (lo, hi) = ends(xs);
    let end = hi * (hi / lo).powf(BEYOND);
    let places = |n: usize| (0..n).map(move |i| lo * (end / lo).powf(i as f64 / (n - 1) as f64));
    let mut options = options.clone();
    let asked = options.predictions.len();
    if band && options.interval != IntervalMethod::None {
        options.predictions.extend(places(BAND).map(|x| vec![x]));
    }
    let mut fit = fit(sample, &options)?;
    let bounds = fit.predictions.split_off(asked).into_iter().filter_map(|p| {
        let interval = p.interval?;
        // An open end is drawn as far as the axis goes.
        Some((p.inputs[0], interval.lo.unwrap_or(0.0), interval.hi.unwrap_or(f64::MAX)))
    });
    let band = bounds.collect();
    let curve = Curve { band, ..curve(&fit, places(SAMPLES)) };
    Ok((fit, curve))
}

/// The curve of a fit at these scales.
fn curve(fit: &Fit, xs: impl Iterator<Item = f64>) -> Curve {
    let floor = fit
        .floor()
        .map(|floor| Floor { value: floor.value, interval: floor.interval.map(|i| Span { lo: i.lo, hi: i.hi }) });
    Curve { samples: xs.map(|x| (x, fit.law.loss(&[x]))).collect(), band: Vec::new(), floor, legend: legend(fit) }
}

/// `A = 39.8, b = 0.0694, C = 0.585 ± 0.033`: the floor never without its error.
pub fn legend(fit: &Fit) -> String {
    let floor = fit.floor().map(|floor| floor.name);
    let part = |estimate: &crate::analysis::Estimate| match Some(estimate.name) == floor {
        true => format!("{} = {}", estimate.name, display::with_error(estimate)),
        false => format!("{} = {}", estimate.name, display::significant(estimate.value, 3)),
    };
    fit.estimates.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// The points of a group.
pub fn series(name: &str, points: Vec<SeriesPoint>, curve: Option<Curve>) -> Series {
    Series { name: name.to_owned(), points, curve }
}
