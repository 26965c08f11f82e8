//! The law of Tissue et al.: the loss falls with the summed rate, and further with how much the rate has come down.

use super::{CurveForm, Logged, fall_with_summed_rate};
use crate::analysis::forms::{Design, Shape, Term, TermValues, Terms};

/// L = L0 + A·S1^-α - C·S2, where S2 forgets a drop of the rate by the factor λ a step. The authors fix λ at .999 and
/// name .99 to .9995 as sensible. S1 counts the warm-up; S2 starts after it.
#[derive(Debug)]
pub(super) struct Annealing;

const SHAPES: &[Shape] = &[
    Shape { name: "alpha", range: (1e-3, 5.0), grid: (0.1, 2.0, 24) },
    Shape { name: "lambda", range: (0.5, 0.999_999), grid: (0.98, 0.9998, 9) },
];

impl Terms for Annealing {
    fn name(&self) -> &'static str {
        "annealing"
    }
    fn formula(&self) -> &'static str {
        "L = L0 + A S1^-alpha - C S2(lambda)"
    }
    fn source(&self) -> &'static str {
        "Tissue et al. 2024, arXiv:2408.11029"
    }
    fn terms(&self) -> &'static [Term] {
        &[
            Term { name: "A", depends: &[0], direct: true },
            Term { name: "C", depends: &[1], direct: true },
            Term { name: "L0", depends: &[], direct: true },
        ]
    }
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }
    fn parameters(&self) -> &'static [&'static str] {
        &["L0", "A", "alpha", "C", "lambda"]
    }

    fn natural(&self, c: &[f64], s: &[f64], _: &[f64]) -> Vec<f64> {
        vec![c[2], c[0], s[0], c[1], s[1]]
    }

    fn internal(&self, p: &[f64], _: &[f64]) -> (Vec<f64>, Vec<f64>) {
        (vec![p[1], p[3], p[0]], vec![p[2], p[4]])
    }
}

impl CurveForm for Annealing {
    fn design(&self, runs: &[Logged], _: &[f64]) -> Box<dyn Design> {
        Box::new(AnnealingDesign {
            log_sums: runs.iter().flat_map(Logged::log_sums).collect(),
            runs: runs.iter().map(|run| (run.schedule.clone(), run.steps.to_vec())).collect(),
        })
    }
}

struct AnnealingDesign {
    /// ln S1 at every point.
    log_sums: Vec<f64>,
    runs: Vec<(super::Schedule, Vec<usize>)>,
}

impl Design for AnnealingDesign {
    fn points(&self) -> usize {
        self.log_sums.len()
    }

    fn term(&self, term: usize, shapes: &[f64], derivatives: bool, out: &mut TermValues) {
        if term == 0 {
            return fall_with_summed_rate(&self.log_sums, shapes[0], derivatives, out);
        }
        let annealed = self.runs.iter().flat_map(|(schedule, steps)| schedule.annealed(steps, shapes[1]));
        for (i, [value, first, second]) in annealed.enumerate() {
            out.value[i] = -value;
            if derivatives {
                (out.first[0][i], out.second[0][i]) = (-first, -second);
            }
        }
    }
}
