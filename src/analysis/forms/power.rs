//! Laws of one scale.

use super::powers::{Factor, Powers, falling};
use super::{Input, Shape, Term};

/// Below the lower bound a law is straight in ln x to within any measurable loss; at the upper one doubling x divides the
/// reducible loss by a thousand.
const EXPONENT: Shape = Shape { name: "b", range: (1e-4, 10.0), grid: (1e-4, 10.0, 48) };

/// L = A·x^-b
pub(super) static POWER: Powers = Powers {
    name: "power",
    formula: "L = A x^-b",
    source: "Kaplan et al. 2020, arXiv:2001.08361",
    inputs: &[Input::X],
    terms: &[Term { name: "A", depends: &[0], direct: true }],
    factors: &[&[falling(0, 0)]],
    shapes: &[EXPONENT],
    parameters: &["A", "b"],
};

/// y = A·x^a, which grows: the sizes that compute pays for, not a law of the loss and so not among the
/// [`FORMS`](super::FORMS).
pub(super) static GROWTH: Powers = Powers {
    name: "growth",
    formula: "y = A x^a",
    source: "Kaplan et al. 2020, arXiv:2001.08361, equation 1.7",
    inputs: &[Input::X],
    terms: &[Term { name: "A", depends: &[0], direct: true }],
    factors: &[&[Factor { input: 0, shape: 0, sign: 1.0 }]],
    shapes: &[Shape { name: "a", ..EXPONENT }],
    parameters: &["A", "a"],
};

/// L = A·x^-b + C
pub(super) static POWER_FLOOR: Powers = Powers {
    name: "power+floor",
    formula: "L = A x^-b + C",
    source: "Henighan et al. 2020, arXiv:2010.14701",
    inputs: &[Input::X],
    terms: &[Term { name: "A", depends: &[0], direct: true }, Term { name: "C", depends: &[], direct: true }],
    factors: &[&[falling(0, 0)], &[]],
    shapes: &[EXPONENT],
    parameters: &["A", "b", "C"],
};
