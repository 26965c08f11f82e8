//! Points that do not belong to the law of the others.

use super::fit::Fitted;
use super::{Fit, FitOptions, Sample};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Up to here each point is judged by a fit without it; beyond, by its leverage.
const REFITTED: usize = 40;
/// Chance of naming any point when none is odd.
const LEVEL: f64 = 0.05;
/// Robust fits have no t: there, this many robust standard deviations.
const ROBUST_LIMIT: f64 = 10.0;

/// Points whose loss is far from the law of all others, with their distance in standard deviations: deleted residuals
/// beyond Student's t with Bonferroni's correction, largest first, at most five. Robust fits compare with the median
/// absolute residual instead.
pub fn deleted_residuals(sample: &Sample, fit: &Fit, options: &FitOptions) -> Vec<(usize, f64)> {
    let n = sample.len();
    let spare = (n + options.given.len()).saturating_sub(options.form.size() + 1);
    if spare == 0 || fit.exact {
        return Vec::new();
    }
    let (values, limit) = if options.objective.is_robust() {
        (robust(sample, fit), ROBUST_LIMIT)
    } else {
        let t = StudentsT::new(0.0, 1.0, spare as f64);
        let limit = t.map_or(f64::INFINITY, |t| t.inverse_cdf(1.0 - LEVEL / (2 * n) as f64));
        (studentised(sample, options), limit)
    };
    let mut out: Vec<(usize, f64)> = values.into_iter().enumerate().filter(|(_, t)| t.abs() > limit).collect();
    out.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    out.truncate(5);
    out
}

fn robust(sample: &Sample, fit: &Fit) -> Vec<f64> {
    let fitted = fit.law.losses(&sample.inputs);
    let residuals: Vec<f64> = sample.y.iter().zip(&fitted).map(|(y, f)| (y / f).ln()).collect();
    let mut sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    // The median absolute deviation of a normal distribution is 1/1.4826 of its standard deviation.
    let sd = 1.4826 * sizes[sizes.len() / 2];
    residuals.iter().map(|r| if sd > 0.0 { r / sd } else { 0.0 }).collect()
}

fn studentised(sample: &Sample, options: &FitOptions) -> Vec<f64> {
    let n = sample.len();
    let measure = |y: f64| if options.objective.is_logarithmic() { y.ln() } else { y };
    if n <= REFITTED {
        let one = |i: usize| {
            let rest = sample.without(i);
            let fitted = Fitted::with_given(&rest, options.form, options.objective, &options.given).ok()?;
            let point = sample.inputs.pick(&[i]);
            let predicted = fitted.law().losses(&point)[0];
            let spread = fitted.prediction_variance(&point)? + 1.0 / sample.weight[i];
            let t = (measure(sample.y[i]) - measure(predicted)) / (fitted.variance() * spread).sqrt();
            t.is_finite().then_some(t)
        };
        return (0..n).map(|i| one(i).unwrap_or(0.0)).collect();
    }
    let Ok(fitted) = Fitted::with_given(sample, options.form, options.objective, &options.given) else {
        return vec![0.0; n];
    };
    let residuals = fitted.problem.residuals(fitted.block(), &fitted.optimum.p);
    let Some(leverage) = fitted.leverages() else { return vec![0.0; n] };
    let (variance, freedom) = (fitted.variance(), fitted.freedom());
    let t = |((r, weight), h): ((&f64, &f64), &f64)| {
        let r = r * weight.sqrt();
        let rest = (1.0 - h).max(1e-12);
        let without = (variance * freedom - r * r / rest).max(f64::MIN_POSITIVE) / (freedom - 1.0);
        r / (without * rest).sqrt()
    };
    residuals.iter().zip(&sample.weight).zip(&leverage).map(t).collect()
}
