//! Training one model: data in; metrics, checkpoints and a record out.

pub mod checkpoint;
mod evaluate;
pub mod optimizer;
pub mod overlap;
pub mod profile;
pub mod ranks;
pub mod step;
mod watch;

pub use evaluate::{Validation, evaluate, open_validation};

use crate::bridge::BridgeError;
use crate::bridge::profile::phase;
use crate::config::{RunConfig, SaveEvery, StopRule};
use crate::data::{DataError, PackedDataset};
use crate::expression::Scope;
use crate::files::WriteError;
use crate::nn::{Arena, DecoderLm, ForwardOptions, NnError, ParamStore, Precision, RopeTable};
use crate::ops::Backend;
use crate::record::{RunRecord, RunStatus, SCHEMA, StepMetrics};
use crate::runs::{Claim, ClaimError, Phase, Progress};
use checkpoint::Position;
use optimizer::{AdamW, AdamWOptions, Sharing};
use overlap::OverlappedSum;
use ranks::Ranks;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use step::{GradientStep, Launches, Totals};
use tch::{Device, Kind, Tensor};

pub use watch::Gone;

/// Steps whose mean is a record's training loss.
const RECENT_STEPS: usize = 20;

/// Why training could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Files(#[from] WriteError),
    #[error("checkpoint {path} cannot be used: {problem}; hint: remove it to continue from the one before")]
    Checkpoint { path: PathBuf, problem: String },
    #[error("the ranks' parameters differ after step {step}, their sums by {difference:e}; nothing was saved")]
    RanksDisagree { step: u64, difference: f64 },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

impl TrainError {
    /// Whether other input would help; else the machine is at fault.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Claim(error) => matches!(error, ClaimError::Held { .. } | ClaimError::OutOfSight { .. }),
            Self::Checkpoint { .. } => true,
            Self::Data(error) => error.is_input(),
            Self::Files(_) | Self::Bridge(_) | Self::RanksDisagree { .. } => false,
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

/// Seconds between two notes of how far a run is.
const NOTED_EVERY_S: f64 = 5.0;

/// Where a run keeps its files, and which attempt at it this is.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    pub claim: &'a Claim,
    pub attempt: u32,
}

impl Home<'_> {
    /// Notes that the attempt has begun.
    pub fn begin(&self, run: &RunConfig) -> Result<(), TrainError> {
        let step = self.claim.saved_step();
        self.note(run, Phase::Starting, &Position { step, ..Position::default() })
    }

    fn note(&self, run: &RunConfig, phase: Phase, position: &Position) -> Result<(), TrainError> {
        let saved = self.claim.saved_step();
        let loss = position.recent_losses.last().copied();
        Ok(self.claim.set_progress(&Progress::of(run, phase, self.attempt, position.step, loss, saved))?)
    }
}

/// One model in training, as one of its processes sees it.
pub struct Trainer<'a> {
    run: &'a RunConfig,
    compute: Compute,
    /// The leader has it.
    home: Option<Home<'a>>,
    ranks: Arc<Ranks>,
    machinery: Machinery,
    position: Position,
}

impl<'a> Trainer<'a> {
    /// Starts afresh, or from the newest checkpoint that can be read; `passed_over` is told of newer ones that cannot. All
    /// ranks of `ranks` call it; the leader has a home.
    pub fn new(
        run: &'a RunConfig,
        compute: Compute,
        home: Option<Home<'a>>,
        ranks: Arc<Ranks>,
        passed_over: &mut dyn FnMut(&TrainError),
    ) -> Result<Self, TrainError> {
        let run_id = run.id().0;
        let (saved, broken) = match &home {
            Some(home) => checkpoint::latest(home.claim)?,
            None => (None, Vec::new()),
        };
        broken.iter().for_each(passed_over);
        let mut position = Position { run_id: run_id.clone(), ..Position::default() };
        let (params, state) = match saved {
            None => (ParamStore::init(&run.model, &run.scaling, run.seed, compute.device), None),
            Some(saved) => {
                let refuse = |problem: String| TrainError::Checkpoint { path: saved.path.clone(), problem };
                if saved.position.run_id != run_id {
                    return Err(refuse(format!("it is of run {}, not of {run_id}", saved.position.run_id)));
                }
                let params = ParamStore::from_tensors(&run.model, saved.params, compute.device)
                    .map_err(|e: NnError| refuse(e.to_string()))?;
                if !AdamW::fits(&params, &saved.optimizer) {
                    return Err(refuse("its optimiser state is of another model".to_owned()));
                }
                position = saved.position;
                (params, Some(saved.optimizer))
            }
        };
        let mut machinery = Machinery::new(run, compute, params, launches(compute.backend), &ranks);
        position.share(&ranks, compute.device)?;
        if position.step > 0 {
            machinery.optimizer.restore(&machinery.params, state.as_ref())?;
        }
        machinery.share_parameters()?;
        Ok(Self { run, compute, home, ranks, machinery, position })
    }

