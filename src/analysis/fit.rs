//! Fitting one group: the optimum with its certificate, standard errors and what is printed beside them.

use super::forms::{Form, Inputs, Terms};
use super::interval::{self, Profiler, Target};
use super::solver::matrix::{Matrix, inverse_gram};
use super::spread::share_within;
use rayon::prelude::*;

use super::solver::{Block, Criterion, Held, Minimum, Problem, Residual, newton, search};
use super::{
    Certificate, Estimate, Fit, FitError, FitOptions, FitStatus, IntervalMethod, Law, LeftOut, Noise, Objective,
    Prediction, Sample, Spread, bootstrap,
};

/// Points beyond which leaving each out in turn starts from the optimum of all instead of the whole grid.
const LEAVE_OUT_GRID: usize = 30;

impl Objective {
    pub(super) fn criterion(self) -> Criterion {
        match self {
            Self::LeastSquares => Criterion { residual: Residual::Linear, delta: f64::INFINITY },
            Self::LogLeastSquares => Criterion { residual: Residual::Log, delta: f64::INFINITY },
            Self::Huber(delta) => Criterion { residual: Residual::Log, delta },
            // The sum of absolute residuals to within n·δ/2, which is far below what a loss is printed with.
            Self::AbsoluteDeviation => Criterion { residual: Residual::Log, delta: 1e-10 },
        }
    }

    /// What is printed, from what is minimised.
    pub(super) fn reported(self, problem: &Problem, p: &[f64], value: f64) -> f64 {
        match self {
            Self::LeastSquares | Self::LogLeastSquares => 2.0 * value,
            Self::Huber(_) => value,
            Self::AbsoluteDeviation => {
                let of_block = |block: &Block| {
                    let residuals = problem.residuals(block, p);
                    residuals.iter().zip(&block.weight).map(|(r, w)| w * r.abs()).sum::<f64>()
                };
                problem.blocks.iter().map(of_block).sum()
            }
        }
    }
}

/// A group with its optimum, as far as intervals and comparisons need it.
pub(super) struct Fitted<'a> {
    pub sample: &'a Sample,
    pub form: &'static dyn Form,
    pub objective: Objective,
    pub reference: Vec<f64>,
    pub problem: Problem,
    pub optimum: Minimum,
    /// Parameters that people read, at the optimum.
    pub natural: Vec<f64>,
    /// Variables that were given rather than fitted.
    pub given: Vec<usize>,
}

/// A parameter that keeps a value instead of being fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Its letter.
    pub name: String,
    /// Its value.
    pub value: f64,
}

impl<'a> Fitted<'a> {
    /// The global optimum over what is not given.
    pub(super) fn with_given(
        sample: &'a Sample,
        form: &'static dyn Form,
        objective: Objective,
        given: &[Given],
    ) -> Result<Self, FitError> {
        sample.check(form, given.len())?;
        let variables = given_variables(form, given)?;
        let reference = reference_of(sample, form, &variables);
        let problem = problem(sample, form, objective, &reference);
        let mut start = vec![0.0; form.size()];
        for (j, given) in variables.iter().zip(given) {
            start[*j] = held_value(form, *j, given, &reference)?;
        }
        let held = Held { fixed: variables.clone(), sum: None };
        let optimum = search::global(&problem, &start, &held).ok_or(FitError::NotDecreasing)?;
        Self::with_optimum(sample, form, objective, reference, problem, optimum, variables)
    }

    /// The global optimum, confirmed by independent starts or taken from them where they found a better one.
    pub(super) fn confirmed(
        sample: &'a Sample,
        options: &FitOptions,
    ) -> Result<(Self, search::Confirmation), FitError> {
        let FitOptions { form, objective, starts, seed, .. } = *options;
        let fitted = Self::with_given(sample, form, objective, &options.given)?;
        let (confirmation, better) = search::confirm(&fitted.problem, &fitted.optimum, &fitted.held(), starts, seed);
        if better.improves_on(&fitted.optimum) {
            let Self { reference, problem, given, .. } = fitted;
            let fitted = Self::with_optimum(sample, form, objective, reference, problem, better, given)?;
            return Ok((fitted, confirmation));
        }
        Ok((fitted, confirmation))
    }

