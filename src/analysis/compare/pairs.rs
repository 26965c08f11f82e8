//! Two groups at a time.

use super::joint::{Joint, Shared};
use super::{CompareGroup, f_test, separate};
use crate::analysis::fit::Fitted;
use crate::analysis::forms::{Form, Input};
use crate::analysis::interval::{Profiler, Target, crossing, f_quantile, t_quantile, wald};
use crate::analysis::solver::{Held, newton};
use crate::analysis::{ConfidenceInterval, Law, Noise, Row};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The floors of two groups.
#[derive(Clone, Debug, PartialEq)]
pub struct PairTest {
    /// The group whose floor is taken away.
    pub baseline: String,
    /// The other.
    pub group: String,
    /// Floor of the group minus floor of the baseline.
    pub difference: f64,
    /// Profile interval of the difference.
    pub interval: ConfidenceInterval,
    /// F of the test that both are equal.
    pub statistic: f64,
    /// Its degrees of freedom.
    pub freedom: (f64, f64),
    /// Its p.
    pub p: f64,
    /// p after Holm's correction for all pairs.
    pub p_holm: f64,
    /// Why nothing is claimed whatever p says: a floor that is not bounded from below, a test without an optimum.
    pub no_claim: Option<String>,
    /// Of the fits that leave out one budget of both groups: how many have a difference of the same sign, of how many.
    pub same_sign: (usize, usize),
    /// The difference when both groups share their exponents.
    pub with_shared_shapes: f64,
}

/// Losses of two groups at equal budgets.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// The group whose loss is taken away.
    pub baseline: String,
    /// The other.
    pub group: String,
    /// Budget by budget.
    pub points: Vec<PairedPoint>,
    /// Mean difference.
    pub mean: f64,
    /// Its interval by Student's t; none from a single budget.
    pub interval: Option<ConfidenceInterval>,
    /// p of a mean of zero.
    pub p: Option<f64>,
}

/// Two losses at one budget; of several runs of a group there, their mean.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedPoint {
    /// The inputs of the baseline.
    pub inputs: Vec<f64>,
    /// Loss of the baseline.
    pub baseline: f64,
    /// Loss of the group minus that.
    pub difference: f64,
}

/// How many times the scale a baseline needs to reach the loss of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Multiplier {
    /// The group that needs more when the multiplier is above one.
    pub baseline: String,
    /// The other.
    pub group: String,
    /// The loss.
    pub loss: f64,
    /// x of the baseline over x of the group.
    pub multiplier: f64,
    /// Its profile interval.
    pub interval: ConfidenceInterval,
}

/// By how much one input counts for more in a group than in the baseline when floor and exponents are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Efficiency {
    /// The group whose input counts once.
    pub baseline: String,
    /// The other.
    pub group: String,
    /// The parameter that differs.
    pub term: &'static str,
    /// The multiplier of the input.
    pub efficiency: f64,
    /// Its interval, from the standard error of its logarithm.
    pub interval: Option<ConfidenceInterval>,
}

fn all_pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |a| (a + 1..n).map(move |b| (a, b)))
}

/// For each budget that two groups have in common, which of their rows are of it: rows that say the same in the column of
/// pairs or, where there is none, have the same inputs. An empty cell is no budget.
fn common_budgets(one: &[Row], other: &[Row]) -> Vec<[Vec<usize>; 2]> {
    let same = |a: &Row, b: &Row| match (&a.pair, &b.pair) {
        (Some(a), Some(b)) => a == b && !a.trim().is_empty(),
        _ => a.inputs.iter().zip(&b.inputs).all(|(x, y)| (x / y - 1.0).abs() < 1e-6),
    };
    let mut out: Vec<[Vec<usize>; 2]> = Vec::new();
    for (i, row) in one.iter().enumerate() {
        if let Some(known) = out.iter_mut().find(|[first, _]| same(row, &one[first[0]])) {
            known[0].push(i);
            continue;
        }
        let others: Vec<usize> = (0..other.len()).filter(|j| same(row, &other[*j])).collect();
        if !others.is_empty() {
            out.push([vec![i], others]);
        }
    }
    out
}

