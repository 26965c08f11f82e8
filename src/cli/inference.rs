//! A model for use without training, as CHECKPOINT and a few options name it.

use super::device::{BackendArg, DeviceArg, PrecisionArg, check_kernels, pick};
use super::train::configuration;
use super::{ExitStatus, exit, output, runtime, usage};
use crate::arch::ModelConfig;
use crate::config::{FactsCache, RunConfig};
use crate::data::{DataError, Tokenizer};
use crate::exchange::{self, ExchangeError, ModelFolder};
use crate::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use crate::runs::RunFolder;
use crate::units;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// Which model, and what it runs on.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// The folder of a run (its newest checkpoint), a checkpoint in it, or a model folder as `import` and `export` write it
    checkpoint: PathBuf,
    /// Tokenizer of its text: bytes or a tokenizer.json [default: the model's own]
    #[arg(long, value_name = "bytes|FILE")]
    tokenizer: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "auto")]
    device: DeviceArg,
    /// Dtype of weights and activations [default: bf16 on a GPU, fp32 on a CPU]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
    /// Implementation
    #[arg(long, value_enum, default_value = "fused")]
    backend: BackendArg,
}

/// A model that is ready.
pub struct Loaded {
    pub folder: ModelFolder,
    pub lm: DecoderLm,
    pub device: Device,
    pub options: ForwardOptions,
    /// The run whose folder holds the checkpoint, where one does.
    pub run: Option<(RunFolder, RunConfig)>,
}

impl ModelArgs {
    /// A checkpoint with nothing else said.
    pub fn plain(checkpoint: PathBuf) -> Self {
        Self { checkpoint, tokenizer: None, device: DeviceArg::Auto, precision: None, backend: BackendArg::Fused }
    }

    /// Reads the model and moves it to its device.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let device = pick(&self.device)?;
        let backend = self.backend.into();
        check_kernels(device, backend, "--backend reference runs plain tensor code")?;
        let precision = match (self.precision, device) {
            (Some(precision), _) => precision.into(),
            (None, Device::Cpu) => Precision::Fp32,
            (None, _) => Precision::Bf16,
        };
        let folder = exchange::open(&self.checkpoint).map_err(exchange_error)?;
        for problem in &folder.passed_over {
            output::note(&format!("warning: passed over: {problem}"));
        }
        let mut tensors = HashMap::new();
        for param in folder.params() {
            let shape: Vec<i64> = param.spec().shape.iter().map(|&n| n as i64).collect();
            let values = param.values().map_err(exchange_error)?;
            tensors.insert(param.spec().name.clone(), Tensor::from_slice(&values).reshape(shape));
        }
        let params = ParamStore::from_tensors(&folder.model, tensors, Device::Cpu).map_err(usage)?;
        let run = run_of(&self.checkpoint)?;
        // As models are trained.
        let rope_table = RopeTable::RoundedToBf16;
        let options = ForwardOptions { backend, precision, rope_table };
        let lm = guarded(|| {
            let params = params.freeze(precision, device);
            Ok(DecoderLm::new(&folder.model, &folder.scaling, &params, options))
        })?;
        Ok(Loaded { folder, lm, device, options, run })
    }

    /// The tokenizer that was named, else the model's own.
    pub fn tokenizer(&self, folder: &ModelFolder) -> anyhow::Result<Tokenizer> {
        let tokenizer = match (&self.tokenizer, &folder.tokenizer) {
            (Some(name), _) if name.as_os_str() == "bytes" => Tokenizer::bytes(),
            (Some(path), _) | (None, Some(path)) => Tokenizer::from_file(path, None).map_err(data_error)?,
            (None, None) if folder.eos_id == Some(u64::from(Tokenizer::bytes().eos())) => Tokenizer::bytes(),
            (None, None) => {
                return Err(usage(format!(
                    "{} has no tokenizer; hint: name one with --tokenizer FILE or --tokenizer bytes",
                    self.checkpoint.display()
                )));
            }
        };
        let rows = folder.model.shape.vocab_size as u64;
        if tokenizer.vocab_size() > rows {
            return Err(usage(format!(
                "the tokenizer has {} tokens, the model {rows}; hint: name the tokenizer that the model was trained with",
                tokenizer.vocab_size()
            )));
        }
        Ok(tokenizer)
    }
}

/// The run whose folder `path` is, or lies in.
fn run_of(path: &Path) -> anyhow::Result<Option<(RunFolder, RunConfig)>> {
    let absolute = std::path::absolute(path)?;
    let place = if absolute.is_dir() { Some(absolute.as_path()) } else { absolute.parent().and_then(Path::parent) };
    let Some(folder) = place.map(RunFolder::at).filter(|folder| folder.config().exists()) else { return Ok(None) };
    let run = configuration(&folder.config(), &[], &FactsCache::default())?;
    Ok(Some((folder, run)))
}

/// An error of a checkpoint: bad input, unless the system refused to read it.
pub fn exchange_error(error: ExchangeError) -> anyhow::Error {
    match error {
        ExchangeError::Write(_) => error.into(),
        error => usage(error),
    }
}

/// An error of data: bad input or not, as it says.
pub fn data_error(error: DataError) -> anyhow::Error {
    if error.is_input() { usage(error) } else { error.into() }
}

/// Does something with tensors; a panic of LibTorch's operations becomes an error, with a status of its own where it tells
/// of memory.
pub fn guarded<T>(body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let _ = std::panic::take_hook();
    outcome.unwrap_or_else(|panic| {
        let (status, said) = runtime::told_by(panic.as_ref());
        let hint = "; hint: shorter prompts, fewer new tokens or fewer sequences at once";
        Err(exit(status, format!("{said}{}", if status == ExitStatus::OutOfMemory { hint } else { "" })))
    })
}

/// Refuses ids that a model has no row for.
pub fn check_ids(ids: &[u32], model: &ModelConfig, what: &str) -> anyhow::Result<()> {
    let rows = model.shape.vocab_size;
    match ids.iter().find(|id| **id as usize >= rows) {
        Some(id) => Err(usage(format!("{what}: token {id} is unknown to the model, whose vocabulary has {rows}"))),
        None => Ok(()),
    }
}

/// A number of tokens, such as 2000 or 32K, at least `LEAST`.
pub fn token_count<const LEAST: usize>(text: &str) -> Result<usize, String> {
    match units::parse_quantity(text) {
        Some(value) if value >= LEAST as f64 && value < 1e9 && value.fract() == 0.0 => Ok(value as usize),
        _ => Err(format!("expected a whole number of tokens from {LEAST}, such as 2000 or 32K")),
    }
}
