//! `lossfloor model list|describe`: architectures on paper.

use super::{ExitStatus, output, usage};
use crate::arch::cost::{
    DecodeCache, DecodeMemory, FlopsPerToken, ParamCount, TrainingMemory, formula_params, published_tokens,
};
use crate::arch::{
    ARCHITECTURES, Architecture, AttentionForm, LayerSpec, MemorySource, MixerSpec, ModelConfig, ModelShape, Published,
    lookup,
};
use crate::units;
use clap::{Args, Subcommand};
use serde_json::json;

/// Look at architectures
#[derive(Subcommand, Debug)]
pub enum ModelCommand {
    /// Name every architecture
    List(ListArgs),
    /// Layers, parameters, FLOPs and memory of one model
    Describe(DescribeArgs),
}

/// `model list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `model describe`
#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// Exact name; see `model list`
    name: String,
    /// Number of layers
    #[arg(long)]
    depth: usize,
    /// One matrix for embedding and readout
    #[arg(long, conflicts_with = "untied")]
    tied: bool,
    /// Two matrices [default]
    #[arg(long)]
    untied: bool,
    /// Width [default: the published aspect ratio x depth]
    #[arg(long)]
    d_model: Option<usize>,
    /// Query heads [default: depth]
    #[arg(long)]
    n_heads: Option<usize>,
    /// Key-value heads [default: depth / 4]
    #[arg(long)]
    n_kv_heads: Option<usize>,
    /// Channels of a head
    #[arg(long)]
    head_dim: Option<usize>,
    /// Keys that a sliding-window query sees
    #[arg(long)]
    window: Option<usize>,
    /// Rows of the embedding
    #[arg(long)]
    vocab_size: Option<usize>,
    /// Tokens of a training row
    #[arg(long, default_value_t = 4096)]
    context: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(command: ModelCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ModelCommand::List(args) => list(&args),
        ModelCommand::Describe(args) => describe(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitStatus> {
    if args.json {
        let models: Vec<_> =
            ARCHITECTURES.iter().map(|a| json!({ "name": a.name(), "summary": a.summary() })).collect();
        output::json(&json!({ "models": models }))?;
    } else {
        let mut table = output::table(&["name", "summary"]);
        for architecture in ARCHITECTURES {
            table.add_row([architecture.name(), architecture.summary()]);
        }
        output::print(&table.to_string())?;
    }
    Ok(ExitStatus::Done)
}

fn describe(args: &DescribeArgs) -> anyhow::Result<ExitStatus> {
    let architecture = lookup(&args.name).map_err(usage)?;
    let mut shape = ModelShape::published(architecture, args.depth);
    shape.tie_embeddings = args.tied;
    if let Some(width) = args.d_model {
        shape.d_model = width;
        shape.d_mlp = 4 * width;
    }
    shape.n_heads = args.n_heads.unwrap_or(shape.n_heads);
    shape.n_kv_heads = args.n_kv_heads.unwrap_or(shape.n_kv_heads);
    shape.head_dim = args.head_dim.unwrap_or(shape.head_dim);
    shape.window = shape.window.map(|window| args.window.unwrap_or(window));
    shape.vocab_size = args.vocab_size.unwrap_or(shape.vocab_size);
    let model = ModelConfig::new(architecture, shape).map_err(usage)?;
    if args.json { describe_json(&model, architecture, args) } else { describe_text(&model, architecture, args) }?;
    Ok(ExitStatus::Done)
}

/// Kind and window of a layer, for people and for JSON.
fn kind(layer: &LayerSpec) -> (&'static str, Option<usize>) {
    match layer.mixer {
        MixerSpec::Attention { window: Some(window), form: AttentionForm::Softmax, .. } => {
            ("sliding-window attention", Some(window))
        }
        MixerSpec::Attention { window: Some(window), form: AttentionForm::Differential, .. } => {
            ("sliding-window differential attention", Some(window))
        }
        MixerSpec::Attention { window: None, form: AttentionForm::Softmax, .. } => ("full attention", None),
        MixerSpec::Attention { window: None, form: AttentionForm::Differential, .. } => {
            ("full differential attention", None)
        }
        MixerSpec::CrossAttention { form: AttentionForm::Softmax, .. } => ("cross-attention", None),
        MixerSpec::CrossAttention { form: AttentionForm::Differential, .. } => ("differential cross-attention", None),
        MixerSpec::Mamba => ("mamba", None),
        MixerSpec::GatedMemoryUnit { .. } => ("gated memory unit", None),
    }
}

/// What a layer saves for later ones.
fn writes(layer: &LayerSpec) -> Vec<&'static str> {
    layer
        .publishes
        .iter()
        .map(|state| match state {
            Published::KeyValues => "keys and values",
            Published::Memory(MemorySource::Scan) => "memory (scan output)",
            Published::Memory(MemorySource::AttentionHeads) => "memory (attention heads)",
            Published::Memory(MemorySource::MlpUp) => "memory (MLP, linear half)",
        })
        .collect()
}

/// The layer that this one reads, and what of it.
fn reads(layer: &LayerSpec) -> Option<(usize, &'static str)> {
    match layer.mixer {
        MixerSpec::CrossAttention { kv_layer, .. } => Some((kv_layer, "keys and values")),
        MixerSpec::GatedMemoryUnit { memory_layer, .. } => Some((memory_layer, "memory")),
        MixerSpec::Attention { .. } | MixerSpec::Mamba => None,
    }
}

/// Layers that read layer `index`.
fn readers(model: &ModelConfig, index: usize) -> Vec<String> {
    let reads_it = |layer: &LayerSpec| reads(layer).is_some_and(|(source, _)| source == index);
    model.layers.iter().enumerate().filter(|(_, l)| reads_it(l)).map(|(i, _)| i.to_string()).collect()
}

fn describe_json(model: &ModelConfig, architecture: &dyn Architecture, args: &DescribeArgs) -> anyhow::Result<()> {
    let count = ParamCount::of(model);
    let flops = FlopsPerToken::of(model, architecture, args.context);
    let cache = DecodeCache::of(model, 2);
    let shape = &model.shape;
    let layers: Vec<_> = model
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let (kind, window) = kind(layer);
            let reads = reads(layer).map(|(source, what)| json!({ "layer": source, "state": what }));
            json!({ "index": index, "kind": kind, "window": window, "writes": writes(layer), "reads": reads })
        })
        .collect();
    output::json(&json!({
        "name": model.architecture,
        "depth": shape.depth,
        "d_model": shape.d_model,
        "shape": shape,
        "params": {
            "total": count.total(),
            "non_embedding": count.non_embedding(),
            "formula": formula_params(architecture, shape.depth, shape.d_model),
            "embedding": count.embedding,
            "matrix": count.matrix,
            "vector": count.vector,
            "readout": count.readout,
        },
        "tokens_rule": published_tokens(architecture, shape.depth, shape.d_model),
        "flops_per_token": {
            "six_n_formula": flops.six_n_formula,
            "six_n_exact": flops.six_n_exact,
            "counted": flops.counted,
        },
        "decode_cache": {
            "bytes_per_token": cache.bytes_per_token,
            "bytes_per_sequence": cache.bytes_per_sequence,
            "full_kv_reads_per_token": cache.full_kv_reads,
        },
        "decoding_memory_bytes": DecodeMemory::of(model, 2, 1, args.context, args.context).total(),
        "training_memory_bytes": TrainingMemory::of(model, args.context as u64, 2).total(),
        "layers": layers,
    }))
}

