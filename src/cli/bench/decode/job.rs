//! One batch of one model: its prompts are read and its tokens generated.

use super::command::DecodeArgs;
use super::measured::Row;
use crate::arch::cost::{DecodeMemory, DecodeTraffic};
use crate::arch::{self, ModelConfig};
use crate::cli::bench::model::shape_of;
use crate::cli::bench::timing::{peak_gib, wait};
use crate::cli::usage;
use crate::decode::{Generator, Sampling};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use crate::ops::Backend;
use crate::scaling::{ModelScaling, OutInitDiv, Parametrization};
use rand::{RngExt, SeedableRng};
use std::time::Instant;
use tch::Device;

/// Steps before the clock counts: in them work is recorded.
const WARM_UP: usize = 4;

/// One batch of one model.
pub(super) struct Job {
    /// ARCH:DEPTH.
    name: String,
    model: ModelConfig,
    batch: usize,
}

impl Job {
    /// The jobs of one word of the command line.
    pub(super) fn parse(text: &str, args: &DecodeArgs) -> anyhow::Result<Vec<Self>> {
        let refuse = || usage(format!("'{text}' is no model; write ARCH:DEPTH[:BATCH], such as sambay:16:4"));
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(refuse);
        let parts: Vec<&str> = text.split(':').collect();
        let (name, depth, batches) = match parts.as_slice() {
            [name, depth, batch] => (name, number(depth)?, vec![number(batch)?]),
            [name, depth] if args.prefill.is_empty() => (name, number(depth)?, args.batches.clone()),
            [name, depth] => (name, number(depth)?, vec![1]),
            _ => return Err(refuse()),
        };
        let architecture = arch::lookup(name).map_err(usage)?;
        let shape = shape_of(architecture, depth, args.width);
        let model = ModelConfig::new(architecture, shape).map_err(usage)?;
        let job = |batch| Self { name: format!("{name}:{depth}"), model: model.clone(), batch };
        Ok(batches.into_iter().map(job).collect())
    }

    /// As the command line names it: ARCH:DEPTH:BATCH.
    pub(super) fn word(&self) -> String {
        format!("{}:{}", self.name, self.batch)
    }

    /// A row for each length of prompts and each number of new tokens.
    pub(super) fn run(&self, args: &DecodeArgs, device: Device) -> anyhow::Result<Vec<Row>> {
        // Only reading is timed of several prompts, and the whole of one.
        let (prompts, mut new) = match args.prefill.as_slice() {
            [] => (vec![args.prompt], args.new.clone()),
            lengths => (lengths.to_vec(), vec![1]),
        };
        new.sort_unstable();
        new.dedup();
        let longest = |lengths: &[usize]| lengths.iter().copied().max().unwrap_or(0);
        let capacity = longest(&prompts) + longest(&new);
        let precision = args.compute.precision();
        let traffic = DecodeTraffic::of(&self.model, element_bytes(precision));
        let mut generator = self.generator(args, capacity, device);
        let mut rows = Vec::new();
        for prompt in prompts {
            // The first time, kernels are compiled and memory is taken.
            let repeats = if args.prefill.is_empty() { 2 } else { 3 };
            let first_token_s = self.read(&mut generator, prompt, repeats, device);
            let means = steps(&mut generator, &new, device)?;
            let memory = DecodeMemory::of(&self.model, element_bytes(precision), self.batch, capacity, prompt);
            for (new, step_s) in new.iter().copied().zip(means) {
                let mean_context = prompt as f64 + new as f64 / 2.0;
                rows.push(Row {
                    model: self.name.clone(),
                    batch: self.batch,
                    prompt,
                    new,
                    first_token_s,
                    tokens_per_s: step_s.map(|step_s| self.batch as f64 / step_s),
                    step_ms: step_s.map(|step_s| step_s * 1e3),
                    step_bytes: step_s.map(|_| traffic.of_step(self.batch as f64, mean_context)),
                    peak_gib: peak_gib(device)?,
                    expected_gib: memory.total() / (1u64 << 30) as f64,
                });
            }
        }
        Ok(rows)
    }

    fn generator(&self, args: &DecodeArgs, capacity: usize, device: Device) -> Generator {
        let scaling = ModelScaling {
            parametrization: Parametrization::Standard,
            depth: self.model.shape.depth,
            base_depth: 8,
            tied: self.model.shape.tie_embeddings,
            out_init_div: OutInitDiv::Auto,
        };
        let (precision, backend) = (args.compute.precision(), args.compute.backend());
        let params = ParamStore::init(&self.model, &scaling, 1, Device::Cpu).freeze(precision, device);
        let options = ForwardOptions { backend, precision, rope_table: RopeTable::Fp32 };
        let lm = DecoderLm::new(&self.model, &scaling, &params, options);
        let generator = Generator::new(lm, self.batch, capacity, Sampling::GREEDY);
        if args.eager || backend == Backend::Reference { generator.without_recording() } else { generator }
    }

    /// The least seconds in which random prompts were read and the first tokens chosen.
    fn read(&self, generator: &mut Generator, length: usize, repeats: usize, device: Device) -> f64 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let vocab = self.model.shape.vocab_size as i64;
        let prompts: Vec<Vec<i64>> =
            (0..self.batch).map(|_| (0..length).map(|_| rng.random_range(0..vocab)).collect()).collect();
        let mut once = || {
            wait(device);
            let start = Instant::now();
            generator.read(&prompts);
            wait(device);
            start.elapsed().as_secs_f64()
        };
        (0..repeats).map(|_| once()).fold(f64::INFINITY, f64::min)
    }
}

/// Mean seconds of a step until each number of tokens is there, over all steps but those of the warm-up; `None` where too
/// few are left. The numbers rise; reading has made the first token.
fn steps(generator: &mut Generator, tokens: &[usize], device: Device) -> anyhow::Result<Vec<Option<f64>>> {
    let (mut done, mut start) = (1, None);
    let mut means = Vec::new();
    for &wanted in tokens {
        if wanted <= WARM_UP + 1 {
            means.push(None);
            continue;
        }
        while done < wanted {
            if done == WARM_UP + 1 {
                wait(device);
                start = Some(Instant::now());
            }
            generator.step()?;
            done += 1;
        }
        wait(device);
        means.push(start.map(|start| start.elapsed().as_secs_f64() / (wanted - 1 - WARM_UP) as f64));
    }
    Ok(means)
}

fn element_bytes(precision: Precision) -> u64 {
    precision.kind().elt_size_in_bytes() as u64
}
