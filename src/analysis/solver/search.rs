//! The global search of one group: a grid over the shapes, on which the coefficients are found exactly, then Newton steps
//! from every local minimum of the grid; and independent starts that know nothing of the grid.

use super::least_squares::{Scratch, non_negative};
use super::newton::{self, Held, Minimum};
use super::problem::{Block, Problem, Residual};
use super::vector;
use crate::analysis::forms::TermValues;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

/// Huber's threshold lowered in stages begins here: nearly least squares on log losses.
const FIRST_DELTA: f64 = 0.3;
/// Local minima of the grid from which Newton steps start.
const MOST_STARTS: usize = 6;
/// Below this threshold of Huber's loss, descents that do not lower it in stages end on its kinks.
const KINKS: f64 = 1e-6;
/// Grid points times data that one thread takes at least: below that, handing them out takes longer.
const LEAST_WORK: usize = 10_000;

/// The best optimum over the whole grid. Held variables keep their value in `at`; of a held sum the total is that of
/// `at`. `None` when the objective is nowhere finite.
pub fn global(problem: &Problem, at: &[f64], held: &Held) -> Option<Minimum> {
    best_of(problem, at, held, MOST_STARTS)
}

/// The optimum below the lowest point of the grid.
pub fn lowest(problem: &Problem, at: &[f64], held: &Held) -> Option<Minimum> {
    best_of(problem, at, held, 1)
}

fn best_of(problem: &Problem, at: &[f64], held: &Held, most: usize) -> Option<Minimum> {
    let starts = grid_minima(problem, at, held, most);
    // Lowering Huber's threshold in stages leads to the basin of least squares, which need not be the lowest.
    let ends = starts.iter().flat_map(|start| {
        let staged = problem.criterion.delta.is_finite();
        let direct = newton::minimise(problem, start, held);
        let through = staged.then(|| newton::minimise_staged(problem, start, held, FIRST_DELTA));
        through.into_iter().chain([direct])
    });
    ends.filter(|m| m.value.is_finite()).min_by(|a, b| a.value.total_cmp(&b.value))
}

/// Local minima of the grid with exact coefficients, the lowest first.
fn grid_minima(problem: &Problem, at: &[f64], held: &Held, most: usize) -> Vec<Vec<f64>> {
    let [block] = &problem.blocks[..] else { return vec![at.to_vec()] };
    let grid = Grid::new(block, at, held);
    let values: Vec<(f64, Vec<f64>)> = grid.solve(problem, block, at, held);
    let mut minima: Vec<&(f64, Vec<f64>)> =
        (0..values.len()).filter(|i| grid.is_minimum(*i, &values)).map(|i| &values[i]).collect();
    minima.sort_by(|a, b| a.0.total_cmp(&b.0));
    minima.iter().filter(|(sse, _)| sse.is_finite()).take(most).map(|(_, p)| p.clone()).collect()
}

/// Values of the shapes, the last one running fastest.
struct Grid {
    axes: Vec<Vec<f64>>,
}

impl Grid {
    fn new(block: &Block, at: &[f64], held: &Held) -> Self {
        let k = block.form.terms().len();
        let axis = |(q, shape): (usize, &crate::analysis::forms::Shape)| {
            let (lo, hi, n) = shape.grid;
            if held.fixed.contains(&(k + q)) || n < 2 {
                return vec![if held.fixed.contains(&(k + q)) { at[k + q] } else { lo }];
            }
            (0..n).map(|i| lo * (hi / lo).powf(i as f64 / (n - 1) as f64)).collect()
        };
        Self { axes: block.form.shapes().iter().enumerate().map(axis).collect() }
    }

    fn len(&self) -> usize {
        self.axes.iter().map(Vec::len).product()
    }

    fn shapes(&self, mut index: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.axes.len()];
        for (value, axis) in out.iter_mut().zip(&self.axes).rev() {
            *value = axis[index % axis.len()];
            index /= axis.len();
        }
        out
    }

    fn is_minimum(&self, index: usize, values: &[(f64, Vec<f64>)]) -> bool {
        let mut stride = 1;
        for axis in self.axes.iter().rev() {
            let place = index / stride % axis.len();
            if place > 0 && values[index - stride].0 < values[index].0 {
                return false;
            }
            if place + 1 < axis.len() && values[index + stride].0 < values[index].0 {
                return false;
            }
            stride *= axis.len();
        }
        true
    }

    /// Sum of squares and variables at every grid point.
    fn solve(&self, problem: &Problem, block: &Block, at: &[f64], held: &Held) -> Vec<(f64, Vec<f64>)> {
        let least = LEAST_WORK / block.points().max(1);
        let points = (0..self.len()).into_par_iter().with_min_len(least.max(1));
        let solver = || GridSolver::new(problem, block, at, held);
        points.map_init(solver, |solver, index| solver.solve(&self.shapes(index))).collect()
    }
}

