//! Intervals: Wald from the standard error, and profile likelihood with the F cut.
//!
//! The profile interval of a quantity is the set of its values v for which the smallest objective with the quantity held
//! at v stays below the cut: for squares, SSE(v) ≤ SSE_min·(1 + F₀.₉₅(1, n-p)/(n-p)), or SSE_min + σ²·F₀.₉₅(1, ν) where
//! σ² is known with ν degrees of freedom from elsewhere.

use statrs::distribution::{ContinuousCDF, FisherSnedecor, Normal, StudentsT};

use super::fit::{Fitted, problem};
use super::solver::{Held, Problem, newton, search};
use super::{CONFIDENCE, ConfidenceInterval, FitOptions, Noise, Sample};

/// Degrees of freedom from which t is taken for normal; the search for its quantile does not end for very many.
const MANY: f64 = 1e5;

/// The two-sided quantile of Student's t with `freedom` degrees.
pub(super) fn t_quantile(freedom: f64) -> f64 {
    let share = 0.5 + CONFIDENCE / 2.0;
    if freedom > MANY {
        return Normal::new(0.0, 1.0).map_or(f64::NAN, |normal| normal.inverse_cdf(share));
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(share))
}

/// The quantile of F with 1 and `freedom` degrees.
pub(super) fn f_quantile(freedom: f64) -> f64 {
    if freedom > MANY {
        return t_quantile(freedom).powi(2);
    }
    FisherSnedecor::new(1.0, freedom).map_or(f64::NAN, |f| f.inverse_cdf(CONFIDENCE))
}

/// `value` ± t·`se`.
pub(super) fn wald(value: f64, se: f64, freedom: f64) -> ConfidenceInterval {
    let half = t_quantile(freedom) * se;
    ConfidenceInterval { lo: Some(value - half), hi: Some(value + half) }
}

/// A quantity that can be held while everything else is optimised.
pub(super) struct Target {
    problem: Option<Problem>,
    /// The optimum in the variables of this target's problem.
    start: Vec<f64>,
    held: Held,
    bounds: (f64, f64),
    /// Whether it is searched in logarithms, because it spans decades.
    log: bool,
    value: f64,
}

impl Target {
    /// A parameter by its name; `None` for one that is neither a coefficient nor a shape.
    pub(super) fn parameter(fitted: &Fitted, name: &str) -> Option<Self> {
        let form = fitted.form;
        let k = form.terms().len();
        if let Some(q) = form.shapes().iter().position(|shape| shape.name == name) {
            let j = k + q;
            // A shape whose value people read is that of another variable where the form says so.
            let at = form.parameters().iter().position(|p| *p == name)?;
            if (fitted.natural[at] / fitted.optimum.p[j] - 1.0).abs() > 1e-12 {
                return None;
            }
            return Some(Self {
                problem: None,
                start: fitted.optimum.p.clone(),
                held: with(fitted, j),
                bounds: form.shapes()[q].range,
                log: false,
                value: fitted.optimum.p[j],
            });
        }
        let t = form.terms().iter().position(|term| term.name == name && term.direct)?;
        if Some(t) == form.floor() {
            return Some(Self {
                problem: None,
                start: fitted.optimum.p.clone(),
                held: with(fitted, t),
                bounds: (0.0, f64::MAX),
                log: false,
                value: fitted.optimum.p[t],
            });
        }
        // With all inputs of one as the reference, the coefficient is the parameter itself.
        let target = Self::at_reference(fitted, &vec![0.0; fitted.reference.len()], with(fitted, t));
        (target.value > 0.0).then_some(Self { log: true, bounds: (1e-300, 1e300), ..target })
    }

    /// The loss of the law at these inputs; `None` where a given coefficient or the form
    /// stands in the way.
    pub(super) fn prediction(fitted: &Fitted, inputs: &[f64]) -> Option<Self> {
        let k = fitted.form.terms().len();
        if !fitted.form.is_anchored() || fitted.given.iter().any(|j| *j < k) {
            return None;
        }
        let reference: Vec<f64> = inputs.iter().map(|x| x.ln()).collect();
        let form = fitted.form;
        let all: Vec<usize> = (0..form.terms().len()).collect();
        let (c, _) = form.internal(&fitted.natural, &reference);
        // What gives way should be far from zero: the largest share that is not the floor.
        let pivot = all.iter().filter(|t| Some(**t) != form.floor()).max_by(|a, b| c[**a].total_cmp(&c[**b]));
        let held = Held { sum: Some((pivot.copied().unwrap_or(0), all)), ..fitted.held() };
        let target = Self::at_reference(fitted, &reference, held);
        Some(Self { bounds: (1e-9 * target.value, 1e9 * target.value), ..target })
    }

