//! Loss of models that see their data more than once.

use super::jet::{self, Jet};
use super::{Design, Form, Input, Inputs, Shape, Term, TermValues, Terms};

/// L = E + A/N'^α + B/D'^α, where repeated tokens and excess parameters count for less:
/// D' = U·(1 + R*_D·(1 - e^(-R_D/R*_D))) with U distinct tokens and R_D = D/U - 1 repetitions, and the same of N with
/// U_N, the parameters that are compute-optimal for U tokens, in the place of U.
///
/// U_N depends on a Chinchilla law of runs without repetition; the published one is taken (A = 521, B = 1488, E = 1.87,
/// both exponents 0.353), for which U_N = G²·U with G = (A/B)^(1/(2α)).
#[derive(Debug)]
pub(super) struct DataConstrained;

/// Published law of single-epoch runs, from which U_N follows: A, B and the exponent of both.
const SINGLE_EPOCH: (f64, f64, f64) = (520.824_951_659_918_7, 1_487.716_093_782_861, 0.352_659_6);

const SHAPES: &[Shape] = &[
    Shape { name: "alpha", range: (1e-3, 5.0), grid: (0.05, 1.0, 10) },
    Shape { name: "beta", range: (1e-3, 5.0), grid: (0.05, 1.0, 10) },
    Shape { name: "R_D", range: (1e-2, 1e6), grid: (1.0, 300.0, 8) },
    Shape { name: "R_N", range: (1e-2, 1e6), grid: (0.3, 100.0, 8) },
];

impl Terms for DataConstrained {
    fn name(&self) -> &'static str {
        "data-constrained"
    }
    fn formula(&self) -> &'static str {
        "L = E + A N'^-alpha + B D'^-beta, N' and D' discounted for repetition (R_N, R_D)"
    }
    fn source(&self) -> &'static str {
        "Muennighoff et al. 2023, arXiv:2305.16264"
    }
    fn terms(&self) -> &'static [Term] {
        &[
            Term { name: "A", depends: &[0, 3], direct: true },
            Term { name: "B", depends: &[1, 2], direct: true },
            Term { name: "E", depends: &[], direct: true },
        ]
    }
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }
    fn parameters(&self) -> &'static [&'static str] {
        &["A", "B", "E", "alpha", "beta", "R_D", "R_N"]
    }

    fn natural(&self, c: &[f64], s: &[f64], reference: &[f64]) -> Vec<f64> {
        let scale = |c: f64, exponent: f64, log: f64| (c.ln() + exponent * log).exp();
        vec![scale(c[0], s[0], reference[0]), scale(c[1], s[1], reference[1]), c[2], s[0], s[1], s[2], s[3]]
    }

    fn internal(&self, p: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let scale = |a: f64, exponent: f64, log: f64| (a.ln() - exponent * log).exp();
        (vec![scale(p[0], p[3], reference[0]), scale(p[1], p[4], reference[1]), p[2]], vec![p[3], p[4], p[5], p[6]])
    }
}

impl Form for DataConstrained {
    fn inputs(&self) -> &'static [Input] {
        &[Input::Parameters, Input::Tokens, Input::Unique]
    }

    fn is_anchored(&self) -> bool {
        false
    }

    fn design(&self, inputs: &Inputs, reference: &[f64]) -> Box<dyn Design> {
        let (n, d, u) = (&inputs.columns[0], &inputs.columns[1], &inputs.columns[2]);
        let repeated = |value: f64, base: f64, log: f64| (base.ln() - log, (value / base - 1.0).max(0.0));
        let optimal = |unique: f64| optimal_parameters(unique);
        let parameters = n.iter().zip(u).map(|(n, u)| repeated(*n, optimal(*u).min(*n), reference[0])).collect();
        let tokens = d.iter().zip(u).map(|(d, u)| repeated(*d, u.min(*d), reference[1])).collect();
        Box::new(Discounted { terms: [parameters, tokens] })
    }
}

/// Compute-optimal parameters for that many distinct tokens, by [`SINGLE_EPOCH`].
fn optimal_parameters(unique: f64) -> f64 {
    let (a, b, exponent) = SINGLE_EPOCH;
    let g = (a / b).powf(1.0 / (2.0 * exponent));
    // With equal exponents N = G·√C' and D = √C'/G, so N = G²·D.
    g * g * unique
}

struct Discounted {
    /// For N and for D: ln of the base relative to the reference, and repetitions of it.
    terms: [Vec<(f64, f64)>; 2],
}

impl Design for Discounted {
    fn points(&self) -> usize {
        self.terms[0].len()
    }

    fn term(&self, term: usize, s: &[f64], derivatives: bool, out: &mut TermValues) {
        let (exponent, half_life) = if term == 0 { (s[0], s[3]) } else { (s[1], s[2]) };
        let (e, r) = (Jet::<2>::variable(0, exponent), Jet::<2>::variable(1, half_life));
        for (i, (base, repetitions)) in self.terms[term].iter().enumerate() {
            if !derivatives {
                let gain = half_life * -(-repetitions / half_life).exp_m1();
                out.value[i] = (-exponent * (base + gain.ln_1p())).exp();
                continue;
            }
            let gain = r * (Jet::constant(1.0) - r.recip().scale(-repetitions).exp());
            let log = Jet::constant(*base) + (Jet::constant(1.0) + gain).ln();
            jet::store((e * log).scale(-1.0).exp(), i, derivatives, out);
        }
    }
}
