//! The laws that can be fitted. A law is a sum of terms with coefficients that are never negative,
//! L = Σ c_k·φ_k(θ), where θ are exponents and the like; that is what variable projection needs.
//!
//! Every term is one at the reference, a point in the middle of the data. A coefficient is then the term's share of the
//! loss there, which keeps the fit well conditioned whatever the unit of x; the parameters that people read (A, B) are
//! made from it at the end.
//!
//! A new form is one file that defines a `static`, and its line in [`FORMS`].

mod broken;
mod chinchilla;
mod data_constrained;
mod gamma;
mod jet;
mod over_training;
mod power;
mod powers;

use std::collections::HashSet;
use std::fmt::Debug;

/// Every form, in the order in which help and errors list them.
pub static FORMS: &[&dyn Form] = &[
    &power::POWER,
    &power::POWER_FLOOR,
    &chinchilla::CHINCHILLA,
    &chinchilla::TIED,
    &gamma::Gamma,
    &chinchilla::INTERACTION,
    &chinchilla::NO_FLOOR,
    &over_training::OVER_TRAINING,
    &data_constrained::DataConstrained,
    &broken::Broken,
];

/// The form of that name.
pub fn lookup(name: &str) -> Option<&'static dyn Form> {
    FORMS.iter().copied().find(|form| form.name() == name)
}

/// L = A·x^-b.
pub fn power() -> &'static dyn Form {
    &power::POWER
}

/// L = A·x^-b + C.
pub fn power_floor() -> &'static dyn Form {
    &power::POWER_FLOOR
}

/// y = A·x^a, growing with x: of optimal sizes, not of losses.
pub fn growth() -> &'static dyn Form {
    &power::GROWTH
}

/// L = E + A/N^α + B/D^β.
pub fn chinchilla() -> &'static dyn Form {
    &chinchilla::CHINCHILLA
}

/// L = E + (a·M^η + b·M^-η)·(N·D)^-η with M = D/N.
pub fn over_training() -> &'static dyn Form {
    &over_training::OVER_TRAINING
}

/// L = E + A/N'^α + B/D'^β, discounted for repetition.
pub fn data_constrained() -> &'static dyn Form {
    &data_constrained::DataConstrained
}

/// What a law depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// One scale: compute, tokens or parameters.
    X,
    /// Parameters N.
    Parameters,
    /// Training tokens D.
    Tokens,
    /// Distinct training tokens U.
    Unique,
}

/// Training FLOPs per parameter and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
pub const FLOPS_PER_PARAMETER_TOKEN: f64 = 6.0;

impl Input {
    /// The option that names its column.
    pub fn option(self) -> &'static str {
        match self {
            Self::X => "--x",
            Self::Parameters => "--n",
            Self::Tokens => "--d",
            Self::Unique => "--u",
        }
    }

    /// Its letter, where a value is given rather than a column: the option without its dashes.
    pub fn letter(self) -> &'static str {
        &self.option()[2..]
    }
}

/// Values of a form's inputs at some points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// One column for each of [`Form::inputs`].
    pub columns: Vec<Vec<f64>>,
}

impl Inputs {
    /// Number of points.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One point.
    pub fn point(values: &[f64]) -> Self {
        Self { columns: values.iter().map(|v| vec![*v]).collect() }
    }

    /// The points at these positions.
    pub fn pick(&self, at: &[usize]) -> Self {
        Self { columns: self.columns.iter().map(|column| at.iter().map(|i| column[*i]).collect()).collect() }
    }

    /// How many different points there are, counted up to `most`.
    pub fn distinct(&self, most: usize) -> usize {
        let mut seen: HashSet<Vec<u64>> = HashSet::new();
        for i in 0..self.len() {
            if seen.len() >= most {
                break;
            }
            seen.insert(self.columns.iter().map(|column| column[i].to_bits()).collect());
        }
        seen.len()
    }

