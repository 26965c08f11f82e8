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
            None => c[variable(&held)],
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
            None => out[variable(&self.held)] = value,
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

/// The variable that [`with`] added.
fn variable(held: &Held) -> usize {
    held.fixed[held.fixed.len() - 1]
}

/// Profile intervals around one optimum.
pub(super) struct Profiler<'a> {
    fitted: &'a Fitted<'a>,
    /// By how much the objective may rise.
    rise: f64,
}

impl<'a> Profiler<'a> {
    pub(super) fn new(fitted: &'a Fitted<'a>, noise: Noise) -> Self {
        // For squares the variance itself; for Huber's the ratio that makes a likelihood ratio a chi-square.
        let variance = noise.variance().unwrap_or_else(|| fitted.variance()) * fitted.inside_share();
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
        let block = &problem.blocks[0];
        let unit = |y: &f64| if self.fitted.objective.is_logarithmic() { 1.0 } else { y * y };
        let scale: f64 = block.y.iter().zip(&block.weight).map(|(y, weight)| weight * unit(y)).sum();
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

    /// √(rise / allowed rise) with the quantity at a coordinate, from where the optima of the trail lead; the optimum
    /// found joins them.
    fn z(&self, at: f64, trail: &mut Trail, global: bool) -> f64 {
        let start = self.target.moved(&trail.ahead(at, &self.problem.bounds), self.value(at));
        let mut minimum = newton::minimise(self.problem, &start, &self.target.held);
        if (global || !minimum.converged)
            && let Some(found) = search::global(self.problem, &start, &self.target.held)
            && found.value < minimum.value
        {
            minimum = found;
        }
        let rise = (minimum.value - self.profiler.fitted.optimum.value).max(0.0);
        trail.push(at, minimum.p);
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
        let mut trail = Trail { last: (origin, self.target.start.clone()), before: None };
        crossing(origin, direction * step, bound, |at| self.z(at, &mut trail, global))
    }
}

/// The last optima on the way along a profile, by their coordinate.
struct Trail {
    last: (f64, Vec<f64>),
    before: Option<(f64, Vec<f64>)>,
}

impl Trail {
    fn push(&mut self, at: f64, p: Vec<f64>) {
        self.before = Some(std::mem::replace(&mut self.last, (at, p)));
    }

    /// A start at a coordinate: on the straight line through the last two optima where that stays within the bounds and
    /// reaches no further than they are apart, otherwise the last one.
    fn ahead(&self, at: f64, bounds: &[(f64, f64)]) -> Vec<f64> {
        let (here, p) = &self.last;
        let Some((there, q)) = &self.before else { return p.clone() };
        let share = (at - here) / (here - there);
        let line: Vec<f64> = p.iter().zip(q).map(|(p, q)| p + share * (p - q)).collect();
        let within = line.iter().zip(bounds).all(|(value, (lo, hi))| value > lo && value < hi);
        if share.abs() <= 1.0 && within { line } else { p.clone() }
    }
}

/// Where `z`, which is 0 at `origin` and close to linear, reaches 1 on the way to `bound`; `None` when it does not.
pub(super) fn crossing(origin: f64, step: f64, bound: f64, mut z: impl FnMut(f64) -> f64) -> Option<f64> {
    let direction = step.signum();
    let clamp = |at: f64| if direction < 0.0 { at.max(bound) } else { at.min(bound) };
    let (mut step, mut inside, mut before) = (step.abs(), (origin, 0.0), (origin, 0.0));
    let outside = loop {
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
        (before, inside) = (inside, next);
    };
    let excess = |(at, z): (f64, f64)| (at, z - 1.0);
    Some(between(excess(inside), excess(outside), excess(before), |at| z(at) - 1.0))
}

/// The root of `f` between two points of opposite sign, each given with its value there. The next point is where the
/// inverse parabola through these and a third one is zero, or the middle where that is not sure to be between them
/// (Chandrupatla 1997, Advances in Engineering Software 28, 145-149).
fn between(inside: (f64, f64), outside: (f64, f64), third: (f64, f64), mut f: impl FnMut(f64) -> f64) -> f64 {
    let (mut a, mut b, mut c) = (inside, outside, third);
    let scale = a.0.abs().max(b.0.abs());
    for _ in 0..60 {
        if (b.0 - a.0).abs() <= 1e-13 * scale {
            break;
        }
        let at = a.0 + share_of_root(a, b, c) * (b.0 - a.0);
        let new = (at, f(at));
        if new.1.abs() < 1e-9 {
            return at;
        }
        if (new.1 > 0.0) == (a.1 > 0.0) {
            c = a;
        } else {
            (c, b) = (b, a);
        }
        a = new;
    }
    if a.1.abs() < b.1.abs() { a.0 } else { b.0 }
}

/// How far from `a` to `b` the root is supposed to be.
fn share_of_root(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> f64 {
    let place = (a.0 - b.0) / (c.0 - b.0);
    let height = (a.1 - b.1) / (c.1 - b.1);
    let share = if c == a {
        a.1 / (a.1 - b.1)
    } else if height * height < place && (1.0 - height).powi(2) < 1.0 - place {
        let straight = a.1 / (b.1 - a.1) * (c.1 / (b.1 - c.1));
        straight + (c.0 - a.0) / (b.0 - a.0) * (a.1 / (c.1 - a.1)) * (b.1 / (c.1 - b.1))
    } else {
        0.5
    };
    // An infinite height has no parabola.
    if share > 0.0 && share < 1.0 { share } else { 0.5 }
}

/// The profile of a parameter: its values and the rise of the objective there as a share of the limit of its interval, on
/// both sides of the estimate to about three times the limit; on an open side to the parameter's bound. `None` where
/// there is no profile.
pub fn profile(sample: &Sample, options: &FitOptions, name: &str, points: usize) -> Option<Vec<(f64, f64)>> {
    let fitted = Fitted::with_given(sample, options.form, options.objective, &options.given).ok()?;
    let profiler = Profiler::new(&fitted, options.noise);
    let target = Target::parameter(&fitted, name)?;
    let interval = profiler.interval(&target, None);
    let reach = |end: Option<f64>, other: Option<f64>, bound: f64| {
        if end.is_none() && bound.is_finite() {
            return Some((bound - target.value).abs());
        }
        let width = (end.or(other)? - target.value).abs();
        Some(1.75 * width)
    };
    let below = reach(interval.lo, interval.hi, target.bounds.0)?;
    let above = reach(interval.hi, interval.lo, target.bounds.1)?;
    let from = (target.value - below).max(target.bounds.0);
    let to = (target.value + above).min(target.bounds.1);
    let places = (0..points).map(|i| from + (to - from) * i as f64 / (points.max(2) - 1) as f64);
    Some(places.map(|value| (value, profiler.deviance(&target, value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossings_are_found_from_either_side_and_past_a_wall() {
        let mut calls = 0;
        let mut z = |x: f64| {
            calls += 1;
            x.abs() + 0.1 * x * x * x.signum()
        };
        for direction in [-1.0, 1.0] {
            let end = crossing(0.0, direction * 0.1, direction * 1e9, &mut z).unwrap();
            assert!((z(end) - 1.0).abs() < 1e-9, "{end}");
        }
        assert!(calls < 24, "{calls}");
        let wall = crossing(0.0, 0.5, 1e9, |x| if x < 2.0 { 0.3 * x } else { f64::INFINITY }).unwrap();
        assert!((wall - 2.0).abs() < 1e-9, "{wall}");
        assert_eq!(crossing(0.0, 0.5, 3.0, |x| 0.3 * x), None);
    }

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
