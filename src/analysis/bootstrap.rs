//! Refits of resampled points: whole points, or whole clusters of points, drawn with replacement.

use super::fit::Fitted;
use super::solver::{Block, Problem, newton};
use super::{CONFIDENCE, ConfidenceInterval, FitOptions, Law};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

/// Parameters of every refit.
#[derive(Clone, Debug, PartialEq)]
pub struct Resamples {
    /// The form's parameters, refit by refit. Missing are refits without an optimum, and draws of fewer different points
    /// than parameters, through which many laws pass.
    pub parameters: Vec<Law>,
    /// Refits asked for.
    pub draws: usize,
    /// Refits that ended on a bound.
    pub at_bound: usize,
    /// For each parameter its values in refits that ended on the edge of its search, which says nothing of the points.
    edges: Vec<Vec<f64>>,
}

impl Resamples {
    fn values(&self, parameter: usize) -> Vec<f64> {
        self.parameters.iter().map(|law| law.parameters[parameter]).collect()
    }

    /// Standard deviation of a parameter; `None` when it does not vary at all, which would mean that nothing was
    /// refitted, and where its interval is open, since the edge of the search would decide it.
    pub fn error(&self, parameter: usize) -> Option<f64> {
        let interval = self.interval(parameter);
        if interval.lo.is_none() || interval.hi.is_none() {
            return None;
        }
        Some(deviation(&self.values(parameter))).filter(|sd| *sd > 0.0 && sd.is_finite())
    }

    /// Percentile interval of a parameter; open where its end is the edge of the search.
    pub fn interval(&self, parameter: usize) -> ConfidenceInterval {
        let ConfidenceInterval { lo, hi } = percentiles(self.values(parameter));
        let inside = |end: &f64| !self.edges[parameter].iter().any(|edge| (edge / end - 1.0).abs() < 1e-9);
        ConfidenceInterval { lo: lo.filter(inside), hi: hi.filter(inside) }
    }

    /// Percentile interval of the loss at these inputs.
    pub fn prediction(&self, inputs: &[f64]) -> ConfidenceInterval {
        percentiles(self.parameters.iter().map(|law| law.loss(inputs)).collect())
    }

    /// Any function of the parameters: its standard deviation and percentile interval.
    pub fn of(&self, f: impl Fn(&Law) -> f64) -> (f64, ConfidenceInterval) {
        let values: Vec<f64> = self.parameters.iter().map(f).collect();
        (deviation(&values), percentiles(values))
    }

    /// Percentile interval of a function that not every law has.
    pub fn interval_of(&self, f: impl Fn(&Law) -> Option<f64>) -> ConfidenceInterval {
        percentiles(self.parameters.iter().filter_map(f).collect())
    }

    /// Correlation of two functions of the parameters.
    pub fn correlation(&self, f: impl Fn(&Law) -> f64, g: impl Fn(&Law) -> f64) -> f64 {
        let (a, b): (Vec<f64>, Vec<f64>) = self.parameters.iter().map(|law| (f(law), g(law))).unzip();
        let n = a.len() as f64;
        let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
        let (ma, mb) = (mean(&a), mean(&b));
        let covariance = a.iter().zip(&b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>() / (n - 1.0);
        covariance / (deviation(&a) * deviation(&b))
    }
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

/// The central interval of sorted values, interpolated between neighbours.
pub(super) fn percentiles(mut values: Vec<f64>) -> ConfidenceInterval {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len().checked_sub(1)?) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        Some(values[low] + (values[high] - values[low]) * place.fract())
    };
    ConfidenceInterval { lo: at(0.5 * (1.0 - CONFIDENCE)), hi: at(0.5 * (1.0 + CONFIDENCE)) }
}

/// Draws clusters with replacement and refits from the optimum, `draws` times. The same seed gives the same draws on any
/// number of threads.
pub(super) fn pairs(fitted: &Fitted, draws: usize, options: &FitOptions) -> Resamples {
    let form = fitted.form;
    let k = form.terms().len();
    let cluster = &fitted.sample.cluster;
    let clusters = cluster.iter().max().map_or(0, |most| most + 1);
    let held = fitted.held();
    let free = form.size() - fitted.given.len();
    let refit = |draw: usize| {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(1 + draw as u64);
        let mut count = vec![0u32; clusters];
        for _ in 0..clusters {
            count[rng.random_range(0..clusters)] += 1;
        }
        // Points that were not drawn are left out, rather than computed and weighted with nothing.
        let drawn: Vec<usize> = (0..cluster.len()).filter(|i| count[cluster[*i]] > 0).collect();
        let mut sample = fitted.sample.pick(&drawn);
        if sample.inputs.distinct(free) < free {
            return None;
        }
        for (weight, i) in sample.weight.iter_mut().zip(&drawn) {
            *weight *= f64::from(count[cluster[*i]]);
        }
        let block = Block::new(form, &sample.inputs, &sample.y, &sample.weight, &fitted.reference);
        let problem = Problem::single(block, fitted.problem.criterion);
        let start = &fitted.optimum.p;
        let mut minimum = newton::minimise(&problem, start, &held);
        if !minimum.converged {
            minimum = newton::minimise_staged(&problem, start, &held, 0.1);
        }
        let natural = form.natural(&minimum.p[..k], &minimum.p[k..], &fitted.reference);
        let usable = minimum.converged && natural.iter().all(|v| v.is_finite());
        usable.then_some((Law { form, parameters: natural }, minimum.at_bound))
    };
    let refits: Vec<(Law, Vec<usize>)> = (0..draws).into_par_iter().filter_map(refit).collect();
    let shape_of = |name: &str| form.shapes().iter().position(|shape| shape.name == name).map(|q| k + q);
    let edges = form.parameters().iter().enumerate().map(|(i, name)| {
        let on_edge = |(_, bound): &&(Law, Vec<usize>)| shape_of(name).is_some_and(|j| bound.contains(&j));
        refits.iter().filter(on_edge).map(|(law, _)| law.parameters[i]).collect()
    });
    Resamples {
        draws,
        at_bound: refits.iter().filter(|(_, bound)| !bound.is_empty()).count(),
        edges: edges.collect(),
        parameters: refits.into_iter().map(|(law, _)| law).collect(),
    }
}
