//! What a set of runs can tell before any of them is run: by how much it magnifies the noise of one loss into noise of
//! each parameter, if the law is the one supposed.
//!
//! To first order the covariance of the parameters is σ²(JᵀJ)⁻¹, where J is the Jacobian of the law at the runs, so
//! that everything here is a property of the inputs alone and scales with the noise σ of one loss.

use super::conditioning::of_gram;
use super::fit::{Fitted, problem};
use super::forms::{FLOPS_PER_PARAMETER_TOKEN, Form, Input, Inputs};
use super::interval::t_quantile;
use super::solver::Minimum;
use super::{Law, Objective, Sample, ends};
use statrs::function::gamma::ln_gamma;

/// Tokens per parameter that differ by less than this factor over all runs are nearly constant. Which factor a given
/// accuracy needs depends on the exponents; the condition number says it for the design at hand.
const DIVERSE: f64 = 2.0;
/// A difference is resolved when it is as large as this many of its standard errors.
const RESOLVED: f64 = 2.0;
/// The most points and the most decades that [`resolve`] considers.
const MOST_POINTS: usize = 100_000;
const MOST_DECADES: f64 = 15.0;

/// Runs that could be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Inputs of each point.
    pub inputs: Inputs,
    /// Runs at each point, with different seeds.
    pub repeats: Vec<usize>,
}

impl Proposal {
    /// One run at each point; one column for each of the form's inputs.
    pub fn new(columns: Vec<Vec<f64>>) -> Self {
        let n = columns.first().map_or(0, Vec::len);
        Self { inputs: Inputs { columns }, repeats: vec![1; n] }
    }

    /// One run at each of `points` scales in geometric progression over `decades` from the smallest.
    pub fn spaced(from: f64, decades: f64, points: usize) -> Self {
        let last = points.saturating_sub(1).max(1) as f64;
        Self::new(vec![(0..points).map(|i| from * 10f64.powf(decades * i as f64 / last)).collect()])
    }

    /// The same points with `times` as many runs at each.
    pub fn repeated(mut self, times: usize) -> Self {
        self.repeats.iter_mut().for_each(|repeats| *repeats *= times);
        self
    }

    /// With one more run.
    pub fn with(&self, point: &[f64]) -> Self {
        let mut out = self.clone();
        out.inputs.columns.iter_mut().zip(point).for_each(|(column, value)| column.push(*value));
        out.repeats.push(1);
        out
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.repeats.iter().sum()
    }

    /// Inputs of point `i`.
    pub fn point(&self, i: usize) -> Vec<f64> {
        self.inputs.columns.iter().map(|column| column[i]).collect()
    }

    /// Inputs of every run, one entry for each repetition.
    pub fn every_run(&self) -> Inputs {
        let at: Vec<usize> = self.repeats.iter().enumerate().flat_map(|(i, k)| std::iter::repeat_n(i, *k)).collect();
        self.inputs.pick(&at)
    }

    /// What all runs cost together, in the unit of [`cost`].
    pub fn cost(&self, form: &dyn Form) -> f64 {
        self.repeats.iter().enumerate().map(|(i, repeats)| *repeats as f64 * cost(form, &self.point(i))).sum()
    }

    /// The smallest and largest tokens per parameter, of a law of both.
    pub fn tokens_per_parameter(&self, form: &dyn Form) -> Option<(f64, f64)> {
        let at = |input: Input| form.inputs().iter().position(|i| *i == input);
        let (n, d) = (at(Input::Parameters)?, at(Input::Tokens)?);
        let ratios = self.inputs.columns[n].iter().zip(&self.inputs.columns[d]).map(|(n, d)| d / n);
        Some(ratios.fold((f64::INFINITY, 0.0), |(lo, hi): (f64, f64), ratio| (lo.min(ratio), hi.max(ratio))))
            .filter(|(lo, hi)| lo <= hi)
    }
}

