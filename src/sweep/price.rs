//! What a plan will take, before anything starts: time on this machine, disk, memory; and why runs are new.

use super::SweepFile;
use super::devices::{Machine, Slots};
use super::packing::{Candidate, Makespan, simulate};
use super::plan::{PlannedRun, SweepPlan};
use crate::config::{RunId, load};
use crate::record::RunStatus;
use crate::runs::RunFolder;
use crate::units;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// What the unfinished runs of a plan take.
#[derive(Clone, Debug)]
pub struct Price {
    /// On this machine, all estimates taken for true; none where a run is too large for it.
    pub here: Option<Makespan>,
    /// The run with most time left.
    pub longest: Option<usize>,
    /// Bytes of the checkpoints that will be kept, and of one more for each run that is at work.
    pub disk: f64,
    /// Bytes that are free where the runs are.
    pub disk_free: Option<u64>,
    /// Runs that are estimated to need more memory than a GPU of this machine has.
    pub too_large: Vec<usize>,
    /// Runs that want more GPUs or machines than there are here.
    pub too_wide: Vec<usize>,
    /// Why runs are new.
    pub changes: Vec<Change>,
}

/// A run that is new, and the finished one that is most like it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Position in the plan.
    pub run: usize,
    /// The finished run.
    pub nearest: RunId,
    /// Each key in which they differ: the finished run's value and the new one's.
    pub keys: Vec<(String, String, String)>,
}

/// A run that differs in more keys than this is another experiment.
const MOST_KEYS: usize = 3;

impl Price {
    /// Adds up. Without `slots` the runs go to a cluster, whose size is not known.
    pub fn of(sweep: &SweepFile, plan: &SweepPlan, slots: Option<&Slots>, machine: &Machine, runs_dir: &Path) -> Self {
        let left: Vec<usize> = (0..plan.runs.len()).filter(|&run| !plan.runs[run].state.is_final()).collect();
        let of = |run: &usize| &plan.runs[*run];
        let wide = |run: &&usize| {
            let need = of(run).need();
            let here = |slots: &Slots| need.gpus == 0 || slots.pick(need.gpus, &[]).len() == need.gpus;
            slots.is_some_and(|slots| of(run).config.exec.nodes > 1 || !here(slots))
        };
        let too_wide: Vec<usize> = left.iter().filter(wide).copied().collect();
        let mut order = left.clone();
        if sweep.run.order == super::Order::LongestFirst {
            order.sort_by(|a, b| of(b).seconds_left().total_cmp(&of(a).seconds_left()));
        }
        let candidates: Vec<Candidate> =
            order.iter().map(|run| Candidate { need: of(run).need(), seconds: of(run).seconds_left() }).collect();
        let kept = |run: &PlannedRun| {
            let (config, exec) = (&run.config, &run.config.exec);
            let made = exec.checkpoint_every.count(config.steps(), config.batch_tokens()).unwrap_or(u64::MAX);
            12.0 * run.params as f64 * (exec.checkpoint_keep as u64).saturating_add(1).min(made) as f64
        };
        let memory = machine.gpu_memory;
        let large = |run: &&usize| of(run).on_gpu && memory.is_some_and(|bytes| of(run).memory > bytes as f64);
        Self {
            here: slots.filter(|_| too_wide.is_empty()).map(|slots| simulate(&candidates, slots.whole(), slots.most)),
            longest: left.iter().copied().max_by(|a, b| of(a).seconds_left().total_cmp(&of(b).seconds_left())),
            disk: left.iter().map(|run| kept(of(run))).sum(),
            disk_free: nearest_existing(runs_dir).and_then(|path| fs4::available_space(path).ok()),
            too_large: left.iter().filter(large).copied().collect(),
            too_wide,
            changes: changes(plan, runs_dir),
        }
    }

    /// Sentences for people.
    pub fn lines(&self, plan: &SweepPlan) -> Vec<String> {
        let label = |run: usize| plan.runs[run].config.label.as_str();
        let mut lines = Vec::new();
        if let Some(longest) = self.longest {
            let here = self.here.map_or(String::new(), |here| {
                let (time, busy) = (units::duration(here.seconds), 100.0 * here.utilisation);
                format!("on this machine: {time}, {busy:.0} % of it busy; ")
            });
            let time = units::duration(plan.runs[longest].seconds_left());
            lines.push(format!("{here}the longest run, {}, takes {time}", label(longest)));
            let free = self.disk_free.map_or(String::new(), |free| format!(", {} are free", units::bytes(free as f64)));
            lines.push(format!("checkpoints: up to {}{free}", units::bytes(self.disk)));
        }
        if self.disk_free.is_some_and(|free| self.disk > free as f64) {
            lines
                .push("warning: that is more than is free; hint: exec.checkpoint.keep: 1, or `sweep clean`".to_owned());
        }
        if let Some(&first) = self.too_large.first() {
            let (count, bytes) = (self.too_large.len(), units::bytes(plan.runs[first].memory));
            lines.push(format!(
                "warning: {count} runs may need more memory than a GPU has ({}: {bytes}); hint: lower exec.micro_batch",
                label(first)
            ));
        }
        if let Some(&first) = self.too_wide.first() {
            let exec = &plan.runs[first].config.exec;
            let count = self.too_wide.len();
            lines.push(format!(
                "{count} runs need more than this machine has ({}: {} x {} GPUs); hint: `sweep submit`",
                label(first),
                exec.nodes,
                exec.gpus
            ));
        }
        lines.extend(self.change_lines(plan));
        lines
    }

