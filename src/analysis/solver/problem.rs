//! The objective of a fit with its exact first and second derivatives.

use super::matrix::Matrix;
use super::vector;
use crate::analysis::forms::{Design, Form, Inputs, TermValues, Terms};
use std::cell::RefCell;

/// A law's value is right to this share of it: some roundings of f64.
const ROUNDING: f64 = 1e-14;

/// How a residual is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// L - f
    Linear,
    /// ln L - ln f
    Log,
}

/// What is summed over the points, each times its weight: ½r² up to |r| = `delta` and linear beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// The residual r.
    pub residual: Residual,
    /// Huber's threshold; infinite for squares.
    pub delta: f64,
}

/// Points of one group and its law.
pub struct Block {
    /// The law.
    pub form: &'static dyn Terms,
    /// Its terms at the points.
    pub design: Box<dyn Design>,
    /// The losses.
    pub y: Vec<f64>,
    /// 1/y.
    inverse_y: Vec<f64>,
    /// Weight of each point; 1 without any.
    pub weight: Vec<f64>,
    /// Added to the law: what its floor exceeds a shared one by.
    pub offset: f64,
    /// Position of each coefficient, then of each shape, among the problem's variables.
    pub map: Vec<usize>,
}

impl Block {
    /// The points of a group on its own; the variables are its coefficients and shapes.
    pub fn new(form: &'static dyn Form, inputs: &Inputs, y: &[f64], weight: &[f64], reference: &[f64]) -> Self {
        Self::with_design(form, form.design(inputs, reference), y, weight)
    }

    /// The same of a law whose terms at the points are known.
    pub fn with_design(form: &'static dyn Terms, design: Box<dyn Design>, y: &[f64], weight: &[f64]) -> Self {
        Self {
            design,
            inverse_y: y.iter().map(|y| 1.0 / y).collect(),
            y: y.to_vec(),
            weight: weight.to_vec(),
            offset: 0.0,
            map: (0..form.size()).collect(),
            form,
        }
    }

    /// Number of points.
    pub fn points(&self) -> usize {
        self.y.len()
    }
}

/// Groups that are fitted together.
pub struct Problem {
    /// The groups; they may share variables.
    pub blocks: Vec<Block>,
    /// Bounds of each variable.
    pub bounds: Vec<(f64, f64)>,
    /// What is minimised.
    pub criterion: Criterion,
}

/// The objective at a point, and how it changes there.
#[derive(Clone, Debug, Default)]
pub struct Derivatives {
    /// The objective.
    pub value: f64,
    /// Its gradient.
    pub gradient: Vec<f64>,
    /// Its Hessian.
    pub hessian: Matrix,
    /// A positive curvature for each variable, by which steps are damped. Of a coefficient it is the diagonal of the
    /// reweighted least-squares problem. A shape has in addition what its mixed derivatives with its coefficients need
    /// to be outweighed: the diagonal alone vanishes with the coefficient, but the mixed ones do not, and only at an
    /// optimum are they zero.
    pub scale: Vec<f64>,
}

impl Derivatives {
    fn clear(&mut self, n: usize) {
        self.value = 0.0;
        self.gradient.clear();
        self.gradient.resize(n, 0.0);
        self.scale.clear();
        self.scale.resize(n, 0.0);
        self.hessian.n = n;
        self.hessian.a.clear();
        self.hessian.a.resize(n * n, 0.0);
    }
}

/// Memory of an evaluation, kept from one to the next.
#[derive(Default)]
struct Scratch {
    terms: Vec<TermValues>,
    local: Vec<f64>,
    fitted: Vec<f64>,
    residual: Vec<f64>,
    outer: Vec<f64>,
    linear: Vec<f64>,
    scale: Vec<f64>,
    /// A column times the weights of products.
    weighted: Vec<f64>,
    shape_columns: Vec<Vec<f64>>,
    /// Of the Hessian, along one coefficient or shape.
    row: Vec<f64>,
    /// Of each coefficient and shape by itself.
    curvature: Vec<f64>,
}

