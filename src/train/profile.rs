//! Where the time of a training step goes.

use super::ranks::Ranks;
use super::step::Launches;
use super::{Compute, Machinery, TrainError, launches};
use crate::bridge::profile::{Recording, Span};
use crate::config::RunConfig;
use crate::data::PackedDataset;
use crate::nn::ParamStore;
use serde::Serialize;
use std::time::Instant;

/// Steps before the clock counts: warm-up, and the step whose work is recorded as a graph.
const WARM_UP: u64 = 6;
/// Name of what is in no phase.
const OUTSIDE: &str = "between phases";

/// Times of a step, means over the profiled ones.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    pub steps: u64,
    /// Wall time of a step as runs are trained: on a GPU replayed from a graph.
    pub trained_s: f64,
    /// Of a step whose operations were launched one by one and timed.
    pub profiled_s: f64,
    /// In the order in which they first ran.
    pub phases: Vec<PhaseTime>,
}

/// One phase of a step.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseTime {
    pub name: String,
    pub seconds: f64,
    /// The longest first; their sum leaves out what lies between operations.
    pub operations: Vec<OperationTime>,
}

/// One kind of operation in a phase.
#[derive(Clone, Debug, Serialize)]
pub struct OperationTime {
    pub name: String,
    pub seconds: f64,
    /// How many run in a step.
    pub calls: f64,
}

/// A run at its beginning.
struct Stepper<'a> {
    run: &'a RunConfig,
    dataset: &'a PackedDataset,
    machinery: Machinery,
    step: u64,
}

impl<'a> Stepper<'a> {
    fn new(run: &'a RunConfig, dataset: &'a PackedDataset, compute: Compute, launches: Launches) -> Self {
        let params = ParamStore::init(&run.model, &run.scaling, run.seed, compute.device);
        Self { run, dataset, machinery: Machinery::new(run, compute, params, launches, &Ranks::alone()), step: 0 }
    }

    fn take(&mut self, steps: u64) -> Result<(), TrainError> {
        for _ in 0..steps {
            let lr = self.run.lr * self.run.schedule.at_step(self.step.min(self.run.steps() - 1));
            self.machinery.take(self.run, self.dataset, self.step, lr, (false, false))?;
            self.step += 1;
        }
        Ok(())
    }
}

/// Trains the run from its beginning for a few steps without keeping anything: first as it would be trained, then
/// operation by operation.
pub fn profile(run: &RunConfig, compute: Compute, steps: u64) -> Result<Profile, TrainError> {
    let dataset = PackedDataset::open(&run.train_data, run.seq_len, Some(run.model.shape.vocab_size as u64))?;
    let trained_s = {
        let mut stepper = Stepper::new(run, &dataset, compute, launches(compute.backend));
        stepper.take(WARM_UP)?;
        let start = Instant::now();
        stepper.take(steps)?;
        start.elapsed().as_secs_f64() / steps as f64
    };
    let mut stepper = Stepper::new(run, &dataset, compute, Launches::Eager);
    stepper.take(WARM_UP)?;
    let recording = Recording::start(compute.device)?;
    stepper.take(steps)?;
    Ok(summary(&recording.finish()?, steps, trained_s))
}

/// Means over steps.
fn summary(spans: &[Span], steps: u64, trained_s: f64) -> Profile {
    let each = 1.0 / steps as f64;
    let mut phases: Vec<PhaseTime> = Vec::new();
    for span in spans {
        let seconds = (span.end_s - span.start_s) * each;
        let name = if span.phase.is_empty() { OUTSIDE } else { span.phase };
        let place = phases.iter().position(|phase| phase.name == name).unwrap_or_else(|| {
            phases.push(PhaseTime { name: name.to_owned(), seconds: 0.0, operations: Vec::new() });
            phases.len() - 1
        });
        let phase = &mut phases[place];
        let Some(operation) = &span.operation else {
            phase.seconds += seconds;
            continue;
        };
        if span.phase.is_empty() {
            phase.seconds += seconds;
        }
        match phase.operations.iter_mut().find(|known| known.name == *operation) {
            Some(known) => {
                known.seconds += seconds;
                known.calls += each;
            }
            None => phase.operations.push(OperationTime { name: operation.clone(), seconds, calls: each }),
        }
    }
    for phase in &mut phases {
        phase.operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    }
    let end = spans.iter().map(|span| span.end_s).fold(0.0, f64::max);
    Profile { steps, trained_s, profiled_s: end * each, phases }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_to_means_of_a_step() {
        let span = |phase, operation: Option<&str>, start_s, end_s| Span {
            phase,
            operation: operation.map(str::to_owned),
            start_s,
            end_s,
        };
        let step = |at: f64| {
            [
                span("", Some("aten::copy_"), at, at + 1.0),
                span("forward", None, at + 1.0, at + 7.0),
                span("forward", Some("linear"), at + 1.0, at + 3.0),
                span("forward", Some("scan"), at + 3.0, at + 4.0),
                span("forward", Some("linear"), at + 4.0, at + 6.0),
            ]
        };
        let profile = summary(&[step(0.0), step(10.0)].concat(), 2, 1.0);
        let seen: Vec<(&str, f64)> = profile.phases.iter().map(|p| (p.name.as_str(), p.seconds)).collect();
        assert_eq!(seen, [(OUTSIDE, 1.0), ("forward", 6.0)]);
        let forward: Vec<(&str, f64, f64)> =
            profile.phases[1].operations.iter().map(|o| (o.name.as_str(), o.seconds, o.calls)).collect();
        assert_eq!(forward, [("linear", 4.0, 2.0), ("scan", 1.0, 1.0)]);
        assert_eq!(profile.profiled_s, 8.5);
    }
}
