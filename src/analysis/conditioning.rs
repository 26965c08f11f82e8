//! How well points determine the parameters of a law, as the condition of its Jacobian there. The number depends on what
//! is taken as a parameter, by orders of magnitude: whoever fits a law as it is written meets the large ones.

use super::fit::problem;
use super::forms::Inputs;
use super::solver::matrix::{Matrix, inverse_gram};
use super::solver::vector::dot;
use super::{Law, Objective, Sample};

/// Condition numbers at a law; those of JᵀJ are the squares of those of J.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditioning {
    /// Of JᵀJ by the logarithm of each coefficient at inputs of one (ln A, ln B, ln E) and by each exponent.
    pub logarithmic: f64,
    /// Of J by the coefficients at inputs of one themselves and by each exponent.
    pub raw: f64,
    /// Of J with every column brought to length one, which no scaling of the parameters changes: what is left is how
    /// alike the effects of different parameters are.
    pub scaled: f64,
}

/// Conditioning of `law` at points, in the measure of the objective; infinite where they do not determine a parameter.
pub fn conditioning(law: &Law, inputs: &Inputs, objective: Objective) -> Conditioning {
    let form = law.form;
    let ones = vec![0.0; inputs.columns.len()];
    let (coefficients, shapes) = form.internal(&law.parameters, &ones);
    let sample = Sample::new(inputs.columns.clone(), law.losses(inputs));
    let problem = problem(&sample, form, objective, &ones);
    let p: Vec<f64> = coefficients.iter().chain(&shapes).copied().collect();
    let raw = problem.jacobian(&problem.blocks[0], &p);
    let unit = raw.iter().map(|column| 1.0 / dot(column, column).sqrt());
    let scaled = scale(&raw, unit);
    let logarithmic = scale(&raw, coefficients.iter().copied().chain(shapes.iter().map(|_| 1.0)));
    Conditioning { logarithmic: of_gram(logarithmic), raw: of_gram(raw).sqrt(), scaled: of_gram(scaled).sqrt() }
}

fn scale(columns: &[Vec<f64>], factors: impl Iterator<Item = f64>) -> Vec<Vec<f64>> {
    columns.iter().zip(factors).map(|(column, factor)| column.iter().map(|value| factor * value).collect()).collect()
}

/// The condition number of JᵀJ, given the columns of J: its largest eigenvalue over its smallest, the latter from the
/// inverse. That comes from J itself, which has half as many digits to lose.
pub(super) fn of_gram(columns: Vec<Vec<f64>>) -> f64 {
    let mut gram = Matrix::zeros(columns.len());
    for i in 0..columns.len() {
        for j in 0..=i {
            gram.add(i, j, dot(&columns[i], &columns[j]));
        }
    }
    let largest = |matrix: Matrix| matrix.eigenvalues().last().copied().unwrap_or(1.0);
    inverse_gram(columns).map_or(f64::INFINITY, |inverse| largest(gram) * largest(inverse))
}
