//! Scaling laws fitted to measured losses: the law, its uncertainty, and what stood in the way.
//!
//! A number never leaves here without its error: every [`Estimate`] carries a standard error and an interval, or says
//! by their absence that there is none.

mod bootstrap;
pub mod calibrate;
pub mod compare;
pub mod conditioning;
pub mod design;
pub mod display;
pub mod document;
mod fit;
pub mod forms;
pub mod frame;
mod interval;
pub mod isoflop;
pub mod learning_curve;
mod outliers;
pub mod presets;
pub mod robustness;
pub mod rollout;
mod sample;
mod solver;
mod spread;

pub use bootstrap::Resamples;
pub use fit::{Given, descend, fit};
pub use forms::Form;
pub use frame::{Columns, Excluded, FrameError, Row, Table};
pub use interval::profile;
pub use outliers::deleted_residuals;
pub use sample::Sample;
pub use spread::Spread;

/// Confidence level of every interval.
pub const CONFIDENCE: f64 = 0.95;
/// Resamples of a robust fit when no kind of interval is asked for.
const ROBUST_DRAWS: usize = 1000;

/// The smallest and the largest of some values.
pub fn ends(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), value| (lo.min(*value), hi.max(*value)))
}

/// What is minimised: a sum over the points, never a mean, each term times its point's weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Objective {
    /// Σ (L - f)²
    #[default]
    LeastSquares,
    /// Σ (ln L - ln f)²
    LogLeastSquares,
    /// Huber's loss of ln L - ln f: ½r² up to the threshold, linear beyond.
    Huber(f64),
    /// Σ |ln L - ln f|
    AbsoluteDeviation,
}

impl Objective {
    /// The spelling used on the command line and in JSON.
    pub fn name(self) -> String {
        match self {
            Self::LeastSquares => "lsq".to_owned(),
            Self::LogLeastSquares => "log-lsq".to_owned(),
            Self::Huber(delta) => format!("huber:{delta}"),
            Self::AbsoluteDeviation => "lad".to_owned(),
        }
    }

    /// Whether residuals are those of the logarithm of the loss.
    pub fn is_logarithmic(self) -> bool {
        self != Self::LeastSquares
    }

    /// The kind of interval where none is asked for: profiles, and of robust losses resamples, since errors from their
    /// curvature agree with nothing.
    pub fn usual_interval(self) -> IntervalMethod {
        if self.is_robust() { IntervalMethod::Bootstrap(ROBUST_DRAWS) } else { IntervalMethod::Profile }
    }

    /// Whether outliers have bounded influence.
    pub fn is_robust(self) -> bool {
        matches!(self, Self::Huber(_) | Self::AbsoluteDeviation)
    }
}

impl std::str::FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lsq" => Ok(Self::LeastSquares),
            "log-lsq" => Ok(Self::LogLeastSquares),
            "lad" => Ok(Self::AbsoluteDeviation),
            _ => {
                let delta = text.strip_prefix("huber:").and_then(|delta| delta.parse::<f64>().ok());
                delta
                    .filter(|delta| delta.is_finite() && (1e-9..=1e3).contains(delta))
                    .map(Self::Huber)
                    .ok_or_else(|| "one of lsq, log-lsq, lad, or huber:DELTA such as huber:1e-3".to_owned())
            }
        }
    }
}

/// How intervals are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalMethod {
    /// Every value of the parameter whose best fit an F test at [`CONFIDENCE`] does not reject; it need not be
    /// symmetric and may be open.
    #[default]
    Profile,
    /// Percentiles of that many refits of points drawn with replacement.
    Bootstrap(usize),
    /// Estimate ± t quantile × standard error.
    Wald,
    /// None.
    None,
}

impl IntervalMethod {
    /// Refuses kinds that do not exist for a loss.
    pub fn suits(self, objective: Objective) -> Result<(), &'static str> {
        match (objective, self) {
            (Objective::AbsoluteDeviation, Self::Profile | Self::Wald) => {
                Err("lad has no profile and no Wald interval; hint: bootstrap:1000")
            }
            _ => Ok(()),
        }
    }

    /// The spelling used on the command line and in JSON.
    pub fn name(self) -> String {
        match self {
            Self::Profile => "profile".to_owned(),
            Self::Bootstrap(draws) => format!("bootstrap:{draws}"),
            Self::Wald => "wald".to_owned(),
            Self::None => "none".to_owned(),
        }
    }
}

impl std::str::FromStr for IntervalMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "profile" => Ok(Self::Profile),
            "wald" => Ok(Self::Wald),
            "none" => Ok(Self::None),
            _ => {
                let draws = text.strip_prefix("bootstrap:").and_then(|draws| draws.parse().ok());
                draws
                    .filter(|draws| (20..=10_000_000).contains(draws))
                    .map(Self::Bootstrap)
                    .ok_or_else(|| "one of profile, wald, none, or bootstrap:K with K of 20 or more".to_owned())
            }
        }
    }
}