fn describe_text(model: &ModelConfig, architecture: &dyn Architecture, args: &DescribeArgs) -> anyhow::Result<()> {
    let shape = &model.shape;
    let count = ParamCount::of(model);
    let flops = FlopsPerToken::of(model, architecture, args.context);
    let cache = DecodeCache::of(model, 2);
    let memory = TrainingMemory::of(model, args.context as u64, 2);
    let decoding = DecodeMemory::of(model, 2, 1, args.context, args.context);

    let mut table = output::table(&["layer", "mixer", "window", "saves", "read by"]);
    for (index, layer) in model.layers.iter().enumerate() {
        let (kind, window) = kind(layer);
        let kind = match reads(layer) {
            Some((source, what)) => format!("{kind}, {what} of {source}"),
            None => kind.to_owned(),
        };
        let window = window.map_or(String::new(), |w| w.to_string());
        table.add_row([index.to_string(), kind, window, writes(layer).join(", "), readers(model, index).join(" ")]);
    }
    let tied = if shape.tie_embeddings { "tied" } else { "untied" };
    let lines = [
        format!("{}: {}", model.architecture, architecture.summary()),
        format!(
            "depth {}, width {}, {} query and {} key-value heads of {}, MLP {}, vocabulary {}, {tied}",
            shape.depth, shape.d_model, shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.d_mlp, shape.vocab_size
        ),
        String::new(),
        table.to_string(),
        String::new(),
        format!("parameters         {:>20}", units::grouped(count.total())),
        format!("  embedding        {:>20}", units::grouped(count.embedding)),
        format!("  matrices         {:>20}", units::grouped(count.matrix)),
        format!("  vectors          {:>20}", units::grouped(count.vector)),
        format!("  readout          {:>20}", units::grouped(count.readout)),
        format!("  non-embedding    {:>20}", units::grouped(count.non_embedding())),
        format!(
            "  published formula{:>20}",
            units::grouped(formula_params(architecture, shape.depth, shape.d_model) as u64)
        ),
        format!(
            "tokens by rule     {:>20}",
            units::grouped(published_tokens(architecture, shape.depth, shape.d_model))
        ),
        String::new(),
        format!("training FLOPs per token at context {}", args.context),
        format!("  6N, formula      {:>20.4e}", flops.six_n_formula),
        format!("  6N, exact        {:>20.4e}", flops.six_n_exact),
        format!("  counted          {:>20.4e}", flops.counted),
        String::new(),
        format!(
            "training memory, one row of {} in bf16: {} ({} states, {} activations, {} logits)",
            args.context,
            units::bytes(memory.total()),
            units::bytes(memory.states),
            units::bytes(memory.activations),
            units::bytes(memory.logits)
        ),
        format!(
            "decode cache: {} per token and {} per sequence; full-length keys read by {} layers",
            units::bytes(cache.bytes_per_token as f64),
            units::bytes(cache.bytes_per_sequence as f64),
            cache.full_kv_reads
        ),
        format!(
            "decoding memory, one sequence of {} in bf16: {} ({} weights, {} caches, {} while a prompt is read)",
            args.context,
            units::bytes(decoding.total()),
            units::bytes(decoding.weights),
            units::bytes(decoding.caches),
            units::bytes(decoding.activations)
        ),
    ];
    output::print(&lines.join("\n"))
}
