//! Damped Newton steps within bounds, and Huber's threshold lowered in stages.

use super::problem::{Derivatives, Problem};
use std::cell::RefCell;

/// What is not free.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// Variables that keep their value.
    pub fixed: Vec<usize>,
    /// The variable that gives way when others change, so that a sum over coefficients keeps its value: the position of
    /// that variable and of all in the sum.
    pub sum: Option<(usize, Vec<usize>)>,
}

/// Where a minimisation ended.
#[derive(Clone, Debug, Default)]
pub struct Minimum {
    /// The variables.
    pub p: Vec<f64>,
    /// The objective there.
    pub value: f64,
    /// gᵀH⁻¹g over the free variables: twice what another Newton step would gain.
    pub decrement: f64,
    /// Variables that lie on a bound.
    pub at_bound: Vec<usize>,
    /// Whether no step improves it any more.
    pub converged: bool,
}

impl Minimum {
    /// Whether this is an optimum lower than another by more than rounding.
    pub fn improves_on(&self, other: &Self) -> bool {
        self.converged && self.value < other.value * (1.0 - 1e-9)
    }
}

const MOST_STEPS: usize = 400;

/// The first damping after an undamped step that failed, in units of the curvature of each variable.
const FIRST_DAMPING: f64 = 1e-3;
/// Damping begins here where the curvature is not positive.
const LEAST_DAMPING: f64 = 1e-4;
/// Damping below this is left out altogether.
const NO_DAMPING: f64 = 1e-6;

/// Memory of a minimisation, kept from one to the next.
#[derive(Default)]
struct Scratch {
    here: Derivatives,
    there: Derivatives,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Minimises from `start` at the problem's own threshold. `MOST_STEPS` bounds the work; the outcome says whether it
/// converged.
pub fn minimise(problem: &Problem, start: &[f64], held: &Held) -> Minimum {
    minimise_at(problem, start, held, problem.criterion.delta)
}

/// Minimises with Huber's threshold lowered in stages from `from`, each from the optimum of the one before.
pub fn minimise_staged(problem: &Problem, start: &[f64], held: &Held, from: f64) -> Minimum {
    let last = problem.criterion.delta;
    let mut delta = from;
    let mut p = start.to_vec();
    // Ten times lower again and again misses the last threshold by rounding: no stage for that.
    while delta > last * (1.0 + 1e-9) {
        p = approach(problem, &p, held, delta);
        delta *= 0.1;
    }
    minimise_at(problem, &p, held, last)
}

fn minimise_at(problem: &Problem, start: &[f64], held: &Held, delta: f64) -> Minimum {
    Descent { problem, held, delta, rough: false }.run(start)
}

/// A few digits of an optimum, as the start of the next stage.
fn approach(problem: &Problem, start: &[f64], held: &Held, delta: f64) -> Vec<f64> {
    Descent { problem, held, delta, rough: true }.run(start).p
}

struct Descent<'a> {
    problem: &'a Problem,
    held: &'a Held,
    delta: f64,
    /// Whether a few digits are enough.
    rough: bool,
}