/// The coefficients at one grid point after another; what a point shares with the one before is kept.
struct GridSolver<'a> {
    block: &'a Block,
    at: &'a [f64],
    held: &'a Held,
    /// The coefficients that are solved for.
    free: Vec<usize>,
    /// Root of each point's weight.
    root: Vec<f64>,
    terms: Vec<TermValues>,
    /// The shapes for which the terms were last evaluated.
    seen: Vec<Vec<f64>>,
    columns: Vec<Vec<f64>>,
    target: Vec<f64>,
    scratch: Scratch,
}

impl<'a> GridSolver<'a> {
    fn new(problem: &Problem, block: &'a Block, at: &'a [f64], held: &'a Held) -> Self {
        let (n, k) = (block.points(), block.form.terms().len());
        // Log residuals are residuals relative to the loss, to first order.
        let weight = |i: usize| match problem.criterion.residual {
            Residual::Linear => block.weight[i].sqrt(),
            Residual::Log => block.weight[i].sqrt() / block.y[i],
        };
        let pivot = held.sum.as_ref().map(|(pivot, _)| *pivot);
        let free: Vec<usize> = (0..k).filter(|t| !held.fixed.contains(t) && Some(*t) != pivot).collect();
        Self {
            block,
            at,
            held,
            root: (0..n).map(weight).collect(),
            terms: (0..k).map(|_| TermValues::new(0, n)).collect(),
            seen: vec![vec![f64::NAN]; k],
            columns: vec![vec![0.0; n]; free.len()],
            target: vec![0.0; n],
            scratch: Scratch::default(),
            free,
        }
    }

    /// Sum of squares and variables at these shapes.
    fn solve(&mut self, shapes: &[f64]) -> (f64, Vec<f64>) {
        let Self { block, at, held, free, root, terms, seen, columns, target, scratch } = self;
        let form = block.form;
        let k = form.terms().len();
        for (t, term) in form.terms().iter().enumerate().filter(|(t, _)| Some(*t) != form.floor()) {
            let of_term: Vec<f64> = term.depends.iter().map(|q| shapes[*q]).collect();
            if seen[t] != of_term {
                block.design.term(t, shapes, false, &mut terms[t]);
                seen[t] = of_term;
            }
        }
        target.copy_from_slice(&block.y);
        for t in held.fixed.iter().filter(|t| **t < k) {
            vector::add_scaled(-at[*t], &terms[*t].value, target);
        }
        let total = held.sum.as_ref().map(|(pivot, all)| (*pivot, all, all.iter().map(|j| at[*j]).sum::<f64>()));
        if let Some((pivot, _, total)) = total {
            vector::add_scaled(-total, &terms[pivot].value, target);
        }
        target.iter_mut().zip(&*root).for_each(|(y, root)| *y *= root);
        for (column, t) in columns.iter_mut().zip(&*free) {
            vector::product(&terms[*t].value, root, column);
            if let Some((pivot, _, _)) = total.filter(|(_, all, _)| all.contains(t)) {
                for ((column, value), root) in column.iter_mut().zip(&terms[pivot].value).zip(&*root) {
                    *column -= value * root;
                }
            }
        }
        let (c, mut sse) = non_negative(columns, target, scratch);
        let mut p = at.to_vec();
        for (t, c) in free.iter().zip(&c) {
            p[*t] = *c;
        }
        p[k..].copy_from_slice(shapes);
        if let Some((pivot, all, total)) = total {
            p[pivot] = total - all.iter().filter(|j| **j != pivot).map(|j| p[*j]).sum::<f64>();
            if p[pivot] < 0.0 {
                sse = f64::INFINITY;
            }
        }
        // A law that is nowhere positive is no start for log residuals.
        if p[..k].iter().all(|c| *c <= 0.0) {
            sse = f64::INFINITY;
        }
        (sse, p)
    }
}

/// Newton steps from anywhere. Coefficients that are off by orders of magnitude are first brought to the size of the
/// losses, all by one factor: steps that are linear in them would overshoot to zero. `staged` lowers Huber's threshold on
/// the way.
pub fn descend(problem: &Problem, start: &[f64], held: &Held, staged: bool) -> Minimum {
    let mut p = start.to_vec();
    if let [block] = &problem.blocks[..] {
        let k = block.form.terms().len();
        if problem.criterion.residual == Residual::Log && held.fixed.iter().all(|j| *j >= k) {
            let residuals = problem.residuals(block, &p);
            let shift = residuals.iter().sum::<f64>() / residuals.len().max(1) as f64;
            if shift.is_finite() {
                p[..k].iter_mut().for_each(|c| *c *= shift.exp());
            }
        }
    }
    let end = if staged && problem.criterion.delta.is_finite() {
        newton::minimise_staged(problem, &p, held, 1.0)
    } else {
        newton::minimise(problem, &p, held)
    };
    escape(problem, end, held)
}

