//! Whether intervals cover the truth as often as they say, where the truth is known: on losses drawn from a law, and on
//! finished runs whose floor is known from how their data were made.

use super::design::Proposal;
use super::fit::Fitted;
use super::forms::{Form, Inputs};
use super::interval::{self, Profiler, Target};
use super::{ConfidenceInterval, FitOptions, IntervalMethod, Law, Noise, Objective, Sample, bootstrap};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// What an interval is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    /// A parameter, by its letter.
    Parameter(&'static str),
    /// The law's loss at these inputs.
    Loss(Vec<f64>),
}

/// Losses drawn from a law, and the intervals to be made from each draw.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The truth.
    pub law: Law,
    /// The runs.
    pub proposal: Proposal,
    /// Standard deviation of the noise, of the loss or of its logarithm as the objective measures it.
    pub sd: f64,
    /// The criterion of the fits.
    pub objective: Objective,
    /// Whether the intervals are told the noise instead of taking it from the residuals.
    pub known_noise: bool,
    /// Kinds of interval.
    pub methods: Vec<IntervalMethod>,
    /// What they are for.
    pub quantities: Vec<Quantity>,
    /// Draws.
    pub draws: usize,
    /// Seed; the same one gives the same draws on any number of threads.
    pub seed: u64,
}

/// How one kind of interval did for one quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The kind of interval.
    pub method: IntervalMethod,
    /// What it is for.
    pub quantity: Quantity,
    /// The true value.
    pub truth: f64,
    /// Draws, or subsets, in all.
    pub draws: usize,
    /// Those without any fit or interval: the law did not fall, or the optimum lay on a bound where no such interval
    /// exists. They count neither for nor against.
    pub without: usize,
    /// Intervals that cover the truth.
    pub covered: usize,
    /// Intervals that are open below.
    pub open_below: usize,
    /// Intervals that are open above.
    pub open_above: usize,
    /// Median width, `None` when infinite. An open lower end of a parameter that cannot be negative is at zero.
    pub median_width: Option<f64>,
    /// Mean of the estimates less the truth.
    pub bias: f64,
    /// Root of the mean square of estimates less the truth.
    pub error: f64,
}

impl Tally {
    /// Intervals made.
    pub fn made(&self) -> usize {
        self.draws - self.without
    }

    /// Share of the intervals that cover the truth; `None` without any.
    pub fn coverage(&self) -> Option<f64> {
        self.share(self.covered)
    }

    /// A number of intervals as a share of those made; `None` without any.
    pub fn share(&self, count: usize) -> Option<f64> {
        (self.made() > 0).then(|| count as f64 / self.made() as f64)
    }
}

/// An estimate with its interval, if there is one.
type Outcome = Option<(f64, Option<ConfidenceInterval>)>;

/// The law's parameter of that quantity, or its loss.
fn value(law: &Law, quantity: &Quantity) -> f64 {
    match quantity {
        Quantity::Parameter(name) => law.parameter(name).unwrap_or(f64::NAN),
        Quantity::Loss(inputs) => law.loss(inputs),
    }
}