impl Scratch {
    fn shape_for(&mut self, block: &Block) {
        let (n, terms) = (block.points(), block.form.terms());
        let fits = self.terms.len() == terms.len()
            && self.terms.iter().zip(terms).all(|(v, t)| v.value.len() == n && v.first.len() == t.depends.len());
        if !fits {
            self.terms = terms.iter().map(|term| TermValues::new(term.depends.len(), n)).collect();
        }
        if let Some(floor) = block.form.floor() {
            self.terms[floor].value.fill(1.0);
        }
        for buffer in [&mut self.fitted, &mut self.outer, &mut self.linear, &mut self.scale, &mut self.weighted] {
            buffer.resize(n, 0.0);
        }
        self.shape_columns.resize(block.form.shapes().len(), Vec::new());
        self.shape_columns.iter_mut().for_each(|column| column.resize(n, 0.0));
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Problem {
    /// One group by itself.
    pub fn single(block: Block, criterion: Criterion) -> Self {
        let coefficients = block.form.terms().iter().map(|_| (0.0, f64::INFINITY));
        let bounds = coefficients.chain(block.form.shapes().iter().map(|shape| shape.range)).collect();
        Self { blocks: vec![block], bounds, criterion }
    }

    /// The objective and its derivatives at `p`; infinite where a loss would not be positive.
    pub fn derivatives(&self, p: &[f64], delta: f64, out: &mut Derivatives) {
        out.clear(p.len());
        SCRATCH.with_borrow_mut(|scratch| {
            for block in &self.blocks {
                self.accumulate(block, p, delta, scratch, out);
            }
        });
        if !out.value.is_finite() {
            out.value = f64::INFINITY;
        }
    }

    fn accumulate(&self, block: &Block, p: &[f64], delta: f64, s: &mut Scratch, out: &mut Derivatives) {
        let (form, map) = (block.form, &block.map);
        s.shape_for(block);
        let k = form.terms().len();
        s.local.clear();
        s.local.extend(map.iter().map(|at| p[*at]));
        let (coefficients, shapes) = s.local.split_at(k);
        evaluate_terms(block, shapes, true, &mut s.terms);
        s.fitted.fill(block.offset);
        for (c, term) in coefficients.iter().zip(&s.terms) {
            vector::add_scaled(*c, &term.value, &mut s.fitted);
        }
        out.value += weigh(self.criterion.residual, delta, block, s);
        if !out.value.is_finite() {
            return;
        }

        for column in &mut s.shape_columns {
            column.fill(0.0);
        }
        for (k, term) in form.terms().iter().enumerate() {
            for (local, q) in term.depends.iter().enumerate() {
                vector::add_scaled(s.local[k], &s.terms[k].first[local], &mut s.shape_columns[*q]);
            }
        }
        let columns: Vec<&[f64]> =
            s.terms.iter().map(|term| &term.value[..]).chain(s.shape_columns.iter().map(|c| &c[..])).collect();
        s.curvature.clear();
        s.row.resize(columns.len(), 0.0);
        for (i, column) in columns.iter().enumerate() {
            let weights = vector::PointWeights { linear: &s.linear, outer: &s.outer, scale: &s.scale };
            let [influence, curvature] =
                vector::gram_row(weights, column, &columns[..=i], &mut s.weighted, &mut s.row[..=i]);
            out.gradient[map[i]] -= influence;
            s.curvature.push(curvature);
            out.scale[map[i]] += curvature;
            for (j, value) in s.row[..=i].iter().enumerate() {
                // Two variables of a block may be one of the problem: then both orders count.
                out.hessian.add(map[i], map[j], if i != j && map[i] == map[j] { 2.0 * value } else { *value });
            }
        }
        for (t, term) in form.terms().iter().enumerate() {
            for (a, q) in term.depends.iter().enumerate() {
                let mixed = vector::dot(&s.linear, &s.terms[t].first[a]);
                out.hessian.add(map[t], map[k + q], -mixed);
                out.scale[map[k + q]] += mixed * mixed / s.curvature[t].max(f64::MIN_POSITIVE);
                for (b, r) in term.depends.iter().enumerate().take(a + 1) {
                    let second = &s.terms[t].second[a * (a + 1) / 2 + b];
                    out.hessian.add(map[k + q], map[k + r], -s.local[t] * vector::dot(&s.linear, second));
                }
            }
        }
    }

    /// The objective where all residuals are rounding: at or below it no step can be judged, nor any misfit.
    pub fn rounding(&self) -> f64 {
        let of_block = |block: &Block| {
            let residual = |y: &f64| match self.criterion.residual {
                Residual::Linear => ROUNDING * y,
                Residual::Log => ROUNDING,
            };
            block.y.iter().zip(&block.weight).map(|(y, weight)| 0.5 * weight * residual(y).powi(2)).sum::<f64>()
        };
        self.blocks.iter().map(of_block).sum()
    }

    /// Residuals of a block's points at `p`, in their measure.
    pub fn residuals(&self, block: &Block, p: &[f64]) -> Vec<f64> {
        SCRATCH.with_borrow_mut(|s| {
            s.shape_for(block);
            let local: Vec<f64> = block.map.iter().map(|at| p[*at]).collect();
            fitted(block, &local, s);
            weigh(self.criterion.residual, f64::INFINITY, block, s);
            s.residual.clone()
        })
    }

    /// The Jacobian of the fitted values (of their logarithm for log residuals), by the block's own variables: one
    /// column each, each element times the root of the point's weight.
    pub fn jacobian(&self, block: &Block, p: &[f64]) -> Vec<Vec<f64>> {
        let k = block.form.terms().len();
        SCRATCH.with_borrow_mut(|s| {
            s.shape_for(block);
            let local: Vec<f64> = block.map.iter().map(|at| p[*at]).collect();
            evaluate_terms(block, &local[k..], true, &mut s.terms);
            s.fitted.fill(block.offset);
            for (c, term) in local.iter().zip(&s.terms) {
                vector::add_scaled(*c, &term.value, &mut s.fitted);
            }
            let mut out: Vec<Vec<f64>> = s.terms.iter().map(|term| term.value.clone()).collect();
            out.resize(local.len(), vec![0.0; block.points()]);
            for (t, term) in block.form.terms().iter().enumerate() {
                for (a, q) in term.depends.iter().enumerate() {
                    vector::add_scaled(local[t], &s.terms[t].first[a], &mut out[k + q]);
                }
            }
            for column in &mut out {
                for (i, value) in column.iter_mut().enumerate() {
                    let log = if self.criterion.residual == Residual::Log { s.fitted[i] } else { 1.0 };
                    *value *= block.weight[i].sqrt() / log;
                }
            }
            out
        })
    }
}

fn evaluate_terms(block: &Block, shapes: &[f64], derivatives: bool, terms: &mut [TermValues]) {
    let floor = block.form.floor();
    for (k, term) in terms.iter_mut().enumerate().filter(|(k, _)| Some(*k) != floor) {
        block.design.term(k, shapes, derivatives, term);
    }
}

fn fitted(block: &Block, local: &[f64], s: &mut Scratch) {
    let k = block.form.terms().len();
    evaluate_terms(block, &local[k..], false, &mut s.terms);
    s.fitted.fill(block.offset);
    for (c, term) in local.iter().zip(&s.terms) {
        vector::add_scaled(*c, &term.value, &mut s.fitted);
    }
}

/// From fitted values to residuals and the weights of the derivatives; returns the objective. With r the residual, ψ the
/// influence and f the fitted value, the gradient is -Σ `linear`·∂f and the Hessian Σ `outer`·∂f∂f' - Σ `linear`·∂²f.
fn weigh(residual: Residual, delta: f64, block: &Block, s: &mut Scratch) -> f64 {
    s.residual.resize(s.fitted.len(), 0.0);
    let out =
        vector::Weights { points: &block.weight, linear: &mut s.linear, outer: &mut s.outer, scale: &mut s.scale };
    match residual {
        Residual::Linear => {
            for ((r, y), f) in s.residual.iter_mut().zip(&block.y).zip(&s.fitted) {
                *r = y - f;
            }
            vector::weigh_linear(&s.residual, delta, out)
        }
        Residual::Log => {
            if !vector::all_positive(&s.fitted) {
                return f64::INFINITY;
            }
            // -ln(f/L) keeps its digits where f is close to L.
            vector::product(&s.fitted, &block.inverse_y, &mut s.residual);
            vector::ln(&mut s.residual);
            s.residual.iter_mut().for_each(|r| *r = -*r);
            vector::weigh_log(&s.residual, &s.fitted, delta, out)
        }
    }
}