/// What one run costs: FLOPs 6·N·D for a law of parameters and tokens, otherwise its scale x.
pub fn cost(form: &dyn Form, point: &[f64]) -> f64 {
    let at = |input: Input| form.inputs().iter().position(|i| *i == input).map(|at| point[at]);
    match (at(Input::Parameters), at(Input::Tokens)) {
        (Some(n), Some(d)) => FLOPS_PER_PARAMETER_TOKEN * n * d,
        _ => point.first().copied().unwrap_or(f64::NAN),
    }
}

/// A parameter as a design would determine it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Its letter.
    pub name: &'static str,
    /// Its supposed value.
    pub value: f64,
    /// se/σ.
    pub magnification: f64,
}

/// What a design can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Runs.
    pub runs: usize,
    /// Runs less parameters: what is left to estimate the noise from.
    pub freedom: f64,
    /// The law's parameters in the order of its formula.
    pub parameters: Vec<Outlook>,
    /// κ = se(floor)/σ, of a form that has one.
    pub kappa: Option<f64>,
    /// Condition number of JᵀJ by the logarithm of each coefficient and by each shape, as in a fit's certificate.
    pub condition: f64,
    /// The smallest and largest tokens per parameter, of a law of both.
    pub tokens_per_parameter: Option<(f64, f64)>,
}

impl Assessment {
    /// Whether parameters and tokens rise together, so that their two terms can hardly be told apart: the condition
    /// number of such a design grows as an inverse power of α - β (Kricheli et al. 2026, arXiv:2605.08541).
    pub fn is_collinear(&self) -> bool {
        self.tokens_per_parameter.is_some_and(|(lo, hi)| hi < DIVERSE * lo)
    }

    /// Expected width of the 95 % interval of a quantity: Wald with Student's t where the noise `sd` has to be
    /// estimated from the residuals, the normal one where it is `known`. `None` without a degree of freedom to estimate
    /// it from.
    pub fn width(&self, magnification: f64, sd: f64, known: bool) -> Option<f64> {
        let se = magnification * sd;
        if known {
            return Some(2.0 * t_quantile(f64::INFINITY) * se);
        }
        (self.freedom > 0.0).then(|| 2.0 * t_quantile(self.freedom) * se * mean_of_sd(self.freedom))
    }
}

/// The mean of an estimated standard deviation with `freedom` degrees, as a share of the true one.
fn mean_of_sd(freedom: f64) -> f64 {
    (2.0 / freedom).sqrt() * (ln_gamma(0.5 * (freedom + 1.0)) - ln_gamma(0.5 * freedom)).exp()
}

/// What `proposal` can tell if `law` is true; `None` when its runs do not determine every parameter. The noise is that
/// of the loss, or of its logarithm where the objective is one of logarithms.
pub fn assess(law: &Law, proposal: &Proposal, objective: Objective) -> Option<Assessment> {
    let form = law.form;
    let sample = Sample {
        weight: proposal.repeats.iter().map(|repeats| *repeats as f64).collect(),
        ..Sample::new(proposal.inputs.columns.clone(), law.losses(&proposal.inputs))
    };
    let reference = form.centre(&sample.inputs);
    let (coefficients, shapes) = form.internal(&law.parameters, &reference);
    let k = coefficients.len();
    // A coefficient of nothing is replaced by next to nothing, because errors exist on either side of it only then.
    let size = sample.y.iter().sum::<f64>() / sample.len().max(1) as f64;
    let p: Vec<f64> = coefficients.into_iter().map(|c| c.max(1e-9 * size)).chain(shapes).collect();
    let problem = problem(&sample, form, objective, &reference);
    let fitted = Fitted {
        sample: &sample,
        form,
        objective,
        natural: form.natural(&p[..k], &p[k..], &reference),
        reference,
        problem,
        optimum: Minimum { p, converged: true, ..Minimum::default() },
        given: Vec::new(),
    };
    let magnification = fitted.unit_errors()?;
    let floor = form.floor_name();
    let parameters: Vec<Outlook> = form
        .parameters()
        .iter()
        .zip(&law.parameters)
        .zip(magnification)
        .map(|((name, value), magnification)| Outlook { name, value: *value, magnification })
        .collect();
    Some(Assessment {
        runs: proposal.runs(),
        freedom: proposal.runs() as f64 - form.size() as f64,
        kappa: parameters.iter().find(|p| Some(p.name) == floor).map(|p| p.magnification),
        parameters,
        condition: condition(&fitted),
        tokens_per_parameter: proposal.tokens_per_parameter(form),
    })
}

