//! How fast runs go: measured on finished runs, assumed where there are none.

use super::SweepError;
use super::devices::{Machine, peak_flops};
use super::plan::PlannedRun;
use crate::config::{PrecisionChoice, RunId};
use crate::files::ReadError;
use crate::record::RunStatus;
use crate::runs::RunFolder;
use std::collections::BTreeSet;
use std::path::Path;

/// FLOP/s of one CPU core on small models, until a run tells better.
const ASSUMED_CORE: f64 = 1e10;
/// Share of a GPU's peak that a run reaches, until one tells better.
const ASSUMED_SHARE: f64 = 0.35;
/// Peak of a GPU that is not known.
const UNKNOWN_PEAK: f64 = 300e12;

struct Measured {
    architecture: String,
    on_gpu: bool,
    flops_per_token: f64,
    flops_per_s: f64,
}

/// Throughput of every finished run of a folder.
pub struct Speeds {
    runs: Vec<Measured>,
    /// The GPU that others are assumed to have.
    gpu: Option<String>,
}

impl Speeds {
    /// Reads the records under `runs_dir`.
    pub fn read(runs_dir: &Path, machine: &Machine) -> Result<Self, SweepError> {
        let gpu = machine.gpu_name.clone();
        let entries = match std::fs::read_dir(runs_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self { runs: Vec::new(), gpu }),
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
        Ok(Self { runs: measured, gpu })
    }

    /// FLOP/s to expect of each process of `run`: of the finished run of its architecture that is nearest in size, else of any.
    pub fn of(&self, run: &PlannedRun) -> f64 {
        self.nearest(run).map_or_else(|| self.assumed(run), |measured| measured.flops_per_s)
    }

    fn nearest(&self, run: &PlannedRun) -> Option<&Measured> {
        let size = run.flops / run.config.tokens as f64;
        self.runs
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
                    let (peak, share) = (self.peak(run) / 1e12, 100.0 * ASSUMED_SHARE);
                    let gpu = self.gpu.as_deref().unwrap_or("a GPU");
                    assumptions.insert(format!("{share:.0} % of the peak of {gpu}, {peak:.0} TFLOP/s"));
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

    fn peak(&self, run: &PlannedRun) -> f64 {
        let bf16 = run.config.exec.precision != PrecisionChoice::Fp32;
        self.gpu.as_deref().and_then(|name| peak_flops(name, bf16)).unwrap_or(UNKNOWN_PEAK)
    }

    fn assumed(&self, run: &PlannedRun) -> f64 {
        if run.on_gpu { ASSUMED_SHARE * self.peak(run) } else { ASSUMED_CORE * run.threads() as f64 }
    }
}
