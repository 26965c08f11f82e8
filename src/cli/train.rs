//! `lossfloor train`: one run.

use super::device::{DeviceArg, check_kernels, pick};
use super::{ExitStatus, exit, output, runtime, usage};
use crate::arch::MixerSpec;
use crate::arch::cost::FlopsPerToken;
use crate::bridge::aten::set_deterministic;
use crate::config::{BackendChoice, ExperimentConfig, FactsCache, PrecisionChoice, RunConfig, load};
use crate::files::write_atomic;
use crate::nn::Precision;
use crate::ops::Backend;
use crate::ops::attention::AttentionShape;
use crate::plot::{FlameChart, FlamePart};
use crate::record::{RunRecord, RunStatus, StepMetrics};
use crate::train::folder::RunFolder;
use crate::train::profile::PhaseTime;
use crate::train::{self, Compute, Outcome, TrainError, Trainer, device_name};
use crate::units;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Train one model; the same command again carries on where it stopped
#[derive(clap::Args, Debug)]
pub struct TrainArgs {
    /// A training configuration
    config: PathBuf,
    /// Override a key, such as model.depth=12
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of run folders
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Instead of training, time the operations of so many steps; writes profile.json, .svg and .png to the run's folder
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    profile: Option<u64>,
    /// Print the run's record, or the profile, as JSON
    #[arg(long)]
    json: bool,
}

fn train_error(error: TrainError) -> anyhow::Error {
    if error.is_input() { usage(error) } else { error.into() }
}

/// Reads a configuration with overrides.
fn configuration(path: &Path, set: &[String], facts: &FactsCache) -> anyhow::Result<RunConfig> {
    let written: ExperimentConfig = load::read(path).map_err(usage)?;
    let written = if set.is_empty() {
        written
    } else {
        let mut tree = load::read_tree(path).map_err(usage)?;
        for assignment in set {
            load::set_from_text(&mut tree, assignment).map_err(usage)?;
        }
        load::from_tree(tree, "--set").map_err(usage)?
    };
    RunConfig::resolve(&written, &|data| facts.get(data)).map_err(|error| usage(format!("{}: {error}", path.display())))
}

pub fn run(args: TrainArgs) -> anyhow::Result<ExitStatus> {
    let facts = FactsCache::default();
    let run = configuration(&args.config, &args.set, &facts)?;
    for path in [&run.train_data, &run.val_data] {
        if facts.get(path).map_err(usage)?.is_none() {
            return Err(usage(format!(
                "there is no complete data at {}; hint: make it with `lossfloor data synth` or `lossfloor data pack`",
                path.display()
            )));
        }
    }
    let folder = RunFolder::lock(&args.runs.join(run.id().0)).map_err(train_error)?;
    if args.profile.is_none()
        && let Some(record) = folder.record().map_err(train_error)?
        && matches!(record.status, RunStatus::Completed | RunStatus::Diverged)
    {
        output::note(&format!("run {} has ended: {}", record.run_id, record.status.name()));
        return finish(&record, args.json);
    }

    let device = pick(&run.exec.device.parse::<DeviceArg>().map_err(|e| usage(format!("exec.device: {e}")))?)?;
    let precision = match (run.exec.precision, device) {
        (PrecisionChoice::Fp32, _) | (PrecisionChoice::Auto, tch::Device::Cpu) => Precision::Fp32,
        (PrecisionChoice::Bf16, _) | (PrecisionChoice::Auto, _) => Precision::Bf16,
    };
    runtime::use_threads(run.exec.threads)?;
    let backend = match run.exec.backend {
        BackendChoice::Fused => Backend::Fused,
        BackendChoice::Reference => Backend::Reference,
    };
    check_kernels(device, backend, "set exec.backend: reference for plain tensor code, many times slower")?;
    set_deterministic(run.exec.deterministic);
    let compute = Compute { device, precision, backend };
    if let Some(steps) = args.profile {
        return profile(&run, compute, steps, &folder, args.json);
    }
    write_atomic(&folder.file("config.yaml"), load::to_yaml(&run.written()).as_bytes())?;
    write_atomic(&folder.file("env.json"), serde_json::to_string_pretty(&environment(&run, &compute))?.as_bytes())?;

    let stop = stop_flag()?;
    let trainer = Trainer::new(&run, compute, &folder).map_err(train_error)?;
    let mut progress = Progress::new(&run, trainer.step(), compute);
    let outcome = trainer.train(&stop, &mut |metrics| progress.show(metrics));
    progress.close();
    match outcome.map_err(train_error)? {
        Outcome::Ended(record) => finish(&record, args.json),
        Outcome::Interrupted { step } => Err(exit(
            ExitStatus::Interrupted,
            format!("interrupted; saved at step {step} of {}, the same command carries on", run.steps()),
        )),
    }
}

