//! [`SweepFile`]: a sweep as written.

use super::SweepError;
use crate::config::{
    CheckpointSection, CollectivesChoice, ConfigError, OptimizerState, PrecisionChoice, StopSection, load,
};
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A map in the order of the file: axes are multiplied in the order in which they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
            type Value = Entries<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(MapVisitor(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A whole sweep as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct SweepFile {
    /// Its name, and that of its results.
    pub sweep: String,
    /// A training config that every run starts from.
    #[serde(default)]
    pub base: Value,
    /// Axes that are multiplied.
    #[serde(default)]
    pub grid: Entries<Value>,
    /// Lists that move together.
    #[serde(default)]
    pub zip: Entries<Value>,
    /// One axis of named sets of overrides.
    #[serde(default)]
    pub variants: Entries<Value>,
    /// Points beside the product.
    #[serde(default)]
    pub include: Vec<IncludeBlock>,
    /// Conditions that take points out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How runs are executed.
    #[serde(default)]
    pub exec: ExecBlock,
    /// How the sweep is carried out.
    #[serde(default)]
    pub run: RunSection,
    /// Where.
    #[serde(default)]
    pub backends: BackendsSection,
    /// What follows the runs.
    #[serde(default)]
    pub after: Vec<AfterStep>,
    /// Template of the runs' labels: `lr{scaling.lr}-s{seed}`.
    pub label: Option<String>,
    /// Config keys given on the command line: they win over everything in the file.
    #[serde(skip)]
    pub overrides: Vec<(String, Value)>,
    /// The file, for messages.
    #[serde(skip)]
    pub origin: String,
}

/// One block of `include`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct IncludeBlock {
    /// Values that all its points share.
    pub set: Value,
    /// As at the top.
    pub grid: Entries<Value>,
    /// As at the top.
    pub zip: Entries<Value>,
    /// As at the top.
    pub variants: Entries<Value>,
    /// The tag of its runs.
    pub tag: Option<String>,
}

/// `exec`, and each of `exec.rules`. Keys that only a later version acts on are kept, so that a file with them can be
/// expanded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct ExecBlock {
    /// In a rule: the condition.
    #[serde(skip_serializing)]
    pub when: Option<String>,
    /// At the top: in order, a later match wins.
    #[serde(skip_serializing)]
    pub rules: Vec<ExecBlock>,
    /// As in a training config.
    pub device: Option<String>,
    /// As in a training config.
    pub precision: Option<PrecisionChoice>,
    /// As in a training config.
    pub micro_batch: Option<usize>,
    /// CPU threads of one run; default 1 where runs share a CPU.
    pub threads: Option<usize>,
    /// As in a training config.
    pub checkpoint: Option<CheckpointSection>,
    /// GPUs of one run on one node.
    pub gpus: Option<u64>,
    /// Nodes of one run.
    pub nodes: Option<u64>,
    /// As in a training config.
    pub collectives: Option<CollectivesChoice>,
    /// As in a training config.
    pub optimizer: Option<OptimizerState>,
    /// As in a training config.
    pub deterministic: Option<bool>,
    /// Recompute activations in the backward pass.
    pub activation_checkpointing: Option<bool>,
}

/// One of the steps that follow a sweep: a fit, a table, or a command.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct AfterStep {
    /// Name of a fit.
    pub fit: Option<String>,
    /// Its form; default power+floor.
    pub form: Option<String>,
    /// Columns of the fit: x, default flops.
    pub x: Option<String>,
    /// y, default val_loss.
    pub y: Option<String>,
    /// A fit for each of its values.
    pub group_by: Option<String>,
    /// Which runs enter.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The column that a table is of.
    pub table: Option<String>,
    /// The key whose values are its rows.
    pub rows: Option<String>,
    /// The key whose values are its columns.
    pub columns: Option<String>,
    /// What a cell shows of several runs: mean and spread in any case.
    pub show: Vec<String>,
    /// The key that a cell is a mean over.
    pub over: Option<String>,
    /// A program and its arguments; `{results}` stands for the table of all runs.
    pub command: Option<Vec<String>>,
}

/// Which run goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By estimated time; wastes least at the end.
    #[default]
    LongestFirst,
    /// As in the plan.
    Listed,
}

/// A kind of ending that is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoRetry {
    /// The run asked for more memory than there is.
    Oom,
    /// It diverged; never tried again in any case.
    Nan,
    /// Its config was refused; never tried again in any case.
    Config,
}

/// `run`: how the sweep is carried out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct RunSection {
    /// Runs at once, whatever the machine could hold.
    pub max_running: Option<usize>,
    /// How often a crashed run is tried again; default 1.
    pub retries: Option<u32>,
    /// Which run goes first.
    pub order: Order,
    /// Endings that are not tried again; default all of them.
    pub no_retry: Option<Vec<NoRetry>>,
    /// Start nothing new after this many failures; default: carry on.
    pub stop_sweep_after: Option<usize>,
    /// When a run is given up; becomes `exec.stop` of every run.
    pub stop_run: Option<StopSection>,
}

impl RunSection {
    /// Whether runs that ended so are not tried again.
    pub fn refuses(&self, ending: NoRetry) -> bool {
        self.no_retry.as_ref().is_none_or(|list| list.contains(&ending))
    }
}

/// `backends`: where runs go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct BackendsSection {
    /// This machine.
    pub local: LocalBackend,
    /// A cluster.
    pub slurm: Option<SlurmBackend>,
}