    /// The optimum that Newton steps reach from parameters near it.
    pub(super) fn near(&self, sample: &'a Sample) -> Result<Fitted<'a>, FitError> {
        let (form, objective) = (self.form, self.objective);
        sample.check(form, self.given.len())?;
        let reference = reference_of(sample, form, &self.given);
        let problem = problem(sample, form, objective, &reference);
        let (coefficients, shapes) = form.internal(&self.natural, &reference);
        let start: Vec<f64> = coefficients.into_iter().chain(shapes).collect();
        let optimum = newton::minimise(&problem, &start, &self.held());
        Self::with_optimum(sample, form, objective, reference, problem, optimum, self.given.clone())
    }

    fn with_optimum(
        sample: &'a Sample,
        form: &'static dyn Form,
        objective: Objective,
        reference: Vec<f64>,
        problem: Problem,
        optimum: Minimum,
        given: Vec<usize>,
    ) -> Result<Self, FitError> {
        let k = form.terms().len();
        let constant = |(t, c): (usize, &f64)| Some(t) == form.floor() || *c <= 0.0;
        if optimum.p[..k].iter().enumerate().all(constant) {
            return Err(FitError::NotDecreasing);
        }
        let natural = form.natural(&optimum.p[..k], &optimum.p[k..], &reference);
        if natural.iter().any(|value| !value.is_finite()) {
            return Err(FitError::NotFinite);
        }
        Ok(Self { sample, form, objective, reference, problem, optimum, natural, given })
    }

    /// The global optimum over other points of the group, however few; in the variables of this fit.
    pub(super) fn near_any(&self, sample: &Sample) -> Option<Minimum> {
        let problem = problem(sample, self.form, self.objective, &self.reference);
        search::global(&problem, &self.optimum.p, &self.held())
    }

    /// What is given, as the solver takes it.
    pub(super) fn held(&self) -> Held {
        Held { fixed: self.given.clone(), sum: None }
    }

    /// n - p.
    pub(super) fn freedom(&self) -> f64 {
        (self.sample.len() + self.given.len() - self.form.size()) as f64
    }

    /// The one group.
    pub(super) fn block(&self) -> &Block {
        &self.problem.blocks[0]
    }

    /// Variance of one residual of weight one, in the measure of the objective. For Huber's it is the variance of the
    /// influence over the squared share of points that have one (Huber and Ronchetti, Robust Statistics, section 7.6),
    /// which for squares is the usual one.
    pub(super) fn variance(&self) -> f64 {
        let delta = self.problem.criterion.delta;
        let residuals = self.residuals();
        let influence = |(r, w): (&f64, &f64)| w * r.clamp(-delta, delta).powi(2);
        let squares: f64 = residuals.iter().zip(&self.block().weight).map(influence).sum();
        let share = share_within(&residuals, delta);
        squares / self.freedom() / (share * share).max(f64::MIN_POSITIVE)
    }

    /// Residuals of the points in the measure of the objective.
    fn residuals(&self) -> Vec<f64> {
        self.problem.residuals(self.block(), &self.optimum.p)
    }

    /// Share of points within Huber's threshold; one for squares.
    pub(super) fn inside_share(&self) -> f64 {
        share_within(&self.residuals(), self.problem.criterion.delta)
    }

    /// ∂(natural parameters)/∂(variables) at the optimum, by central differences.
    fn natural_slopes(&self) -> Matrix {
        let (k, p) = (self.form.terms().len(), &self.optimum.p);
        let mut out = Matrix::zeros(p.len());
        for j in 0..p.len() {
            let h = 1e-5 * p[j].abs().max(1e-12);
            let at = |value: f64| {
                let mut moved = p.clone();
                moved[j] = value;
                self.form.natural(&moved[..k], &moved[k..], &self.reference)
            };
            let (up, down) = (at(p[j] + h), at(p[j] - h));
            for i in 0..p.len() {
                out.a[i * p.len() + j] = (up[i] - down[i]) / (2.0 * h);
            }
        }
        out
    }

    /// (JᵀWJ)⁻¹ of the variables: their covariance for residuals of variance one.
    pub(super) fn unit_covariance(&self) -> Option<Matrix> {
        let columns = self.problem.jacobian(self.block(), &self.optimum.p);
        let free: Vec<usize> = (0..columns.len()).filter(|j| !self.given.contains(j)).collect();
        let inverse = inverse_gram(free.iter().map(|j| columns[*j].clone()).collect())?;
        let mut out = Matrix::zeros(columns.len());
        for (a, i) in free.iter().enumerate() {
            for (b, j) in free.iter().enumerate() {
                out.a[i * columns.len() + j] = inverse.at(a, b);
            }
        }
        Some(out)
    }

    /// Variance of the law's value at a point, in the measure of the objective, for residuals of variance one.
    pub(super) fn prediction_variance(&self, point: &Inputs) -> Option<f64> {
        let covariance = self.unit_covariance()?;
        let block = Block::new(self.form, point, &[1.0], &[1.0], &self.reference);
        let slopes: Vec<f64> = self.problem.jacobian(&block, &self.optimum.p).iter().map(|column| column[0]).collect();
        Some(quadratic(&covariance, &slopes))
    }

    /// Share of each point in its own fitted value.
    pub(super) fn leverages(&self) -> Option<Vec<f64>> {
        let covariance = self.unit_covariance()?;
        let columns = self.problem.jacobian(self.block(), &self.optimum.p);
        let at = |i: usize| quadratic(&covariance, &columns.iter().map(|column| column[i]).collect::<Vec<_>>());
        Some((0..self.sample.len()).map(at).collect())
    }

    /// Standard errors of the natural parameters for residuals of standard deviation one.
    pub(super) fn unit_errors(&self) -> Option<Vec<f64>> {
        let (covariance, slopes) = (self.unit_covariance()?, self.natural_slopes());
        let n = slopes.n;
        let row = |i: usize| (0..n).map(|a| slopes.at(i, a)).collect::<Vec<_>>();
        let error = |i: usize| quadratic(&covariance, &row(i)).max(0.0).sqrt();
        let out: Vec<f64> = (0..n).map(error).collect();
        out.iter().all(|se| se.is_finite()).then_some(out)
    }

    pub(super) fn law(&self) -> Law {
        Law { form: self.form, parameters: self.natural.clone() }
    }
}

/// The bounds on which an optimum lies, in words.
pub(super) fn bounds(form: &dyn Terms, optimum: &Minimum) -> Vec<String> {
    let k = form.terms().len();
    let word = |j: &usize| {
        if *j < k {
            return format!("{} = 0", form.terms()[*j].name);
        }
        format!("{} = {}", form.shapes()[j - k].name, optimum.p[*j])
    };
    optimum.at_bound.iter().map(word).collect()
}

/// How a minimisation ended.
pub(super) fn status(optimum: &Minimum) -> FitStatus {
    match (optimum.converged, optimum.at_bound.is_empty()) {
        (false, _) => FitStatus::Stuck,
        (true, false) => FitStatus::BoundHit,
        (true, true) => FitStatus::Converged,
    }
}

/// vᵀMv
fn quadratic(m: &Matrix, v: &[f64]) -> f64 {
    (0..m.n).map(|i| (0..m.n).map(|j| v[i] * m.at(i, j) * v[j]).sum::<f64>()).sum()
}

pub(super) fn problem(sample: &Sample, form: &'static dyn Form, objective: Objective, reference: &[f64]) -> Problem {
    let block = Block::new(form, &sample.inputs, &sample.y, &sample.weight, reference);
    Problem::single(block, objective.criterion())
}

/// The objective that Newton steps end at from each of these parameters, in parallel: what a grid of starts gives.
/// Infinite where they end nowhere.
pub fn descend(
    sample: &Sample,
    form: &'static dyn Form,
    objective: Objective,
    starts: &[Vec<f64>],
) -> Result<Vec<f64>, FitError> {
    sample.check(form, 0)?;
    let reference = form.centre(&sample.inputs);
    let problem = problem(sample, form, objective, &reference);
    let one = |natural: &Vec<f64>| {
        let (c, s) = form.internal(natural, &reference);
        let start: Vec<f64> = c.into_iter().chain(s).collect();
        let end = search::descend(&problem, &start, &Held::default(), true);
        objective.reported(&problem, &end.p, end.value)
    };
    Ok(starts.par_iter().map(one).collect())
}

/// The variables of given parameters.
pub(super) fn given_variables(form: &dyn Terms, given: &[Given]) -> Result<Vec<usize>, FitError> {
    let k = form.terms().len();
    let place = |given: &Given| {
        let term = form.terms().iter().position(|term| term.name == given.name && term.direct);
        let shape = || form.shapes().iter().position(|shape| shape.name == given.name).map(|q| k + q);
        term.or_else(shape).ok_or_else(|| FitError::CannotHold { form: form.name(), name: given.name.clone() })
    };
    let variables: Vec<usize> = given.iter().map(place).collect::<Result<_, _>>()?;
    match (0..given.len()).find(|i| variables[..*i].contains(&variables[*i])) {
        Some(twice) => Err(FitError::HeldTwice { name: given[twice].name.clone() }),
        None => Ok(variables),
    }
}

/// The value of a given parameter as the solver counts it, which is within the bounds of the search.
fn held_value(form: &dyn Form, variable: usize, given: &Given, reference: &[f64]) -> Result<f64, FitError> {
    let k = form.terms().len();
    let outside = |lo: f64, hi: f64| FitError::HeldOutside { name: given.name.clone(), value: given.value, lo, hi };
    if variable < k {
        let usable = given.value >= 0.0 && given.value.is_finite();
        return if usable { Ok(given.value) } else { Err(outside(0.0, f64::INFINITY)) };
    }
    let middle: Vec<f64> = form.shapes().iter().map(|shape| (shape.range.0 * shape.range.1).sqrt()).collect();
    let at = form.parameters().iter().position(|name| *name == given.name);
    let natural = |shapes: &[f64]| form.natural(&vec![1.0; k], shapes, reference);
    let (lo, hi) = form.shapes()[variable - k].range;
    let Some(at) = at else { return Ok(given.value) };
    let mut parameters = natural(&middle);
    parameters[at] = given.value;
    let value = form.internal(&parameters, reference).1[variable - k];
    if (lo..=hi).contains(&value) {
        return Ok(value);
    }
    let end = |value: f64| {
        let shapes = middle.iter().enumerate().map(|(q, other)| if k + q == variable { value } else { *other });
        natural(&shapes.collect::<Vec<_>>())[at]
    };
    Err(outside(end(lo), end(hi)))
}

/// A given coefficient is one at inputs of one; otherwise the middle of the data serves better.
fn reference_of(sample: &Sample, form: &dyn Form, given: &[usize]) -> Vec<f64> {
    let scaled = |j: &usize| *j < form.terms().len() && Some(*j) != form.floor();
    if given.iter().any(scaled) { vec![0.0; sample.inputs.columns.len()] } else { form.centre(&sample.inputs) }
}

/// Fits the form of `options` to the points of one group, in any order.
pub fn fit(sample: &Sample, options: &FitOptions) -> Result<Fit, FitError> {
    let (fitted, confirmation) = Fitted::confirmed(sample, options)?;
    describe(&fitted, confirmation, options)
}

/// What there is to say about an optimum.
pub(super) fn describe(
    fitted: &Fitted,
    confirmation: search::Confirmation,
    options: &FitOptions,
) -> Result<Fit, FitError> {
    let sample = fitted.sample;
    let mean = sample.y.iter().sum::<f64>() / sample.len() as f64;
    let sst: f64 = sample.y.iter().map(|y| (y - mean).powi(2)).sum();
    if sst <= 0.0 {
        return Err(FitError::NotDecreasing);
    }
    let law = fitted.law();
    let predicted = law.losses(&sample.inputs);
    let residuals: Vec<f64> = sample.y.iter().zip(&predicted).map(|(y, f)| y - f).collect();
    let bounds = bounds(fitted.form, &fitted.optimum);

    let variance = options.noise.variance().unwrap_or_else(|| fitted.variance());
    // They are those of an optimum inside all bounds.
    let wants_resamples = matches!(options.interval, IntervalMethod::Bootstrap(_));
    let curved = status(&fitted.optimum) == FitStatus::Converged && (!wants_resamples || has_clusters(sample));
    let unit = if curved { fitted.unit_errors() } else { None };
    let robust = fitted.problem.criterion.delta.is_finite();
    let resamples = match options.interval {
        IntervalMethod::Bootstrap(draws) if has_clusters(sample) => Some(bootstrap::pairs(fitted, draws, options)),
        _ => None,
    };
    let mut estimates = Vec::new();
    let profiler = Profiler::new(fitted, options.noise);
    for (i, name) in options.form.parameters().iter().enumerate() {
        let value = fitted.natural[i];
        if options.given.iter().any(|given| given.name == *name) {
            estimates.push(Estimate { name, value, se: None, interval: None });
            continue;
        }
        let analytic = unit.as_ref().map(|unit| unit[i] * variance.sqrt());
        let (se, interval) = match (&resamples, options.interval) {
            (Some(resamples), _) => (resamples.error(i), Some(resamples.interval(i))),
            (None, IntervalMethod::Wald) => {
                (analytic, analytic.map(|se| interval::wald(value, se, options.noise.freedom(fitted))))
            }
            (None, IntervalMethod::Profile) if options.objective != Objective::AbsoluteDeviation => {
                (analytic, Target::parameter(fitted, name).map(|target| profiler.interval(&target, analytic)))
            }
            // No standard error of a robust fit without a bootstrap agrees with one.
            _ => (analytic.filter(|_| !robust), None),
        };
        estimates.push(Estimate { name, value, se, interval });
    }
    let predictions = options.predictions.iter().map(|inputs| {
        let loss = law.loss(inputs);
        let interval = match (&resamples, options.interval) {
            (Some(resamples), _) => Some(resamples.prediction(inputs)),
            (None, IntervalMethod::Profile) if options.objective != Objective::AbsoluteDeviation => {
                Target::prediction(fitted, inputs).map(|target| profiler.interval(&target, None))
            }
            _ => None,
        };
        Prediction { inputs: inputs.clone(), loss, interval }
    });
    let predictions = predictions.collect();
    let freedom = fitted.freedom();
    // In the measure of the objective.
    let measured = fitted.residuals();
    let squares: f64 = measured.iter().map(|r| r * r).sum();
    let sse: f64 = residuals.iter().map(|r| r * r).sum();
    let floor = options.form.floor_name();
    let floor_at = floor.and_then(|name| options.form.parameters().iter().position(|p| *p == name));
    let weighted_sd = fitted.variance().sqrt();
    Ok(Fit {
        n: sample.len(),
        status: status(&fitted.optimum),
        bounds,
        objective: options.objective.reported(&fitted.problem, &fitted.optimum.p, fitted.optimum.value),
        estimates,
        exact: fitted.optimum.value <= fitted.problem.rounding(),
        r2: 1.0 - sse / sst,
        residual_sd: if robust { (squares / freedom).sqrt() } else { weighted_sd },
        spread: Spread::of(&measured, fitted.problem.criterion.delta),
        residuals,
        kappa: unit.and_then(|unit| Some(unit[floor_at?])).filter(|_| !robust && weighted_sd > 0.0),
        left_out: floor.filter(|_| options.leave_one_out).and_then(|name| leave_one_out(fitted, name, &options.given)),
        aicc: (!robust)
            .then(|| aicc(2.0 * fitted.optimum.value, sample.len(), sample.len() - freedom as usize))
            .flatten(),
        certificate: certificate(&fitted.problem, &fitted.optimum, &fitted.given, confirmation),
        resamples,
        predictions,
        law,
    })
}

/// How sure it is that this is the optimum of one group, of which the variables `given` are not fitted.
pub(super) fn certificate(
    problem: &Problem,
    optimum: &Minimum,
    given: &[usize],
    confirmation: search::Confirmation,
) -> Certificate {
    let (gradient, hessian) = curvature(problem, optimum, given);
    let gradient = gradient.iter().map(|slope| slope.powi(2)).sum::<f64>().sqrt();
    let values = hessian.eigenvalues();
    let (smallest, largest) = (values.first().copied().unwrap_or(1.0), values.last().copied().unwrap_or(1.0));
    Certificate {
        gradient,
        decrement: optimum.decrement,
        smallest_curvature: smallest,
        condition: if smallest > 0.0 { largest / smallest } else { f64::INFINITY },
        starts: confirmation.starts,
        reached: confirmation.reached,
    }
}

/// Gradient and Hessian of the objective at an optimum, by the logarithm of each coefficient and by each shape, which makes
/// the numbers comparable; of the variables that are neither `given` nor on a bound, in their order.
pub(super) fn curvature(problem: &Problem, optimum: &Minimum, given: &[usize]) -> (Vec<f64>, Matrix) {
    let mut derivatives = Default::default();
    problem.derivatives(&optimum.p, problem.criterion.delta, &mut derivatives);
    let k = problem.blocks[0].form.terms().len();
    let unit = |j: usize| if j < k { optimum.p[j] } else { 1.0 };
    let is_free = |j: &usize| !optimum.at_bound.contains(j) && !given.contains(j);
    let free: Vec<usize> = (0..optimum.p.len()).filter(is_free).collect();
    let mut hessian = derivatives.hessian.part(&free);
    for (a, i) in free.iter().enumerate() {
        for (b, j) in free.iter().enumerate() {
            hessian.a[a * free.len() + b] *= unit(*i) * unit(*j);
        }
    }
    (free.iter().map(|j| derivatives.gradient[*j] * unit(*j)).collect(), hessian)
}

/// Whether resamples can differ: a single cluster would be drawn again and again.
fn has_clusters(sample: &Sample) -> bool {
    sample.cluster.iter().any(|cluster| *cluster != sample.cluster[0])
}

/// Akaike's criterion with its correction for few points (Hurvich and Tsai 1989, doi:10.1093/biomet/76.2.297) of a sum S of
/// squares over n points: n ln(S/n) + 2K + 2K(K + 1)/(n - K - 1), where K counts the parameters and the variance.
///
/// `None` where the correction is larger than what it corrects, with fewer than 2(K + 1) points: it then forbids parameters
/// whatever the data say.
fn aicc(squares: f64, n: usize, parameters: usize) -> Option<f64> {
    let counted = parameters + 1;
    if n < 2 * (counted + 1) || squares <= 0.0 {
        return None;
    }
    let (n, k) = (n as f64, counted as f64);
    Some(n * (squares / n).ln() + 2.0 * k + 2.0 * k * (k + 1.0) / (n - k - 1.0))
}

/// Range of the floor over fits that each lack one point, where enough are left to fit.
fn leave_one_out(fitted: &Fitted, floor: &str, given: &[Given]) -> Option<LeftOut> {
    let (form, n) = (fitted.form, fitted.sample.len());
    if given.iter().any(|given| given.name == floor) || n + given.len() < form.size() + 2 {
        return None;
    }
    let at = form.parameters().iter().position(|name| *name == floor)?;
    let floor_without = |i: usize| {
        let rest = fitted.sample.without(i);
        let fit = if n <= LEAVE_OUT_GRID {
            Fitted::with_given(&rest, form, fitted.objective, given)
        } else {
            fitted.near(&rest)
        };
        fit.map(|fit| fit.natural[at]).ok()
    };
    let floors: Vec<f64> = (0..n).filter_map(floor_without).collect();
    let least = floors.iter().copied().reduce(f64::min)?;
    let most = floors.iter().copied().reduce(f64::max)?;
    Some(LeftOut { least, most, without_fit: n - floors.len() })
}

impl Noise {
    /// The variance, where it is known from elsewhere.
    pub(super) fn variance(self) -> Option<f64> {
        match self {
            Self::FromResiduals => None,
            Self::Known { sd, .. } => Some(sd * sd),
        }
    }

