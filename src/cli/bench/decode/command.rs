//! `bench decode`: prompts read and tokens generated, with random weights. A step cannot take less time than reading the
//! weights and what is kept of the sequences: that floor stands beside the time.

use super::super::inference::token_count;
use super::super::{ExitStatus, output, usage};
use super::child::{in_child, is_child};
use super::model::{ComputeArgs, shape_of};
use super::timing::{Ceilings, wait};
use crate::arch::cost::{DecodeCache, DecodeTraffic, ParamCount};
use crate::arch::{self, ModelConfig};
use crate::decode::{Generator, Sampling};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use crate::ops::Backend;
use crate::scaling::{ModelScaling, OutInitDiv, Parametrization};
use crate::train::device_name;
use crate::units;
use clap::Args;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tch::Device;

/// `bench decode`
#[derive(Args, Debug)]
pub struct DecodeArgs {
    /// Models and batches as ARCH:DEPTH[:BATCH], e.g. sambay:16:4; without a batch, each of --batches
    #[arg(default_values_t = ["transformer:16", "sambay:16"].map(String::from))]
    models: Vec<String>,
    /// Sequences at once
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    batches: Vec<usize>,
    /// Tokens of a prompt
    #[arg(long, value_parser = token_count::<1>, default_value = "2000")]
    prompt: usize,
    /// Tokens generated after it
    #[arg(long, value_parser = token_count::<1>, default_value = "32000")]
    new: usize,
    /// Time the reading of prompts of these lengths instead, e.g. 1024,8192,131072; nothing is generated
    #[arg(long, value_delimiter = ',', value_parser = token_count::<1>, value_name = "TOKENS")]
    prefill: Vec<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Width of the model, heads of 64 channels, instead of the published shape
    #[arg(long)]
    width: Option<usize>,
    /// Launch one by one instead of as a recorded graph
    #[arg(long)]
    eager: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What one batch of one model did.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    batch: usize,
    prompt: usize,
    /// Tokens generated for each sequence.
    new: usize,
    /// Reading the prompts and choosing the first tokens, seconds.
    first_token_s: f64,
    /// Of the steps after it, all sequences together.
    tokens_per_s: Option<f64>,
    step_ms: Option<f64>,
    /// Bytes that a step reads and writes at least, mean over the steps.
    step_bytes: Option<f64>,
    /// Highest memory of tensors, GiB; `None` on a CPU.
    peak_gib: Option<f64>,
    /// Weights and what is kept of sequences, GiB.
    expected_gib: f64,
}

/// One batch of one model.
struct Job {
    /// ARCH:DEPTH.
    model: String,
    batch: usize,
}

impl Job {
    /// The jobs of one word of the command line.
    fn parse(text: &str, args: &DecodeArgs) -> anyhow::Result<Vec<Self>> {
        let refuse = || usage(format!("'{text}' is no model; write ARCH:DEPTH[:BATCH], such as sambay:16:4"));
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(refuse);
        let parts: Vec<&str> = text.split(':').collect();
        let (model, batches) = match parts.as_slice() {
            [name, depth, batch] => (format!("{name}:{}", number(depth)?), vec![number(batch)?]),
            [name, depth] if args.prefill.is_empty() => (format!("{name}:{}", number(depth)?), args.batches.clone()),
            [name, depth] => (format!("{name}:{}", number(depth)?), vec![1]),
            _ => return Err(refuse()),
        };
        Ok(batches.into_iter().map(|batch| Self { model: model.clone(), batch }).collect())
    }

    fn shape(&self, width: Option<usize>) -> anyhow::Result<ModelConfig> {
        let (name, depth) = self.model.split_once(':').expect("a model with a depth");
        let architecture = arch::lookup(name).map_err(usage)?;
        let shape = shape_of(architecture, depth.parse().expect("a depth"), width);
        ModelConfig::new(architecture, shape).map_err(usage)
    }

    fn run(&self, args: &DecodeArgs, device: Device) -> anyhow::Result<Vec<Row>> {
        let model = self.shape(args.width)?;
        let precision = args.compute.precision();
        // Only reading is timed of several prompts, and the whole of one.
        let (lengths, new) = match args.prefill.as_slice() {
            [] => (vec![args.prompt], args.new),
            lengths => (lengths.to_vec(), 1),
        };
        let capacity = lengths.iter().max().expect("a length") + new;
        let mut generator = self.generator(&model, args, capacity, device);
        let mut rows = Vec::new();
        for prompt in lengths {
            let prompts = random_prompts(self.batch, prompt, model.shape.vocab_size);
            let mut first_token_s = f64::INFINITY;
            // The first time, kernels are compiled and memory is taken.
            let repeats = if args.prefill.is_empty() { 2 } else { 3 };
            for _ in 0..repeats {
                wait(device);
                let start = Instant::now();
                generator.read(&prompts);
                wait(device);
                first_token_s = first_token_s.min(start.elapsed().as_secs_f64());
            }
            let timed = steps(&mut generator, new, device)?;
            let mean_context = prompt as f64 + new as f64 / 2.0;
            let traffic = DecodeTraffic::of(&model, element_bytes(precision));
            let gib = |bytes: f64| bytes / (1u64 << 30) as f64;
            rows.push(Row {
                model: self.model.clone(),
                batch: self.batch,
                prompt,
                new,
                first_token_s,
                tokens_per_s: timed.map(|step_s| self.batch as f64 / step_s),
                step_ms: timed.map(|step_s| step_s * 1e3),
                step_bytes: timed.map(|_| traffic.of_step(self.batch as f64, mean_context)),
                peak_gib: match device {
                    Device::Cuda(index) => Some(gib(crate::bridge::peak_memory(index)? as f64)),
                    _ => None,
                },
                expected_gib: gib(expected_bytes(&model, precision, self.batch, capacity)),
            });
        }
        Ok(rows)
    }

