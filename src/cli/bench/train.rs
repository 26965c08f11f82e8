//! `bench train`: whole training steps on random tokens, each model in a process of its own.

use super::super::ranks::free_port;
use super::super::{ExitStatus, output, usage};
use super::child::{in_children, is_child};
use super::document;
use super::model::{ComputeArgs, at_least_one, shape_of};
use super::timing::{Ceilings, median, peak_gib, wait};
use crate::arch::cost::FlopsPerToken;
use crate::arch::{self, ModelConfig, ModelShape};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, RopeTable};
use crate::ops::Backend;
use crate::scaling::{ModelScaling, OutInitDiv, Parametrization};
use crate::train::device_name;
use crate::train::optimizer::{AdamW, AdamWOptions, Sharing};
use crate::train::overlap::OverlappedSum;
use crate::train::ranks::{Ranks, Rendezvous, Transport};
use crate::train::step::{GradientStep, Launches};
use crate::units;
use clap::{Args, ValueEnum};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// `bench train`
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Models as ARCH:DEPTH:ROWS[:LENGTH[:WIDTH]], e.g. sambay:8:8 or transformer:4:32:512:256
    #[arg(default_values_t = DEFAULT.map(String::from))]
    models: Vec<String>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Launch one by one instead of as a recorded graph
    #[arg(long)]
    eager: bool,
    /// Add gradients up in a group of one process, as each of several ranks does
    #[arg(long, value_enum)]
    group: Option<GroupArg>,
    /// Vocabulary, not tied
    #[arg(long, default_value_t = 32_000)]
    vocab: usize,
    /// Steps that are timed; the median counts
    #[arg(long, value_parser = at_least_one, default_value_t = 8)]
    steps: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `--group`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum GroupArg {
    Nccl,
    Gloo,
}

impl GroupArg {
    /// A group of this process alone.
    fn meet(self, device: Device) -> anyhow::Result<Arc<Ranks>> {
        let transport = match self {
            Self::Nccl => Transport::Nccl,
            Self::Gloo => Transport::Gloo,
        };
        let port = free_port()?;
        let host = "127.0.0.1".to_owned();
        let place = Rendezvous { rank: 0, size: 1, local_rank: 0, local_size: 1, host, port, served: false };
        Ok(Ranks::meet(&place, Some(transport), device, |_| {})?)
    }
}

const DEFAULT: [&str; 12] = [
    "transformer:8:8",
    "transformer:12:8",
    "transformer:16:4",
    "samba:8:8",
    "sambay:8:8",
    "sambay:12:8",
    "sambay:16:4",
    "sambayoco:8:8",
    "sambayda:8:8",
    "swayoco:8:8",
    "mambay:8:8",
    "transformer:4:32:512:256",
];

/// What one model did.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    tokens_per_s: f64,
    step_ms: f64,
    /// 6 x (non-embedding and readout) x tokens and attention, by the counted convention.
    tflops: f64,
    /// Highest memory of tensors, GiB; `None` on a CPU.
    peak_gib: Option<f64>,
    /// From the start of the process to the end of the third step.
    third_step_s: f64,
    /// Of the first steps, nats per token.
    losses: Vec<Option<f64>>,
}

struct Job {
    name: String,
    architecture: &'static dyn arch::Architecture,
    shape: ModelShape,
    rows: usize,
    length: usize,
}

impl Job {
    fn parse(text: &str, vocab: usize) -> anyhow::Result<Self> {
        let refuse =
            || usage(format!("'{text}' is no model; write ARCH:DEPTH:ROWS[:LENGTH[:WIDTH]], such as sambay:8:8"));
        let parts: Vec<&str> = text.split(':').collect();
        let [name, numbers @ ..] = parts.as_slice() else { return Err(refuse()) };
        let numbers: Vec<usize> =
            numbers.iter().map(|n| at_least_one(n).map_err(|_| refuse())).collect::<Result<_, _>>()?;
        let (depth, rows, rest) = match numbers.as_slice() {
            [depth, rows, rest @ ..] if rest.len() <= 2 => (*depth, *rows, rest),
            _ => return Err(refuse()),
        };
        let architecture = arch::lookup(name).map_err(usage)?;
        let shape = shape_of(architecture, depth, rest.get(1).copied());
        let shape = ModelShape { vocab_size: vocab, tie_embeddings: false, ..shape };
        Ok(Self { name: text.to_owned(), architecture, shape, rows, length: rest.first().copied().unwrap_or(4096) })
    }