    /// Degrees of freedom of the variance.
    pub(super) fn freedom(self, fitted: &Fitted) -> f64 {
        match self {
            Self::FromResiduals => fitted.freedom(),
            Self::Known { freedom, .. } => freedom.unwrap_or(f64::INFINITY),
        }
    }
}

impl Law {
    /// The loss at each of these points.
    pub fn losses(&self, inputs: &Inputs) -> Vec<f64> {
        let form = self.form;
        let k = form.terms().len();
        let reference = form.centre(inputs);
        let (coefficients, shapes) = form.internal(&self.parameters, &reference);
        let design = form.design(inputs, &reference);
        let mut out = vec![0.0; inputs.len()];
        for (t, c) in coefficients.iter().enumerate().take(k) {
            let mut term = super::forms::TermValues::new(form.terms()[t].depends.len(), inputs.len());
            if Some(t) != form.floor() {
                design.term(t, &shapes, false, &mut term);
            }
            super::solver::vector::add_scaled(*c, &term.value, &mut out);
        }
        out
    }

    /// The loss at one point, given as its inputs.
    pub fn loss(&self, inputs: &[f64]) -> f64 {
        self.losses(&Inputs::point(inputs))[0]
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<f64> {
        self.form.parameters().iter().position(|p| *p == name).map(|at| self.parameters[at])
    }

    /// The fitted floor, of a form that has one.
    pub fn floor(&self) -> Option<f64> {
        self.parameter(self.form.floor_name()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aicc_is_given_where_there_are_points_enough() {
        // n = 10, three parameters and the variance: 10 ln(0.5/10) + 8 + 40/5.
        let expected = 10.0 * 0.05_f64.ln() + 16.0;
        assert!((aicc(0.5, 10, 3).unwrap() - expected).abs() < 1e-12);
        assert_eq!(aicc(0.5, 9, 3), None);
        assert_eq!(aicc(0.0, 10, 3), None);
    }

    #[test]
    fn where_no_optimum_is_reached_there_are_no_standard_errors() {
        let noise = [1.0, -2.0, 0.5, 1.5, -1.0, -0.5, 2.0, -1.5];
        let point = |(i, e): (usize, &f64)| {
            let x = 10f64.powf(18.0 + 0.4 * i as f64);
            (x, 2.0 + 100.0 * x.powf(-0.1) + 1e-3 * e)
        };
        let sample = Sample::of_pairs(noise.iter().enumerate().map(point));
        let options = FitOptions::new(super::super::forms::power_floor());
        let (mut fitted, confirmation) = Fitted::confirmed(&sample, &options).unwrap();
        let errors = |fit: &Fit| fit.estimates.iter().filter(|estimate| estimate.se.is_some()).count();
        let fit = describe(&fitted, confirmation, &options).unwrap();
        assert_eq!((fit.status, errors(&fit), fit.kappa.is_some()), (FitStatus::Converged, 3, true));
        fitted.optimum.converged = false;
        let fit = describe(&fitted, confirmation, &options).unwrap();
        assert_eq!((fit.status, errors(&fit), fit.kappa), (FitStatus::Stuck, 0, None));
    }
}
