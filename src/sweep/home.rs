//! [`SweepHome`]: what is kept of a sweep beside its runs' folders: the file as it was last acted on, its plan, what
//! happened, and what was submitted. For people and for finding jobs again; what a run is and how far it is, its own
//! folder says.
//!
//! ```text
//! runs/sweeps/<name>/sweep.yaml     the file
//!                    plan.json      its runs
//!                    events.jsonl   what happened to them, append-only
//!                    slurm/TAG.sh   a script as submitted; the job's name is NAME-TAG
//!                    slurm/TAG.runs the runs of that job, one a line: line K belongs to task K - 1 of an array
//! ```

use super::{RunState, SweepError, SweepFile, SweepPlan};
use crate::config::RunId;
use crate::files::{self, ReadError, WriteError};
use crate::record::RunStatus;
use crate::runs::RunFolder;
use crate::slurm::{Job, Queue};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `runs/sweeps/<name>/`.
#[derive(Clone, Debug)]
pub struct SweepHome {
    /// The folder.
    pub path: PathBuf,
    name: String,
}

impl SweepHome {
    /// That of the sweep `name`.
    pub fn new(runs_dir: &Path, name: &str) -> Self {
        Self { path: runs_dir.join("sweeps").join(name), name: name.to_owned() }
    }

    /// Where scripts, lists and Slurm's own output lie.
    pub fn slurm(&self) -> PathBuf {
        self.path.join("slurm")
    }

    /// Whether something of the sweep was ever submitted.
    pub fn was_submitted(&self) -> bool {
        self.slurm().is_dir()
    }

    /// The name of the job with a tag.
    pub fn job_name(&self, tag: &str) -> String {
        format!("{}-{tag}", self.name)
    }

    /// Keeps the file and its plan. Runs that an earlier version of the file had and this one has not are returned.
    pub fn keep(&self, sweep: &SweepFile, plan: &SweepPlan) -> Result<Vec<RunId>, SweepError> {
        let left_out = self.left_out(plan);
        let source = Path::new(&sweep.origin);
        let text = std::fs::read(source).map_err(ReadError::of(source))?;
        files::write_atomic(&self.path.join("sweep.yaml"), &text)?;
        files::write_atomic(&self.path.join("plan.json"), format!("{:#}\n", plan.to_json()).as_bytes())?;
        Ok(left_out)
    }

    /// Refuses a plan whose data have changed since runs of the kept one were finished on them: the same paths, another
    /// content. Points on old and new data would stand in one table.
    pub fn check_data(&self, sweep: &SweepFile, plan: &SweepPlan) -> Result<(), SweepError> {
        let Ok(text) = std::fs::read_to_string(self.path.join("plan.json")) else { return Ok(()) };
        let kept: Value = serde_json::from_str(&text).unwrap_or_default();
        let changed = plan.runs.iter().find(|run| {
            let before = kept["data"][run.data_paths()].as_str();
            run.state != RunState::DataMissing && before.is_some_and(|before| before != run.config.data_fingerprint)
        });
        let Some(run) = changed else { return Ok(()) };
        let runs_dir = self.path.ancestors().nth(2).unwrap_or(&self.path);
        let old: Vec<RunId> = self.left_out(plan);
        let finished = old.iter().filter(|id| {
            let record = RunFolder::new(runs_dir, id).record().ok().flatten();
            record.is_some_and(|record| record.status == RunStatus::Completed)
        });
        match finished.count() {
            0 => Ok(()),
            count => Err(sweep.layout(
                "data",
                format!(
                    "the content of {} has changed since {count} runs of this sweep were finished on it; hint: put the \
                     former data back, give the new data another path, or --new-data to train everything on it",
                    run.data_paths().replace(' ', " or ")
                ),
            )),
        }
    }

    /// Runs of the kept plan that `plan` has not.
    pub fn left_out(&self, plan: &SweepPlan) -> Vec<RunId> {
        let Ok(text) = std::fs::read_to_string(self.path.join("plan.json")) else { return Vec::new() };
        let kept: Value = serde_json::from_str(&text).unwrap_or_default();
        let known: HashSet<&str> = plan.runs.iter().map(|run| run.id.0.as_str()).collect();
        let runs = kept["runs"].as_array().into_iter().flatten();
        // Ids are provisional until there is data.
        let real = runs.filter(|run| run["state"] != "data missing").filter_map(|run| run["run_id"].as_str());
        real.filter(|id| !known.contains(id)).map(|id| RunId(id.to_owned())).collect()
    }

    /// Appends a line to the story of the sweep.
    pub fn tell(&self, what: &str, details: Value) -> Result<(), WriteError> {
        let path = self.path.join("events.jsonl");
        let mut line = json!({ "at": jiff::Timestamp::now().to_string(), "event": what });
        if let (Some(line), Value::Object(details)) = (line.as_object_mut(), details) {
            line.extend(details);
        }
        let append = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.path)?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        append().map_err(|source| WriteError { path: path.clone(), source })
    }

    /// The runs of a submission, in the order of its tasks.
    pub fn submitted(&self, tag: &str) -> Option<Vec<RunId>> {
        let text = std::fs::read_to_string(self.slurm().join(format!("{tag}.runs"))).ok()?;
        Some(text.lines().map(|line| RunId(line.trim().to_owned())).collect())
    }

    /// The waiting and running jobs of this sweep by run, found by their names.
    pub fn jobs<'a>(&self, queue: &'a Queue) -> HashMap<RunId, &'a Job> {
        let start = format!("{}-", self.name);
        let mut lists: HashMap<&str, Option<Vec<RunId>>> = HashMap::new();
        let mut found = HashMap::new();
        for job in queue.jobs().filter(|job| job.is_waiting() || job.is_running()) {
            let Some(tag) = job.name.strip_prefix(&start) else { continue };
            let list = lists.entry(tag).or_insert_with(|| self.submitted(tag));
            let run = list.as_ref().and_then(|runs| runs.get(job.task.unwrap_or(0) as usize));
            if let Some(run) = run {
                found.insert(run.clone(), job);
            }
        }
        found
    }
}