/// What one sample gives, for each method and quantity.
fn outcomes(
    sample: &Sample,
    form: &'static dyn Form,
    objective: Objective,
    noise: Noise,
    (methods, quantities): (&[IntervalMethod], &[Quantity]),
    seed: u64,
) -> Vec<Outcome> {
    let Ok(fitted) = Fitted::with_given(sample, form, objective, &[]) else {
        return vec![None; methods.len() * quantities.len()];
    };
    let law = fitted.law();
    let variance = noise.variance().unwrap_or_else(|| fitted.variance());
    let interior = fitted.optimum.at_bound.is_empty();
    let unit = if interior { fitted.unit_errors() } else { None };
    let of_parameter = |name: &str| {
        let at = form.parameters().iter().position(|parameter| *parameter == name)?;
        Some(unit.as_ref()?[at] * variance.sqrt())
    };
    let of_loss = |inputs: &[f64]| {
        let variance = variance * fitted.prediction_variance(&Inputs::point(inputs)).filter(|_| interior)?;
        Some(variance.sqrt())
    };
    let mut out = Vec::with_capacity(methods.len() * quantities.len());
    for method in methods {
        let resamples = match method {
            IntervalMethod::Bootstrap(draws) => {
                let options = FitOptions { objective, seed, ..FitOptions::new(form) };
                Some(bootstrap::pairs(&fitted, *draws, &options))
            }
            _ => None,
        };
        let profiler = (*method == IntervalMethod::Profile).then(|| Profiler::new(&fitted, noise));
        for quantity in quantities {
            let estimate = value(&law, quantity);
            let interval = match (quantity, &profiler, &resamples) {
                (Quantity::Parameter(name), Some(profiler), _) => {
                    Target::parameter(&fitted, name).map(|target| profiler.interval(&target, of_parameter(name)))
                }
                (Quantity::Loss(inputs), Some(profiler), _) => {
                    Target::prediction(&fitted, inputs).map(|target| profiler.interval(&target, None))
                }
                (Quantity::Parameter(name), _, Some(resamples)) => {
                    form.parameters().iter().position(|p| p == name).map(|at| resamples.interval(at))
                }
                (Quantity::Loss(inputs), _, Some(resamples)) => Some(resamples.prediction(inputs)),
                (Quantity::Parameter(name), _, _) if *method == IntervalMethod::Wald => {
                    of_parameter(name).map(|se| interval::wald(estimate, se, noise.freedom(&fitted)))
                }
                (Quantity::Loss(inputs), _, _) if *method == IntervalMethod::Wald => of_loss(inputs).map(|se| {
                    let log = objective.is_logarithmic();
                    interval::wald(estimate, if log { se * estimate } else { se }, noise.freedom(&fitted))
                }),
                _ => None,
            };
            out.push(Some((estimate, interval)));
        }
    }
    out
}

/// Counts what each method did for each quantity over many samples.
fn tallies(
    outcomes: &[Vec<Outcome>],
    (methods, quantities): (&[IntervalMethod], &[Quantity]),
    truths: &[f64],
) -> Vec<Tally> {
    let mut out = Vec::new();
    for (m, method) in methods.iter().enumerate() {
        for (q, quantity) in quantities.iter().enumerate() {
            let truth = truths[q];
            let of_place = outcomes.iter().filter_map(|one| one[m * quantities.len() + q]);
            let estimates: Vec<f64> = of_place.clone().map(|(estimate, _)| estimate - truth).collect();
            let intervals: Vec<ConfidenceInterval> = of_place.filter_map(|(_, interval)| interval).collect();
            let width = |i: &ConfidenceInterval| {
                let lowest = if matches!(quantity, Quantity::Parameter(_)) { 0.0 } else { f64::NEG_INFINITY };
                i.hi.unwrap_or(f64::INFINITY) - i.lo.unwrap_or(lowest)
            };
            let mean = |of: &dyn Fn(&f64) -> f64| estimates.iter().map(of).sum::<f64>() / estimates.len() as f64;
            out.push(Tally {
                method: *method,
                quantity: quantity.clone(),
                truth,
                draws: outcomes.len(),
                without: outcomes.len() - intervals.len(),
                covered: intervals.iter().filter(|interval| interval.contains(truth)).count(),
                open_below: intervals.iter().filter(|interval| interval.lo.is_none()).count(),
                open_above: intervals.iter().filter(|interval| interval.hi.is_none()).count(),
                median_width: median(intervals.iter().map(width).collect()).filter(|width| width.is_finite()),
                bias: mean(&|error| *error),
                error: mean(&|error| error * error).sqrt(),
            });
        }
    }
    out
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(if low == high { *low } else { 0.5 * (low + high) })
}

impl Simulation {
    /// Draws, fits and counts: a tally for each method and, within it, each quantity.
    pub fn run(&self) -> Vec<Tally> {
        let form = self.law.form;
        let inputs = self.proposal.every_run();
        let losses = self.law.losses(&inputs);
        let noise = if self.known_noise { Noise::Known { sd: self.sd, freedom: None } } else { Noise::FromResiduals };
        let log = self.objective.is_logarithmic();
        let asked = (&self.methods[..], &self.quantities[..]);
        let one = |draw: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(draw as u64);
            let noisy = |loss: &f64| {
                let deviation: f64 = StandardNormal.sample(&mut rng);
                if log { loss * (self.sd * deviation).exp() } else { loss + self.sd * deviation }
            };
            let y = losses.iter().map(noisy).collect();
            let sample = Sample::new(inputs.columns.clone(), y);
            outcomes(&sample, form, self.objective, noise, asked, self.seed ^ draw as u64)
        };
        let all: Vec<Vec<Outcome>> = (0..self.draws).into_par_iter().map(one).collect();
        let truths: Vec<f64> = self.quantities.iter().map(|quantity| value(&self.law, quantity)).collect();
        tallies(&all, asked, &truths)
    }
}

