//! Power laws in one variable, L = A·x^(-b) and L = A·x^(-b) + C, fitted by unweighted least squares.
//!
//! The formula and the criterion are those of the published plots that the tests reproduce. Departure: those used a
//! local optimiser with C ≤ min(L); here the optimum is global and C has no upper bound, since the smallest measured
//! loss is itself noisy. C ≥ 0 and A > 0 are kept.

use super::interval::{self, Profile};
use super::profiled::{EXPONENT, Held, Problem, Solution};
use super::{Estimate, Fit, FitError, FitOptions, FitStatus, Form, IntervalMethod, Objective, ScalingPoint};

/// L = A·x^(-b).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLaw {
    /// A, nats per token at x = 1.
    pub amplitude: f64,
    /// b.
    pub exponent: f64,
}

impl PowerLaw {
    /// The loss at `x`.
    pub fn loss(&self, x: f64) -> f64 {
        // In logarithms, because A and x^(-b) can each leave the range of f64 when their product does not.
        (self.amplitude.ln() - self.exponent * x.ln()).exp()
    }
}

/// L = A·x^(-b) + C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaturatingPowerLaw {
    /// A·x^(-b), the reducible loss.
    pub reducible: PowerLaw,
    /// C, nats per token: what is left as x grows without end.
    pub floor: f64,
}

impl SaturatingPowerLaw {
    /// The loss at `x`.
    pub fn loss(&self, x: f64) -> f64 {
        self.reducible.loss(x) + self.floor
    }
}

/// A fitted law of either form.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Law {
    /// Without a floor.
    Power(PowerLaw),
    /// With one.
    Saturating(SaturatingPowerLaw),
}

impl Law {
    /// The loss at `x`, for the laws of one variable.
    pub fn loss(&self, x: f64) -> f64 {
        match self {
            Self::Power(law) => law.loss(x),
            Self::Saturating(law) => law.loss(x),
        }
    }

    /// The fitted floor C, of a form that has one.
    pub fn floor(&self) -> Option<f64> {
        match self {
            Self::Power(_) => None,
            Self::Saturating(law) => Some(law.floor),
        }
    }
}

/// Fits the form of `options` to `points` in any order.
pub fn fit(points: &[ScalingPoint], options: &FitOptions) -> Result<Fit, FitError> {
    let Objective::LeastSquares = options.objective;
    let form = options.form;
    check(points, form)?;
    let problem = Problem::new(points, form == Form::PowerFloor);
    let best = problem.minimise(Held::Nothing);
    let sst = problem.sst();
    if best.a <= 0.0 || sst <= 0.0 {
        return Err(FitError::NotDecreasing);
    }
    let amplitude = (best.a.ln() + best.b * problem.l_ref).exp();
    if !amplitude.is_finite() || amplitude == 0.0 {
        return Err(FitError::NotFinite);
    }
    let bounds = bounds_hit(&problem, best);
    let status = if bounds.is_empty() { FitStatus::Converged } else { FitStatus::BoundHit };
    let freedom = (points.len() - form.parameters()) as f64;
    let residual_sd = (best.sse / freedom).sqrt();
    let se = if bounds.is_empty() { standard_errors(&problem, best, residual_sd) } else { None };

    let reducible = PowerLaw { amplitude, exponent: best.b };
    let law = match form {
        Form::Power => Law::Power(reducible),
        Form::PowerFloor => Law::Saturating(SaturatingPowerLaw { reducible, floor: best.c }),
    };
    let values = [("A", amplitude), ("b", best.b), ("C", best.c)];
    let profile = Profile { problem: &problem, best, freedom };
    let estimates = values[..form.parameters()]
        .iter()
        .enumerate()
        .map(|(i, &(name, value))| {
            let se = se.as_ref().map(|se| se[i]);
            // A first step of the size of the standard error; without one, a tenth of the value.
            let step = se.filter(|se| *se > 0.0).unwrap_or((0.1 * value).max(1e-3));
            let interval = match options.interval {
                IntervalMethod::None => None,
                IntervalMethod::Wald => se.map(|se| interval::wald(value, se, freedom)),
                IntervalMethod::Profile => Some(match name {
                    "A" => profile.amplitude((step / value).min(1.0)),
                    "b" => profile.exponent(step),
                    _ => profile.floor(step),
                }),
            };
            Estimate { name, value, se, interval }
        })
        .collect();
    Ok(Fit {
        law,
        form,
        n: points.len(),
        status,
        bounds,
        objective: best.sse,
        estimates,
        r2: 1.0 - best.sse / sst,
        residuals: points.iter().map(|p| p.y - law.loss(p.x)).collect(),
        residual_sd,
        kappa: se.filter(|_| problem.floor && residual_sd > 0.0).map(|se| se[2] / residual_sd),
        leave_one_out_floor: leave_one_out(&problem),
    })
}

