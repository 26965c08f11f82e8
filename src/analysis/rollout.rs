//! How well a law predicts runs larger than those it was fitted to, which is what it is for.

use super::forms::{FLOPS_PER_PARAMETER_TOKEN, Form, Input, Inputs};
use super::{FitError, FitOptions, FitStatus, Objective, Sample, fit};

/// Scales that differ by less than this share are one.
const SAME_SCALE: f64 = 1e-9;

/// Points with everything that is known of them, from which each form takes its inputs.
#[derive(Clone, Debug)]
pub struct Points {
    known: Vec<Input>,
    sample: Sample,
}

impl Points {
    /// Points whose columns are these inputs, in this order.
    pub fn new(known: Vec<Input>, sample: Sample) -> Self {
        Self { known, sample }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.sample.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sample.is_empty()
    }

    /// Losses, nats per token.
    pub fn losses(&self) -> &[f64] {
        &self.sample.y
    }

    /// Values of an input. The one scale of a law of x is compute 6·N·D where nothing else is known.
    pub fn input(&self, input: Input) -> Option<Vec<f64>> {
        match self.known.iter().position(|known| *known == input) {
            Some(at) => Some(self.sample.inputs.columns[at].clone()),
            None if input == Input::X => self.compute(),
            None => None,
        }
    }

    fn compute(&self) -> Option<Vec<f64>> {
        let (n, d) = (self.input(Input::Parameters)?, self.input(Input::Tokens)?);
        Some(n.iter().zip(&d).map(|(n, d)| FLOPS_PER_PARAMETER_TOKEN * n * d).collect())
    }

    /// What `form` is fitted to; `None` when an input of it is unknown.
    pub fn sample(&self, form: &dyn Form) -> Option<Sample> {
        let columns = form.inputs().iter().map(|input| self.input(*input)).collect::<Option<Vec<_>>>()?;
        Some(Sample { inputs: Inputs { columns }, ..self.sample.clone() })
    }

    /// The points at these positions.
    pub fn pick(&self, at: &[usize]) -> Self {
        Self { known: self.known.clone(), sample: self.sample.pick(at) }
    }

    /// The points with each input multiplied.
    pub fn scaled(mut self, factor: impl Fn(Input) -> f64) -> Self {
        for (input, column) in self.known.iter().zip(&mut self.sample.inputs.columns) {
            column.iter_mut().for_each(|value| *value *= factor(*input));
        }
        self
    }

    /// How large each run is. Points of one run are as large as the largest of them, so that they stay together.
    pub fn scale(&self, by: Scale) -> Option<Vec<f64>> {
        let of_points = match by {
            Scale::X => self.input(Input::X)?,
            Scale::Parameters => self.input(Input::Parameters)?,
            Scale::Tokens => self.input(Input::Tokens)?,
            Scale::Compute => self.compute()?,
        };
        let cluster = &self.sample.cluster;
        let mut of_runs = vec![0.0_f64; cluster.iter().max().map_or(0, |most| most + 1)];
        for (run, scale) in cluster.iter().zip(&of_points) {
            of_runs[*run] = of_runs[*run].max(*scale);
        }
        Some(cluster.iter().map(|run| of_runs[*run]).collect())
    }
}

/// What makes a run large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The one scale; compute where it is not given.
    X,
    /// Parameters N.
    Parameters,
    /// Training tokens D.
    Tokens,
    /// Compute 6·N·D.
    Compute,
}

impl std::str::FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "x" => Ok(Self::X),
            "n" => Ok(Self::Parameters),
            "d" => Ok(Self::Tokens),
            "compute" => Ok(Self::Compute),
            _ => Err("one of x, n, d or compute".to_owned()),
        }
    }
}

/// A number of runs, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// That many.
    Count(usize),
    /// That share of all, between 0 and 1.
    Share(f64),
}

impl Amount {
    /// The spelling used on the command line and in JSON.
    pub fn name(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            // Four decimals hide that 0.15·100 is not 15.
            Self::Share(share) => format!("{}%", (share * 1e6).round() / 1e4),
        }
    }

    /// How many of `n`.
    pub fn of(self, n: usize) -> usize {
        match self {
            Self::Count(count) => count.min(n),
            Self::Share(share) => (share * n as f64).round() as usize,
        }
    }
}

impl std::str::FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
            None if text.contains('.') => text.parse::<f64>().ok(),
            None => return text.parse().map(Self::Count).map_err(|_| expected()),
        };
        share.filter(|share| (0.0..1.0).contains(share)).map(Self::Share).ok_or_else(expected)
    }
}

fn expected() -> String {
    "a count such as 3, or a share such as 20% or 0.2".to_owned()
}

/// Which points are fitted and which are predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The smaller ones.
    pub fitted: Vec<usize>,
    /// The larger ones.
    pub held: Vec<usize>,
    /// log10 of the largest held scale over the largest fitted one.
    pub decades: f64,
}

/// Positions of equal scale, the smallest scale first.
pub fn levels(scale: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..scale.len()).collect();
    order.sort_by(|a, b| scale[*a].total_cmp(&scale[*b]));
    let mut out: Vec<Vec<usize>> = Vec::new();
    for at in order {
        match out.last_mut().filter(|level| scale[at] <= scale[level[0]] * (1.0 + SAME_SCALE)) {
            Some(level) => level.push(at),
            None => out.push(vec![at]),
        }
    }
    out
}

