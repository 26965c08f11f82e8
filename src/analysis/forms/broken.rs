//! A power law with one smooth break.

use super::jet::{self, Jet};
use super::{Design, Form, Input, Inputs, Shape, Term, TermValues, Terms};

/// L = a + b·x^-c0·(1 + (x/d1)^(1/f1))^(-c1·f1)
#[derive(Debug)]
pub(super) struct Broken;

/// The break `d1` is searched relative to the middle of the data, f1 is its width in units of ln x.
const SHAPES: &[Shape] = &[
    Shape { name: "c0", range: (1e-4, 10.0), grid: (0.02, 1.0, 8) },
    Shape { name: "c1", range: (1e-4, 10.0), grid: (0.02, 1.0, 8) },
    Shape { name: "d1", range: (1e-6, 1e6), grid: (1e-3, 1e3, 9) },
    Shape { name: "f1", range: (1e-2, 10.0), grid: (0.1, 3.0, 4) },
];

impl Terms for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn formula(&self) -> &'static str {
        "L = a + b x^-c0 (1 + (x/d1)^(1/f1))^(-c1 f1)"
    }
    fn source(&self) -> &'static str {
        "Caballero et al. 2022, arXiv:2210.14891, one break, falling on both sides"
    }
    fn terms(&self) -> &'static [Term] {
        &[Term { name: "b", depends: &[0, 1, 2, 3], direct: false }, Term { name: "a", depends: &[], direct: true }]
    }
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }
    fn parameters(&self) -> &'static [&'static str] {
        &["a", "b", "c0", "c1", "d1", "f1"]
    }

    fn natural(&self, c: &[f64], s: &[f64], reference: &[f64]) -> Vec<f64> {
        let log_break = s[2].ln();
        let at_reference = s[1] * s[3] * softplus(-log_break / s[3]);
        let b = (c[0].ln() + s[0] * reference[0] + at_reference).exp();
        vec![c[1], b, s[0], s[1], (log_break + reference[0]).exp(), s[3]]
    }

    fn internal(&self, p: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let log_break = p[4].ln() - reference[0];
        let at_reference = p[3] * p[5] * softplus(-log_break / p[5]);
        let c = (p[1].ln() - p[2] * reference[0] - at_reference).exp();
        (vec![c, p[0]], vec![p[2], p[3], log_break.exp(), p[5]])
    }
}

impl Form for Broken {
    fn inputs(&self) -> &'static [Input] {
        &[Input::X]
    }

    fn design(&self, inputs: &Inputs, reference: &[f64]) -> Box<dyn Design> {
        Box::new(BrokenDesign { l: inputs.columns[0].iter().map(|x| x.ln() - reference[0]).collect() })
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

struct BrokenDesign {
    l: Vec<f64>,
}

impl Design for BrokenDesign {
    fn points(&self) -> usize {
        self.l.len()
    }

    fn term(&self, _: usize, s: &[f64], derivatives: bool, out: &mut TermValues) {
        if !derivatives {
            let log_break = s[2].ln();
            let at_reference = softplus(-log_break / s[3]);
            for (out, l) in out.value.iter_mut().zip(&self.l) {
                let bend = softplus((l - log_break) / s[3]) - at_reference;
                *out = (-s[0] * l - s[1] * s[3] * bend).exp();
            }
            return;
        }
        let [c0, c1, d1, f1] = [0, 1, 2, 3].map(|q| Jet::<4>::variable(q, s[q]));
        let (log_break, sharpness) = (d1.ln(), f1.recip());
        let at_reference = (log_break.scale(-1.0) * sharpness).softplus();
        for (i, l) in self.l.iter().enumerate() {
            let bend = ((Jet::constant(*l) - log_break) * sharpness).softplus() - at_reference;
            jet::store((c0.scale(-l) - c1 * f1 * bend).exp(), i, derivatives, out);
        }
    }
}
