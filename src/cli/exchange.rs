//! `lossfloor import` and `lossfloor export`: model folders.

use super::{ExitStatus, output, usage};
use crate::arch::cost::ParamCount;
use crate::config::{ExperimentConfig, load};
use crate::exchange::{
    self, Element, ExchangeError, Layout, ModelFolder, StateDict, WriteOptions, Written, open, open_state_dict,
};
use crate::units;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Read somebody's checkpoint into a model folder that this program takes as CHECKPOINT
#[derive(clap::Args, Debug)]
pub struct ImportArgs {
    /// A folder with a config.json, or with --arch a file of tensors, an index of shards, or a folder with either; files
    /// are those of safetensors or of torch.save (.pth, .pt, .ckpt, .bin)
    source: PathBuf,
    /// The tensors are those of the reference's state dict for this architecture; see `model list`
    #[arg(long)]
    arch: Option<String>,
    /// Number of layers [default: as many as there are]
    #[arg(long, requires = "arch")]
    depth: Option<usize>,
    /// What tensors do not tell: scaling.rule, scaling.d0, model.head_dim, model.window, model.rope_base
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "arch")]
    set: Vec<String>,
    /// What stands before every name; tensors without it are left alone. `_orig_mod.` and `module.` need not be said
    #[arg(long, requires = "arch", default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    target: Target,
}

/// Write a checkpoint as a model folder, in the layout that other programs expect
#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// The folder of a run (its newest checkpoint), a checkpoint in it, or a model folder
    checkpoint: PathBuf,
    /// separate, fused or hugging-face [default: hugging-face where that holds the model, else separate]
    #[arg(long)]
    layout: Option<Layout>,
    #[command(flatten)]
    target: Target,
}

/// What is written.
#[derive(clap::Args, Debug)]
struct Target {
    /// The folder to make; it must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// fp32 or bf16 [default: as the checkpoint has it]; decay rates and λ vectors stay fp32
    #[arg(long, value_parser = dtype)]
    dtype: Option<Element>,
    /// Bytes of one file at most, such as 500MB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn dtype(text: &str) -> Result<Element, String> {
    let known = [("fp32", Element::F32), ("bf16", Element::Bf16)];
    known.into_iter().find(|(name, _)| *name == text).map(|(_, element)| element).ok_or("known: fp32, bf16".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = [("KB", 1e3), ("MB", 1e6), ("GB", 1e9)]
        .into_iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * factor))
        .filter(|bytes| (1.0..1e18).contains(bytes));
    bytes.map(|bytes| bytes as u64).ok_or_else(|| "give a size such as 500MB or 5GB".to_owned())
}

pub fn import(args: &ImportArgs) -> anyhow::Result<ExitStatus> {
    let folder = match &args.arch {
        None => open(&args.source),
        Some(arch) => open_state_dict(&args.source, &state_dict(arch, args)?),
    };
    write(&folder.map_err(failure)?, &args.target, Layout::Separate)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<ExitStatus> {
    let folder = open(&args.checkpoint).map_err(failure)?;
    for problem in &folder.passed_over {
        output::note(&format!("passed over {problem}"));
    }
    let layout = args.layout.unwrap_or_else(|| Layout::usual(&folder.model, &folder.scaling));
    write(&folder, &args.target, layout)
}

/// What the command line says about tensors that nothing describes.
fn state_dict(arch: &str, args: &ImportArgs) -> anyhow::Result<StateDict> {
    let mut tree = Value::Null;
    for assignment in &args.set {
        load::set_from_text(&mut tree, assignment).map_err(usage)?;
    }
    load::set(&mut tree, "model.arch", arch.into()).map_err(usage)?;
    if let Some(depth) = args.depth {
        load::set(&mut tree, "model.depth", depth.into()).map_err(usage)?;
    }
    let said: ExperimentConfig = load::from_tree(tree, "--set").map_err(usage)?;
    Ok(StateDict { model: said.model, scaling: said.scaling, prefix: args.prefix.clone() })
}

/// The system refused a write: its error; all else is the user's.
fn failure(error: ExchangeError) -> anyhow::Error {
    match error {
        ExchangeError::Write(error) => error.into(),
        error => usage(error),
    }
}

fn write(folder: &ModelFolder, target: &Target, layout: Layout) -> anyhow::Result<ExitStatus> {
    let options = WriteOptions { layout, element: target.dtype, shard_bytes: Some(target.shard_size) };
    let written = exchange::write(folder, &target.out, options).map_err(failure)?;
    show(folder, &target.out, layout, &written, target.json)?;
    Ok(ExitStatus::Done)
}

fn show(folder: &ModelFolder, out: &Path, layout: Layout, written: &Written, as_json: bool) -> anyhow::Result<()> {
    let (model, parameters) = (&folder.model, ParamCount::of(&folder.model).total());
    if as_json {
        return output::json(&json!({
            "out": out,
            "source": folder.path,
            "architecture": model.architecture,
            "shape": model.shape,
            "parametrization": folder.scaling.parametrization,
            "base_depth": folder.scaling.base_depth,
            "run": folder.origin,
            "tokenizer": folder.tokenizer.is_some(),
            "parameters": parameters,
            "layout": layout.name(),
            "files": written.files,
            "tensors": written.tensors,
            "bytes": written.bytes,
        }));
    }
    output::print(&format!(
        "{}: {} of depth {}, {} parameters in {} tensors ({}), {} in {} file{}",
        out.display(),
        model.architecture,
        model.shape.depth,
        units::si(parameters as f64),
        written.tensors,
        layout.name(),
        units::bytes(written.bytes as f64),
        written.files.len(),
        if written.files.len() == 1 { "" } else { "s" },
    ))
}