/// Fits to parts of finished runs whose floor is known.
#[derive(Clone, Debug)]
pub struct Subsets {
    /// The law.
    pub form: &'static dyn Form,
    /// The criterion.
    pub objective: Objective,
    /// Where the noise is taken from.
    pub noise: Noise,
    /// Kinds of interval.
    pub methods: Vec<IntervalMethod>,
    /// The floor of every group.
    pub truth: f64,
    /// The most subsets of one size of one group.
    pub most: usize,
    /// Seed of the choice where there are more.
    pub seed: u64,
}

/// How intervals of the floor from subsets of one size did.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetTally {
    /// Runs of each subset, all at different inputs.
    pub size: usize,
    /// How many of the subsets share no run: what the coverage is worth, whatever the number of subsets.
    pub independent: usize,
    /// The counts.
    pub tally: Tally,
}

impl Subsets {
    /// For each size from one more than the parameters to all, a tally for each method over the subsets of that size of
    /// all these groups. A subset has one run at each of so many different inputs. `None` for a form without a floor.
    pub fn run(&self, groups: &[Sample]) -> Option<Vec<SubsetTally>> {
        let floor = self.form.floor_name()?;
        let quantities = [Quantity::Parameter(floor)];
        let asked = (&self.methods[..], &quantities[..]);
        let places: Vec<Vec<Vec<usize>>> = groups.iter().map(places).collect();
        let largest = places.iter().map(Vec::len).max().unwrap_or(0);
        let mut out = Vec::new();
        for size in self.form.size() + 1..=largest {
            let of_group = |places: &Vec<Vec<usize>>| subsets(places, size, self.most, self.seed);
            let chosen: Vec<(usize, Vec<usize>)> =
                places.iter().enumerate().flat_map(|(g, p)| of_group(p).into_iter().map(move |s| (g, s))).collect();
            let one = |(k, (group, runs)): (usize, &(usize, Vec<usize>))| {
                let mut sample = groups[*group].pick(runs);
                // A bootstrap draws these runs, whatever clusters they came from.
                sample.cluster = (0..runs.len()).collect();
                outcomes(&sample, self.form, self.objective, self.noise, asked, self.seed ^ k as u64)
            };
            let all: Vec<Vec<Outcome>> = chosen.par_iter().enumerate().map(one).collect();
            let independent = places.iter().map(|places| disjoint(places, size)).sum();
            let tallies = tallies(&all, asked, &[self.truth]);
            out.extend(tallies.into_iter().map(|tally| SubsetTally { size, independent, tally }));
        }
        Some(out)
    }
}

/// Runs at each of the different inputs.
fn places(sample: &Sample) -> Vec<Vec<usize>> {
    let mut seen: Vec<(Vec<u64>, Vec<usize>)> = Vec::new();
    for i in 0..sample.len() {
        let at: Vec<u64> = sample.inputs.columns.iter().map(|column| column[i].to_bits()).collect();
        match seen.iter_mut().find(|(place, _)| *place == at) {
            Some((_, runs)) => runs.push(i),
            None => seen.push((at, vec![i])),
        }
    }
    seen.into_iter().map(|(_, runs)| runs).collect()
}

/// How many subsets of one run at each of `size` places can be made without using a run twice.
fn disjoint(places: &[Vec<usize>], size: usize) -> usize {
    // k subsets are possible if the places, none used more than k times, offer k·size runs.
    let runs: usize = places.iter().map(Vec::len).sum();
    let possible = |k: &usize| places.iter().map(|place| place.len().min(*k)).sum::<usize>() >= k * size;
    (1..=runs / size.max(1)).rev().find(possible).unwrap_or(0)
}

