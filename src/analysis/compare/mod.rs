//! Groups against each other: which of them is better, by how much, and whether the data can tell.

mod joint;
mod pairs;
mod verdict;

pub use joint::Shared;
pub use pairs::{Efficiency, Multiplier, PairTest, Paired, PairedPoint};
pub use verdict::{LEVEL, p_value};

use super::fit::{Fitted, describe, status};
use super::forms::Form;
use super::{Fit, FitError, FitOptions, FitStatus, Row, Sample};
use joint::Joint;
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

/// What to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The law and the criterion: least squares, of losses or of their logarithms.
    pub fit: FitOptions,
    /// Groups, in this order; all when none is named.
    pub groups: Vec<String>,
    /// The group that others are compared with; the first one when nothing is said.
    pub baseline: Option<String>,
}

/// A group as it takes part.
#[derive(Clone, Debug)]
pub struct CompareGroup {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A nested test over all groups.
#[derive(Clone, Debug, PartialEq)]
pub struct NestedTest {
    /// What is the same under the null hypothesis.
    pub shared: Shared,
    /// The same in words.
    pub null: String,
    /// F.
    pub statistic: f64,
    /// Its degrees of freedom.
    pub freedom: (f64, f64),
    /// Probability of a larger F under the null hypothesis.
    pub p: f64,
    /// How the fit under the null hypothesis ended. Where it reached no optimum F is too large.
    pub status: FitStatus,
    /// The floor of each group under the null hypothesis.
    pub floors: Vec<f64>,
    /// Exponents and the like under the null hypothesis, where they are shared.
    pub shapes: Vec<(&'static str, f64)>,
}

/// Everything that a comparison says.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Names of the groups, the baseline first.
    pub groups: Vec<String>,
    /// Each group's own fit.
    pub fits: Vec<Fit>,
    /// Nested tests over all groups.
    pub tests: Vec<NestedTest>,
    /// Floors of two groups at a time.
    pub pairs: Vec<PairTest>,
    /// Losses at equal budget.
    pub paired: Vec<Paired>,
    /// Compute at equal loss.
    pub multipliers: Vec<Multiplier>,
    /// Amplitudes under shared floor and shapes, as multipliers of the inputs.
    pub efficiencies: Vec<Efficiency>,
    /// The conclusion in words.
    pub verdict: String,
}

/// A comparison is not possible.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// There is nothing to compare with.
    #[error("{0} group to compare; hint: --group names the column that tells at least two apart")]
    OneGroup(usize),
    /// No such group.
    #[error("no group '{0}'; the groups are {1}")]
    NoGroup(String, String),
    /// A group has no fit.
    #[error("group '{0}': {1}")]
    NoFit(String, FitError),
    /// F tests need squares.
    #[error("comparisons are F tests of squares; hint: --loss lsq or log-lsq")]
    Robust,
}

/// Compares groups.
pub fn compare(groups: &[CompareGroup], options: &CompareOptions) -> Result<Comparison, CompareError> {
    if options.fit.objective.is_robust() {
        return Err(CompareError::Robust);
    }
    let order = chosen(groups, options)?;
    if order.len() < 2 {
        return Err(CompareError::OneGroup(order.len()));
    }
    let samples: Vec<Sample> = order.iter().map(|group| Sample::of_rows(&group.rows)).collect();
    let names: Vec<String> = order.iter().map(|group| group.name.clone()).collect();
    let refused = |at: usize, error| CompareError::NoFit(names[at].clone(), error);
    let form = options.fit.form;
    let mut fits = Vec::new();
    let mut fitted = Vec::new();
    for (at, sample) in samples.iter().enumerate() {
        let (found, confirmation) = Fitted::confirmed(sample, &options.fit).map_err(|error| refused(at, error))?;
        fits.push(describe(&found, confirmation, &options.fit).map_err(|error| refused(at, error))?);
        fitted.push(found);
    }
    let all: Vec<&Fitted> = fitted.iter().collect();
    let tests = nested_tests(&all, form);
    let pairs = pairs::tests(&all, &names, &order);
    let paired = pairs::paired(&order);
    let multipliers = pairs::multipliers(&all, &names);
    let efficiencies = pairs::efficiencies(&all, &names);
    let mut out =
        Comparison { groups: names, fits, tests, pairs, paired, multipliers, efficiencies, verdict: String::new() };
    out.verdict = verdict::paragraph(&out, form);
    Ok(out)
}

/// The groups that take part, the baseline first.
fn chosen<'a>(groups: &'a [CompareGroup], options: &CompareOptions) -> Result<Vec<&'a CompareGroup>, CompareError> {
    let place = |among: &[&CompareGroup], name: &String| {
        let names = || among.iter().map(|group| &*group.name).collect::<Vec<_>>().join(", ");
        let at = among.iter().position(|group| group.name == *name);
        at.ok_or_else(|| CompareError::NoGroup(name.clone(), names()))
    };
    let all: Vec<&CompareGroup> = groups.iter().collect();
    let mut order = match &options.groups[..] {
        [] => all,
        names => names.iter().map(|name| Ok(all[place(&all, name)?])).collect::<Result<_, CompareError>>()?,
    };
    if let Some(name) = &options.baseline {
        let at = place(&order, name)?;
        order[..=at].rotate_right(1);
    }
    Ok(order)
}

/// Sum of squares of each group by itself, and its degrees of freedom.
pub(super) fn separate(groups: &[&Fitted]) -> (f64, f64) {
    (groups.iter().map(|g| 2.0 * g.optimum.value).sum(), groups.iter().map(|g| g.freedom()).sum())
}

/// F and its p of a fit that shares `fewer` parameters.
fn f_test(shared: f64, separate: (f64, f64), fewer: f64) -> (f64, f64) {
    let statistic = ((shared - separate.0).max(0.0) / fewer) / (separate.0 / separate.1);
    let p = FisherSnedecor::new(fewer, separate.1).map_or(f64::NAN, |f| f.sf(statistic));
    (statistic, p)
}

fn nested_tests(groups: &[&Fitted], form: &'static dyn Form) -> Vec<NestedTest> {
    let own = separate(groups);
    let floor = form.floor();
    let floor_name = form.floor_name().unwrap_or_default();
    let exponents = if form.shapes().len() > 1 { "set of exponents" } else { "exponent" };
    let mut kinds = Vec::new();
    if floor.is_some() {
        kinds.push((Shared::Floor, format!("one {floor_name}")));
    }
    kinds.push((Shared::Shapes, format!("one {exponents}")));
    if floor.is_some() {
        kinds.push((Shared::FloorAndShapes, format!("one {floor_name} and one {exponents}")));
    }
    kinds.push((Shared::All, "one curve".to_owned()));
    let test = |(shared, null): (Shared, String)| {
        let joint = Joint::new(groups, shared);
        let fewer = (shared.count(form) * (groups.len() - 1)) as f64;
        let (statistic, p) = f_test(2.0 * joint.optimum.value, own, fewer);
        let floors = floor.map_or_else(Vec::new, |t| (0..groups.len()).map(|g| joint.of_group(g)[t]).collect());
        let is_shape = |(name, _): &(&str, f64)| form.terms().iter().all(|term| term.name != *name);
        let shapes = form.parameters().iter().copied().zip(joint.natural(form, 0)).filter(is_shape);
        let shapes = if shared == Shared::Floor { Vec::new() } else { shapes.collect() };
        let status = status(&joint.optimum);
        NestedTest { shared, null, statistic, freedom: (fewer, own.1), p, status, floors, shapes }
    };
    kinds.into_iter().map(test).collect()
}