    fn run(&self, args: &TrainArgs, device: Device) -> anyhow::Result<Row> {
        let model = ModelConfig::new(self.architecture, self.shape.clone()).map_err(usage)?;
        let scaling = ModelScaling {
            parametrization: Parametrization::MupPlusPlus,
            depth: self.shape.depth,
            base_depth: 8,
            tied: false,
            out_init_div: OutInitDiv::Auto,
        };
        let (precision, backend) = (args.compute.precision(), args.compute.backend());
        let params = ParamStore::init(&model, &scaling, 1, device).into_arena(precision);
        let options = ForwardOptions { backend, precision, rope_table: RopeTable::RoundedToBf16 };
        let lm = DecoderLm::new(&model, &scaling, &params, options);
        let graph = backend == Backend::Fused && !args.eager;
        let launches = if graph { Launches::Graph } else { Launches::Eager };
        let mut gradients = GradientStep::new(lm, device, self.rows, self.rows, self.length + 1, launches);
        let settings = AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, grad_clip: 1.0, weight_decay: 0.1 };
        let ranks = args.group.map_or_else(|| Ok(Ranks::alone()), |group| group.meet(device))?;
        let reduction = ranks.overlaps(device).then(|| OverlappedSum::new(ranks.clone(), &params));
        let sharing = Sharing { ranks: ranks.clone(), ..Sharing::alone() };
        let mut optimizer = AdamW::new(&params, &scaling, settings, backend, sharing);
        let ids = self.random_tokens();
        let step = || -> anyhow::Result<f64> {
            gradients.run(&ids, reduction.as_ref())?;
            if reduction.is_none() {
                ranks.begin_sum(&params.arena().expect("parameters in training are in an arena").grads)?;
            }
            ranks.begin_sum(gradients.vote(false, false))?;
            ranks.wait()?;
            optimizer.step(&params, 1e-4)?;
            // Reading both waits for the device, as a run does.
            let (loss, _) = (gradients.totals().loss, optimizer.norm());
            Ok(loss)
        };
        let course = Course::of(args.steps, device, step)?;
        let tokens = (self.rows * self.length) as f64;
        let flops = FlopsPerToken::of(&model, self.architecture, self.length).counted * tokens;
        Ok(Row {
            model: self.name.clone(),
            tokens_per_s: tokens / course.step_s,
            step_ms: course.step_s * 1e3,
            tflops: flops / course.step_s / 1e12,
            peak_gib: peak_gib(device)?,
            third_step_s: course.third_step_s,
            losses: course.losses,
        })
    }

    /// Random rows, one token longer than what is trained on.
    fn random_tokens(&self) -> Vec<i64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let vocab = self.shape.vocab_size as i64;
        (0..self.rows * (self.length + 1)).map(|_| rng.random_range(0..vocab)).collect()
    }
}

/// Steps before the clock counts: warm-up, and the one that is recorded.
const WARM_UP: usize = 5;
/// Losses that are kept.
const LOSSES: usize = 8;

/// What the steps of one model did.
struct Course {
    /// Median seconds of a step.
    step_s: f64,
    third_step_s: f64,
    losses: Vec<Option<f64>>,
}

impl Course {
    /// Times `steps` calls of `step`, which gives its loss, after those of the warm-up.
    fn of(steps: usize, device: Device, mut step: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Self> {
        let (mut times, mut losses) = (Vec::new(), Vec::new());
        let mut third_step_s = 0.0;
        for done in 0..steps + WARM_UP {
            wait(device);
            let start = Instant::now();
            let loss = step()?;
            wait(device);
            if done < LOSSES {
                losses.push(loss.is_finite().then_some(loss));
            }
            if done >= WARM_UP {
                times.push(start.elapsed().as_secs_f64());
            }
            if done == 2 {
                third_step_s = since_process_start();
            }
        }
        Ok(Self { step_s: median(&mut times), third_step_s, losses })
    }
}

/// Seconds since the kernel started this process.
fn since_process_start() -> f64 {
    let read = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields after the name, which may hold anything but a closing bracket; the 22nd of all is the start in ticks.
        let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        Some(uptime - started / rustix::param::clock_ticks_per_second() as f64)
    };
    read().unwrap_or(f64::NAN)
}

/// Runs `lossfloor bench train`.
pub fn run(args: &TrainArgs) -> anyhow::Result<ExitStatus> {
    let device = args.compute.device()?;
    let jobs = args.models.iter().map(|text| Job::parse(text, args.vocab)).collect::<anyhow::Result<Vec<_>>>()?;
    if is_child() {
        output::json(&jobs[0].run(args, device)?)?;
        return Ok(ExitStatus::Done);
    }
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let (rows, status) = in_children::<Row>(&names, &args.models);
    let ceilings = Ceilings::of(device);
    if args.json {
        document::print(&device_name(device), Ceilings::listed(ceilings), &rows)?;
    } else {
        let table = table(&rows, ceilings);
        let head = match ceilings {
            Some(c) => format!("; bf16 product {:.0} TFLOP/s, copy {:.2} TB/s", c.matmul_tflops, c.copy_tbps),
            None => String::new(),
        };
        output::print(&format!("{}{head}; medians of {} steps\n{table}", device_name(device), args.steps))?;
    }
    Ok(status)
}

fn table(rows: &[Row], ceilings: Option<Ceilings>) -> comfy_table::Table {
    let mut table = output::table(&["model", "tokens/s", "step ms", "TFLOP/s", "of peak", "GiB", "3rd step s"]);
    for row in rows {
        table.add_row([
            row.model.clone(),
            units::grouped(row.tokens_per_s as u64),
            format!("{:.2}", row.step_ms),
            format!("{:.0}", row.tflops),
            ceilings.map_or_else(|| "-".to_owned(), |c| format!("{:.0} %", 100.0 * row.tflops / c.matmul_tflops)),
            row.peak_gib.map_or_else(|| "-".to_owned(), |gib| format!("{gib:.1}")),
            format!("{:.1}", row.third_step_s),
        ]);
    }
    table
}