fn check(points: &[ScalingPoint], form: Form) -> Result<(), FitError> {
    for (index, &ScalingPoint { x, y }) in points.iter().enumerate() {
        if !(x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite()) {
            return Err(FitError::BadPoint { index, x, y });
        }
    }
    let mut xs: Vec<f64> = points.iter().map(|p| p.x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let parameters = form.parameters();
    if points.len() <= parameters || xs.len() < parameters {
        return Err(FitError::TooFewPoints { form: form.name(), parameters, n: points.len(), distinct: xs.len() });
    }
    Ok(())
}

fn bounds_hit(problem: &Problem, best: Solution) -> Vec<String> {
    let mut bounds = Vec::new();
    let at = |value: f64, bound: f64| (value / bound - 1.0).abs() < 1e-9;
    for bound in [EXPONENT.0, EXPONENT.1] {
        if at(best.b, bound) {
            bounds.push(format!("b = {bound}"));
        }
    }
    if problem.floor && best.c == 0.0 {
        bounds.push("C = 0".to_owned());
    }
    bounds
}

/// Standard errors of (A, b, C) from the Jacobian, (JᵀJ)⁻¹·σ²; `None` when its columns are linearly dependent.
///
/// The columns are those of (ln a, b, C) with x measured from its smallest value, orthogonalised (J = QR) rather than
/// squared: b and C correlate at 0.998 in published designs, and JᵀJ would square the condition number.
fn standard_errors(problem: &Problem, best: Solution, sigma: f64) -> Option<Vec<f64>> {
    let reducible: Vec<f64> = problem.l.iter().map(|l| best.a * (-best.b * l).exp()).collect();
    let mut columns = vec![reducible.clone(), reducible.iter().zip(&problem.l).map(|(r, l)| -r * l).collect()];
    if problem.floor {
        columns.push(vec![1.0; problem.l.len()]);
    }
    let inverse = inverse_r(columns)?;
    let p = inverse.len();
    let covariance = |i: usize, j: usize| (0..p).map(|k| inverse[i][k] * inverse[j][k]).sum::<f64>();
    // ln A = ln a + b·ln x_min
    let l = problem.l_ref;
    let log_a = covariance(0, 0) + 2.0 * l * covariance(0, 1) + l * l * covariance(1, 1);
    let amplitude = (best.a.ln() + best.b * l).exp();
    let mut out = vec![sigma * amplitude * log_a.max(0.0).sqrt()];
    out.extend((1..p).map(|i| sigma * covariance(i, i).sqrt()));
    out.iter().all(|se| se.is_finite()).then_some(out)
}

/// R⁻¹ of the QR decomposition of a matrix given by columns (modified Gram-Schmidt).
fn inverse_r(mut columns: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let p = columns.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut r = vec![vec![0.0; p]; p];
    for k in 0..p {
        let before = dot(&columns[k], &columns[k]).sqrt();
        for j in 0..k {
            let q = columns[j].clone();
            r[j][k] = dot(&q, &columns[k]);
            for (value, q) in columns[k].iter_mut().zip(&q) {
                *value -= r[j][k] * q;
            }
        }
        let norm = dot(&columns[k], &columns[k]).sqrt();
        if norm <= 1e-13 * before || !norm.is_finite() {
            return None;
        }
        r[k][k] = norm;
        columns[k].iter_mut().for_each(|value| *value /= norm);
    }
    let mut inverse = vec![vec![0.0; p]; p];
    for j in 0..p {
        inverse[j][j] = 1.0 / r[j][j];
        for i in (0..j).rev() {
            let sum: f64 = (i + 1..=j).map(|k| r[i][k] * inverse[k][j]).sum();
            inverse[i][j] = -sum / r[i][i];
        }
    }
    Some(inverse)
}

/// Range of C over fits that each lack one point. With fewer than four points left there is nothing to fit.
fn leave_one_out(problem: &Problem) -> Option<(f64, f64)> {
    if !problem.floor || problem.l.len() < 5 {
        return None;
    }
    let floors = (0..problem.l.len()).map(|i| problem.without(i).minimise(Held::Nothing).c);
    Some(floors.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), c| (lo.min(c), hi.max(c))))
}