/// Where the noise of one loss is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Noise {
    /// The residuals of the fit.
    #[default]
    FromResiduals,
    /// Elsewhere, such as repeated seeds.
    Known {
        /// Standard deviation of one residual of weight one, in the measure of the objective.
        sd: f64,
        /// How many degrees of freedom it was estimated with; none when it is exact.
        freedom: Option<f64>,
    },
}

/// What to fit and how to state its uncertainty.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// The law.
    pub form: &'static dyn Form,
    /// The criterion.
    pub objective: Objective,
    /// The kind of interval.
    pub interval: IntervalMethod,
    /// The size of the noise.
    pub noise: Noise,
    /// Independent starts that confirm the optimum.
    pub starts: usize,
    /// Of the starts and of resampling.
    pub seed: u64,
    /// Whether to fit once more without each point.
    pub leave_one_out: bool,
    /// Parameters that are not fitted.
    pub given: Vec<Given>,
    /// Inputs at which to state the law's loss.
    pub predictions: Vec<Vec<f64>>,
}

impl FitOptions {
    /// Least squares with profile intervals.
    pub fn new(form: &'static dyn Form) -> Self {
        Self {
            form,
            objective: Objective::default(),
            interval: IntervalMethod::default(),
            noise: Noise::default(),
            starts: 16,
            seed: 0,
            leave_one_out: true,
            given: Vec::new(),
            predictions: Vec::new(),
        }
    }

    /// For a fit of many, of which only the optimum is read: a few independent starts guard against a missed basin, which
    /// is no certificate, and there are no intervals.
    pub fn optimum_only(form: &'static dyn Form, objective: Objective) -> Self {
        Self { objective, interval: IntervalMethod::None, starts: 4, leave_one_out: false, ..Self::new(form) }
    }
}

/// A law with its parameters.
#[derive(Clone, Debug)]
pub struct Law {
    /// The form.
    pub form: &'static dyn Form,
    /// Its parameters, in the order of [`forms::Terms::parameters`].
    pub parameters: Vec<f64>,
}

impl PartialEq for Law {
    fn eq(&self, other: &Self) -> bool {
        self.form.name() == other.form.name() && self.parameters == other.parameters
    }
}

/// How the minimisation ended. Not an error: the estimates are the best ones inside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitStatus {
    /// An interior optimum.
    Converged,
    /// The optimum lies on a bound ([`Fit::bounds`]); there, only resamples give standard errors.
    BoundHit,
    /// No optimum was reached; the numbers are where the steps ended, and only resamples give standard errors.
    Stuck,
}

impl FitStatus {
    /// The spelling used in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::BoundHit => "bound_hit",
            Self::Stuck => "stuck",
        }
    }
}

/// An interval at [`CONFIDENCE`]; an end that is `None` is open: the data do not bound the parameter on that side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfidenceInterval {
    /// Lower end.
    pub lo: Option<f64>,
    /// Upper end.
    pub hi: Option<f64>,
}

impl ConfidenceInterval {
    /// Whether `value` lies inside; an open end excludes nothing.
    pub fn contains(&self, value: f64) -> bool {
        self.lo.is_none_or(|lo| lo <= value) && self.hi.is_none_or(|hi| value <= hi)
    }
}

/// One parameter of a fitted law.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The parameter's letter, such as `A`, `b` or `C`.
    pub name: &'static str,
    /// Its value at the optimum.
    pub value: f64,
    /// Its standard error: of the Jacobian at the optimum, (JᵀJ)⁻¹·SSE/(n-p), or of the refits of a bootstrap.
    pub se: Option<f64>,
    /// Its interval, if one was asked for and exists.
    pub interval: Option<ConfidenceInterval>,
}

/// The loss that a law gives for inputs, measured or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The inputs.
    pub inputs: Vec<f64>,
    /// The loss, without the noise of a run.
    pub loss: f64,
    /// Its interval.
    pub interval: Option<ConfidenceInterval>,
}

/// How sure it is that an optimum is one, and the only one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// Size of the gradient by the logarithm of each coefficient and by each shape.
    pub gradient: f64,
    /// Twice what another Newton step would gain of the objective.
    pub decrement: f64,
    /// Smallest eigenvalue of the Hessian in these variables; positive at a minimum.
    pub smallest_curvature: f64,
    /// Condition number of that Hessian: large when the data hardly determine some combination of parameters.
    pub condition: f64,
    /// Independent starts.
    pub starts: usize,
    /// Those that ended at this optimum.
    pub reached: usize,
}

