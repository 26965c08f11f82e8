//! [`SweepPlan`]: every run of a sweep with every number decided, what it will cost and how far it is.

use super::devices::Machine;
use super::grid::{self, Point};
use super::home::SweepHome;
use super::packing::Need;
use super::speed::Speeds;
use super::state::RunState;
use super::{SweepError, SweepFile};
use crate::arch::cost::{ParamCount, TrainingMemory};
use crate::arch::params::ParamRole;
use crate::config::{ConfigError, ExecConfig, ExperimentConfig, FactsCache, PrecisionChoice, RunConfig, RunId, load};
use crate::record::{RunRecord, RunStatus};
use crate::runs::{Observer, RunFolder};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// One run.
#[derive(Clone, Debug)]
pub struct PlannedRun {
    /// What it is.
    pub id: RunId,
    /// What will run.
    pub config: RunConfig,
    /// The point that it was first seen at.
    pub point: Point,
    /// Points of the sweep that are this run.
    pub points: usize,
    /// All parameters.
    pub params: u64,
    /// Counted training FLOPs.
    pub flops: f64,
    /// Learning rate of the matrix group.
    pub lr_matrix: f64,
    /// Whether it takes a GPU.
    pub on_gpu: bool,
    /// Estimated seconds of the whole run.
    pub seconds: f64,
    /// Estimated bytes.
    pub memory: f64,
    /// How far it is.
    pub state: RunState,
    /// Steps taken, as far as its metrics tell.
    pub step: u64,
    /// Validation loss, once it is done.
    pub val_loss: Option<f64>,
    /// Latest training loss, as far as its metrics tell.
    pub loss: Option<f64>,
    /// Pace, as far as its metrics tell.
    pub tokens_per_s: Option<f64>,
    /// The Slurm job that waits for it or works on it.
    pub job: Option<String>,
}

impl PlannedRun {
    /// What the run takes of one machine.
    pub fn need(&self) -> Need {
        let ExecConfig { gpus, threads, .. } = &self.config.exec;
        match self.on_gpu {
            true => Need { gpus: *gpus, cores: 0 },
            false => Need { gpus: 0, cores: gpus * threads.unwrap_or(1) },
        }
    }

    /// Where its data lie, as one word.
    pub fn data_paths(&self) -> String {
        format!("{} {}", self.config.train_data.display(), self.config.val_data.display())
    }

    /// Cores of each of its processes, where it has no GPU.
    pub fn threads(&self) -> usize {
        self.config.exec.threads.unwrap_or(1)
    }

    /// Estimated seconds that are left of it.
    pub fn seconds_left(&self) -> f64 {
        match self.state {
            state if state.is_final() => 0.0,
            _ => self.seconds * (1.0 - self.step as f64 / self.config.steps() as f64).clamp(0.0, 1.0),
        }
    }
}

/// A whole sweep, ready to be shown or run.
#[derive(Clone, Debug)]
pub struct SweepPlan {
    /// The sweep's name.
    pub name: String,
    /// In the order of the file.
    pub runs: Vec<PlannedRun>,
    /// What a reader should know: merged points, parts without effect.
    pub notes: Vec<String>,
    /// What the estimated times rest on.
    pub basis: Vec<String>,
}

impl SweepPlan {
    /// Expands and resolves `sweep`; every run, before anything starts.
    pub fn new(sweep: &SweepFile, runs_dir: &Path, machine: &Machine, observer: &Observer) -> Result<Self, SweepError> {
        let points = grid::expand(sweep)?;
        check_base(sweep)?;
        let facts = FactsCache::default();
        let speeds = Speeds::read(runs_dir, machine)?;
        let mut runs: Vec<PlannedRun> = Vec::new();
        let mut known: HashMap<RunId, usize> = HashMap::new();
        let mut merged = 0;
        for point in points {
            let run = plan_run(sweep, point, machine, &facts, &speeds, (runs_dir, observer))?;
            match known.get(&run.id) {
                Some(&index) => {
                    runs[index].points += 1;
                    merged += 1;
                }
                None => {
                    known.insert(run.id.clone(), runs.len());
                    runs.push(run);
                }
            }
        }
        tell_apart(&mut runs);
        let queue_problem = ask_slurm(sweep, &mut runs, runs_dir, observer);
        let mut notes = sweep.notes();
        notes.extend(queue_problem);
        if merged > 0 {
            notes.push(format!("{merged} points equal another one and are run once"));
        }
        if runs.iter().any(|run| run.state == RunState::DataMissing) {
            notes.push("there is no data yet: run ids are provisional, and vocabularies the published ones".to_owned());
        }
        let basis = speeds.basis(&runs);
        Ok(Self { name: sweep.sweep.clone(), runs, notes, basis })
    }