/// One run at each of `size` different places: every such choice, or `most` different ones at random if there are more.
fn subsets(places: &[Vec<usize>], size: usize, most: usize, seed: u64) -> Vec<Vec<usize>> {
    if size > places.len() {
        return Vec::new();
    }
    // The elementary symmetric polynomial of the numbers of runs counts the choices.
    let mut count = vec![0.0; size + 1];
    count[0] = 1.0;
    for place in places {
        for k in (1..=size).rev() {
            count[k] += count[k - 1] * place.len() as f64;
        }
    }
    if count[size] <= most as f64 {
        let mut out: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new())];
        for _ in 0..size {
            let longer = |(next, chosen): (usize, Vec<usize>)| {
                let with = move |place: usize| {
                    let chosen = chosen.clone();
                    places[place].iter().map(move |run| {
                        let mut chosen = chosen.clone();
                        chosen.push(*run);
                        (place + 1, chosen)
                    })
                };
                (next..places.len()).flat_map(with)
            };
            out = out.into_iter().flat_map(longer).collect();
        }
        return out.into_iter().map(|(_, chosen)| chosen).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = BTreeSet::new();
    // Repeats are rare unless nearly all choices are asked for; those that are missing then are not needed.
    for _ in 0..20 * most {
        if out.len() >= most {
            break;
        }
        let mut order: Vec<usize> = (0..places.len()).collect();
        for i in 0..size {
            let other = rng.random_range(i..order.len());
            order.swap(i, other);
        }
        order.truncate(size);
        order.sort_unstable();
        out.insert(order.iter().map(|place| places[*place][rng.random_range(0..places[*place].len())]).collect());
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    /// The law of the published SambaY series (specification, section 5.2), over its range of compute.
    fn simulation(points: usize, draws: usize) -> Simulation {
        Simulation {
            law: Law { form: forms::power_floor(), parameters: vec![39.79, 0.0694, 0.5847] },
            proposal: Proposal::spaced(9.122611e18, 2.86, points),
            sd: 1e-3,
            objective: Objective::LeastSquares,
            known_noise: false,
            methods: vec![IntervalMethod::Profile],
            quantities: vec![
                Quantity::Parameter("C"),
                Quantity::Parameter("b"),
                Quantity::Loss(vec![9.122611e18 * 10f64.powf(3.86)]),
            ],
            draws,
            seed: 0,
        }
    }

    /// A coverage of 95 % lies within 92 and 98 % of 400 draws but once in 180 times.
    #[test]
    fn profile_intervals_cover_as_often_as_they_say() {
        for points in [5, 8] {
            for tally in simulation(points, 400).run() {
                let coverage = tally.coverage().unwrap();
                assert!((0.92..=0.98).contains(&coverage), "{points} points, {tally:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_on_any_number_of_threads() {
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let of = |seed: u64| Simulation { seed, ..simulation(5, 12) }.run();
        assert_eq!(alone.install(|| of(7)), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn subsets_use_each_place_once() {
        let places = vec![vec![0], vec![1, 2], vec![3], vec![4]];
        // Without the double place 1, with it 3·2.
        let all = subsets(&places, 3, 100, 0);
        assert_eq!(all.len(), 7);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 7);
        let some = subsets(&places, 3, 5, 0);
        assert!(some.len() == 5 && some.iter().all(|subset| all.contains(subset)));
        assert_eq!(disjoint(&places, 2), 2);
        assert_eq!(disjoint(&places, 4), 1);
        assert_eq!(disjoint(&places, 5), 0);
    }

    /// Runs drawn from a law with a floor are told that floor, and one that is far from it is not covered.
    #[test]
    fn subsets_of_runs_cover_their_own_floor() {
        let truth = Simulation { quantities: Vec::new(), ..simulation(8, 0) };
        let losses = truth.law.losses(&truth.proposal.inputs);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let y = losses.iter().map(|loss| {
            let z: f64 = StandardNormal.sample(&mut rng);
            loss + 1e-4 * z
        });
        let sample = Sample::new(truth.proposal.inputs.columns.clone(), y.collect());
        let of = |truth: f64| Subsets {
            form: forms::power_floor(),
            objective: Objective::LeastSquares,
            noise: Noise::Known { sd: 1e-4, freedom: None },
            methods: vec![IntervalMethod::Profile],
            truth,
            most: 30,
            seed: 0,
        };
        let own = of(0.5847).run(std::slice::from_ref(&sample)).unwrap();
        assert_eq!(
            own.iter().map(|t| (t.size, t.tally.draws)).collect::<Vec<_>>(),
            [(4, 30), (5, 30), (6, 28), (7, 8), (8, 1)]
        );
        assert!(own.iter().map(|t| t.tally.covered).sum::<usize>() > 80, "{own:?}");
        let other = of(1.0).run(&[sample]).unwrap();
        assert!(other.iter().filter(|t| t.size > 4).all(|t| t.tally.covered == 0), "{other:?}");
    }
}