    fn at_reference(fitted: &Fitted, reference: &[f64], held: Held) -> Self {
        let (c, s) = fitted.form.internal(&fitted.natural, reference);
        let value = match &held.sum {
            Some((_, all)) => all.iter().map(|t| c[*t]).sum(),
            None => c[held.fixed[held.fixed.len() - 1]],
        };
        Self {
            problem: Some(problem(fitted.sample, fitted.form, fitted.objective, reference)),
            start: c.into_iter().chain(s).collect(),
            held,
            bounds: (0.0, f64::MAX),
            log: false,
            value,
        }
    }

    /// The smallest objective of a group with the quantity held at `value`.
    pub(super) fn objective_at(&self, fitted: &Fitted, value: f64) -> f64 {
        let problem = self.problem.as_ref().unwrap_or(&fitted.problem);
        newton::minimise(problem, &self.moved(&self.start, value), &self.held).value
    }

    /// `p` with the quantity at `value`.
    fn moved(&self, p: &[f64], value: f64) -> Vec<f64> {
        let mut out = p.to_vec();
        match &self.held.sum {
            Some((_, all)) => {
                let now: f64 = all.iter().map(|t| out[*t]).sum();
                all.iter().for_each(|t| out[*t] *= value / now);
            }
            None => out[self.held.fixed[self.held.fixed.len() - 1]] = value,
        }
        out
    }
}

/// What is given, and then `variable`.
fn with(fitted: &Fitted, variable: usize) -> Held {
    let mut held = fitted.held();
    held.fixed.push(variable);
    held
}

/// Profile intervals around one optimum.
pub(super) struct Profiler<'a> {
    fitted: &'a Fitted<'a>,
    /// By how much the objective may rise.
    rise: f64,
}

impl<'a> Profiler<'a> {
    pub(super) fn new(fitted: &'a Fitted<'a>, noise: Noise) -> Self {
        let variance = noise.variance().unwrap_or_else(|| {
            // For squares the variance itself; for Huber's the ratio that makes a likelihood ratio a chi-square.
            let inside = fitted.inside_share();
            fitted.variance() * inside
        });
        Self { fitted, rise: 0.5 * variance * f_quantile(noise.freedom(fitted)) }
    }

    /// The smallest rise of the objective with the quantity held at `value`, as a share of the allowed one.
    pub(super) fn deviance(&self, target: &Target, value: f64) -> f64 {
        let problem = target.problem.as_ref().unwrap_or(&self.fitted.problem);
        let start = target.moved(&target.start, value);
        let local = newton::minimise(problem, &start, &target.held).value;
        let best = search::global(problem, &start, &target.held).map_or(local, |found| found.value.min(local));
        (best - self.fitted.optimum.value) / self.rise
    }

    /// The interval of a quantity; `se` is a first guess of its standard error.
    pub(super) fn interval(&self, target: &Target, se: Option<f64>) -> ConfidenceInterval {
        let problem = target.problem.as_ref().unwrap_or(&self.fitted.problem);
        let scale: f64 = problem.blocks[0].y.iter().map(|y| y * y).sum();
        if self.rise <= 1e-28 * scale {
            return ConfidenceInterval { lo: Some(target.value), hi: Some(target.value) };
        }
        let walk = Walk { profiler: self, target, problem };
        // A first step of the size of the half width; without one, a tenth of the value.
        let guess = se.filter(|se| *se > 0.0 && se.is_finite()).map(|se| t_quantile(self.fitted.freedom()) * se);
        ConfidenceInterval { lo: walk.end(-1.0, guess), hi: walk.end(1.0, guess) }
    }
}

struct Walk<'a> {
    profiler: &'a Profiler<'a>,
    target: &'a Target,
    problem: &'a Problem,
}

