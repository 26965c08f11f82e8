//! Laws of parameters N and tokens D.

use super::powers::{Powers, falling};
use super::{Input, Shape, Term};

const INPUTS: &[Input] = &[Input::Parameters, Input::Tokens];
const ALPHA: Shape = Shape { name: "alpha", range: (1e-4, 10.0), grid: (0.02, 2.5, 16) };
const BETA: Shape = Shape { name: "beta", ..ALPHA };
const A: Term = Term { name: "A", depends: &[0], direct: true };
const B: Term = Term { name: "B", depends: &[1], direct: true };
const E: Term = Term { name: "E", depends: &[], direct: true };

/// L = E + A/N^α + B/D^β
pub(super) static CHINCHILLA: Powers = Powers {
    name: "chinchilla",
    formula: "L = E + A N^-alpha + B D^-beta",
    source: "Hoffmann et al. 2022, arXiv:2203.15556",
    inputs: INPUTS,
    terms: &[A, B, E],
    factors: &[&[falling(0, 0)], &[falling(1, 1)], &[]],
    shapes: &[ALPHA, BETA],
    parameters: &["A", "B", "E", "alpha", "beta"],
};

/// L = E + A/N^α + B/D^α
pub(super) static TIED: Powers = Powers {
    name: "tied",
    formula: "L = E + A N^-alpha + B D^-alpha",
    source: "Muennighoff et al. 2023, arXiv:2305.16264",
    inputs: INPUTS,
    terms: &[A, Term { depends: &[0], ..B }, E],
    factors: &[&[falling(0, 0)], &[falling(1, 0)], &[]],
    shapes: &[Shape { grid: (0.01, 3.0, 32), ..ALPHA }],
    parameters: &["A", "B", "E", "alpha"],
};

/// L = E + A/N^α + B/D^β + K/(N^α·D^β)
pub(super) static INTERACTION: Powers = Powers {
    name: "interaction",
    formula: "L = E + A N^-alpha + B D^-beta + K N^-alpha D^-beta",
    source: "the Chinchilla law with a product term, as a check of its additivity",
    inputs: INPUTS,
    terms: &[A, B, Term { name: "K", depends: &[0, 1], direct: true }, E],
    factors: &[&[falling(0, 0)], &[falling(1, 1)], &[falling(0, 0), falling(1, 1)], &[]],
    shapes: &[ALPHA, BETA],
    parameters: &["A", "B", "K", "E", "alpha", "beta"],
};

/// L = A/N^α + B/D^β
pub(super) static NO_FLOOR: Powers = Powers {
    name: "no-floor",
    formula: "L = A N^-alpha + B D^-beta",
    source: "the Chinchilla law with E = 0",
    inputs: INPUTS,
    terms: &[A, B],
    factors: &[&[falling(0, 0)], &[falling(1, 1)]],
    shapes: &[Shape { grid: (1e-3, 2.5, 20), ..ALPHA }, Shape { grid: (1e-3, 2.5, 20), ..BETA }],
    parameters: &["A", "B", "alpha", "beta"],
};