/// Tests of equal floors. The rows of `groups` are those of `rows`, in their order.
pub(super) fn tests(groups: &[&Fitted], names: &[String], rows: &[&CompareGroup]) -> Vec<PairTest> {
    let Some(floor) = groups[0].form.floor() else { return Vec::new() };
    let name = groups[0].form.terms()[floor].name;
    let is_open = |group: &&Fitted| {
        let profiler = Profiler::new(group, Noise::FromResiduals);
        Target::parameter(group, name).is_none_or(|target| profiler.interval(&target, None).lo.is_none())
    };
    let open: Vec<bool> = groups.iter().map(is_open).collect();
    let no_claim = |(a, b): (usize, usize)| {
        let unbounded: Vec<&str> = [a, b].into_iter().filter(|g| open[*g]).map(|g| &*names[g]).collect();
        (!unbounded.is_empty()).then(|| format!("{name} of {} is not bounded from below", unbounded.join(" and ")))
    };
    let one = |(a, b): (usize, usize)| {
        let budgets = common_budgets(&rows[a].rows, &rows[b].rows);
        let test = test(groups, names, (a, b), floor, &budgets);
        PairTest { no_claim: no_claim((a, b)).or(test.no_claim.clone()), ..test }
    };
    let mut out: Vec<PairTest> = all_pairs(groups.len()).map(one).collect();
    // Holm: the smallest p times the number of tests, the next times one fewer, never falling.
    let mut order: Vec<usize> = (0..out.len()).collect();
    order.sort_by(|a, b| out[*a].p.total_cmp(&out[*b].p));
    let mut largest: f64 = 0.0;
    for (rank, at) in order.iter().enumerate() {
        largest = largest.max((out[*at].p * (order.len() - rank) as f64).min(1.0));
        out[*at].p_holm = largest;
    }
    out
}

fn test(
    groups: &[&Fitted],
    names: &[String],
    (a, b): (usize, usize),
    floor: usize,
    budgets: &[[Vec<usize>; 2]],
) -> PairTest {
    let pair = [groups[a], groups[b]];
    let own = separate(&pair);
    let joint = Joint::new(&pair, Shared::Floor);
    let (statistic, p) = f_test(2.0 * joint.optimum.value, own, 1.0);
    let difference = pair[1].optimum.p[floor] - pair[0].optimum.p[floor];
    let shared = Joint::new(&pair, Shared::Shapes);
    PairTest {
        baseline: names[a].clone(),
        group: names[b].clone(),
        difference,
        interval: difference_interval(&pair, floor, difference, own),
        statistic,
        freedom: (1.0, own.1),
        p,
        p_holm: p,
        no_claim: (!joint.optimum.converged).then(|| "the fit of both with one floor reached no optimum".to_owned()),
        same_sign: same_sign(&pair, floor, difference, budgets),
        with_shared_shapes: shared.of_group(1)[floor] - shared.of_group(0)[floor],
    }
}

/// Profile interval of the second floor minus the first: both groups with one floor, the second shifted.
fn difference_interval(pair: &[&Fitted; 2], floor: usize, best: f64, own: (f64, f64)) -> ConfidenceInterval {
    let (mut problem, starts) = Joint::problem(pair, Shared::Floor);
    let rise = 0.5 * own.0 / own.1 * f_quantile(own.1);
    if rise <= 0.0 {
        return ConfidenceInterval { lo: Some(best), hi: Some(best) };
    }
    let place = problem.blocks[0].map[floor];
    let z = |from: &mut Vec<f64>, problem: &mut crate::analysis::solver::Problem, d: f64| {
        problem.blocks[1].offset = d;
        problem.bounds[place] = ((-d).max(0.0), f64::INFINITY);
        let minimum = newton::minimise(problem, from, &Held::default());
        *from = minimum.p;
        ((minimum.value - 0.5 * own.0).max(0.0) / rise).sqrt()
    };
    let largest: f64 = pair.iter().flat_map(|g| &g.sample.y).fold(0.0, |m: f64, y| m.max(*y));
    let mut end = |direction: f64| {
        let mut from = starts[0].clone();
        crossing(best, direction * 0.05 * largest, direction * largest, |d| z(&mut from, &mut problem, d))
    };
    ConfidenceInterval { lo: end(-1.0), hi: end(1.0) }
}

