//! Training one model: data in; metrics, checkpoints and a record out.

pub mod checkpoint;
mod evaluate;
pub mod folder;
pub mod optimizer;
pub mod profile;
pub mod step;

pub use evaluate::{Validation, evaluate, open_validation};

use crate::bridge::BridgeError;
use crate::bridge::profile::phase;
use crate::config::RunConfig;
use crate::data::{DataError, PackedDataset};
use crate::files::{ReadError, WriteError};
use crate::nn::{DecoderLm, ForwardOptions, NnError, ParamStore, Precision, RopeTable};
use crate::ops::Backend;
use crate::record::{RunRecord, RunStatus, SCHEMA, StepMetrics};
use checkpoint::Position;
use folder::RunFolder;
use optimizer::{AdamW, AdamWOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use step::{GradientStep, Launches};
use tch::{Device, Tensor};

/// Steps whose mean is a record's training loss.
const RECENT_STEPS: usize = 20;

/// Why training could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{path} is in use by another process; hint: wait for it, or stop it")]
    Locked { path: PathBuf },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Files(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path} is no record of this version: {problem}; hint: move the folder away to run again")]
    Record { path: PathBuf, problem: String },
    #[error("checkpoint {path} cannot be used: {problem}; hint: remove it to continue from the one before")]
    Checkpoint { path: PathBuf, problem: String },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

impl TrainError {
    /// Whether other input would help; else the machine is at fault.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::Record { .. } | Self::Checkpoint { .. } => true,
            Self::Data(error) => error.is_input(),
            Self::Write { .. } | Self::Files(_) | Self::Read(_) | Self::Bridge(_) => false,
        }
    }
}

/// Where and how to compute.
#[derive(Clone, Copy, Debug)]
pub struct Compute {
    pub device: Device,
    pub precision: Precision,
    pub backend: Backend,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The run has a record: completed or diverged.
    Ended(Box<RunRecord>),
    /// Stopped at a step boundary, with a checkpoint there.
    Interrupted { step: u64 },
}

/// One model in training.
pub struct Trainer<'a> {
    run: &'a RunConfig,
    compute: Compute,
    folder: &'a RunFolder,
    machinery: Machinery,
    position: Position,
}

impl<'a> Trainer<'a> {
    /// Starts afresh, or from the newest checkpoint of the folder.
    pub fn new(run: &'a RunConfig, compute: Compute, folder: &'a RunFolder) -> Result<Self, TrainError> {
        let saved = checkpoint::latest(&folder.checkpoints())?;
        let run_id = run.id().0;
        let (params, optimizer_state, position) = match saved {
            None => {
                let params = ParamStore::init(&run.model, &run.scaling, run.seed, compute.device);
                (params, None, Position { run_id, ..Position::default() })
            }
            Some(saved) => {
                let refuse = |problem: String| TrainError::Checkpoint { path: saved.path.clone(), problem };
                if saved.position.run_id != run_id {
                    return Err(refuse(format!("it is of run {}, not of {run_id}", saved.position.run_id)));
                }
                let params = ParamStore::from_tensors(&run.model, saved.params, compute.device)
                    .map_err(|e: NnError| refuse(e.to_string()))?;
                (params, Some((saved.path, saved.optimizer)), saved.position)
            }
        };
        let mut machinery = Machinery::new(run, compute, params, launches(compute.backend));
        if let Some((path, state)) = optimizer_state
            && machinery.optimizer.restore(&machinery.params, &state).is_none()
        {
            let problem = "its optimiser state is of another model".to_owned();
            return Err(TrainError::Checkpoint { path, problem });
        }
        Ok(Self { run, compute, folder, machinery, position })
    }

    /// Steps already taken.
    pub fn step(&self) -> u64 {
        self.position.step
    }