impl Descent<'_> {
    fn run(&self, start: &[f64]) -> Minimum {
        SCRATCH.with_borrow_mut(|Scratch { here, there }| self.descend(start, here, there))
    }

    fn descend(&self, start: &[f64], here: &mut Derivatives, there: &mut Derivatives) -> Minimum {
        let mut p = start.to_vec();
        for (value, (lo, hi)) in p.iter_mut().zip(&self.problem.bounds) {
            *value = value.clamp(*lo, *hi);
        }
        self.evaluate(&p, here);
        let rounding = self.problem.rounding();
        let mut damping = 0.0;
        let (mut converged, mut decrement, mut steps, mut polished) = (false, f64::INFINITY, 0, 0);
        while steps < MOST_STEPS && here.value.is_finite() {
            steps += 1;
            let free = self.free(&p, here);
            if free.is_empty() || here.value <= rounding {
                (converged, decrement) = (true, 0.0);
                break;
            }
            let Some((step, gain)) = self.step(&p, here, &free, &mut damping) else { break };
            let value = here.value;
            if damping == 0.0 {
                decrement = gain;
            }
            if self.rough && damping == 0.0 && gain <= 1e-3 * value {
                break;
            }
            // Rounding of the objective is of the order of 1e-16 of it: below that only the gradient can judge a step.
            let negligible = gain <= 1e-13 * value + 1e-300;
            let next: Vec<f64> = p.iter().zip(&step).map(|(p, s)| p + s).collect();
            self.evaluate(&next, there);
            if negligible && damping == 0.0 {
                let smaller = slope(there, &free) <= slope(here, &free);
                if there.value.is_finite() && smaller {
                    p = next;
                    std::mem::swap(here, there);
                }
                polished += 1;
                if polished >= 2 || !smaller || gain <= 1e-22 * value {
                    converged = true;
                    break;
                }
                continue;
            }
            let actual = value - there.value;
            let ratio = actual / (0.5 * gain);
            if there.value.is_finite() && actual > 0.0 && ratio > 1e-4 {
                p = next;
                std::mem::swap(here, there);
                if ratio > 0.7 {
                    damping = if damping < NO_DAMPING { 0.0 } else { 0.1 * damping };
                } else if ratio < 0.2 {
                    damping = if damping == 0.0 { FIRST_DAMPING } else { 3.0 * damping };
                }
            } else {
                if damping > 1e12 {
                    // No step of any size improves it.
                    break;
                }
                damping = if damping == 0.0 { FIRST_DAMPING } else { 8.0 * damping };
            }
        }
        if !converged && !self.rough && here.value.is_finite() {
            // Where the objective has kinks, steps may end without a last full one: the slope there decides.
            let (free, mut least) = (self.free(&p, here), 0.0);
            if let Some((_, gain)) = self.step(&p, here, &free, &mut least).filter(|_| least < 1e-2) {
                (decrement, converged) = (gain, gain <= 1e-9 * here.value);
            }
        }
        let at_bound = (0..p.len())
            .filter(|j| {
                let (lo, hi) = self.problem.bounds[*j];
                !self.held.fixed.contains(j) && (p[*j] <= lo || p[*j] >= hi)
            })
            .collect();
        let value = here.value;
        Minimum { p, value, decrement, at_bound, converged }
    }

    /// Derivatives at `p`, along the variables that remain when one gives way to keep a sum.
    fn evaluate(&self, p: &[f64], d: &mut Derivatives) {
        self.problem.derivatives(p, self.delta, d);
        let Some((pivot, others)) = &self.held.sum else { return };
        let n = d.gradient.len();
        let (slope, curvature) = (d.gradient[*pivot], d.hessian.at(*pivot, *pivot));
        let row: Vec<f64> = (0..n).map(|j| d.hessian.at(*pivot, j)).collect();
        let moves = |j: usize| f64::from(j != *pivot && others.contains(&j));
        for i in 0..n {
            d.gradient[i] -= moves(i) * slope;
            d.scale[i] += moves(i) * d.scale[*pivot];
            for j in 0..=i {
                let change = -moves(i) * row[j] - moves(j) * row[i] + moves(i) * moves(j) * curvature;
                d.hessian.add(i, j, change);
            }
        }
    }

    /// Variables that may move: not held, and not on a bound that the gradient presses them against.
    fn free(&self, p: &[f64], d: &Derivatives) -> Vec<usize> {
        let pivot = self.held.sum.as_ref().map(|(pivot, _)| *pivot);
        let inward = |j: usize| {
            let (lo, hi) = self.problem.bounds[j];
            let g = d.gradient[j];
            (p[j] > lo || g < 0.0) && (p[j] < hi || g > 0.0)
        };
        (0..p.len()).filter(|j| !self.held.fixed.contains(j) && pivot != Some(*j) && inward(*j)).collect()
    }

    /// A step that stays within the bounds, and gᵀH⁻¹g for it. Raises the damping until the curvature is positive.
    fn step(&self, p: &[f64], d: &Derivatives, free: &[usize], damping: &mut f64) -> Option<(Vec<f64>, f64)> {
        let g: Vec<f64> = free.iter().map(|j| d.gradient[*j]).collect();
        loop {
            let mut h = d.hessian.part(free);
            for (i, j) in free.iter().enumerate() {
                h.add(i, i, *damping * d.scale[*j].max(f64::MIN_POSITIVE));
            }
            if let Some(direction) = h.solve(&g) {
                let mut step = vec![0.0; p.len()];
                for (direction, j) in direction.iter().zip(free) {
                    let (lo, hi) = self.problem.bounds[*j];
                    step[*j] = (p[*j] - direction).clamp(lo, hi) - p[*j];
                }
                let gain: f64 = direction.iter().zip(&g).map(|(s, g)| s * g).sum();
                if let Some((pivot, others)) = &self.held.sum {
                    let sum: f64 = others.iter().filter(|j| *j != pivot).map(|j| step[*j]).sum();
                    // What gives way may not become negative: the whole step is shortened.
                    if sum > p[*pivot] {
                        let share = 0.5 * p[*pivot] / sum;
                        step.iter_mut().for_each(|s| *s *= share);
                    }
                    step[*pivot] = -others.iter().filter(|j| *j != pivot).map(|j| step[*j]).sum::<f64>();
                }
                return Some((step, gain));
            }
            if *damping > 1e12 {
                return None;
            }
            *damping = if *damping == 0.0 { LEAST_DAMPING } else { 8.0 * *damping };
        }
    }
}

/// Size of the gradient over some variables, each in its own scale.
fn slope(d: &Derivatives, free: &[usize]) -> f64 {
    free.iter().map(|j| d.gradient[*j].powi(2) / d.scale[*j].max(f64::MIN_POSITIVE)).sum()
}