/// Of the fits without one budget: how many keep the sign of the difference. Of groups without a common budget, the points
/// at one place in the order of their first input stand for one.
fn same_sign(pair: &[&Fitted; 2], floor: usize, difference: f64, budgets: &[[Vec<usize>; 2]]) -> (usize, usize) {
    let form = pair[0].form;
    let [one, other] = pair.map(|g| g.sample.order_by(0));
    let by_rank: Vec<[Vec<usize>; 2]> = one.into_iter().zip(other).map(|(i, j)| [vec![i], vec![j]]).collect();
    let budgets = if budgets.is_empty() { &by_rank } else { budgets };
    let sign = |budget: &[Vec<usize>; 2]| {
        let floor_of = |g: usize| {
            let sample = &pair[g].sample;
            let rest = sample.pick(&(0..sample.len()).filter(|i| !budget[g].contains(i)).collect::<Vec<_>>());
            // As many points as parameters have to be left: the curve may go through all of them.
            let minimum = (rest.len() >= form.size()).then(|| pair[g].near_any(&rest))??;
            Some(minimum.p[floor])
        };
        Some((floor_of(1)? - floor_of(0)?) * difference > 0.0)
    };
    let signs: Vec<bool> = budgets.iter().filter_map(sign).collect();
    (signs.iter().filter(|same| **same).count(), signs.len())
}

