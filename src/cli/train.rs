//! `lossfloor train`: one run.

use super::device::check_kernels;
use super::sweep::observer;
use super::{ExitStatus, exit, output, provenance, ranks, runtime, status_of, usage};
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
use crate::runs::{Attempt, Cause, Claim, ClaimError, Exit, RunFolder, tells_of_memory};
use crate::sweep::devices::peak_flops;
use crate::train::profile::PhaseTime;
use crate::train::ranks::Rendezvous;
use crate::train::{self, Compute, Home, Outcome, TrainError, Trainer, device_name};
use crate::units;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    /// Time that is left to this process: `2h`, `30 min`, or as Slurm writes it, 1-12:00:00; it saves itself before the end
    #[arg(long, value_name = "TIME")]
    time_left: Option<String>,
    /// How long before the end it saves itself
    #[arg(long, value_name = "TIME", default_value = "5 min")]
    lead: String,
    /// The attempt whose folder a scheduler has made, with the log in it
    #[arg(long, hide = true)]
    attempt: Option<u32>,
    /// Print the run's record, or the profile, as JSON
    #[arg(long)]
    json: bool,
}

fn train_error(error: TrainError) -> anyhow::Error {
    if error.is_input() { usage(error) } else { error.into() }
}

/// Reads a configuration with overrides.
pub(super) fn configuration(path: &Path, set: &[String], facts: &FactsCache) -> anyhow::Result<RunConfig> {
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
    if args.attempt.is_some() {
        let folder = args.config.parent().and_then(|parent| parent.file_name()?.to_str());
        if folder != Some(run.id().0.as_str()) {
            return Err(usage(format!(
                "{} is the run {} now: its data or its configuration have changed since it was planned; hint: plan again",
                args.config.display(),
                run.id()
            )));
        }
    }
    let place = ranks::rendezvous()?;
    if args.profile.is_some() && (place.is_some() || run.exec.processes() > 1) {
        return Err(usage("--profile times one process; hint: --set exec.gpus=1"));
    }
    let path = args.runs.join(run.id().0);
    if place.is_none() && run.exec.processes() > 1 {
        return match RunFolder::at(&path).record()?.filter(|record| is_final(record.status)) {
            Some(record) => already(&record, args.json),
            None => ranks::launch(&run),
        };
    }
    if place.as_ref().is_some_and(|place| place.rank > 0) {
        return follow(&run, place.as_ref(), &args);
    }
    let attempt = args.attempt.map(|number| Attempt::of(&RunFolder::at(&path), number));
    let mut open = attempt.clone();
    let result = lead(&run, place.as_ref(), &args, &path, &mut open);
    if let Some(attempt) = open {
        note_end(&attempt, &RunFolder::at(&path), &result);
    }
    result
}

fn is_final(status: RunStatus) -> bool {
    matches!(status, RunStatus::Completed | RunStatus::Diverged)
}

fn already(record: &RunRecord, json: bool) -> anyhow::Result<ExitStatus> {
    output::note(&format!("run {} has ended: {}", record.run_id, record.status.name()));
    finish(record, json)
}

/// Writes down how an attempt ended. What cannot be written is not worth another error: the next attempt notes it.
fn note_end(attempt: &Attempt, folder: &RunFolder, result: &anyhow::Result<ExitStatus>) {
    let (status, reason) = match result {
        Ok(status) => (*status, None),
        Err(error) => (status_of(error), Some(error.to_string())),
    };
    let taken = |error: &anyhow::Error| {
        matches!(error.downcast_ref::<ClaimError>(), Some(ClaimError::Held { .. } | ClaimError::OutOfSight { .. }))
    };
    let cause = if result.as_ref().is_err_and(taken) { Cause::Taken } else { Cause::of_status(status as i32) };
    let step = folder.saved_step();
    let _ = attempt.end_if_open(&Exit::now(cause, Some(status as i32), reason, step));
}

/// How this process computes its part of a run, once nothing stands against it.
fn compute(run: &RunConfig, place: Option<&Rendezvous>) -> anyhow::Result<Compute> {
    let device = ranks::device(run, place)?;
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
    Ok(Compute { device, precision, backend })
}