    /// One sentence for each set of keys in which runs differ from finished ones.
    fn change_lines(&self, plan: &SweepPlan) -> Vec<String> {
        let mut by_keys: BTreeMap<Vec<&str>, Vec<&Change>> = BTreeMap::new();
        for change in &self.changes {
            by_keys.entry(change.keys.iter().map(|(key, ..)| key.as_str()).collect()).or_default().push(change);
        }
        let line = |(keys, changes): (Vec<&str>, Vec<&Change>)| {
            let first = changes[0];
            let values: Vec<String> =
                first.keys.iter().map(|(key, old, new)| format!("{key} {old} there, {new} here")).collect();
            let what = if keys.is_empty() { "the content of their data".to_owned() } else { keys.join(", ") };
            let example = if values.is_empty() { String::new() } else { format!(": {}", values.join("; ")) };
            format!(
                "{} new runs differ from finished ones in {what} ({} from {}{example})",
                changes.len(),
                plan.runs[first.run].config.label,
                first.nearest
            )
        };
        by_keys.into_iter().map(line).collect()
    }
}

fn nearest_existing(path: &Path) -> Option<std::path::PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find(|ancestor| ancestor.exists()).map(Path::to_owned)
}

/// Leaves of what a run is, by key: what it is called, where its data lie and how it is executed left out.
fn leaves(tree: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, key: &str, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    walk(value, &if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, out);
                }
            }
            Value::Null => {}
            other => {
                out.insert(key.to_owned(), super::grid::shown(other));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(tree, "", &mut out);
    out.retain(|key, _| !["exec.", "data."].iter().any(|part| key.starts_with(part)) && key != "label" && key != "tag");
    out
}

/// For each run that has not begun, the finished run of another id that it is most like.
fn changes(plan: &SweepPlan, runs_dir: &Path) -> Vec<Change> {
    let new: Vec<usize> =
        (0..plan.runs.len()).filter(|&run| plan.runs[run].state == super::RunState::Pending).collect();
    let Ok(entries) = std::fs::read_dir(runs_dir) else { return Vec::new() };
    if new.is_empty() {
        return Vec::new();
    }
    let planned: HashSet<&str> = plan.runs.iter().map(|run| run.id.0.as_str()).collect();
    // Values as numbers, so that many runs are compared quickly.
    let mut numbers: HashMap<(String, String), u32> = HashMap::new();
    let mut keys: BTreeMap<String, usize> = BTreeMap::new();
    let mut row = |leaves: &BTreeMap<String, String>| {
        let mut row: Vec<u32> = vec![0; keys.len()];
        for (key, value) in leaves {
            let next = keys.len();
            let column = *keys.entry(key.clone()).or_insert(next);
            let number = numbers.len() as u32 + 1;
            let number = *numbers.entry((key.clone(), value.clone())).or_insert(number);
            if column >= row.len() {
                row.resize(column + 1, 0);
            }
            row[column] = number;
        }
        row
    };
    let mut finished = Vec::new();
    for entry in entries.flatten() {
        let id = RunId(entry.file_name().to_string_lossy().into_owned());
        let folder = RunFolder::new(runs_dir, &id);
        // What this very sweep has finished explains nothing.
        let done = !planned.contains(id.0.as_str())
            && folder.record().ok().flatten().is_some_and(|record| record.status == RunStatus::Completed);
        if done && let Ok(tree) = load::read_tree(&folder.config()) {
            let leaves = leaves(&tree);
            finished.push((id, row(&leaves), leaves));
        }
    }
    let differ = |a: &[u32], b: &[u32]| {
        let most = a.len().max(b.len());
        (0..most).filter(|&i| a.get(i).unwrap_or(&0) != b.get(i).unwrap_or(&0)).count()
    };
    let mut out = Vec::new();
    for run in new {
        let own = leaves(&load::to_tree(&plan.runs[run].config.written()));
        let own_row = row(&own);
        let nearest = finished.iter().map(|one| (differ(&own_row, &one.1), one)).min_by_key(|(count, _)| *count);
        let Some((count, (id, _, theirs))) = nearest else { continue };
        if count > MOST_KEYS {
            continue;
        }
        let all: std::collections::BTreeSet<&String> = own.keys().chain(theirs.keys()).collect();
        let value =
            |of: &BTreeMap<String, String>, key: &String| of.get(key).cloned().unwrap_or_else(|| "unset".to_owned());
        let keys = all
            .into_iter()
            .map(|key| (key.clone(), value(theirs, key), value(&own, key)))
            .filter(|(_, old, new)| old != new)
            .collect();
        out.push(Change { run, nearest: id.clone(), keys });
    }
    out
}