impl Walk<'_> {
    fn coordinate(&self, value: f64) -> f64 {
        if self.target.log { value.ln() } else { value }
    }

    fn value(&self, coordinate: f64) -> f64 {
        if self.target.log { coordinate.exp() } else { coordinate }
    }

    /// √(rise / allowed rise) with the quantity at a coordinate, from a start nearby, which becomes the optimum there.
    fn z(&self, at: f64, from: &mut Vec<f64>, global: bool) -> f64 {
        let start = self.target.moved(from, self.value(at));
        let mut minimum = newton::minimise(self.problem, &start, &self.target.held);
        if (global || !minimum.converged)
            && let Some(found) = search::global(self.problem, &start, &self.target.held)
            && found.value < minimum.value
        {
            minimum = found;
        }
        let rise = (minimum.value - self.profiler.fitted.optimum.value).max(0.0);
        *from = minimum.p;
        (rise / self.profiler.rise).sqrt()
    }

    /// Where the profile crosses the cut on one side; `None` when it does not before the bound.
    fn end(&self, direction: f64, guess: Option<f64>) -> Option<f64> {
        let end = self.cross(direction, guess, false)?;
        // Elsewhere a better optimum may exist, below the cut: then the walk is repeated with a search at each step.
        let origin = self.coordinate(self.target.value);
        let just_outside = end + direction * 1e-6 * (end - origin).abs();
        let found = search::lowest(
            self.problem,
            &self.target.moved(&self.target.start, self.value(just_outside)),
            &self.target.held,
        );
        let rise = found.map_or(f64::INFINITY, |found| found.value - self.profiler.fitted.optimum.value);
        if rise >= self.profiler.rise * (1.0 - 1e-6) {
            return Some(self.value(end));
        }
        self.cross(direction, guess, true).map(|end| self.value(end))
    }

    fn cross(&self, direction: f64, guess: Option<f64>, global: bool) -> Option<f64> {
        let origin = self.coordinate(self.target.value);
        let relative = |se: f64| if self.target.log { (se / self.target.value).min(3.0) } else { se };
        let bound = self.coordinate(if direction < 0.0 { self.target.bounds.0 } else { self.target.bounds.1 });
        let step = guess.map_or(0.1 * origin.abs().max(0.01), relative);
        let mut from = self.target.start.clone();
        crossing(origin, direction * step, bound, |at| self.z(at, &mut from, global))
    }
}

/// Where `z`, which is 0 at `origin` and close to linear, reaches 1 on the way to `bound`; `None` when it does not.
pub(super) fn crossing(origin: f64, step: f64, bound: f64, mut z: impl FnMut(f64) -> f64) -> Option<f64> {
    let direction = step.signum();
    let clamp = |at: f64| if direction < 0.0 { at.max(bound) } else { at.min(bound) };
    let (mut step, mut inside) = (step.abs(), (origin, 0.0));
    let mut outside = loop {
        let at = clamp(inside.0 + direction * step);
        let next = (at, z(at));
        if next.1 > 1.0 {
            break next;
        }
        if at == bound || step > 1e300 || next.1.is_nan() {
            return None;
        }
        let growth = if next.1 > inside.1 { (1.0 - next.1) / (next.1 - inside.1) } else { 4.0 };
        step = (at - inside.0).abs() * (1.1 * growth).clamp(0.5, 4.0);
        inside = next;
    };
    // False position with the Illinois rule.
    let (mut low, mut high) = (inside.1 - 1.0, outside.1 - 1.0);
    for _ in 0..60 {
        if (outside.0 - inside.0).abs() <= 1e-11 * origin.abs() + 1e-14 * inside.0.abs() {
            break;
        }
        let mut at = inside.0 + (outside.0 - inside.0) * (-low / (high - low));
        if !at.is_finite() || (at - inside.0) * (at - outside.0) >= 0.0 {
            at = 0.5 * (inside.0 + outside.0);
        }
        let excess = z(at) - 1.0;
        if excess.abs() < 1e-8 {
            return Some(at);
        }
        if excess > 0.0 {
            outside = (at, excess);
            high = excess;
            low *= 0.5;
        } else {
            inside = (at, excess);
            low = excess;
            high *= 0.5;
        }
    }
    Some(outside.0)
}

/// The profile of a parameter: its values and the rise of the objective there as a share of the limit of its interval, on
/// both sides of the estimate to about three times the limit. `None` where there is no profile.
pub fn profile(sample: &Sample, options: &FitOptions, name: &str, points: usize) -> Option<Vec<(f64, f64)>> {
    let fitted = Fitted::with_given(sample, options.form, options.objective, &options.given).ok()?;
    let profiler = Profiler::new(&fitted, options.noise);
    let target = Target::parameter(&fitted, name)?;
    let interval = profiler.interval(&target, None);
    let reach = |end: Option<f64>, other: Option<f64>| {
        let width = (end.or(other)? - target.value).abs();
        Some(1.75 * width)
    };
    let below = reach(interval.lo, interval.hi)?;
    let above = reach(interval.hi, interval.lo)?;
    let from = (target.value - below).max(target.bounds.0);
    let to = (target.value + above).min(target.bounds.1);
    let places = (0..points).map(|i| from + (to - from) * i as f64 / (points.max(2) - 1) as f64);
    Some(places.map(|value| (value, profiler.deviance(&target, value))).collect())
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

    #[test]
    fn known_noise_has_normal_quantiles() {
        assert!((t_quantile(1e9) - 1.959964).abs() < 1e-6 && (f_quantile(1e9) - 3.841459).abs() < 1e-5);
    }
}
