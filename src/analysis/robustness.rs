//! What a result owes to choices that the data do not make: one fit for each combination of them.

use super::fit::Fitted;
use super::forms::{Form, Input};
use super::interval::{Profiler, Target};
use super::isoflop::optimal_exponent;
use super::rollout::{Amount, Points, Scale, levels};
use super::{ConfidenceInterval, FitError, FitOptions, FitStatus, Law, Noise, Objective, Sample, fit};

/// At most this share of the points is left out for their high losses: of few points, those are simply the small ones.
const MOST_DROPPED: f64 = 0.2;

/// One combination.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The law.
    pub form: &'static dyn Form,
    /// The criterion.
    pub objective: Objective,
    /// Points with the highest losses that are left out.
    pub drop: usize,
    /// The smallest scales that are left out: a number of scales, or those of a share of the points.
    pub window: Amount,
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        self.form.name() == other.form.name()
            && (self.objective, self.drop, self.window) == (other.objective, other.drop, other.window)
    }
}

/// What one combination gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Points used.
    pub n: usize,
    /// How the minimisation ended.
    pub status: FitStatus,
    /// The irreducible loss, of a form that has one.
    pub floor: Option<f64>,
    /// Its profile interval; none of absolute deviations.
    pub floor_interval: Option<ConfidenceInterval>,
    /// The exponent of the optimal N(C), see [`optimal_exponent`]; none of a form that fixes it or has none.
    pub a_opt: Option<f64>,
    /// The loss at the point asked for.
    pub prediction: Option<f64>,
}

/// Whether that many points may be left out for their losses.
pub fn may_drop(points: &Points, drop: usize) -> bool {
    drop as f64 <= MOST_DROPPED * points.len() as f64
}

/// Positions that are left without the `drop` highest losses and, of the rest, without the smallest scales.
pub fn kept(points: &Points, drop: usize, window: Amount) -> Vec<usize> {
    let losses = points.losses();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| losses[*b].total_cmp(&losses[*a]));
    let mut rest = order.split_off(drop.min(order.len()));
    rest.sort_unstable();
    let scale = points.pick(&rest).scale(Scale::X).unwrap_or_default();
    let most = window.of(rest.len());
    let (mut gone, mut out) = (0, Vec::new());
    for (place, level) in levels(&scale).into_iter().enumerate() {
        let outside = match window {
            Amount::Count(scales) => place < scales,
            Amount::Share(_) => gone + level.len() <= most,
        };
        if outside && out.is_empty() {
            gone += level.len();
        } else {
            out.extend(level.into_iter().map(|at| rest[at]));
        }
    }
    out.sort_unstable();
    out
}

/// The exponent of the optimal N(C) where the data determine it: not of a law that ties both exponents, which fixes it,
/// nor of one with a product of N and D, whose optimum is no power of C.
fn fitted_exponent(law: &Law) -> Option<f64> {
    let free = law.parameter("beta").is_some() && law.parameter("K").is_none();
    optimal_exponent(law).filter(|_| free)
}

/// Fits one combination; `at` is one point at which the loss is predicted. `None` when an input of the form is unknown.
pub fn evaluate(points: &Points, choice: &Choice, at: &Points, intervals: bool) -> Option<Result<Outcome, FitError>> {
    let rest = points.pick(&kept(points, choice.drop, choice.window));
    let sample = rest.sample(choice.form)?;
    let at = at.sample(choice.form);
    Some(evaluate_sample(&sample, choice, at.as_ref(), intervals))
}

fn evaluate_sample(
    sample: &Sample,
    choice: &Choice,
    at: Option<&Sample>,
    intervals: bool,
) -> Result<Outcome, FitError> {
    let form = choice.form;
    let fit = fit(sample, &FitOptions::optimum_only(form, choice.objective))?;
    // Only the floor's profile is walked: those of all parameters would take five times as long.
    let floor_interval = match form.floor_name() {
        Some(name) if intervals && choice.objective != Objective::AbsoluteDeviation => {
            let fitted = Fitted::with_given(sample, form, choice.objective, &[])?;
            let target = Target::parameter(&fitted, name);
            target.map(|target| Profiler::new(&fitted, Noise::FromResiduals).interval(&target, None))
        }
        _ => None,
    };
    Ok(Outcome {
        n: fit.n,
        status: fit.status,
        floor: fit.law.floor(),
        floor_interval,
        a_opt: fitted_exponent(&fit.law),
        prediction: at.map(|at| fit.law.losses(&at.inputs)[0]),
    })
}