/// An optimum where a term has vanished, or become constant, may be one only because the term's shape is a bad one: looks
/// for a shape at which the term would help, and goes on from there.
pub fn escape(problem: &Problem, mut minimum: Minimum, held: &Held) -> Minimum {
    let [block] = &problem.blocks[..] else { return minimum };
    let (form, k) = (block.form, block.form.terms().len());
    for _ in 0..2 * k {
        let before = minimum.value;
        for (t, term) in form.terms().iter().enumerate() {
            let own = |q: &&usize| form.terms().iter().filter(|other| other.depends.contains(q)).count() == 1;
            let ([q], true) = (term.depends, term.depends.iter().all(|q| own(&q))) else { continue };
            if held.fixed.contains(&t) || held.fixed.contains(&(k + q)) || held.sum.is_some() {
                continue;
            }
            let constant = minimum.p[k + q] <= form.shapes()[*q].range.0;
            if minimum.p[t] > 0.0 && !constant {
                continue;
            }
            let mut p = minimum.p.clone();
            if let Some(floor) = form.floor().filter(|floor| !held.fixed.contains(floor)) {
                p[floor] += p[t];
            }
            p[t] = 0.0;
            if let Some(found) = revived(problem, &p, (t, k + q), form.shapes()[*q].grid, held)
                && found.value < minimum.value
            {
                minimum = found;
            }
        }
        if minimum.value >= before * (1.0 - 1e-9) {
            break;
        }
    }
    minimum
}

/// The optimum from `p`, where the term's coefficient is zero, with its shape where the term helps most.
fn revived(
    problem: &Problem,
    p: &[f64],
    (term, shape): (usize, usize),
    (lo, hi, n): (f64, f64, usize),
    held: &Held,
) -> Option<Minimum> {
    let mut derivatives = super::problem::Derivatives::default();
    let mut best: Option<(f64, f64, f64)> = None;
    let mut at = p.to_vec();
    for i in 0..n {
        at[shape] = lo * (hi / lo).powf(i as f64 / (n.max(2) - 1) as f64);
        problem.derivatives(&at, problem.criterion.delta, &mut derivatives);
        let (g, scale) = (derivatives.gradient[term], derivatives.scale[term].max(f64::MIN_POSITIVE));
        let gain = g * g / scale;
        if g < 0.0 && best.is_none_or(|(most, ..)| gain > most) {
            best = Some((gain, at[shape], -g / scale));
        }
    }
    let (_, value, coefficient) = best?;
    (at[shape], at[term]) = (value, coefficient);
    Some(if problem.criterion.delta.is_finite() {
        newton::minimise_staged(problem, &at, held, FIRST_DELTA)
    } else {
        newton::minimise(problem, &at, held)
    })
}

/// What independent starts found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confirmation {
    /// Starts made.
    pub starts: usize,
    /// Those that ended at the optimum, to 1e-9 of the objective.
    pub reached: usize,
}

/// Starts all over the box, coefficients included, in parallel. Returns the best optimum that they found with the count.
pub fn confirm(problem: &Problem, optimum: &Minimum, held: &Held, starts: usize, seed: u64) -> (Confirmation, Minimum) {
    let [block] = &problem.blocks[..] else {
        return (Confirmation { starts: 0, reached: 0 }, optimum.clone());
    };
    let mean = block.y.iter().sum::<f64>() / block.points().max(1) as f64;
    let ends: Vec<Minimum> = (0..starts)
        .into_par_iter()
        .map(|i| {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(i as u64);
            let coefficients = block.form.terms().iter().map(|_| mean * rng.random::<f64>()).collect::<Vec<_>>();
            let shapes = block.form.shapes().iter().map(|shape| {
                let (lo, hi, _) = shape.grid;
                lo * (hi / lo).powf(rng.random::<f64>())
            });
            let mut start: Vec<f64> = coefficients.into_iter().chain(shapes.collect::<Vec<_>>()).collect();
            held.fixed.iter().for_each(|j| start[*j] = optimum.p[*j]);
            descend(problem, &start, held, i % 2 == 0 || problem.criterion.delta < KINKS)
        })
        .collect();
    let tolerance = 1e-9 * optimum.value + problem.rounding();
    let reached = ends.iter().filter(|end| (end.value - optimum.value).abs() <= tolerance).count();
    let best = ends.into_iter().min_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or_else(|| optimum.clone());
    (Confirmation { starts, reached }, best)
}
