//! Checks this build against golden files: tensors that the reference implementation computed.
//!
//! `model_*` holds a whole model, `mod_*` a building block, `train_*` twenty steps of training. Tolerances are those
//! that the reference's authors' fp32 values support (their distance from a float64 run is ten times smaller).

mod golden;
mod models;
mod modules;
mod training;

use crate::nn::Precision;
use crate::ops::Backend;
use serde::Serialize;
use std::path::Path;
use tch::{Device, Tensor};

/// A golden file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is no golden file: {problem}")]
    Format { path: String, problem: String },
}

/// One quantity compared.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub file: String,
    pub quantity: String,
    pub error: f64,
    pub tolerance: f64,
    pub pass: bool,
}

/// What to run the files on.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    pub device: Device,
    pub backend: Backend,
    pub precision: Precision,
}

/// Limits by kind of quantity.
#[derive(Clone, Copy, Debug)]
struct Tolerances {
    precision: Precision,
    /// Of [`Self::distance`].
    values: f64,
    /// ‖a − b‖ over ‖b‖.
    gradients: f64,
    /// Gradients of one block below this share of its largest are compared with that share instead of with themselves.
    gradient_floor: f64,
    /// |a − b|, nats.
    loss: f64,
    /// |a − b| of a training step's loss, nats.
    training_loss: f64,
    /// Relative, of the gradient's norm in a training step.
    gradient_norm: f64,
    /// Relative, of a parameter's norm after training.
    final_norm: f64,
}

impl Tolerances {
    /// fp32: as stated beside the golden files. On CUDA, sums run in another order: a gradient that is what is left of a
    /// cancellation (λ where attention sees one key: its norm is 1e-4 of the others') keeps the rounding of the terms that
    /// cancelled, so it is measured against a thousandth of the block's largest gradient.
    ///
    /// bf16: a rounding to 8 bits is wrong by 2⁻⁹ at most, 2⁻⁹/√3 in the mean square. Errors of independent roundings add
    /// up as squares: some R roundings on the way to a tensor give √R · 2⁻⁹/√3 of its norm where nothing amplifies them.
    /// The deepest of these models has 16 layers, two branches each, some eight roundings in each branch: R = 256, 2 %;
    /// forward and back R doubles, 2.6 %. The files' weights have noise added, which amplifies differences: four times
    /// that is the limit. The loss is a mean over tokens of errors of either sign.
    fn of(options: VerifyOptions) -> Self {
        let gradient_floor = if options.device == Device::Cpu { 0.0 } else { 1e-3 };
        let precision = options.precision;
        match precision {
            Precision::Fp32 => Self {
                precision,
                values: 1e-4,
                gradients: 1e-3,
                gradient_floor,
                loss: 1e-5,
                training_loss: 1e-3,
                gradient_norm: 1e-3,
                final_norm: 1e-3,
            },
            Precision::Bf16 => Self {
                precision,
                values: 0.08,
                gradients: 0.1,
                gradient_floor,
                loss: 1e-2,
                training_loss: 5e-2,
                gradient_norm: 0.1,
                final_norm: 1e-2,
            },
        }
    }

    /// How far a value is from what it should be: in fp32 the worst element over the rms, in bf16 in norm, since the worst
    /// of many roundings says how many there are.
    fn distance(&self, got: &Tensor, want: &Tensor) -> f64 {
        match self.precision {
            Precision::Fp32 => golden::max_over_rms(got, want),
            Precision::Bf16 => golden::norm_ratio(got, want, 0.0),
        }
    }
}

/// Collects the checks of one file.
struct Report {
    file: String,
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, quantity: impl Into<String>, error: f64, tolerance: f64) {
        // NaN fails.
        let pass = error <= tolerance;
        self.checks.push(Check { file: self.file.clone(), quantity: quantity.into(), error, tolerance, pass });
    }
}

/// Runs one golden file.
pub fn verify_file(path: &Path, options: VerifyOptions) -> Result<Vec<Check>, VerifyError> {
    let golden = golden::Golden::read(path)?;
    let mut report = Report { file: golden.name.clone(), checks: Vec::new() };
    let tolerances = Tolerances::of(options);
    match golden.metadata("kind")? {
        "model" => models::verify(&golden, options, tolerances, &mut report)?,
        "module" => modules::verify(&golden, options, tolerances, &mut report)?,
        "training" => training::verify(&golden, options, tolerances, &mut report)?,
        other => return Err(golden.problem(format!("its kind '{other}' is unknown"))),
    }
    Ok(report.checks)
}