    /// Estimated hours of GPUs (or of processes on a CPU): of all runs, and of what is left of them.
    pub fn gpu_hours(&self) -> (f64, f64) {
        let sum = |f: &dyn Fn(&PlannedRun) -> f64| {
            self.runs.iter().map(|run| f(run) * run.config.exec.processes() as f64).sum::<f64>() / 3600.0
        };
        (sum(&|run| run.seconds), sum(&PlannedRun::seconds_left))
    }

    /// What `plan --json` prints.
    pub fn to_json(&self) -> Value {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                json!({
                    "run_id": run.id, "label": run.config.label, "architecture": run.config.model.architecture,
                    "depth": run.config.model.shape.depth, "d_model": run.config.model.shape.d_model,
                    "params": run.params, "tokens": run.config.tokens, "steps": run.config.steps(),
                    "flops": run.flops, "lr": run.config.lr, "lr_matrix": run.lr_matrix, "seed": run.config.seed,
                    "variant": run.point.variant, "tag": run.config.tag, "seconds": run.seconds,
                    "memory_bytes": run.memory, "state": run.state.name(),
                })
            })
            .collect();
        let (all, left) = self.gpu_hours();
        let data: BTreeMap<String, &str> = self
            .runs
            .iter()
            .filter(|run| run.state != RunState::DataMissing)
            .map(|run| (run.data_paths(), run.config.data_fingerprint.as_str()))
            .collect();
        json!({
            "data": data,
            "sweep": self.name, "count": self.runs.len(), "runs": runs, "gpu_hours": all, "gpu_hours_left": left,
            "estimate": self.basis, "notes": self.notes,
        })
    }

    /// What `sweep status --json` prints.
    pub fn status_json(&self) -> Value {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                json!({
                    "run_id": run.id, "label": run.config.label, "state": run.state.name(), "step": run.step,
                    "steps": run.config.steps(), "tokens": run.step * run.config.batch_tokens(),
                    "loss": run.loss, "tokens_per_s": run.tokens_per_s, "val_loss": run.val_loss, "job": run.job,
                })
            })
            .collect();
        json!({ "sweep": self.name, "runs": runs, "notes": self.notes })
    }
}

/// Which runs Slurm has jobs for, if any was ever submitted; a sentence where it does not say.
fn ask_slurm(sweep: &SweepFile, runs: &mut [PlannedRun], runs_dir: &Path, observer: &Observer) -> Option<String> {
    let home = SweepHome::new(runs_dir, &sweep.sweep);
    if !home.was_submitted() || runs.iter().all(|run| run.state.is_final()) {
        return None;
    }
    let Some(queue) = observer.queue() else {
        return Some("squeue does not answer: which runs have jobs that wait is not known".to_owned());
    };
    let jobs = home.jobs(&queue);
    for run in runs {
        if let Some(job) = jobs.get(&run.id) {
            run.job = Some(job.id.clone());
            run.state = match run.state {
                state if state.is_startable() && job.is_waiting() => RunState::Queued,
                // Its process is about to take the folder, or has just let go of it.
                state if state.is_startable() => RunState::Running,
                other => other,
            };
        }
    }
    None
}

/// The records of a plan's runs, in its order; runs that have not ended are left out.
pub fn collect(plan: &SweepPlan, runs_dir: &Path) -> Result<Vec<RunRecord>, SweepError> {
    let mut records = Vec::new();
    for run in plan.runs.iter().filter(|run| run.state != RunState::DataMissing) {
        let folder = RunFolder::new(runs_dir, &run.id);
        let failed = || {
            let reason = folder.attempts().last()?.failure()?;
            Some(folder.record_without_result(&run.config, RunStatus::Failed, &reason))
        };
        if let Some(record) = folder.record()?.or_else(|| failed().filter(|_| run.state == RunState::Failed)) {
            // A run may be shared with another sweep that names it differently.
            records.push(RunRecord { label: run.config.label.clone(), ..record });
        }
    }
    Ok(records)
}

/// Types `base` where it stands in the file: a mistake there has a line.
fn check_base(sweep: &SweepFile) -> Result<(), SweepError> {
    #[derive(Deserialize)]
    struct BaseOnly {
        #[serde(default, rename = "base")]
        _base: ExperimentConfig,
    }
    load::read::<BaseOnly>(Path::new(&sweep.origin))?;
    Ok(())
}

