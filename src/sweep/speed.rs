//! How fast runs go: measured on finished runs, assumed where there are none.

use super::SweepError;
use super::plan::PlannedRun;
use crate::config::RunId;
use crate::files::ReadError;
use crate::record::RunStatus;
use crate::runs::RunFolder;
use std::collections::BTreeSet;
use std::path::Path;

/// FLOP/s of one CPU core on small models, until a run tells better.
const ASSUMED_CORE: f64 = 1e10;
/// FLOP/s of one GPU, until a run tells better.
const ASSUMED_GPU: f64 = 1e14;

struct Measured {
    architecture: String,
    on_gpu: bool,
    flops_per_token: f64,
    flops_per_s: f64,
}

/// Throughput of every finished run of a folder.
pub struct Speeds(Vec<Measured>);

impl Speeds {
    /// Reads the records under `runs_dir`.
    pub fn read(runs_dir: &Path) -> Result<Self, SweepError> {
        let entries = match std::fs::read_dir(runs_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            Err(error) => return Err(ReadError::of(runs_dir)(error).into()),
        };
        let mut measured = Vec::new();
        for entry in entries.flatten() {
            let id = RunId(entry.file_name().to_string_lossy().into_owned());
            // A record that cannot be read is reported where its run is planned; here it is one measurement less.
            let Ok(Some(record)) = RunFolder::new(runs_dir, &id).record() else { continue };
            if record.status == RunStatus::Completed && record.tokens > 0 && record.tokens_per_s > 0.0 {
                let flops_per_token = record.flops / record.tokens as f64;
                measured.push(Measured {
                    architecture: record.architecture,
                    on_gpu: record.device.starts_with("cuda"),
                    flops_per_token,
                    flops_per_s: flops_per_token * record.tokens_per_s / record.processes as f64,
                });
            }
        }
        Ok(Self(measured))
    }

    /// FLOP/s to expect of each process of `run`: of the finished run of its architecture that is nearest in size, else of any.
    pub fn of(&self, run: &PlannedRun) -> f64 {
        self.nearest(run).map_or_else(|| assumed(run), |measured| measured.flops_per_s)
    }

    fn nearest(&self, run: &PlannedRun) -> Option<&Measured> {
        let size = run.flops / run.config.tokens as f64;
        self.0
            .iter()
            .filter(|measured| measured.on_gpu == run.on_gpu)
            .map(|measured| {
                let foreign = measured.architecture != run.config.model.architecture;
                ((foreign, (measured.flops_per_token / size).ln().abs()), measured)
            })
            .min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
            .map(|(_, measured)| measured)
    }

    /// Sentences on what the times of `runs` rest on.
    pub fn basis(&self, runs: &[PlannedRun]) -> Vec<String> {
        let mut own = 0;
        let mut foreign = BTreeSet::new();
        let mut assumptions = BTreeSet::new();
        for run in runs {
            match self.nearest(run) {
                Some(measured) if measured.architecture == run.config.model.architecture => own += 1,
                Some(_) => {
                    foreign.insert(run.config.model.architecture);
                }
                None if run.on_gpu => {
                    assumptions.insert(format!("{ASSUMED_GPU:e} FLOP/s per GPU"));
                }
                None => {
                    assumptions.insert(format!("{ASSUMED_CORE:e} FLOP/s per core"));
                }
            }
        }
        let mut out = Vec::new();
        if own > 0 {
            out.push(format!("times of {own} runs follow finished runs of the same architecture"));
        }
        if !foreign.is_empty() {
            let names: Vec<&str> = foreign.into_iter().collect();
            out.push(format!("times of {} follow finished runs of other architectures", names.join(", ")));
        }
        for assumption in assumptions {
            out.push(format!("no finished run yet: times assume {assumption}"));
        }
        out
    }
}

fn assumed(run: &PlannedRun) -> f64 {
    if run.on_gpu { ASSUMED_GPU } else { ASSUMED_CORE * run.threads() as f64 }
}