/// The condition of JᵀJ by the logarithm of each coefficient and by each shape.
fn condition(fitted: &Fitted) -> f64 {
    let p = &fitted.optimum.p;
    let k = fitted.form.terms().len();
    let mut columns = fitted.problem.jacobian(fitted.block(), p);
    for (column, c) in columns.iter_mut().zip(&p[..k]) {
        column.iter_mut().for_each(|value| *value *= c);
    }
    of_gram(columns)
}

/// se(floor)/σ of a design.
pub fn kappa(law: &Law, proposal: &Proposal, objective: Objective) -> Option<f64> {
    assess(law, proposal, objective)?.kappa
}

/// κ of log-spaced designs of a law of one scale: a row for each number of decades, a column for each number of points.
pub fn table(law: &Law, from: f64, decades: &[f64], points: &[usize], objective: Objective) -> Vec<Vec<Option<f64>>> {
    let cell = |decades: f64, points: usize| kappa(law, &Proposal::spaced(from, decades, points), objective);
    decades.iter().map(|decades| points.iter().map(|points| cell(*decades, *points)).collect()).collect()
}

/// What it would take to tell two floors apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolution {
    /// The difference of two floors.
    pub difference: f64,
    /// The κ that resolves it with the noise at hand.
    pub kappa: f64,
    /// The noise of one loss with which the design at hand resolves it.
    pub sd: f64,
    /// By how many times the runs at each point have to be repeated.
    pub repeats: f64,
    /// How many log-spaced points over the same range resolve it, of a law of one scale, if any number does.
    pub points: Option<usize>,
    /// Over how many decades from the smallest scale as many points resolve it.
    pub decades: Option<f64>,
}

/// What resolves a `difference` of the floors of two architectures, each with this design and independent noise `sd`: a
/// difference of two of its standard errors, which are √2·κ·σ. `None` for a form without a floor.
pub fn resolve(law: &Law, proposal: &Proposal, sd: f64, difference: f64, objective: Objective) -> Option<Resolution> {
    let now = kappa(law, proposal, objective)?;
    let needed = difference / (RESOLVED * std::f64::consts::SQRT_2 * sd);
    let mut out = Resolution {
        difference,
        kappa: needed,
        sd: sd * needed / now,
        repeats: (now / needed).powi(2).max(1.0),
        points: None,
        decades: None,
    };
    let [x] = &proposal.inputs.columns[..] else { return Some(out) };
    let (lo, hi) = ends(x);
    let range = (hi / lo).log10();
    let enough = |decades: f64, points: usize| {
        kappa(law, &Proposal::spaced(lo, decades, points), objective).is_some_and(|kappa| kappa <= needed)
    };
    let fewest = law.form.size() + 1;
    out.points = (range > 0.0).then(|| least(fewest, MOST_POINTS, |points| enough(range, points))).flatten();
    // In steps of a hundredth of a decade.
    let points = x.len().max(fewest);
    let steps = least(1, (100.0 * MOST_DECADES) as usize, |step| enough(step as f64 / 100.0, points));
    out.decades = steps.map(|steps| steps as f64 / 100.0);
    Some(out)
}