/// Differences at equal budgets, of every group to the baseline.
pub(super) fn paired(groups: &[&CompareGroup]) -> Vec<Paired> {
    let of = |(a, b): (usize, usize)| {
        let (one, other) = (&groups[a].rows, &groups[b].rows);
        let mean = |rows: &[Row], at: &[usize]| at.iter().map(|i| rows[*i].y).sum::<f64>() / at.len() as f64;
        let point = |[first, second]: &[Vec<usize>; 2]| {
            let baseline = mean(one, first);
            PairedPoint { inputs: one[first[0]].inputs.clone(), baseline, difference: mean(other, second) - baseline }
        };
        let points: Vec<PairedPoint> = common_budgets(one, other).iter().map(point).collect();
        if points.is_empty() {
            return None;
        }
        let n = points.len() as f64;
        let mean = points.iter().map(|p| p.difference).sum::<f64>() / n;
        let sd = (points.iter().map(|p| (p.difference - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let se = sd / n.sqrt();
        let several = points.len() > 1 && se > 0.0;
        let p = |t: f64| StudentsT::new(0.0, 1.0, n - 1.0).map_or(f64::NAN, |d| 2.0 * d.sf(t.abs()));
        Some(Paired {
            baseline: groups[a].name.clone(),
            group: groups[b].name.clone(),
            mean,
            interval: several.then(|| wald(mean, se, n - 1.0)),
            p: several.then(|| p(mean / se)),
            points,
        })
    };
    all_pairs(groups.len()).filter_map(of).collect()
}

/// The inputs at which a law of one scale reaches a loss, in logarithms; `None` outside of twenty decades.
fn scale_at(fitted: &Fitted, loss: f64) -> Option<f64> {
    let law = fitted.law();
    let middle = fitted.sample.inputs.centre()[0];
    let (mut low, mut high) = (middle - 23.0, middle + 23.0);
    let above = |at: f64| law.loss(&[at.exp()]) > loss;
    if !above(low) || above(high) {
        return None;
    }
    for _ in 0..200 {
        let at = 0.5 * (low + high);
        if above(at) { low = at } else { high = at }
    }
    Some(0.5 * (low + high))
}

/// Multipliers at the ends and in the middle of the losses that both groups have reached.
pub(super) fn multipliers(groups: &[&Fitted], names: &[String]) -> Vec<Multiplier> {
    if groups[0].form.inputs() != [Input::X] {
        return Vec::new();
    }
    let range = |g: &Fitted| {
        let ys = &g.sample.y;
        (ys.iter().copied().fold(f64::INFINITY, f64::min), ys.iter().copied().fold(0.0, f64::max))
    };
    let mut out = Vec::new();
    for (a, b) in all_pairs(groups.len()) {
        let (one, two) = (range(groups[a]), range(groups[b]));
        let (lo, hi) = (one.0.max(two.0), one.1.min(two.1));
        if lo >= hi {
            continue;
        }
        for loss in [hi, (lo * hi).sqrt(), lo] {
            let (Some(x), Some(y)) = (scale_at(groups[a], loss), scale_at(groups[b], loss)) else { continue };
            let interval = multiplier_interval(&[groups[a], groups[b]], loss, (x, y));
            out.push(Multiplier {
                baseline: names[a].clone(),
                group: names[b].clone(),
                loss,
                multiplier: (x - y).exp(),
                interval,
            });
        }
    }
    out
}

/// Profile interval of the ratio of the scales at which two laws reach a loss.
fn multiplier_interval(pair: &[&Fitted; 2], loss: f64, (x, y): (f64, f64)) -> ConfidenceInterval {
    let own = separate(pair);
    let rise = 0.5 * own.0 / own.1 * f_quantile(own.1);
    if rise <= 0.0 {
        let ratio = (x - y).exp();
        return ConfidenceInterval { lo: Some(ratio), hi: Some(ratio) };
    }
    // The objective of one group when its law passes through (e^at, loss).
    let through = |group: &Fitted, at: f64| {
        Target::prediction(group, &[at.exp()]).map_or(f64::INFINITY, |target| target.objective_at(group, loss))
    };
    // Both groups with the ratio held: the best place is searched by golden section, the profile being smooth.
    let total = |ratio: f64| {
        let cost = |at: f64| through(pair[0], at + ratio) + through(pair[1], at);
        let width = 0.5 + (ratio - (x - y)).abs();
        golden(cost, (x - ratio).min(y) - width, (x - ratio).max(y) + width)
    };
    let best = 0.5 * own.0;
    let end = |direction: f64| {
        let z = |ratio: f64| ((total(ratio) - best).max(0.0) / rise).sqrt();
        crossing(x - y, direction * 0.05, x - y + direction * 12.0, z).map(f64::exp)
    };
    ConfidenceInterval { lo: end(-1.0), hi: end(1.0) }
}

/// The smallest value of a function with one minimum in an interval.
fn golden(f: impl Fn(f64) -> f64, mut a: f64, mut b: f64) -> f64 {
    const SHARE: f64 = 0.618_033_988_749_894_9;
    let (mut c, mut d) = (b - SHARE * (b - a), a + SHARE * (b - a));
    let (mut fc, mut fd) = (f(c), f(d));
    for _ in 0..24 {
        if fc < fd {
            (b, d, fd) = (d, c, fc);
            c = b - SHARE * (b - a);
            fc = f(c);
        } else {
            (a, c, fc) = (c, d, fd);
            d = a + SHARE * (b - a);
            fd = f(d);
        }
    }
    fc.min(fd)
}

/// The power of its inputs by which a term falls, such as 2 eta of C^-eta in N and D.
fn power(form: &'static dyn Form, term: usize, shapes: &[f64]) -> f64 {
    let coefficients: Vec<f64> = (0..form.terms().len()).map(|t| if t == term { 1.0 } else { 0.0 }).collect();
    let inputs = form.inputs().len();
    let law = Law { form, parameters: form.natural(&coefficients, shapes, &vec![0.0; inputs]) };
    let at = |scale: f64| law.loss(&vec![scale; inputs]);
    (at(1.0) / at(std::f64::consts::E)).ln()
}

/// Multipliers of inputs under one floor and one set of exponents.
pub(super) fn efficiencies(groups: &[&Fitted], names: &[String]) -> Vec<Efficiency> {
    let form = groups[0].form;
    let k = form.terms().len();
    let joint = Joint::new(groups, Shared::FloorAndShapes);
    let covariance = joint.unit_covariance();
    let points: usize = groups.iter().map(|g| g.sample.len()).sum();
    let freedom = points as f64 - joint.optimum.p.len() as f64;
    let variance = 2.0 * joint.optimum.value / freedom;
    let mut out = Vec::new();
    for (t, term) in form.terms().iter().enumerate() {
        let [q] = term.depends else { continue };
        for g in 1..groups.len() {
            let (base, own) = (joint.of_group(0), joint.of_group(g));
            if base[t] <= 0.0 || own[t] <= 0.0 {
                continue;
            }
            let exponent = base[k + q];
            let power = power(form, t, &base[k..]);
            let log = (base[t] / own[t]).ln() / power;
            let map = |group: usize, local: usize| joint.problem.blocks[group].map[local];
            let slopes = [
                (map(0, t), 1.0 / (base[t] * power)),
                (map(g, t), -1.0 / (own[t] * power)),
                (map(0, k + q), -log / exponent),
            ];
            // On a bound or short of an optimum, curvature says nothing.
            let inside = joint.optimum.converged && joint.optimum.at_bound.is_empty();
            let se = covariance.as_ref().filter(|_| inside).map(|m| {
                let sum: f64 =
                    slopes.iter().flat_map(|(i, a)| slopes.iter().map(move |(j, b)| a * b * m.at(*i, *j))).sum();
                (variance * sum.max(0.0)).sqrt()
            });
            let interval = se.map(|se| {
                let half = t_quantile(freedom) * se;
                ConfidenceInterval { lo: Some((log - half).exp()), hi: Some((log + half).exp()) }
            });
            out.push(Efficiency {
                baseline: names[0].clone(),
                group: names[g].clone(),
                term: term.name,
                efficiency: log.exp(),
                interval,
            });
        }
    }
    out
}