/// Times a few steps and writes what was seen.
fn profile(
    run: &RunConfig,
    compute: Compute,
    steps: u64,
    folder: &RunFolder,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let profile = train::profile::profile(run, compute, steps).map_err(train_error)?;
    let device = device_name(compute.device);
    let how = format!(
        "{device}, {}, {}: means of {steps} steps of {} tokens; {} as trained, {} while profiled",
        compute.precision.name(),
        compute.backend.name(),
        units::grouped(run.batch_tokens()),
        milliseconds(profile.trained_s),
        milliseconds(profile.profiled_s),
    );
    let part = |name: &str, seconds: f64, parts: Vec<FlamePart>| FlamePart { name: name.to_owned(), seconds, parts };
    let operations =
        |phase: &PhaseTime| phase.operations.iter().map(|o| part(&o.name, o.seconds, Vec::new())).collect();
    let phases = profile.phases.iter().map(|phase| part(&phase.name, phase.seconds, operations(phase))).collect();
    let whole = part("step", profile.profiled_s, phases);
    let chart = FlameChart { title: format!("Where a step of {} goes", run.label), note: how.clone(), whole };
    let document = serde_json::json!({
        "run_id": run.id().0,
        "label": run.label,
        "device": device,
        "precision": compute.precision.name(),
        "backend": compute.backend.name(),
        "libtorch": crate::bridge::libtorch_version(),
        "profile": profile,
    });
    write_atomic(&folder.file("profile.json"), serde_json::to_string_pretty(&document)?.as_bytes())?;
    write_atomic(&folder.file("profile.svg"), chart.svg()?.as_bytes())?;
    write_atomic(&folder.file("profile.png"), &chart.png()?)?;
    if json {
        output::json(&document)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = output::table(&["phase", "operation", "ms a step", "share", "calls"]);
    let mut row = |phase: &str, operation: &str, seconds: f64, calls: String| {
        let share = format!("{:.1} %", 100.0 * seconds / profile.profiled_s);
        table.add_row([phase.to_owned(), operation.to_owned(), format!("{:.3}", seconds * 1e3), share, calls]);
    };
    for phase in &profile.phases {
        row(&phase.name, "", phase.seconds, String::new());
        let mut rest = phase.seconds;
        for operation in phase.operations.iter().take(SHOWN_OPERATIONS) {
            row("", &operation.name, operation.seconds, format!("{:.0}", operation.calls));
            rest -= operation.seconds;
        }
        if phase.operations.len() > SHOWN_OPERATIONS || rest > 0.01 * profile.profiled_s {
            row("", "others and between", rest, String::new());
        }
    }
    output::print(&format!("{}\n{how}\n{table}\n{}", run.label, folder.file("profile.svg").display()))?;
    Ok(ExitStatus::Done)
}

/// Operations of a phase that the table shows; the files have all.
const SHOWN_OPERATIONS: usize = 12;

fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// Set by the first SIGINT or SIGTERM; a second one ends the process at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, ExitStatus::Interrupted as i32, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The kernel of each kind of attention that a model has.
fn attention_kernels(run: &RunConfig, compute: &Compute) -> BTreeMap<String, &'static str> {
    let length = run.seq_len as i64;
    let kernel = |window: Option<usize>| {
        let shape = AttentionShape {
            device: compute.device,
            kind: compute.precision.kind(),
            head_dim: run.model.shape.head_dim as i64,
            queries: length,
            keys: length,
            window: window.map(|w| w as i64),
        };
        shape.kernel(compute.backend).name()
    };
    let windows = run.model.layers.iter().filter_map(|layer| match layer.mixer {
        MixerSpec::Attention { window, .. } => Some(window),
        MixerSpec::CrossAttention { .. } => Some(None),
        MixerSpec::Mamba | MixerSpec::GatedMemoryUnit { .. } => None,
    });
    let named = |window: Option<usize>| window.map_or_else(|| "full".to_owned(), |w| format!("window {w}"));
    windows.map(|window| (named(window), kernel(window))).collect()
}