/// A rank that computes its share and leaves files and words to rank 0.
fn follow(run: &RunConfig, place: Option<&Rendezvous>, args: &TrainArgs) -> anyhow::Result<ExitStatus> {
    let compute = compute(run, place)?;
    let stop = StopRequest::listen(args)?;
    let ranks = ranks::meet(run, place, compute.device)?;
    let size = ranks.size();
    let outcome = guarded(size, || {
        Trainer::new(run, compute, None, ranks, &mut |_| {}).and_then(|t| t.train(&|| stop.is_made(), &mut |_| {}))
    })?;
    Ok(match outcome {
        Outcome::Ended(record) if record.status == RunStatus::Diverged => ExitStatus::Diverged,
        Outcome::Ended(_) => ExitStatus::Done,
        Outcome::Interrupted { .. } => stop.status(),
    })
}

/// The only process of a run, or rank 0 of several: it has the run's folder. `attempt` is left to be closed.
fn lead(
    run: &RunConfig,
    place: Option<&Rendezvous>,
    args: &TrainArgs,
    path: &Path,
    attempt: &mut Option<Attempt>,
) -> anyhow::Result<ExitStatus> {
    let stop = StopRequest::listen(args)?;
    let observer = observer();
    let claim = Claim::take(path, &observer).map_err(|error| match error {
        ClaimError::Held { .. } | ClaimError::OutOfSight { .. } => {
            let exit = super::Exit { status: ExitStatus::Usage, message: error.to_string() };
            anyhow::Error::from(error).context(exit)
        }
        other => other.into(),
    })?;
    if args.profile.is_none()
        && let Some(record) = claim.record()?.filter(|record| is_final(record.status))
    {
        return already(&record, args.json);
    }
    let compute = compute(run, place)?;
    if let Some(steps) = args.profile {
        return profile(run, compute, steps, &claim, args.json);
    }
    let attempt = match attempt {
        Some(given) => {
            refuse_standstill(&claim, given)?;
            given
        }
        None => attempt.insert(Attempt::begin(&claim)?),
    };
    claim.close_lost_attempts(attempt.number)?;
    claim.archive_record()?;
    write_atomic(&claim.config(), load::to_yaml(&run.written()).as_bytes())?;
    let mut environment = environment(run, &compute, place);
    environment["step"] = claim.saved_step().into();
    note_changes(&claim, attempt, &environment);
    attempt.set_environment(&environment)?;
    if let Some(patch) = provenance::difference() {
        attempt.set_difference(&patch)?;
    }

    let home = Home { claim: &claim, attempt: attempt.number };
    home.begin(run)?;
    let ranks = ranks::meet(run, place, compute.device)?;
    let mut progress = None;
    let size = ranks.size();
    let outcome = guarded(size, || {
        let mut passed_over = |error: &TrainError| output::note(&format!("warning: {error}"));
        let trainer = Trainer::new(run, compute, Some(home), ranks, &mut passed_over)?;
        let bar = progress.insert(Progress::new(run, trainer.step(), compute));
        trainer.train(&|| stop.is_made(), &mut |metrics| bar.show(metrics))
    });
    if let Some(progress) = progress {
        progress.close();
    }
    match outcome? {
        Outcome::Ended(record) => finish(&record, args.json),
        Outcome::Interrupted { step } => Err(exit(
            stop.status(),
            format!("{}; saved at step {step} of {}, the same command carries on", stop.reason(), run.steps()),
        )),
    }
}

/// Trains as one of `ranks` processes; a panic of LibTorch's operations that tells of memory becomes an error of its own.
fn guarded(ranks: usize, train: impl FnOnce() -> Result<Outcome, TrainError>) -> anyhow::Result<Outcome> {
    /// Within this the watch has noticed that another rank is gone, and ends this process with the better message.
    const WATCH_KNOWS: Duration = Duration::from_secs(3);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(train));
    if ranks > 1 && matches!(outcome, Ok(Err(TrainError::Bridge(_)))) {
        std::thread::sleep(WATCH_KNOWS);
    }
    match outcome {
        Ok(Err(error)) if tells_of_memory(&error.to_string()) => Err(exit(ExitStatus::OutOfMemory, error)),
        Ok(outcome) => outcome.map_err(train_error),
        Err(panic) => {
            let (status, said) = runtime::told_by(panic.as_ref());
            Err(exit(status, said))
        }
    }
}