    /// Trains to the end, to a non-finite loss, or until `stop` is set; `observe` sees every step.
    pub fn train(mut self, stop: &AtomicBool, observe: &mut dyn FnMut(&StepMetrics)) -> Result<Outcome, TrainError> {
        let run = self.run;
        let dataset = PackedDataset::open(&run.train_data, run.seq_len, Some(run.model.shape.vocab_size as u64))?;
        let validation_rows = open_validation(run)?;
        let mut metrics_file = self.folder.metrics(self.position.step)?;
        let started = Instant::now();
        let (wall_before, first_step) = (self.position.wall_s, self.position.step);
        let mut last_saved = Instant::now();
        while self.position.step < run.steps() {
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(Outcome::Interrupted { step: self.position.step });
            }
            let step = self.position.step;
            let lr = run.lr * run.schedule.at_step(step);
            let (loss, grad_norm) = self.machinery.take(run, &dataset, step, lr)?;
            if !loss.is_finite() || !grad_norm.is_finite() {
                let reason = format!("loss {loss} and gradient norm {grad_norm} in step {}", step + 1);
                return self.end(RunStatus::Diverged, Some(reason), None);
            }
            self.position.step += 1;
            self.position.wall_s = wall_before + started.elapsed().as_secs_f64();
            self.position.recent_losses.push(loss);
            if self.position.recent_losses.len() > RECENT_STEPS {
                self.position.recent_losses.remove(0);
            }
            let done_here = (self.position.step - first_step) * run.batch_tokens();
            let metrics = StepMetrics {
                schema: SCHEMA,
                step: self.position.step,
                tokens: self.position.step * run.batch_tokens(),
                loss,
                grad_norm,
                lr,
                tokens_per_s: done_here as f64 / started.elapsed().as_secs_f64(),
                wall_s: self.position.wall_s,
            };
            metrics_file.push(&metrics)?;
            observe(&metrics);
            if last_saved.elapsed().as_secs_f64() >= run.exec.checkpoint_every_s {
                self.save()?;
                last_saved = Instant::now();
            }
        }
        self.save()?;
        let validation = evaluate(self.machinery.gradients.model(), run, &validation_rows, self.compute.device)?;
        if !validation.loss_at[0].is_finite() {
            return self.end(RunStatus::Diverged, Some("the validation loss is not finite".to_owned()), None);
        }
        self.end(RunStatus::Completed, None, Some(validation))
    }

    fn save(&self) -> Result<(), TrainError> {
        let Machinery { params, optimizer, .. } = &self.machinery;
        let values = params.iter().map(|p| (p.name.clone(), p.tensor.detach()));
        let tensors: Vec<(String, Tensor)> = values.chain(optimizer.state(params)).collect();
        checkpoint::save(&self.folder.checkpoints(), &self.position, &tensors, self.run.exec.checkpoint_keep)
    }

    fn end(
        &self,
        status: RunStatus,
        reason: Option<String>,
        validation: Option<Validation>,
    ) -> Result<Outcome, TrainError> {
        let run = self.run;
        let recent = &self.position.recent_losses;
        let at = |k: usize| validation.as_ref().and_then(|v| v.loss_at.get(k - 1).copied());
        let unmeasured = RunRecord::unmeasured(run, self.position.step, status, reason);
        let wall_s = self.position.wall_s;
        let record = RunRecord {
            precision: self.compute.precision.name().to_owned(),
            backend: self.compute.backend.name().to_owned(),
            train_loss: (!recent.is_empty()).then(|| recent.iter().sum::<f64>() / recent.len() as f64),
            val_loss: at(1),
            val_loss_se: validation.as_ref().map(|v| v.standard_error),
            val_loss_2x: at(2),
            val_loss_3x: at(3),
            val_loss_4x: at(4),
            val_tokens: validation.as_ref().map_or(0, |v| v.tokens),
            floor: validation.as_ref().and_then(|v| v.floor),
            wall_s,
            tokens_per_s: if wall_s > 0.0 { unmeasured.tokens as f64 / wall_s } else { 0.0 },
            device: device_name(self.compute.device),
            git_commit: git_commit(),
            ..unmeasured
        };
        self.folder.write_record(&record)?;
        Ok(Outcome::Ended(Box::new(record)))
    }
}

/// How a backend's work is launched.
fn launches(backend: Backend) -> Launches {
    match backend {
        Backend::Fused => Launches::Graph,
        Backend::Reference => Launches::Eager,
    }
}

/// What takes a run's steps.
struct Machinery {
    params: ParamStore,
    gradients: GradientStep,
    optimizer: AdamW,
}

impl Machinery {
    fn new(run: &RunConfig, compute: Compute, params: ParamStore, launches: Launches) -> Self {
        let Compute { device, precision, backend } = compute;
        let options = ForwardOptions { backend, precision, rope_table: RopeTable::RoundedToBf16 };
        let params = params.into_arena(precision);
        let lm = DecoderLm::new(&run.model, &run.scaling, &params, options);
        let gradients = GradientStep::new(lm, device, run.batch_rows, run.exec.micro_batch, run.seq_len + 1, launches);
        let options =
            AdamWOptions { betas: run.betas, eps: run.eps, grad_clip: run.grad_clip, weight_decay: run.weight_decay };
        let optimizer = AdamW::new(&params, &run.scaling, options, backend);
        Self { params, gradients, optimizer }
    }

    /// Takes step number `step`, counted from zero; its loss and gradient norm, for which a GPU is waited.
    fn take(&mut self, run: &RunConfig, dataset: &PackedDataset, step: u64, lr: f64) -> Result<(f64, f64), TrainError> {
        let rows = {
            let _phase = phase("data");
            dataset.training_rows(run.seed, step * run.batch_rows as u64, run.batch_rows)?
        };
        self.gradients.run(&rows)?;
        self.optimizer.step(&self.params, lr)?;
        Ok((self.gradients.loss(), self.optimizer.norm()))
    }
}

/// The device as records name it: `cpu`, or the GPU's product name.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(_) => crate::bridge::gpu_names().into_iter().next().unwrap_or_else(|| "cuda".to_owned()),
        _ => "cpu".to_owned(),
    }
}

/// Commit of the repository that the run was started in, if it is one.
fn git_commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