/// `backends.slurm`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct SlurmBackend {
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    /// Limit of one job, `12h`; a longer run saves itself and goes back into the queue. Default: the cluster's.
    pub time: Option<String>,
    /// How long before the limit a run saves itself; default 5 min.
    pub signal_lead: Option<String>,
    /// The signal that says so; default USR2.
    pub signal: Option<String>,
    /// Tasks of an array that run at once.
    pub max_running: Option<usize>,
    /// How often one job goes back into the queue; default: as often as it takes.
    pub max_requeues: Option<u32>,
    /// Cores for each process.
    pub cpus_per_gpu: Option<usize>,
    /// Lines of shell before a run, such as `module load cuda`.
    pub setup: Vec<String>,
    /// Any other option of `sbatch`, passed on as it is; `true` for one without a value, `false` to leave one out.
    pub sbatch: Entries<Value>,
    /// For a later version.
    pub runs_per_job: Option<usize>,
    /// For a later version.
    pub gpus_per_job: Option<usize>,
}

/// `backends.local`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct LocalBackend {
    /// `all`, or a list of positions among the visible GPUs.
    pub gpus: Option<Value>,
    /// Default 1.
    pub runs_per_gpu: Option<usize>,
    /// Cores that runs without a GPU share; default all there are.
    pub cores: Option<usize>,
}

impl SweepFile {
    /// Reads a sweep and applies `key=value` assignments: keys of the sweep (`run.max_running`, `base.seed`,
    /// `grid.model.depth`) change it, any other is a config key that every run takes over whatever the file says.
    pub fn read(path: &Path, assignments: &[String]) -> Result<Self, SweepError> {
        // The typed parse takes the last of two equal keys of a loose map; the plain one refuses them.
        load::read_tree(path)?;
        let mut sweep: Self = load::read(path)?;
        sweep.origin = path.display().to_string();
        for assignment in assignments {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(sweep.layout("--set", format!("'{assignment}' is not of the form key=value")));
            };
            sweep.assign(key.trim(), load::scalar(value.trim()))?;
        }
        sweep.check()?;
        Ok(sweep)
    }

    fn assign(&mut self, key: &str, value: Value) -> Result<(), SweepError> {
        let (section, rest) = key.split_once('.').unwrap_or((key, ""));
        match (section, rest) {
            ("base", _) if !rest.is_empty() => load::set(&mut self.base, rest, value)?,
            ("grid", _) if !rest.is_empty() => replace(&mut self.grid, rest, value),
            ("zip", _) if !rest.is_empty() => replace(&mut self.zip, rest, value),
            ("run", _) => self.run = patched(&self.run, "run", rest, value)?,
            ("backends", _) => self.backends = patched(&self.backends, "backends", rest, value)?,
            ("sweep", "") => self.sweep = load::from_tree(value, "--set sweep")?,
            ("label", "") => self.label = load::from_tree(value, "--set label")?,
            ("base" | "grid" | "zip" | "variants" | "include" | "exclude" | "after", _) => {
                return Err(self.layout("--set", format!("'{key}' cannot be set from outside; edit the file")));
            }
            _ => self.overrides.push((key.to_owned(), value)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), SweepError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.sweep.is_empty() || self.sweep.starts_with('.') || !self.sweep.chars().all(plain) {
            let problem = format!("'{}' becomes a file name: use letters, digits, '-', '_' and '.'", self.sweep);
            return Err(self.layout("sweep", problem));
        }
        if self.exec.when.is_some() {
            return Err(self.layout("exec.when", "a condition belongs to one of exec.rules"));
        }
        for (index, rule) in self.exec.rules.iter().enumerate() {
            if rule.when.is_none() {
                return Err(self.layout(&format!("exec.rules[{index}]"), "has no 'when'"));
            }
            if !rule.rules.is_empty() {
                return Err(self.layout(&format!("exec.rules[{index}].rules"), "rules do not nest"));
            }
        }
        for (place, zero) in [
            ("run.max_running", self.run.max_running == Some(0)),
            ("backends.local.runs_per_gpu", self.backends.local.runs_per_gpu == Some(0)),
            ("backends.local.cores", self.backends.local.cores == Some(0)),
            ("run.stop_sweep_after", self.run.stop_sweep_after == Some(0)),
            ("exec.threads", self.exec.threads == Some(0)),
        ] {
            if zero {
                return Err(self.layout(place, "must be at least 1"));
            }
        }
        Ok(())
    }

    /// Parts that were read and change nothing, for people.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.backends.slurm.as_ref().is_some_and(|slurm| slurm.runs_per_job.is_some_and(|runs| runs > 1)) {
            notes.push("backends.slurm.runs_per_job is for a later version: each run is a job of its own".to_owned());
        }
        let mut blocks = std::iter::once(&self.exec).chain(&self.exec.rules);
        if blocks.any(|block| block.activation_checkpointing == Some(true)) {
            notes.push("exec.activation_checkpointing is for a later version: activations are kept".to_owned());
        }
        notes
    }

    /// An error about one place of this file.
    pub fn layout(&self, place: &str, problem: impl Into<String>) -> SweepError {
        ConfigError::misplaced(&self.origin, place, &problem.into()).into()
    }
}

fn replace(entries: &mut Entries<Value>, key: &str, value: Value) {
    match entries.0.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => entries.0.push((key.to_owned(), value)),
    }
}

/// `section` with one key changed, typed anew so that a wrong key or value is refused as in a file.
fn patched<T: Serialize + DeserializeOwned>(section: &T, name: &str, key: &str, value: Value) -> Result<T, SweepError> {
    let mut tree = serde_json::to_value(section).expect("sections have string keys and finite numbers");
    if key.is_empty() {
        tree = value;
    } else {
        load::set(&mut tree, key, value)?;
    }
    let origin = if key.is_empty() { format!("--set {name}") } else { format!("--set {name}.{key}") };
    Ok(load::from_tree(tree, &origin)?)
}