/// Cuts at up to `steps` scales. The first holds out the largest points, at most `hold_out` of them; the next forgets
/// those and holds out as many below. So each point is predicted once, by a law of smaller ones. Points of one scale
/// stay together: a law that has seen part of a budget has seen that budget. At least one scale is held out, however
/// many points it has. Empty when all points are of one scale.
pub fn splits(scale: &[f64], hold_out: Amount, steps: usize) -> Vec<Split> {
    let most = hold_out.of(scale.len());
    let mut below = levels(scale);
    let mut out = Vec::new();
    for _ in 0..steps {
        let mut held: Vec<usize> = Vec::new();
        while let Some(level) = below.pop_if(|level| held.is_empty() || held.len() + level.len() <= most) {
            held.extend(level);
        }
        let Some(top) = below.last() else { break };
        let decades = (scale[held[0]] / scale[top[0]]).log10();
        held.sort_unstable();
        let mut fitted: Vec<usize> = below.iter().flatten().copied().collect();
        fitted.sort_unstable();
        out.push(Split { fitted, held, decades });
    }
    out
}

/// How far a law of the smaller runs is from the larger ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// How the fit to the smaller ones ended.
    pub status: FitStatus,
    /// Its [`AICc`](super::Fit::aicc).
    pub aicc: Option<f64>,
    /// (predicted - measured)/measured loss of each point held out.
    pub errors: Vec<f64>,
}

impl Rollout {
    /// Mean size of the errors.
    pub fn mean(&self) -> f64 {
        self.errors.iter().map(|error| error.abs()).sum::<f64>() / self.errors.len() as f64
    }

    /// Mean error with its sign; positive when the law expects too high a loss.
    pub fn bias(&self) -> f64 {
        self.errors.iter().sum::<f64>() / self.errors.len() as f64
    }

    /// The largest size of an error.
    pub fn largest(&self) -> f64 {
        self.errors.iter().fold(0.0, |most, error| most.max(error.abs()))
    }
}

/// Fits `form` to one side of a split of the points and predicts the other.
pub fn roll(
    sample: &Sample,
    split: &Split,
    form: &'static dyn Form,
    objective: Objective,
) -> Result<Rollout, FitError> {
    let fit = fit(&sample.pick(&split.fitted), &FitOptions::optimum_only(form, objective))?;
    let held = sample.pick(&split.held);
    let predicted = fit.law.losses(&held.inputs);
    let errors = predicted.iter().zip(&held.y).map(|(predicted, y)| predicted / y - 1.0).collect();
    Ok(Rollout { status: fit.status, aicc: fit.aicc, errors })
}

/// exp of the mean logarithm.
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for (text, amount) in [("3", Amount::Count(3)), ("20%", Amount::Share(0.2)), ("0.15", Amount::Share(0.15))] {
            assert_eq!(text.parse(), Ok(amount));
        }
        assert_eq!(Amount::Share(0.15).name(), "15%");
        assert_eq!(Amount::Share(0.125).name(), "12.5%");
        for text in ["", "x", "-1", "100%", "1.5", "nan%"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_largest_are_held_out_and_equal_scales_stay_together() {
        let scale = [8.0, 1.0, 4.0, 4.0, 2.0, 8.0, 8.0];
        let split = |hold_out, steps| splits(&scale, hold_out, steps);
        let of = |split: &Split| (split.fitted.clone(), split.held.clone());
        assert_eq!(of(&split(Amount::Count(1), 1)[0]), (vec![1, 2, 3, 4], vec![0, 5, 6]));
        assert_eq!(of(&split(Amount::Count(4), 1)[0]), (vec![1, 2, 3, 4], vec![0, 5, 6]));
        assert_eq!(of(&split(Amount::Share(0.75), 1)[0]), (vec![1, 4], vec![0, 2, 3, 5, 6]));
        let rolling = split(Amount::Count(2), 5);
        assert_eq!(
            rolling.iter().map(of).collect::<Vec<_>>(),
            [(vec![1, 2, 3, 4], vec![0, 5, 6]), (vec![1, 4], vec![2, 3]),]
        );
        assert!((rolling[0].decades - 2f64.log10()).abs() < 1e-12);
        assert!(splits(&[1.0, 1.0], Amount::Count(1), 1).is_empty());
    }

    #[test]
    fn points_of_one_run_leave_together() {
        let sample =
            Sample { cluster: vec![0, 0, 1, 1], ..Sample::of_pairs([(1.0, 3.0), (8.0, 2.0), (2.0, 2.8), (4.0, 2.5)]) };
        let points = Points::new(vec![Input::X], sample);
        assert_eq!(points.scale(Scale::X), Some(vec![8.0, 8.0, 4.0, 4.0]));
        assert_eq!(points.scale(Scale::Compute), None);
    }

    #[test]
    fn the_law_that_made_the_losses_predicts_them() {
        let n: Vec<f64> = (0..20).map(|i| 1e7 * 2f64.powi(i % 5)).collect();
        let d: Vec<f64> = (0..20).map(|i| 1e9 * 3f64.powi(i / 5)).collect();
        let y = n.iter().zip(&d).map(|(n, d)| 1.7 + 400.0 * n.powf(-0.34) + 2000.0 * d.powf(-0.37)).collect();
        let points = Points::new(vec![Input::Parameters, Input::Tokens], Sample::new(vec![n, d], y));
        let split = &splits(&points.scale(Scale::X).unwrap(), Amount::Share(0.2), 1)[0];
        let error = |form: &'static dyn Form| {
            roll(&points.sample(form).unwrap(), split, form, Objective::LogLeastSquares).unwrap().mean()
        };
        assert!(error(forms::chinchilla()) < 1e-7);
        assert!(error(forms::power()) > 1e-3);
    }
}