    /// Steps already taken.
    pub fn step(&self) -> u64 {
        self.position.step
    }

    /// Trains to the end, to a non-finite loss, or until one of the ranks was `asked` to stop; `observe` sees every step.
    pub fn train(
        mut self,
        asked: &dyn Fn() -> bool,
        observe: &mut dyn FnMut(&StepMetrics),
    ) -> Result<Outcome, TrainError> {
        let run = self.run;
        let dataset = PackedDataset::open(&run.train_data, run.seq_len, Some(run.model.shape.vocab_size as u64))?;
        let validation_rows = open_validation(run)?;
        let mut metrics_file = self.home.map(|home| home.claim.metrics(self.position.step)).transpose()?;
        let started = Instant::now();
        let (wall_before, first_step) = (self.position.wall_s, self.position.step);
        let mut last_saved = Instant::now();
        let mut last_noted = Instant::now();
        self.note(Phase::Training)?;
        while self.position.step < run.steps() {
            let step = self.position.step;
            let lr = run.lr * run.schedule.at_step(step);
            let due = match run.exec.checkpoint_every {
                SaveEvery::Seconds(every) => last_saved.elapsed().as_secs_f64() >= every,
                every => every.is_due(step + 1, run.batch_tokens()),
            };
            let save = self.ranks.leads() && due;
            let (totals, grad_norm) = self.machinery.take(run, &dataset, step, lr, (asked(), save))?;
            let Totals { loss, stop, save } = totals;
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
            if let Some(file) = &mut metrics_file {
                file.push(&metrics)?;
            }
            observe(&metrics);
            if let Some(rule) = run.exec.stop.as_ref().filter(|rule| gives_up(rule, &metrics)) {
                let reason = format!("given up in step {}: {} (loss {loss:.4})", self.position.step, rule.text);
                return self.end(RunStatus::Diverged, Some(reason), None);
            }
            if last_noted.elapsed().as_secs_f64() >= NOTED_EVERY_S {
                self.note(Phase::Training)?;
                last_noted = Instant::now();
            }
            if self.position.step == run.steps() {
                break;
            }
            // One process need not wait for the next step's vote.
            let stop = stop || (self.ranks.size() == 1 && asked());
            if save || stop {
                self.save()?;
                last_saved = Instant::now();
            }
            if stop {
                self.note(Phase::Saved)?;
                self.ranks.part()?;
                return Ok(Outcome::Interrupted { step: self.position.step });
            }
        }
        self.save()?;
        self.note(Phase::Validating)?;
        let model = self.machinery.gradients.model();
        let validation = evaluate(model, run, &validation_rows, self.compute.device, &self.ranks)?;
        if !validation.loss_at[0].is_finite() {
            return self.end(RunStatus::Diverged, Some("the validation loss is not finite".to_owned()), None);
        }
        self.end(RunStatus::Completed, None, Some(validation))
    }

    fn save(&self) -> Result<(), TrainError> {
        let Machinery { params, optimizer, .. } = &self.machinery;
        self.machinery.check_agreement(self.position.step)?;
        let values = params.iter().map(|p| (p.name.clone(), p.tensor.detach()));
        let tensors: Vec<(String, Tensor)> = values.chain(optimizer.state(params)?).collect();
        if let Some(home) = &self.home {
            home.claim.check()?;
            checkpoint::save(home.claim, &self.position, &tensors, self.run.exec.checkpoint_keep)?;
        }
        Ok(())
    }

    fn note(&self, phase: Phase) -> Result<(), TrainError> {
        self.home.map_or(Ok(()), |home| home.note(self.run, phase, &self.position))
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
            processes: self.ranks.size() as u64,
            git_commit: git_commit(),
            ..unmeasured
        };
        if let Some(home) = &self.home {
            home.claim.check()?;
            home.claim.write_record(&record)?;
        }
        self.note(Phase::Ended)?;
        self.ranks.part()?;
        Ok(Outcome::Ended(Box::new(record)))
    }
}