fn environment(run: &RunConfig, compute: &Compute) -> serde_json::Value {
    serde_json::json!({
        "lossfloor": env!("CARGO_PKG_VERSION"),
        "libtorch": crate::bridge::libtorch_version(),
        "device": device_name(compute.device),
        "precision": compute.precision.name(),
        "attention": attention_kernels(run, compute),
        "cpu_threads": tch::get_num_threads(),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim(),
        "command": std::env::args().collect::<Vec<_>>(),
        "started_at": jiff::Timestamp::now().to_string(),
    })
}

fn finish(record: &RunRecord, json: bool) -> anyhow::Result<ExitStatus> {
    if json {
        output::json(record)?;
    } else {
        let loss = match (record.val_loss, record.val_loss_se) {
            (Some(loss), Some(se)) => format!("validation loss {loss:.4} ± {se:.4} nats/token"),
            _ => record.reason.clone().unwrap_or_default(),
        };
        let floor = record.floor.map(|floor| format!(", floor {floor:.4}")).unwrap_or_default();
        output::print(&format!("{} {} {}: {loss}{floor}", record.run_id, record.label, record.status.name()))?;
    }
    Ok(match record.status {
        RunStatus::Completed => ExitStatus::Done,
        RunStatus::Diverged => ExitStatus::Diverged,
        RunStatus::Failed => ExitStatus::Internal,
        RunStatus::Interrupted => ExitStatus::Interrupted,
    })
}

/// A bar on a terminal, a line now and then in a pipe.
struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    flops_per_token: f64,
    /// Peak FLOP/s of the device at this precision, where known.
    peak: Option<f64>,
    last_line: Instant,
}

/// Between lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(15);

impl Progress {
    fn new(run: &RunConfig, step: u64, compute: Compute) -> Self {
        let steps = run.steps();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
            let bar = ProgressBar::new(steps).with_prefix(run.label.clone()).with_position(step);
            bar.set_style(style.expect("the template is valid"));
            bar
        });
        let flops = FlopsPerToken::of(&run.model, run.architecture, run.seq_len);
        Self {
            bar,
            steps,
            flops_per_token: flops.counted,
            peak: peak_flops(&device_name(compute.device), compute.precision),
            last_line: Instant::now(),
        }
    }

    fn show(&mut self, metrics: &StepMetrics) {
        let per_step = metrics.tokens as f64 / metrics.step as f64;
        let left = (self.steps - metrics.step) as f64 * per_step / metrics.tokens_per_s;
        let share = self.peak.map_or(String::new(), |peak| {
            format!(" {:.0}% of peak", 100.0 * metrics.tokens_per_s * self.flops_per_token / peak)
        });
        let speed = units::si(metrics.tokens_per_s);
        let text = format!("loss {:.4} {speed} tok/s{share} {} left", metrics.loss, units::duration(left));
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(text);
            }
            None if metrics.step == 1 || self.last_line.elapsed() >= LINE_EVERY || metrics.step == self.steps => {
                output::note(&format!("step {}/{} {text}", metrics.step, self.steps));
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Dense peak of devices by their vendors' data sheets.
fn peak_flops(device: &str, precision: Precision) -> Option<f64> {
    match (device, precision) {
        ("NVIDIA H200" | "NVIDIA H100 80GB HBM3", Precision::Bf16) => Some(989.4e12),
        ("NVIDIA H200" | "NVIDIA H100 80GB HBM3", Precision::Fp32) => Some(66.9e12),
        ("NVIDIA A100-SXM4-80GB" | "NVIDIA A100-SXM4-40GB", Precision::Bf16) => Some(312e12),
        _ => None,
    }
}