/// Refuses to go on where the last attempts have all ended at the step at which they began.
fn refuse_standstill(folder: &RunFolder, attempt: &Attempt) -> anyhow::Result<()> {
    const PATIENCE: usize = 3;
    let saved = folder.saved_step();
    let before: Vec<Attempt> = folder.attempts().into_iter().filter(|a| a.number < attempt.number).collect();
    let stood = |attempt: &Attempt| {
        let began = attempt.environment().and_then(|environment| environment["step"].as_u64());
        let stopped = attempt.exit().is_none_or(|exit| matches!(exit.cause, Cause::Saved | Cause::Lost));
        stopped && began == Some(saved)
    };
    if before.len() >= PATIENCE && before.iter().rev().take(PATIENCE).all(stood) {
        return Err(exit(
            ExitStatus::Internal,
            format!(
                "{PATIENCE} attempts in a row ended before a step beyond {saved} was saved; hint: give it more time, or save more often (exec.checkpoint.every)"
            ),
        ));
    }
    Ok(())
}

/// Says where this attempt differs from the one before in what may change its numbers.
fn note_changes(folder: &RunFolder, attempt: &Attempt, environment: &serde_json::Value) {
    let before =
        folder.attempts().into_iter().filter(|a| a.number < attempt.number).rev().find_map(|a| a.environment());
    let Some(before) = before else { return };
    for (key, what) in [("program", "another build of this program"), ("device", "another kind of device")] {
        if before[key] != environment[key] {
            output::note(&format!("warning: this attempt has {what} than the one before; see env.json of both"));
        }
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

/// What may ask a run to save itself: a signal, or the end of its time.
struct StopRequest {
    /// The first signal, 0 for none.
    signal: Arc<AtomicUsize>,
    deadline: Option<Instant>,
}

impl StopRequest {
    /// Listens for SIGINT, of which a second one ends the process at once; and for SIGTERM and SIGUSR2, by which
    /// schedulers ask for room.
    fn listen(args: &TrainArgs) -> anyhow::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
        let signal = Arc::new(AtomicUsize::new(0));
        let interrupted = Arc::new(AtomicBool::new(false));
        let now = ExitStatus::Interrupted as i32;
        signal_hook::flag::register_conditional_shutdown(SIGINT, now, Arc::clone(&interrupted))?;
        signal_hook::flag::register(SIGINT, interrupted)?;
        for number in [SIGINT, SIGTERM, SIGUSR2] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        let lead = duration("--lead", &args.lead)?;
        let deadline = match &args.time_left {
            Some(text) if text.eq_ignore_ascii_case("unlimited") => None,
            Some(text) => {
                let left = duration("--time-left", text)?;
                // Where there is less than twice the lead, half of the time is for steps.
                Some(Instant::now() + left - lead.min(left / 2))
            }
            None => None,
        };
        Ok(Self { signal, deadline })
    }

    fn is_made(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0 || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// What a process ends with that was stopped so.
    fn status(&self) -> ExitStatus {
        match self.signal.load(Ordering::Relaxed) as i32 {
            signal_hook::consts::SIGINT => ExitStatus::Interrupted,
            _ => ExitStatus::Saved,
        }
    }

    fn reason(&self) -> &'static str {
        match self.signal.load(Ordering::Relaxed) as i32 {
            signal_hook::consts::SIGINT => "interrupted",
            0 => "its time is nearly over",
            _ => "asked to make room",
        }
    }
}

fn duration(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let seconds = crate::units::seconds(text).or_else(|| crate::slurm::seconds(text));
    let seconds = seconds.ok_or_else(|| usage(format!("{flag}: '{text}' is no time such as 2h, 30 min or 1-12:00:00")));
    Ok(Duration::from_secs_f64(seconds?))
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

fn environment(run: &RunConfig, compute: &Compute, place: Option<&Rendezvous>) -> serde_json::Value {
    serde_json::json!({
        "lossfloor": env!("CARGO_PKG_VERSION"),
        "program": provenance::program(),
        "git": provenance::commit(),
        "libtorch": crate::bridge::libtorch_version(),
        "driver": provenance::driver(),
        "gpus": crate::bridge::gpu_names(),
        "device": device_name(compute.device),
        "precision": compute.precision.name(),
        "backend": compute.backend.name(),
        "attention": attention_kernels(run, compute),
        "cpu_threads": tch::get_num_threads(),
        "ranks": place.map_or(1, |place| place.size),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "environment": provenance::environment(),
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
            peak: peak_flops(&device_name(compute.device), compute.precision == Precision::Bf16),
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