    /// Mean of the logarithm of each column.
    pub fn centre(&self) -> Vec<f64> {
        let mean = |column: &Vec<f64>| column.iter().map(|v| v.ln()).sum::<f64>() / column.len().max(1) as f64;
        self.columns.iter().map(mean).collect()
    }
}

/// A coefficient and what it multiplies.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The letter of its parameter.
    pub name: &'static str,
    /// Positions in [`Terms::shapes`] of what it depends on. Without any it is the floor.
    pub depends: &'static [usize],
    /// Whether the parameter of that name is the coefficient at the reference 1, so that its interval can be profiled.
    pub direct: bool,
}

/// A parameter in which the law is not linear.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its letter.
    pub name: &'static str,
    /// Bounds of the search, both positive.
    pub range: (f64, f64),
    /// Where the starting grid looks, within the bounds, and at how many values in geometric progression.
    pub grid: (f64, f64, usize),
}

/// A sum of terms with coefficients, as the solver knows it: whatever its inputs are.
pub trait Terms: Debug + Sync {
    /// The spelling on the command line and in JSON.
    fn name(&self) -> &'static str;
    /// For people.
    fn formula(&self) -> &'static str;
    /// Where it comes from.
    fn source(&self) -> &'static str;
    /// Its terms.
    fn terms(&self) -> &'static [Term];
    /// Its further parameters.
    fn shapes(&self) -> &'static [Shape];
    /// Names of the parameters that people read, as many as terms and shapes together.
    fn parameters(&self) -> &'static [&'static str];
    /// These parameters, given coefficients and shapes at a reference (logarithms of the inputs).
    fn natural(&self, coefficients: &[f64], shapes: &[f64], reference: &[f64]) -> Vec<f64>;
    /// The reverse of [`Terms::natural`].
    fn internal(&self, natural: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>);

    /// Free parameters.
    fn size(&self) -> usize {
        self.terms().len() + self.shapes().len()
    }

    /// The position of the floor among the terms.
    fn floor(&self) -> Option<usize> {
        self.terms().iter().position(|term| term.depends.is_empty())
    }

    /// The name of the floor.
    fn floor_name(&self) -> Option<&'static str> {
        self.floor().map(|floor| self.terms()[floor].name)
    }
}

/// A law of the size of a run.
pub trait Form: Terms {
    /// What it depends on.
    fn inputs(&self) -> &'static [Input];
    /// Its terms at given points.
    fn design(&self, inputs: &Inputs, reference: &[f64]) -> Box<dyn Design>;

    /// A reference in the middle of these points.
    fn centre(&self, inputs: &Inputs) -> Vec<f64> {
        inputs.centre()
    }

    /// Whether each term is exactly one at inputs equal to the reference, so that coefficients there add up to the loss.
    fn is_anchored(&self) -> bool {
        true
    }
}

/// A term and its derivatives at every point; the latter by what the term depends on, in that order.
#[derive(Clone, Debug, Default)]
pub struct TermValues {
    /// φ
    pub value: Vec<f64>,
    /// ∂φ/∂θ_q
    pub first: Vec<Vec<f64>>,
    /// ∂²φ/∂θ_q∂θ_r for r ≤ q, row by row.
    pub second: Vec<Vec<f64>>,
}

impl TermValues {
    /// Room for `depends` derivatives at `n` points; the value is one.
    pub fn new(depends: usize, n: usize) -> Self {
        Self {
            value: vec![1.0; n],
            first: vec![vec![0.0; n]; depends],
            second: vec![vec![0.0; n]; depends * (depends + 1) / 2],
        }
    }
}

/// The terms of a form at given points.
pub trait Design: Send + Sync {
    /// Number of points.
    fn points(&self) -> usize;
    /// Writes a term, and its derivatives if `derivatives`. The floor is never asked for.
    fn term(&self, term: usize, shapes: &[f64], derivatives: bool, out: &mut TermValues);
}
