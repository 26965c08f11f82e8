//! Loss of models trained on more tokens than is compute-optimal.

use super::powers::{Factor, Powers};
use super::{Input, Shape, Term};

/// L = E + (a·M^η + b·M^-η)·C^-η with compute C = 6·N·D and the token multiplier M = D/N. In N and D, each term is a
/// single power: M^η·C^-η = 6^-η·N^(-2η), M^-η·C^-η = 6^-η·D^(-2η); the exponent of the letter is η.
pub(super) static OVER_TRAINING: Powers = Powers {
    name: "over-training",
    formula: "L = E + (a M^eta + b M^-eta) (N D)^-eta, M = D/N",
    source: "Gadre et al. 2024, arXiv:2403.08540; compute without its factor of 6",
    inputs: &[Input::Parameters, Input::Tokens],
    terms: &[
        Term { name: "a", depends: &[0], direct: true },
        Term { name: "b", depends: &[0], direct: true },
        Term { name: "E", depends: &[], direct: true },
    ],
    factors: &[&[Factor { input: 0, shape: 0, sign: -2.0 }], &[Factor { input: 1, shape: 0, sign: -2.0 }], &[]],
    shapes: &[Shape { name: "eta", range: (1e-4, 5.0), grid: (0.005, 1.5, 48) }],
    parameters: &["a", "b", "E", "eta"],
};
