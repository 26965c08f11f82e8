//! Laws whose terms are products of powers of the inputs: data, no code of their own.

use super::{Design, Form, Input, Inputs, Shape, Term, TermValues, Terms};
use crate::analysis::solver::vector;

/// A power of one input in a term: input^(sign·θ).
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    /// Position of the input.
    pub input: usize,
    /// Position of the shape among all of the form.
    pub shape: usize,
    /// Usually -1.
    pub sign: f64,
}

/// input^(-θ)
pub(super) const fn falling(input: usize, shape: usize) -> Factor {
    Factor { input, shape, sign: -1.0 }
}

/// A law of products of powers.
#[derive(Debug)]
pub(super) struct Powers {
    pub name: &'static str,
    pub formula: &'static str,
    pub source: &'static str,
    pub inputs: &'static [Input],
    pub terms: &'static [Term],
    /// For each term.
    pub factors: &'static [&'static [Factor]],
    pub shapes: &'static [Shape],
    /// The names of terms and shapes in the order of the formula.
    pub parameters: &'static [&'static str],
}

impl Powers {
    fn shape(&self, name: &str) -> usize {
        self.shapes.iter().position(|shape| shape.name == name).expect("parameters are terms and shapes")
    }

    /// ln of the term at inputs of one, when it is one at the reference.
    fn log_scale(&self, term: usize, shapes: &[f64], reference: &[f64]) -> f64 {
        self.factors[term].iter().map(|f| -f.sign * shapes[f.shape] * reference[f.input]).sum()
    }
}

impl Terms for Powers {
    fn name(&self) -> &'static str {
        self.name
    }
    fn formula(&self) -> &'static str {
        self.formula
    }
    fn source(&self) -> &'static str {
        self.source
    }
    fn terms(&self) -> &'static [Term] {
        self.terms
    }
    fn shapes(&self) -> &'static [Shape] {
        self.shapes
    }
    fn parameters(&self) -> &'static [&'static str] {
        self.parameters
    }

    fn natural(&self, coefficients: &[f64], shapes: &[f64], reference: &[f64]) -> Vec<f64> {
        let value = |name: &&str| match self.terms.iter().position(|term| term.name == *name) {
            // In logarithms, because the two factors can each leave the range of f64 when their product does not.
            Some(k) if coefficients[k] > 0.0 => (coefficients[k].ln() + self.log_scale(k, shapes, reference)).exp(),
            Some(_) => 0.0,
            None => shapes[self.shape(name)],
        };
        self.parameters.iter().map(value).collect()
    }

    fn internal(&self, natural: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let value = |name: &str| self.parameters.iter().position(|p| *p == name).map_or(0.0, |at| natural[at]);
        let shapes: Vec<f64> = self.shapes.iter().map(|shape| value(shape.name)).collect();
        let coefficient = |(k, term): (usize, &Term)| match value(term.name) {
            a if a > 0.0 => (a.ln() - self.log_scale(k, &shapes, reference)).exp(),
            _ => 0.0,
        };
        (self.terms.iter().enumerate().map(coefficient).collect(), shapes)
    }
}

impl Form for Powers {
    fn inputs(&self) -> &'static [Input] {
        self.inputs
    }

    fn design(&self, inputs: &Inputs, reference: &[f64]) -> Box<dyn Design> {
        let n = inputs.len();
        let slope = |term: &Term, factors: &[Factor], shape: usize| {
            debug_assert!(term.depends.contains(&shape));
            let mut slope = vec![0.0; n];
            for f in factors.iter().filter(|f| f.shape == shape) {
                for (slope, x) in slope.iter_mut().zip(&inputs.columns[f.input]) {
                    *slope += f.sign * (x.ln() - reference[f.input]);
                }
            }
            slope
        };
        let terms = self.terms.iter().zip(self.factors);
        let slopes = terms
            .map(|(term, factors)| term.depends.iter().map(|q| (*q, slope(term, factors, *q))).collect())
            .collect();
        Box::new(PowersDesign { n, slopes })
    }
}

struct PowersDesign {
    n: usize,
    /// For each term and each shape it depends on: the shape, and ∂ ln φ/∂θ.
    slopes: Vec<Vec<(usize, Vec<f64>)>>,
}

impl Design for PowersDesign {
    fn points(&self) -> usize {
        self.n
    }

    fn term(&self, term: usize, shapes: &[f64], derivatives: bool, out: &mut TermValues) {
        let slopes = &self.slopes[term];
        match &slopes[..] {
            [] => return out.value.fill(1.0),
            [(q, slope)] => vector::exp_scaled(shapes[*q], slope, &mut out.value),
            _ => {
                let mut exponent = vec![0.0; self.n];
                for (q, slope) in slopes {
                    vector::add_scaled(shapes[*q], slope, &mut exponent);
                }
                vector::exp(&exponent, &mut out.value);
            }
        }
        if !derivatives {
            return;
        }
        for (q, (_, slope)) in slopes.iter().enumerate() {
            vector::product(slope, &out.value, &mut out.first[q]);
            for (r, (_, other)) in slopes.iter().enumerate().take(q + 1) {
                vector::product(other, &out.first[q], &mut out.second[q * (q + 1) / 2 + r]);
            }
        }
    }
}