fn plan_run(
    sweep: &SweepFile,
    point: Point,
    machine: &Machine,
    facts: &FactsCache,
    speeds: &Speeds,
    (runs_dir, observer): (&Path, &Observer),
) -> Result<PlannedRun, SweepError> {
    let refuse = |problem: String| SweepError::Point { origin: sweep.origin.clone(), point: point.name(), problem };
    let tree = without_unsupported(point.tree.clone()).map_err(refuse)?;
    let mut written: ExperimentConfig = load::from_tree(tree, "").map_err(|error| match error {
        ConfigError::Invalid { problem, .. } => refuse(problem),
        other => refuse(other.to_string()),
    })?;
    if let Some(template) = &sweep.label {
        written.label = Some(grid::label(sweep, template, &point)?);
    }
    let mut config =
        RunConfig::resolve(&written, &|path| facts.get(path)).map_err(|error| refuse(error.to_string()))?;
    let on_gpu = config.exec.device != "cpu" && !machine.gpus.is_empty();
    if !on_gpu && config.exec.threads.is_none() {
        // Runs share the cores: one that took them all would slow the others down.
        config.exec.threads = Some(1);
    }
    let missing =
        [&config.train_data, &config.val_data].into_iter().any(|path| facts.get(path).is_ok_and(|f| f.is_none()));
    let id = config.id();
    let folder = RunFolder::new(runs_dir, &id);
    let (state, record) =
        if missing { (RunState::DataMissing, None) } else { (RunState::of(&folder, observer)?, folder.record()?) };
    let flops = config.flops();
    let element = match config.exec.precision {
        PrecisionChoice::Fp32 => 4,
        PrecisionChoice::Auto if !on_gpu => 4,
        PrecisionChoice::Auto | PrecisionChoice::Bf16 => 2,
    };
    let micro_batch_tokens = (config.exec.micro_batch * config.seq_len) as u64;
    let metrics = if missing || state.is_final() { None } else { folder.last_metrics() };
    let step = match &record {
        Some(record) if state.is_final() => record.steps,
        _ => metrics.as_ref().map_or(0, |metrics| metrics.step),
    };
    let mut run = PlannedRun {
        params: ParamCount::of(&config.model).total(),
        flops,
        lr_matrix: config.lr * config.scaling.lr_multiplier(ParamRole::Matrix),
        on_gpu,
        seconds: 0.0,
        memory: TrainingMemory::of(&config.model, micro_batch_tokens, element).total(),
        state,
        step,
        val_loss: record.as_ref().and_then(|record| record.val_loss),
        loss: metrics.as_ref().map(|metrics| metrics.loss),
        tokens_per_s: metrics.as_ref().map(|metrics| metrics.tokens_per_s),
        job: None,
        id,
        config,
        point,
        points: 1,
    };
    run.seconds = match record.filter(|_| run.state == RunState::Done) {
        Some(record) => record.wall_s,
        None => flops / (speeds.of(&run) * run.config.exec.processes() as f64),
    };
    Ok(run)
}

/// Takes what a later version acts on out of a tree, where it asks for what happens anyway.
fn without_unsupported(mut tree: Value) -> Result<Value, String> {
    let Some(exec) = tree.get_mut("exec").and_then(Value::as_object_mut) else { return Ok(tree) };
    exec.remove("activation_checkpointing");
    match exec.get("device").and_then(Value::as_str) {
        Some(device) if device.starts_with("cuda:") => Err(format!(
            "exec.device = {device}: a sweep chooses the GPU; hint: write cuda, and name GPUs in backends.local.gpus"
        )),
        _ => Ok(tree),
    }
}

/// Adds to labels that several runs share what tells these runs apart.
fn tell_apart(runs: &mut [PlannedRun]) {
    let mut by_label: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, run) in runs.iter().enumerate() {
        by_label.entry(run.config.label.clone()).or_default().push(index);
    }
    for alike in by_label.into_values().filter(|alike| alike.len() > 1) {
        let mut keys: Vec<String> = Vec::new();
        for &index in &alike {
            let point = &runs[index].point;
            let own = point.variant.iter().map(|_| "variant").chain(point.values.iter().map(|(key, _)| key.as_str()));
            for key in own {
                let value = point.flat.get(key);
                let differs = alike.iter().any(|&other| runs[other].point.flat.get(key) != value);
                if differs && !keys.iter().any(|known| known == key) {
                    keys.push(key.to_owned());
                }
            }
        }
        for index in alike {
            let run = &mut runs[index];
            for key in &keys {
                if let Some(value) = run.point.flat.get(key) {
                    let short = key.rsplit('.').next().unwrap_or(key);
                    let name = if short == "variant" { "" } else { short };
                    run.config.label += &format!("-{name}{}", grid::shown(value));
                }
            }
        }
    }
}