    fn generator(&self, model: &ModelConfig, args: &DecodeArgs, capacity: usize, device: Device) -> Generator {
        let scaling = ModelScaling {
            parametrization: Parametrization::Standard,
            depth: model.shape.depth,
            base_depth: 8,
            tied: model.shape.tie_embeddings,
            out_init_div: OutInitDiv::Auto,
        };
        let precision = args.compute.precision();
        let params = ParamStore::init(model, &scaling, 1, Device::Cpu).freeze(precision, device);
        let options = ForwardOptions { backend: args.compute.backend(), precision, rope_table: RopeTable::Fp32 };
        let lm = DecoderLm::new(model, &scaling, &params, options);
        let generator = Generator::new(lm, self.batch, capacity, Sampling::GREEDY);
        if args.eager || args.compute.backend() == Backend::Reference {
            generator.without_recording()
        } else {
            generator
        }
    }
}

/// Mean seconds of a step, over all of them but the first few, in which work is recorded.
fn steps(generator: &mut Generator, new: usize, device: Device) -> anyhow::Result<Option<f64>> {
    const FIRST: usize = 4;
    if new <= FIRST + 1 {
        return Ok(None);
    }
    for _ in 0..FIRST {
        generator.step()?;
    }
    wait(device);
    let start = Instant::now();
    let steps = new - 1 - FIRST;
    for _ in 0..steps {
        generator.step()?;
    }
    wait(device);
    Ok(Some(start.elapsed().as_secs_f64() / steps as f64))
}

fn element_bytes(precision: Precision) -> u64 {
    precision.kind().elt_size_in_bytes() as u64
}

/// Weights, and what is kept of sequences at their full length.
fn expected_bytes(model: &ModelConfig, precision: Precision, batch: usize, capacity: usize) -> f64 {
    let count = ParamCount::of(model);
    let weights = count.total() * element_bytes(precision);
    let cache = DecodeCache::of(model);
    // The cache is described in bf16.
    let scale = element_bytes(precision) / 2;
    (weights + scale * batch as u64 * (cache.bytes_per_sequence + cache.bytes_per_token * capacity as u64)) as f64
}

fn random_prompts(batch: usize, length: usize, vocab: usize) -> Vec<Vec<i64>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    (0..batch).map(|_| (0..length).map(|_| rng.random_range(0..vocab as i64)).collect()).collect()
}

pub fn run(args: &DecodeArgs) -> anyhow::Result<ExitStatus> {
    let device = args.compute.device()?;
    let mut jobs = Vec::new();
    for text in &args.models {
        for job in Job::parse(text, args)? {
            job.shape(args.width)?;
            jobs.push(job);
        }
    }
    if is_child() {
        output::json(&jobs[0].run(args, device)?)?;
        return Ok(ExitStatus::Done);
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut complete = true;
    for job in &jobs {
        let name = format!("{}:{}", job.model, job.batch);
        match in_child::<Vec<Row>>(&name, &args.models) {
            Ok(more) => rows.extend(more),
            Err(why) => {
                complete = false;
                output::note(&format!("{name}: {why}"));
            }
        }
    }
    let ceilings = matches!(device, Device::Cuda(_)).then(|| Ceilings::measure(device));
    if args.json {
        let ceilings = ceilings.map_or_else(|| serde_json::json!({}), |ceilings| serde_json::json!(ceilings));
        output::json(&serde_json::json!({ "device": device_name(device), "ceilings": ceilings, "rows": rows }))?;
    } else {
        print(&rows, ceilings, device)?;
    }
    Ok(if complete { ExitStatus::Done } else { ExitStatus::Internal })
}

fn print(rows: &[Row], ceilings: Option<Ceilings>, device: Device) -> anyhow::Result<()> {
    let dash = || "-".to_owned();
    let head = ceilings.map_or_else(String::new, |c| format!("; copy {:.2} TB/s", c.copy_tbps));
    let mut table = output::table(&[
        "model", "batch", "prompt", "first s", "tokens/s", "step ms", "floor ms", "of it", "GiB", "expected",
    ]);
    for row in rows {
        let floor = ceilings.zip(row.step_bytes).map(|(c, bytes)| bytes / c.copy_tbps / 1e9);
        table.add_row([
            row.model.clone(),
            row.batch.to_string(),
            row.prompt.to_string(),
            format!("{:.3}", row.first_token_s),
            row.tokens_per_s.map_or_else(dash, |t| units::grouped(t as u64)),
            row.step_ms.map_or_else(dash, |ms| format!("{ms:.3}")),
            floor.map_or_else(dash, |ms| format!("{ms:.3}")),
            floor.zip(row.step_ms).map_or_else(dash, |(floor, ms)| format!("{:.0} %", 100.0 * floor / ms)),
            row.peak_gib.map_or_else(dash, |gib| format!("{gib:.2}")),
            format!("{:.2}", row.expected_gib),
        ]);
    }
    output::print(&format!("{}{head}\n{table}", device_name(device)))
}
