//! Scaling laws fitted to measured losses: the law, its uncertainty, and what stood in the way.
//!
//! A number never leaves here without its error: every [`Estimate`] carries a standard error and an interval, or says
//! by their absence that there is none.

pub mod display;
pub mod frame;
mod interval;
pub mod power_law;
mod profiled;

pub use frame::{Columns, Excluded, FrameError, Row, Table};
pub use power_law::{Law, PowerLaw, SaturatingPowerLaw, fit};

/// Confidence level of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// The functional form that is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// L = A·x^(-b)
    Power,
    /// L = A·x^(-b) + C
    PowerFloor,
}

impl Form {
    /// Every form that can be fitted.
    pub const ALL: [Self; 2] = [Self::Power, Self::PowerFloor];

    /// The spelling used on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::PowerFloor => "power+floor",
        }
    }

    /// Number of free parameters.
    pub fn parameters(self) -> usize {
        match self {
            Self::Power => 2,
            Self::PowerFloor => 3,
        }
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Objective {
    /// The unweighted sum of squared residuals of the loss.
    #[default]
    LeastSquares,
}

/// How intervals are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalMethod {
    /// Every value of the parameter whose best fit an F test at [`CONFIDENCE`] does not reject; it need not be
    /// symmetric and may be open.
    #[default]
    Profile,
    /// Estimate ± t quantile × standard error.
    Wald,
    /// None.
    None,
}

/// What to fit and how to state its uncertainty.
#[derive(Clone, Copy, Debug)]
pub struct FitOptions {
    /// The law.
    pub form: Form,
    /// The criterion.
    pub objective: Objective,
    /// The kind of interval.
    pub interval: IntervalMethod,
}

impl FitOptions {
    /// Least squares with profile intervals.
    pub fn new(form: Form) -> Self {
        Self { form, objective: Objective::default(), interval: IntervalMethod::default() }
    }
}

/// One measured point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalingPoint {
    /// Scale: FLOPs, tokens or parameters. Positive.
    pub x: f64,
    /// Loss, nats per token. Positive.
    pub y: f64,
}

/// How the minimisation ended. Not an error: the estimates are the best ones inside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitStatus {
    /// An interior optimum.
    Converged,
    /// The optimum lies on a bound ([`Fit::bounds`]); standard errors do not exist there.
    BoundHit,
}

impl FitStatus {
    /// The spelling used in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::BoundHit => "bound_hit",
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
    /// The parameter's letter: `A`, `b` or `C`.
    pub name: &'static str,
    /// Its value at the optimum.
    pub value: f64,
    /// Its standard error from the Jacobian at the optimum, (JᵀJ)⁻¹·SSE/(n-p).
    pub se: Option<f64>,
    /// Its interval, if one was asked for.
    pub interval: Option<ConfidenceInterval>,
}

/// A law fitted to points, with its uncertainty.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The law at the optimum.
    pub law: Law,
    /// The form that was fitted.
    pub form: Form,
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
    /// 1 - SSE/SST.
    pub r2: f64,
    /// Measured minus fitted loss, in the order of the points.
    pub residuals: Vec<f64>,
    /// √(SSE/(n-p)): the noise of one loss, if the form is right.
    pub residual_sd: f64,
    /// κ = se(C)/residual sd: by how much this design magnifies the noise of one loss into noise of C.
    pub kappa: Option<f64>,
    /// Smallest and largest C when each point is left out in turn; from five points on.
    pub leave_one_out_floor: Option<(f64, f64)>,
}

impl Fit {
    /// The parameter called `name`.
    pub fn estimate(&self, name: &str) -> Option<&Estimate> {
        self.estimates.iter().find(|estimate| estimate.name == name)
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
    /// The best law of the family is a constant.
    #[error("the loss does not fall as x grows, so no power law with a positive amplitude fits better than a constant")]
    NotDecreasing,
    /// The amplitude leaves the range of f64.
    #[error("the amplitude A is not a finite number for this x; hint: use a larger unit for x")]
    NotFinite,
}
