//! Intervals of a fitted parameter: Wald from the standard error, and profile likelihood with the F cut.
//!
//! The profile interval is {θ : SSE(θ) ≤ SSE_min·(1 + F₀.₉₅(1, n-p)/(n-p))}, SSE(θ) being the smallest sum of squares
//! with the parameter held at θ.

use statrs::distribution::{ContinuousCDF, FisherSnedecor, StudentsT};

use super::profiled::{EXPONENT, Held, Problem, Solution};
use super::{CONFIDENCE, ConfidenceInterval};

/// The two-sided quantile of Student's t with `freedom` degrees.
pub(super) fn t_quantile(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(0.5 + CONFIDENCE / 2.0))
}

/// The quantile of F with 1 and `freedom` degrees.
pub(super) fn f_quantile(freedom: f64) -> f64 {
    FisherSnedecor::new(1.0, freedom).map_or(f64::NAN, |f| f.inverse_cdf(CONFIDENCE))
}

/// `value` ± t·`se`.
pub(super) fn wald(value: f64, se: f64, freedom: f64) -> ConfidenceInterval {
    let half = t_quantile(freedom) * se;
    ConfidenceInterval { lo: Some(value - half), hi: Some(value + half) }
}

/// Profile intervals around the optimum `best`.
pub(super) struct Profile<'a> {
    pub problem: &'a Problem,
    pub best: Solution,
    pub freedom: f64,
}

impl Profile<'_> {
    fn threshold(&self) -> f64 {
        self.best.sse * (1.0 + f_quantile(self.freedom) / self.freedom)
    }

    /// Of C. The lower end is open when C = 0 is not rejected. The upper end may lie above the smallest loss, which is
    /// itself a noisy number.
    pub(super) fn floor(&self, step: f64) -> ConfidenceInterval {
        let sse = |c: f64| self.problem.minimise(Held::Floor(c)).sse;
        self.interval(self.best.c, step, (0.0, f64::MAX), sse)
    }

    /// Of b, within the bounds of the search.
    pub(super) fn exponent(&self, step: f64) -> ConfidenceInterval {
        let sse = |b: f64| self.problem.solve(b, Held::Nothing).sse;
        self.interval(self.best.b, step, EXPONENT, sse)
    }

    /// Of A in the caller's unit of x; searched in ln A because A spans decades when b moves.
    pub(super) fn amplitude(&self, step: f64) -> ConfidenceInterval {
        let log_a = self.best.a.ln() + self.best.b * self.problem.l_ref;
        let sse = |log_a: f64| self.problem.minimise(Held::LogAmplitude(log_a)).sse;
        let log = self.interval(log_a, step, (f64::MIN_POSITIVE.ln(), f64::MAX.ln()), sse);
        ConfidenceInterval { lo: log.lo.map(f64::exp), hi: log.hi.map(f64::exp) }
    }

    fn interval(&self, at: f64, step: f64, bounds: (f64, f64), sse: impl Fn(f64) -> f64) -> ConfidenceInterval {
        let excess = |theta: f64| sse(theta) - self.threshold();
        ConfidenceInterval { lo: crossing(at, -step, bounds.0, &excess), hi: crossing(at, step, bounds.1, &excess) }
    }
}

/// Where `excess` turns positive on the way from `at` to `bound`; `None` when it does not.
fn crossing(at: f64, step: f64, bound: f64, excess: &impl Fn(f64) -> f64) -> Option<f64> {
    let clamp = |theta: f64| if step < 0.0 { theta.max(bound) } else { theta.min(bound) };
    let (mut inside, mut step, mut outside) = (at, step, clamp(at + step));
    while excess(outside) <= 0.0 {
        if outside == bound {
            return None;
        }
        inside = outside;
        step *= 2.0;
        outside = clamp(outside + step);
    }
    // The ends of an interval are read to a few digits; 40 halvings leave twelve.
    for _ in 0..40 {
        let middle = 0.5 * (inside + outside);
        if excess(middle) > 0.0 { outside = middle } else { inside = middle }
    }
    Some(0.5 * (inside + outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tabulated values (any textbook): t for 2, 3 and 30 degrees, F(1, ν) = t².
    #[test]
    fn quantiles_are_the_tabulated_ones() {
        for (freedom, t) in [(1.0, 12.7062), (2.0, 4.30265), (3.0, 3.18245), (30.0, 2.04227)] {
            assert!((t_quantile(freedom) / t - 1.0).abs() < 1e-5, "t({freedom}) = {}", t_quantile(freedom));
            assert!((f_quantile(freedom) / (t * t) - 1.0).abs() < 2e-5, "F(1, {freedom}) = {}", f_quantile(freedom));
        }
    }
}