/// The smallest number in a range that is enough, where every larger one is enough too.
fn least(from: usize, to: usize, enough: impl Fn(usize) -> bool) -> Option<usize> {
    if enough(from) {
        return Some(from);
    }
    let (mut low, mut high) = (from, from);
    while !enough(high) {
        low = high;
        high = (2 * high).min(to);
        if low == high {
            return None;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// One more run.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Its inputs.
    pub point: Vec<f64>,
    /// What it costs, in the unit of [`cost`].
    pub cost: f64,
    /// κ with it and those before.
    pub kappa: f64,
}

/// The `count` next runs out of `candidates`, each the one that shrinks κ most once those before it are made, as long
/// as all of them together cost no more than `budget`. A candidate may come more than once. Ends early when nothing is
/// left to afford; empty for a form without a floor.
pub fn additions(
    law: &Law,
    proposal: &Proposal,
    candidates: &[Vec<f64>],
    (count, budget): (usize, Option<f64>),
    objective: Objective,
) -> Vec<Addition> {
    let mut now = proposal.clone();
    let mut left = budget.unwrap_or(f64::INFINITY);
    let mut out = Vec::new();
    for _ in 0..count {
        let affordable = candidates.iter().filter(|point| cost(law.form, point) <= left);
        let addition = |point: &Vec<f64>| {
            let kappa = kappa(law, &now.with(point), objective)?;
            Some(Addition { cost: cost(law.form, point), point: point.clone(), kappa })
        };
        let best = affordable.filter_map(addition).min_by(|a, b| a.kappa.total_cmp(&b.kappa));
        let Some(best) = best else { break };
        left -= best.cost;
        now = now.with(&best.point);
        out.push(best);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{FitOptions, IntervalMethod, fit, forms};

    /// The published SambaY series: x in figure FLOPs and the law fitted to it.
    fn samba_y() -> (Vec<f64>, Law) {
        let text = include_str!("../../tests/data/published_scaling.csv");
        let rows = text.lines().filter(|line| line.starts_with("flops: SambaY muP++,"));
        let number = |line: &str, at: usize| line.split(',').nth(at).unwrap().parse::<f64>().unwrap();
        let points: Vec<(f64, f64)> = rows.map(|line| (number(line, 3), number(line, 4))).collect();
        let options = FitOptions { interval: IntervalMethod::None, ..FitOptions::new(forms::power_floor()) };
        let law = fit(&Sample::of_pairs(points.iter().copied()), &options).unwrap().law;
        (points.into_iter().map(|(x, _)| x).collect(), law)
    }

    /// Section 5.3 of the specification, to its printed digits. κ depends on the exponent and the decades alone; the
    /// table takes the exponent as printed, and was rounded twice, first to one decimal.
    #[test]
    fn kappa_table_of_the_specification() {
        let law = Law { form: forms::power_floor(), parameters: vec![39.79, 0.0694, 0.5847] };
        let fitted = samba_y().1;
        let at = |law: &Law| kappa(law, &Proposal::spaced(9.122611e18, 2.86, 5), Objective::LeastSquares).unwrap();
        assert!((at(&law) / at(&fitted) - 1.0).abs() < 2e-3);
        let points = [4, 5, 6, 8, 10, 20];
        let rows = [
            (1.5, [157.0, 149.0, 143.0, 132.0, 123.0, 95.0]),
            (2.0, [89.0, 84.0, 80.0, 74.0, 69.0, 54.0]),
            (2.86, [44.0, 41.0, 40.0, 36.0, 34.0, 26.0]),
            (4.0, [23.0, 21.0, 20.0, 19.0, 18.0, 14.0]),
            (5.0, [15.0, 14.0, 13.0, 12.0, 11.0, 9.0]),
            (6.0, [10.0, 10.0, 9.0, 9.0, 8.0, 6.0]),
        ];
        let decades: Vec<f64> = rows.iter().map(|(decades, _)| *decades).collect();
        let table = table(&law, 9.122611e18, &decades, &points, Objective::LeastSquares);
        for ((decades, expected), row) in rows.iter().zip(table) {
            let rounded: Vec<f64> = row.iter().map(|kappa| ((10.0 * kappa.unwrap()).round() / 10.0).round()).collect();
            assert_eq!(rounded, expected, "{decades} decades: {row:?}");
        }
    }

    /// "Adding d = 4 to the paper's five depths takes κ from 42 to 15"; compute goes as the sixth power of the depth.
    #[test]
    fn a_smaller_model_helps_more_than_any_other() {
        let (x, law) = samba_y();
        let paper = Proposal::new(vec![x.clone()]);
        let before = kappa(&law, &paper, Objective::LeastSquares).unwrap();
        let depth = |d: f64| vec![x[0] * (d / 8.0).powi(6)];
        let candidates: Vec<Vec<f64>> = [4.0, 8.0, 12.0, 16.0, 20.0, 24.0].map(depth).to_vec();
        let best = &additions(&law, &paper, &candidates, (1, None), Objective::LeastSquares)[0];
        assert_eq!((before.round(), best.kappa.round(), &best.point), (42.0, 15.0, &candidates[0]));
        // What cannot be afforded is not suggested.
        assert!(additions(&law, &paper, &candidates, (1, Some(1e15)), Objective::LeastSquares).is_empty());
    }

    /// "To resolve ΔC = 0.02 at 2 sd with σ = 0.001 and unpaired noise needs κ ≲ 7."
    #[test]
    fn what_resolves_a_difference_does() {
        let (x, law) = samba_y();
        let paper = Proposal::new(vec![x.clone()]);
        let r = resolve(&law, &paper, 1e-3, 0.02, Objective::LeastSquares).unwrap();
        assert_eq!(r.kappa.round(), 7.0);
        let at = |proposal: &Proposal| kappa(&law, proposal, Objective::LeastSquares).unwrap();
        let range = (x[4] / x[0]).log10();
        let points = r.points.unwrap();
        assert!(at(&Proposal::spaced(x[0], range, points)) <= r.kappa);
        assert!(at(&Proposal::spaced(x[0], range, points - 1)) > r.kappa);
        let decades = r.decades.unwrap();
        assert!(at(&Proposal::spaced(x[0], decades, 5)) <= r.kappa && decades < 8.0);
        assert!(at(&paper.repeated(r.repeats.ceil() as usize)) <= r.kappa);
    }

    /// Runs at one ratio of tokens to parameters determine the two terms badly, and the more so the closer the
    /// exponents.
    #[test]
    fn constant_tokens_per_parameter_is_collinear() {
        let law = |beta: f64| Law { form: forms::chinchilla(), parameters: vec![480.0, 2100.0, 1.82, 0.35, beta] };
        let n: Vec<f64> = (0..8).map(|i| 1e8 * 2f64.powi(i)).collect();
        let ray = Proposal::new(vec![n.clone(), n.iter().map(|n| 20.0 * n).collect()]);
        let spread = n.iter().enumerate().map(|(i, n)| [5.0, 20.0, 80.0][i % 3] * n).collect();
        let spread = Proposal::new(vec![n, spread]);
        let of = |beta: f64, design: &Proposal| assess(&law(beta), design, Objective::LogLeastSquares).unwrap();
        assert!(of(0.37, &ray).is_collinear() && !of(0.37, &spread).is_collinear());
        assert!(of(0.37, &ray).condition > 100.0 * of(0.37, &spread).condition);
        // The columns of the two coefficients and the two exponents approach a function and its slope, twice: what is
        // left of the last one is of third order in the gap, of sixth in JᵀJ.
        let growth = of(0.36, &ray).condition / of(0.37, &ray).condition;
        assert!(
            (50.0..80.0).contains(&growth),
            "halving the gap of the exponents multiplied the condition by {growth}"
        );
    }
}