/// One decade of scale beyond the largest of these points, with N, D and U grown alike.
pub fn beyond<'a>(sets: impl IntoIterator<Item = &'a Points>) -> Option<Points> {
    let largest = |points: &Points| {
        let scale = points.scale(Scale::X)?;
        let at = (0..scale.len()).max_by(|a, b| scale[*a].total_cmp(&scale[*b]))?;
        Some((scale[at], points.pick(&[at])))
    };
    let (_, point) = sets.into_iter().filter_map(largest).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(point.scaled(|input| if input == Input::X { 10.0 } else { 10f64.sqrt() }))
}

/// Smallest, median and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The smallest.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub most: f64,
    /// Share of those that are not zero that have the more frequent sign; none when all are zero.
    pub same_sign: Option<f64>,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        let positive = values.iter().filter(|value| **value > 0.0).count();
        let negative = values.iter().filter(|value| **value < 0.0).count();
        let signed = positive + negative;
        Some(Self {
            count: values.len(),
            least,
            median: 0.5 * (low + high),
            most,
            same_sign: (signed > 0).then(|| positive.max(negative) as f64 / signed as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    fn points() -> Points {
        let n: Vec<f64> = (0..20).map(|i| 1e7 * 2f64.powi(i % 5)).collect();
        let d: Vec<f64> = (0..20).map(|i| 1e9 * 3f64.powi(i / 5)).collect();
        let y = n.iter().zip(&d).map(|(n, d)| 1.7 + 400.0 * n.powf(-0.34) + 2000.0 * d.powf(-0.37)).collect();
        Points::new(vec![Input::Parameters, Input::Tokens], Sample::new(vec![n, d], y))
    }

    #[test]
    fn every_choice_finds_the_law_that_made_the_losses() {
        let points = points();
        let at = beyond([&points]).unwrap();
        for objective in [Objective::LeastSquares, Objective::Huber(1e-3)] {
            for (drop, window) in [(0, Amount::Count(0)), (2, Amount::Count(1)), (0, Amount::Share(0.2))] {
                let choice = Choice { form: forms::chinchilla(), objective, drop, window };
                let outcome = evaluate(&points, &choice, &at, true).unwrap().unwrap();
                assert!((outcome.floor.unwrap() - 1.7).abs() < 1e-5, "{choice:?} gave {outcome:?}");
                assert!((outcome.a_opt.unwrap() - 0.37 / 0.71).abs() < 1e-5, "{choice:?} gave {outcome:?}");
                let (n, d) = (1.6e8 * 10f64.sqrt(), 2.7e10 * 10f64.sqrt());
                let loss = 1.7 + 400.0 * n.powf(-0.34) + 2000.0 * d.powf(-0.37);
                assert!((outcome.prediction.unwrap() - loss).abs() < 1e-5, "{choice:?} gave {outcome:?}");
            }
        }
    }

    #[test]
    fn the_highest_losses_and_the_smallest_scales_are_left_out() {
        let x = [1.0, 1.0, 2.0, 4.0, 4.0, 8.0];
        let y = [9.0, 5.0, 8.0, 3.0, 2.0, 1.0];
        let points = Points::new(vec![Input::X], Sample::new(vec![x.to_vec()], y.to_vec()));
        assert_eq!(kept(&points, 0, Amount::Count(0)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(&points, 2, Amount::Count(0)), [1, 3, 4, 5]);
        assert_eq!(kept(&points, 1, Amount::Count(1)), [2, 3, 4, 5]);
        assert_eq!(kept(&points, 0, Amount::Share(0.4)), [2, 3, 4, 5]);
        assert_eq!(kept(&points, 0, Amount::Count(9)), [0usize; 0]);
        assert!(may_drop(&points, 1) && !may_drop(&points, 2));
    }

    #[test]
    fn the_spread_of_values() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of(vec![0.0, -1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.count, spread.least, spread.median, spread.most), (4, -1.0, 1.0, 3.0));
        assert_eq!(spread.same_sign, Some(2.0 / 3.0));
    }
}
