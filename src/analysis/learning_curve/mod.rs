//! Loss curves under any schedule of the learning rate: laws of a whole run's rates, fitted to some schedules and asked
//! about others.
//!
//! The solver is that of the laws of size: grid, exact Newton steps, independent starts. Neighbouring losses of one
//! curve are not independent, so no standard errors are stated; what is, is how much each variable may move at almost
//! no cost ([`CurveFit::slack`]), and the errors on schedules that were not fitted ([`Scores`]).

mod annealing;
mod condensed;
pub mod log;
mod multi_power;
mod schedule;

use super::fit::{bounds, certificate, curvature, given_variables, status};
use super::forms::{Design, TermValues, Terms};
use super::solver::{Block, Held, Minimum, Problem, search, vector};
use super::{Certificate, FitError, FitStatus, Given, Objective, Spread, ends};

use rayon::prelude::*;

pub use schedule::Schedule;

/// By what share the objective may rise in [`CurveFit::slack`].
const RISE: f64 = 0.01;

/// A law of loss curves.
pub trait CurveForm: Terms {
    /// Its terms at the points of some runs, one after the other; the reference is the logarithm of the highest rate.
    fn design(&self, runs: &[Logged], reference: &[f64]) -> Box<dyn Design>;
}

/// Every law of loss curves.
pub static CURVE_FORMS: &[&dyn CurveForm] = &[&annealing::Annealing, &multi_power::MultiPower];

/// The law of that name.
pub fn lookup(name: &str) -> Option<&'static dyn CurveForm> {
    CURVE_FORMS.iter().copied().find(|form| form.name() == name)
}

/// Steps of a run.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// The rate of every step.
    pub schedule: &'a Schedule,
    /// Ascending, within the schedule.
    pub steps: &'a [usize],
}

impl Logged<'_> {
    /// ln S1 at each step.
    fn log_sums(&self) -> Vec<f64> {
        self.steps.iter().map(|step| self.schedule.summed(*step).ln()).collect()
    }
}

/// The term S1^-α, given ln S1.
fn fall_with_summed_rate(log_sums: &[f64], alpha: f64, derivatives: bool, out: &mut TermValues) {
    vector::exp_scaled(-alpha, log_sums, &mut out.value);
    if derivatives {
        for ((i, log), value) in log_sums.iter().enumerate().zip(&out.value) {
            (out.first[0][i], out.second[0][i]) = (-log * value, log * log * value);
        }
    }
}

/// A measured loss curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    schedule: Schedule,
    steps: Vec<usize>,
    losses: Vec<f64>,
}

impl Curve {
    /// Losses (nats per token, positive) at ascending steps of a schedule, each after the first positive rate.
    pub fn new(schedule: Schedule, steps: Vec<usize>, losses: Vec<f64>) -> Result<Self, CurveError> {
        if steps.len() != losses.len() {
            return Err(CurveError::Lengths { steps: steps.len(), losses: losses.len() });
        }
        if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(CurveError::Order { step: pair[1] });
        }
        for (&step, &loss) in steps.iter().zip(&losses) {
            if step >= schedule.steps() || schedule.summed(step) <= 0.0 {
                return Err(CurveError::NoSuchStep { step, steps: schedule.steps() });
            }
            if !(loss > 0.0 && loss.is_finite()) {
                return Err(CurveError::BadLoss { step, loss });
            }
        }
        Ok(Self { schedule, steps, losses })
    }

    /// The rate of every step.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Where the loss was measured.
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// The loss there, nats per token.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    fn logged(&self) -> Logged<'_> {
        Logged { schedule: &self.schedule, steps: &self.steps }
    }
}