/// Whether a rule gives a run up after a step.
fn gives_up(rule: &StopRule, metrics: &StepMetrics) -> bool {
    struct Fields(serde_json::Value);
    impl Scope for Fields {
        fn value(&self, key: &str) -> Option<&serde_json::Value> {
            self.0.get(key)
        }
        fn knows(&self, key: &str) -> bool {
            StopRule::KEYS.contains(&key)
        }
        fn keys(&self) -> Vec<&str> {
            StopRule::KEYS.to_vec()
        }
    }
    let fields = || Fields(serde_json::to_value(metrics).expect("metrics serialise: plain fields"));
    metrics.tokens >= rule.after_tokens && rule.condition.holds(&fields()).unwrap_or(false)
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
    ranks: Arc<Ranks>,
    /// Where ranks can add up gradients while they compute.
    reduction: Option<Arc<OverlappedSum>>,
}

impl Machinery {
    fn new(run: &RunConfig, compute: Compute, params: ParamStore, launches: Launches, ranks: &Arc<Ranks>) -> Self {
        let Compute { device, precision, backend } = compute;
        let options = ForwardOptions { backend, precision, rope_table: RopeTable::RoundedToBf16 };
        let params = params.into_arena(precision);
        let lm = DecoderLm::new(&run.model, &run.scaling, &params, options);
        let micro_batch = run.exec.micro_batch.min(ranks.share(run.batch_rows).len());
        let gradients = GradientStep::new(lm, device, run.batch_rows, micro_batch, run.seq_len + 1, launches);
        let options =
            AdamWOptions { betas: run.betas, eps: run.eps, grad_clip: run.grad_clip, weight_decay: run.weight_decay };
        let sharing = Sharing { ranks: ranks.clone(), state: run.exec.optimizer };
        let optimizer = AdamW::new(&params, &run.scaling, options, backend, sharing);
        let reduction = ranks.overlaps(device).then(|| OverlappedSum::new(ranks.clone(), &params));
        Self { params, gradients, optimizer, ranks: ranks.clone(), reduction }
    }

    fn arena(&self) -> &Arena {
        self.params.arena().expect("parameters in training are in an arena")
    }

    /// Gives every rank the leader's parameters.
    fn share_parameters(&self) -> Result<(), BridgeError> {
        let Arena { values, shadow, .. } = self.arena();
        tch::no_grad(|| {
            self.ranks.copy_from_leader(values)?;
            if let Some(shadow) = shadow {
                shadow.shallow_clone().copy_(values);
            }
            Ok(())
        })
    }

    /// Takes step number `step`, counted from zero, and decides with the other ranks whether somebody wants to stop or to
    /// save; totals and gradient norm, for which a GPU is waited.
    fn take(
        &mut self,
        run: &RunConfig,
        dataset: &PackedDataset,
        step: u64,
        lr: f64,
        (stop, save): (bool, bool),
    ) -> Result<(Totals, f64), TrainError> {
        let rows = {
            let _phase = phase("data");
            let share = self.ranks.share(run.batch_rows);
            dataset.training_rows(run.seed, step * run.batch_rows as u64 + share.start as u64, share.len())?
        };
        self.gradients.run(&rows, self.reduction.as_ref())?;
        {
            let _phase = phase("all-reduce");
            if self.reduction.is_none() {
                self.ranks.begin_sum(&self.arena().grads)?;
            }
            self.ranks.begin_sum(self.gradients.vote(stop, save))?;
            self.ranks.wait()?;
        }
        self.optimizer.step(&self.params, lr)?;
        Ok((self.gradients.totals(), self.optimizer.norm()))
    }

    /// Makes sure that all ranks have the same parameters before they are saved.
    fn check_agreement(&self, step: u64) -> Result<(), TrainError> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let sum = self.arena().values.sum(Kind::Double);
        let bounds = Tensor::stack(&[&sum, &-&sum], 0);
        self.ranks.max(&bounds)?;
        let [most, least] = [0, 1].map(|place| bounds.double_value(&[place]));
        // Not a number on every rank: the loss says that.
        if most != -least && !(most.is_nan() && least.is_nan()) {
            return Err(TrainError::RanksDisagree { step, difference: most + least });
        }
        Ok(())
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