/// A parameter when each point is left out in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeftOut {
    /// Its smallest value.
    pub least: f64,
    /// Its largest value.
    pub most: f64,
    /// Points without which there is no fit, so that the range says nothing of them.
    pub without_fit: usize,
}

/// A law fitted to points, with its uncertainty.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The law at the optimum.
    pub law: Law,
    /// Points used.
    pub n: usize,
    /// How the minimisation ended.
    pub status: FitStatus,
    /// The bounds on which the optimum lies, such as `C = 0`.
    pub bounds: Vec<String>,
    /// The criterion at the optimum, summed over the points.
    pub objective: f64,
    /// The law's parameters in the order of its formula.
    pub estimates: Vec<Estimate>,
    /// Whether the law goes through all points, so that there is no noise to judge it by.
    pub exact: bool,
    /// 1 - SSE/SST of the losses.
    pub r2: f64,
    /// Measured minus fitted loss, in the order of the points.
    pub residuals: Vec<f64>,
    /// √(SSE/(n-p)) in the measure of the objective: the noise of one loss, if the form is right.
    pub residual_sd: f64,
    /// How the residuals are distributed.
    pub spread: Spread,
    /// κ = se(floor)/residual sd: by how much this design magnifies the noise of one loss into noise of the floor.
    pub kappa: Option<f64>,
    /// The floor when each point is left out in turn.
    pub left_out: Option<LeftOut>,
    /// Akaike's criterion with its correction for few points: comparable between forms fitted to the same points with
    /// the same objective. Only of squares, and only where there are points enough.
    pub aicc: Option<f64>,
    /// The optimum's certificate.
    pub certificate: Certificate,
    /// The refits of a bootstrap.
    pub resamples: Option<Resamples>,
    /// Losses at the inputs asked for.
    pub predictions: Vec<Prediction>,
}

impl Fit {
    /// The parameter called `name`.
    pub fn estimate(&self, name: &str) -> Option<&Estimate> {
        self.estimates.iter().find(|estimate| estimate.name == name)
    }

    /// The irreducible loss, of a form that has one.
    pub fn floor(&self) -> Option<&Estimate> {
        self.estimate(self.law.form.floor_name()?)
    }
}

/// No usable number exists.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// A law through as many points as it has parameters leaves nothing to judge it by.
    #[error("{form} has {parameters} parameters and needs at least {needed} points at {parameters} different x; got {n} at {distinct}", needed = parameters + 1)]
    TooFewPoints {
        /// The form's name.
        form: &'static str,
        /// Its free parameters.
        parameters: usize,
        /// Points given.
        n: usize,
        /// Different x among them.
        distinct: usize,
    },
    /// x and y have to be positive and finite.
    #[error("point {} has x = {x}, y = {y}; both have to be positive and finite", index + 1)]
    BadPoint {
        /// Zero-based position.
        index: usize,
        /// Its x.
        x: f64,
        /// Its y.
        y: f64,
    },
    /// An input that does not vary cannot be told from the floor.
    #[error("{option} is {value} at every point; it has to vary")]
    ConstantInput {
        /// The option that names the column.
        option: &'static str,
        /// The one value.
        value: f64,
    },
    /// A parameter that cannot be held.
    #[error("{form} cannot hold '{name}': it is no coefficient and no exponent of it")]
    CannotHold {
        /// The form's name.
        form: &'static str,
        /// The parameter asked for.
        name: String,
    },
    /// A parameter with two values.
    #[error("'{name}' is held at two values")]
    HeldTwice {
        /// The parameter.
        name: String,
    },
    /// A parameter cannot have this value.
    #[error("'{name}' cannot be held at {value}: it is searched from {lo} to {hi}")]
    HeldOutside {
        /// The parameter.
        name: String,
        /// The value asked for.
        value: f64,
        /// Its least value.
        lo: f64,
        /// Its greatest value.
        hi: f64,
    },
    /// The best law of the family is a constant.
    #[error("the loss does not fall as x grows, so no power law with a positive amplitude fits better than a constant")]
    NotDecreasing,
    /// The amplitude leaves the range of f64.
    #[error("the amplitude A is not a finite number for this x; hint: use a larger unit for x")]
    NotFinite,
}

impl FitError {
    /// Whether the points cannot be fitted by this form at all, rather than badly.
    pub fn is_input(&self) -> bool {
        match self {
            Self::TooFewPoints { .. }
            | Self::BadPoint { .. }
            | Self::ConstantInput { .. }
            | Self::CannotHold { .. }
            | Self::HeldTwice { .. }
            | Self::HeldOutside { .. } => true,
            Self::NotDecreasing | Self::NotFinite => false,
        }
    }
}