/// What cannot be a curve, or cannot be fitted to some.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CurveError {
    /// A learning rate is finite and not negative.
    #[error("the learning rate of step {step} is {rate}; it has to be finite and not negative")]
    BadRate {
        /// The step.
        step: usize,
        /// Its rate.
        rate: f64,
    },
    /// A run without any learning rate learns nothing.
    #[error("no step has a positive learning rate")]
    NoRate,
    /// A loss for each step.
    #[error("{steps} steps with {losses} losses")]
    Lengths {
        /// Steps given.
        steps: usize,
        /// Losses given.
        losses: usize,
    },
    /// Steps ascend.
    #[error("step {step} does not come after the one before it")]
    Order {
        /// The later one.
        step: usize,
    },
    /// A step outside the schedule, or before any learning.
    #[error("step {step} is none of the schedule's {steps} after the first positive learning rate")]
    NoSuchStep {
        /// The step.
        step: usize,
        /// Steps of the schedule.
        steps: usize,
    },
    /// A loss is positive and finite.
    #[error("the loss at step {step} is {loss}; it has to be positive and finite")]
    BadLoss {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// The fit itself.
    #[error(transparent)]
    Fit(#[from] FitError),
}

/// What to fit to loss curves.
#[derive(Clone, Debug)]
pub struct CurveOptions {
    /// The law.
    pub form: &'static dyn CurveForm,
    /// The criterion.
    pub objective: Objective,
    /// Independent starts that confirm the optimum.
    pub starts: usize,
    /// Of the starts.
    pub seed: u64,
    /// Parameters that are not fitted.
    pub given: Vec<Given>,
}

impl CurveOptions {
    /// Huber's loss of log losses with threshold 1e-3, as both papers take; eight starts; everything fitted.
    pub fn new(form: &'static dyn CurveForm) -> Self {
        Self { form, objective: Objective::Huber(1e-3), starts: 8, seed: 0, given: Vec::new() }
    }
}

/// A law of loss curves with its parameters.
#[derive(Clone, Debug)]
pub struct CurveLaw {
    /// The form.
    pub form: &'static dyn CurveForm,
    /// Its parameters, in the order of [`Terms::parameters`].
    pub parameters: Vec<f64>,
}

impl CurveLaw {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<f64> {
        self.form.parameters().iter().position(|p| *p == name).map(|at| self.parameters[at])
    }

    /// The loss at ascending steps of a schedule, nats per token.
    pub fn losses(&self, run: Logged) -> Vec<f64> {
        let form = self.form;
        let reference = [run.schedule.peak().ln()];
        let (coefficients, shapes) = form.internal(&self.parameters, &reference);
        let design = form.design(&[run], &reference);
        let mut out = vec![0.0; run.steps.len()];
        for (t, c) in coefficients.iter().enumerate() {
            let mut term = TermValues::new(form.terms()[t].depends.len(), run.steps.len());
            if Some(t) != form.floor() {
                design.term(t, &shapes, false, &mut term);
            }
            vector::add_scaled(*c, &term.value, &mut out);
        }
        out
    }

    /// The criterion over all points of some curves.
    pub fn objective(&self, curves: &[Curve], objective: Objective) -> f64 {
        let (reference, problem) = problem(self.form, curves, objective);
        let (coefficients, shapes) = self.form.internal(&self.parameters, &reference);
        let p: Vec<f64> = coefficients.into_iter().chain(shapes).collect();
        let mut derivatives = Default::default();
        problem.derivatives(&p, problem.criterion.delta, &mut derivatives);
        objective.reported(&problem, &p, derivatives.value)
    }

    /// How far the law is from a curve.
    pub fn scores(&self, curve: &Curve) -> Scores {
        Scores::of(&curve.losses, &self.losses(curve.logged()))
    }
}

/// A law fitted to loss curves.
#[derive(Clone, Debug)]
pub struct CurveFit {
    /// The law at the optimum.
    pub law: CurveLaw,
    /// Points used.
    pub n: usize,
    /// How the minimisation ended.
    pub status: FitStatus,
    /// The bounds on which the optimum lies.
    pub bounds: Vec<String>,
    /// The criterion at the optimum, summed over the points.
    pub objective: f64,
    /// How the residuals are distributed.
    pub spread: Spread,
    /// The optimum's certificate.
    pub certificate: Certificate,
    /// For each variable that is fitted and on no bound, by what share it may change when the others follow, until the
    /// objective has risen by a hundredth; to second order. One of the order of one is not determined by the curves.
    pub slack: Vec<(&'static str, f64)>,
}

/// Fits the law of `options` to curves, all points alike.
pub fn fit(curves: &[Curve], options: &CurveOptions) -> Result<CurveFit, CurveError> {
    let form = options.form;
    let given = given_variables(form, &options.given)?;
    let n: usize = curves.iter().map(|curve| curve.steps.len()).sum();
    let parameters = form.size() - given.len();
    if n <= parameters {
        return Err(FitError::TooFewPoints { form: form.name(), parameters, n, distinct: n }.into());
    }
    let (reference, problem) = problem(form, curves, options.objective);
    let mut start = vec![0.0; form.size()];
    for (j, given) in given.iter().zip(&options.given) {
        let (lo, hi) = problem.bounds[*j];
        if !(lo..=hi).contains(&given.value) || given.value.is_infinite() {
            return Err(FitError::HeldOutside { name: given.name.clone(), value: given.value, lo, hi }.into());
        }
        start[*j] = given.value;
    }
    let held = Held { fixed: given, sum: None };
    let optimum = search::global(&problem, &start, &held).ok_or(FitError::NotDecreasing)?;
    let (confirmation, better) = search::confirm(&problem, &optimum, &held, options.starts, options.seed);
    let optimum = if better.improves_on(&optimum) { better } else { optimum };
    let k = form.terms().len();
    let law = CurveLaw { form, parameters: form.natural(&optimum.p[..k], &optimum.p[k..], &reference) };
    if law.parameters.iter().any(|value| !value.is_finite()) {
        return Err(FitError::NotFinite.into());
    }
    Ok(CurveFit {
        law,
        n,
        status: status(&optimum),
        bounds: bounds(form, &optimum),
        objective: options.objective.reported(&problem, &optimum.p, optimum.value),
        spread: Spread::of(&problem.residuals(&problem.blocks[0], &optimum.p), problem.criterion.delta),
        certificate: certificate(&problem, &optimum, &held.fixed, confirmation),
        slack: slack(&problem, &optimum, &held.fixed),
    })
}

/// Fits without each curve in turn: how well a schedule that was not seen is predicted, and how far the parameters move.
pub fn leave_one_out(curves: &[Curve], options: &CurveOptions) -> Vec<Result<CurveFit, CurveError>> {
    let without = |left: usize| {
        let kept = curves.iter().enumerate().filter(|(at, _)| *at != left).map(|(_, curve)| curve.clone());
        fit(&kept.collect::<Vec<_>>(), options)
    };
    (0..curves.len()).into_par_iter().map(without).collect()
}

/// The logarithm of the highest rate, and the points of all curves as one group.
fn problem(form: &'static dyn CurveForm, curves: &[Curve], objective: Objective) -> (Vec<f64>, Problem) {
    let peaks: Vec<f64> = curves.iter().map(|curve| curve.schedule.peak()).collect();
    let reference = vec![ends(&peaks).1.ln()];
    let runs: Vec<Logged> = curves.iter().map(Curve::logged).collect();
    let losses: Vec<f64> = curves.iter().flat_map(|curve| curve.losses.iter().copied()).collect();
    let design = form.design(&runs, &reference);
    let block = Block::with_design(form, design, &losses, &vec![1.0; losses.len()]);
    (reference, Problem::single(block, objective.criterion()))
}

/// See [`CurveFit::slack`]: the square root of twice the rise times the diagonal of the inverse Hessian.
fn slack(problem: &Problem, optimum: &Minimum, given: &[usize]) -> Vec<(&'static str, f64)> {
    let form = problem.blocks[0].form;
    let k = form.terms().len();
    let (_, hessian) = curvature(problem, optimum, given);
    let is_free = |j: &usize| !optimum.at_bound.contains(j) && !given.contains(j);
    let share = |(a, j): (usize, usize)| {
        let mut unit = vec![0.0; hessian.n];
        unit[a] = 1.0;
        let variance = hessian.clone().solve(&unit).map_or(f64::INFINITY, |column| column[a]);
        let (name, size) = if j < k { (form.terms()[j].name, 1.0) } else { (form.shapes()[j - k].name, optimum.p[j]) };
        (name, (2.0 * RISE * optimum.value * variance).sqrt() / size)
    };
    (0..optimum.p.len()).filter(is_free).enumerate().map(share).collect()
}

/// How far a law is from measured losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// 1 - SSE/SST
    pub r2: f64,
    /// Root mean square error, nats per token.
    pub rmse: f64,
    /// Mean absolute error, nats per token.
    pub mae: f64,
    /// Mean of |error|/loss.
    pub mean_relative: f64,
    /// Largest |error|/loss.
    pub worst_relative: f64,
}

impl Scores {
    /// Of predictions for measured losses.
    pub fn of(measured: &[f64], predicted: &[f64]) -> Self {
        let n = measured.len() as f64;
        let mean = measured.iter().sum::<f64>() / n;
        let sst: f64 = measured.iter().map(|y| (y - mean).powi(2)).sum();
        let pairs = || measured.iter().zip(predicted).map(|(y, f)| (*y, (y - f).abs()));
        let sse: f64 = pairs().map(|(_, error)| error * error).sum();
        Self {
            r2: 1.0 - sse / sst,
            rmse: (sse / n).sqrt(),
            mae: pairs().map(|(_, error)| error).sum::<f64>() / n,
            mean_relative: pairs().map(|(y, error)| error / y).sum::<f64>() / n,
            worst_relative: pairs().map(|(y, error)| error / y).fold(0.0, f64::max),
        }
    }

    /// The plain mean of each score over several curves.
    pub fn mean(scores: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
        Self {
            r2: mean(|s| s.r2),
            rmse: mean(|s| s.rmse),
            mae: mean(|s| s.mae),
            mean_relative: mean(|s| s.mean_relative),
            worst_relative: mean(|s| s.worst_relative),
        }
    }
}
