//! A power of the sum of both reducible parts.

use super::jet::{self, Jet};
use super::{Design, Form, Input, Inputs, Shape, Term, TermValues, Terms};

/// L = E + (A/N^α + B/D^β)^γ
#[derive(Debug)]
pub(super) struct Gamma;

/// The shapes are α, β, γ and ρ, the ratio of the two parts at the reference.
const SHAPES: &[Shape] = &[
    Shape { name: "alpha", range: (1e-3, 10.0), grid: (0.08, 1.2, 8) },
    Shape { name: "beta", range: (1e-3, 10.0), grid: (0.08, 1.2, 8) },
    Shape { name: "gamma", range: (0.02, 20.0), grid: (0.25, 2.0, 4) },
    Shape { name: "ratio", range: (1e-6, 1e6), grid: (0.1, 10.0, 5) },
];

impl Terms for Gamma {
    fn name(&self) -> &'static str {
        "gamma"
    }
    fn formula(&self) -> &'static str {
        "L = E + (A N^-alpha + B D^-beta)^gamma"
    }
    fn source(&self) -> &'static str {
        "Busbridge et al. 2025, arXiv:2502.08606"
    }
    fn terms(&self) -> &'static [Term] {
        &[Term { name: "A", depends: &[0, 1, 2, 3], direct: false }, Term { name: "E", depends: &[], direct: true }]
    }
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }
    fn parameters(&self) -> &'static [&'static str] {
        &["A", "B", "E", "alpha", "beta", "gamma"]
    }

    fn natural(&self, c: &[f64], s: &[f64], reference: &[f64]) -> Vec<f64> {
        // c·((n + ρ·d)/(1 + ρ))^γ, n and d being one at the reference.
        let root = c[0].ln() / s[2] - (1.0 + s[3]).ln();
        let a = (root + s[0] * reference[0]).exp();
        let b = (root + s[3].ln() + s[1] * reference[1]).exp();
        vec![a, b, c[1], s[0], s[1], s[2]]
    }

    fn internal(&self, p: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = (p[0].ln() - p[3] * reference[0]).exp();
        let d = (p[1].ln() - p[4] * reference[1]).exp();
        (vec![(n + d).powf(p[5]), p[2]], vec![p[3], p[4], p[5], d / n])
    }
}

impl Form for Gamma {
    fn inputs(&self) -> &'static [Input] {
        &[Input::Parameters, Input::Tokens]
    }

    fn design(&self, inputs: &Inputs, reference: &[f64]) -> Box<dyn Design> {
        let logs = |k: usize| inputs.columns[k].iter().map(|x| x.ln() - reference[k]).collect();
        Box::new(GammaDesign { n: logs(0), d: logs(1) })
    }
}

struct GammaDesign {
    n: Vec<f64>,
    d: Vec<f64>,
}

impl Design for GammaDesign {
    fn points(&self) -> usize {
        self.n.len()
    }

    fn term(&self, _: usize, s: &[f64], derivatives: bool, out: &mut TermValues) {
        let (alpha, beta, gamma, ratio) = (s[0], s[1], s[2], s[3]);
        if !derivatives {
            for (out, (n, d)) in out.value.iter_mut().zip(self.n.iter().zip(&self.d)) {
                let sum = ((-alpha * n).exp() + ratio * (-beta * d).exp()) / (1.0 + ratio);
                *out = (gamma * sum.ln()).exp();
            }
            return;
        }
        let [alpha, beta, gamma, ratio] = [0, 1, 2, 3].map(|q| Jet::<4>::variable(q, s[q]));
        let share = (Jet::constant(1.0) + ratio).recip();
        for (i, (n, d)) in self.n.iter().zip(&self.d).enumerate() {
            let sum = (alpha.scale(-n).exp() + ratio * beta.scale(-d).exp()) * share;
            jet::store((gamma * sum.ln()).exp(), i, derivatives, out);
        }
    }
}
