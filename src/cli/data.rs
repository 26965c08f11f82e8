//! `lossfloor data synth|pack|phonebook`: makes corpora, and text to make one from.

use super::{ExitStatus, exit, output, usage};
use crate::data::pack::{PackSpec, TokenizerChoice, pack};
use crate::data::{CorpusInfo, DataError, Progress, SyntheticSpec, synthetic};
use crate::tasks::phonebook::{EntryRange, TrainingBooks};
use crate::units;
use clap::{Args, Subcommand};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What `data` can do.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Generate a corpus of which the irreducible loss is known exactly
    Synth(Box<SynthArgs>),
    /// Tokenise, shuffle and split your own text
    Pack(Box<PackArgs>),
    /// Write texts from which a model learns to look up numbers in a phonebook
    Phonebook(PhonebookArgs),
}

/// `data synth`
#[derive(Args, Debug)]
pub struct SynthArgs {
    /// Folder for the corpus
    #[arg(long)]
    out: PathBuf,
    /// Training tokens, such as 2M or 2^21
    #[arg(long, value_parser = count)]
    tokens: u64,
    /// Validation tokens, rounded up to whole rows [default: 200 rows of 4 * seq-len + 1]
    #[arg(long, value_parser = count)]
    validation_tokens: Option<u64>,
    /// Seed of the source and of what is drawn from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of token ids [default: 256]
    #[arg(long, value_parser = count)]
    vocab_size: Option<u64>,
    /// Training context in tokens; validation rows are four times as long and begin with a document [default: 256]
    #[arg(long, value_parser = count)]
    seq_len: Option<u64>,
    /// Mean document length in tokens [default: 2048]
    #[arg(long, value_parser = quantity)]
    document_tokens: Option<f64>,
    /// Probability of a definition at a prose position [default: 0.02]
    #[arg(long, value_parser = quantity)]
    definition_rate: Option<f64>,
    /// Probability of a recall at a prose position [default: 0.045]
    #[arg(long, value_parser = quantity)]
    reference_rate: Option<f64>,
    /// Values in a definition [default: 8]
    #[arg(long, value_parser = count)]
    value_tokens: Option<u64>,
    /// How recalls favour recent keys: weight distance^-E [default: 0]
    #[arg(long, value_name = "E", value_parser = quantity)]
    distance_exponent: Option<f64>,
    /// Shares of prose explained by order 0, 1, ..., adding up to 1 [default: 0.2,0.4,0.3,0.1]
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', value_parser = quantity)]
    order_weights: Option<Vec<f64>>,
    /// Symbols that may follow a context, per order [default: 4]
    #[arg(long, value_parser = count)]
    candidates: Option<u64>,
    /// Candidate i has weight i^-E [default: 1]
    #[arg(long, value_name = "E", value_parser = quantity)]
    candidate_exponent: Option<f64>,
    /// Prose symbol r has order-0 weight r^-E [default: 1.3]
    #[arg(long, value_name = "E", value_parser = quantity)]
    symbol_exponent: Option<f64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `data pack`
#[derive(Args, Debug)]
pub struct PackArgs {
    /// Files and folders: text, or .jsonl/.ndjson; .gz and .zst of these
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the corpus
    #[arg(long)]
    out: PathBuf,
    /// bytes, a tokenizer.json, or train:VOCAB for a byte-level BPE of the input
    #[arg(long)]
    tokenizer: TokenizerChoice,
    /// Seed of the order of documents
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Share of documents that become validation
    #[arg(long, default_value_t = 0.05)]
    validation_fraction: f64,
    /// Field of JSON lines that holds the text
    #[arg(long, default_value = "text")]
    field: String,
    /// The token of a tokenizer.json that ends a document, when it is not a usual one
    #[arg(long)]
    eos: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `data phonebook`
#[derive(Args, Debug)]
pub struct PhonebookArgs {
    /// File for the texts, one JSON line each: an input of data pack
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Texts, a phonebook each
    #[arg(long, value_parser = count)]
    documents: u64,
    /// Entries of a phonebook: a number, or any from MIN to MAX
    #[arg(long, value_name = "MIN..MAX")]
    entries: EntryRange,
    /// Seed of names, numbers and sizes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn quantity(text: &str) -> Result<f64, String> {
    units::parse_quantity(text).ok_or_else(|| "expected a number such as 0.1 or 2K".to_owned())
}

fn count(text: &str) -> Result<u64, String> {
    match units::parse_quantity(text) {
        Some(value) if value >= 0.0 && value.fract() == 0.0 && value < 2f64.powi(63) => Ok(value as u64),
        _ => Err("expected a whole number such as 500000, 2M or 2^21".to_owned()),
    }
}

/// Runs `data ...`.
pub fn run(command: DataCommand) -> anyhow::Result<ExitStatus> {
    match command {
        DataCommand::Synth(args) => synth(&args),
        DataCommand::Pack(args) => run_pack(*args),
        DataCommand::Phonebook(args) => phonebook(&args),
    }
}

impl SynthArgs {
    fn spec(&self) -> SyntheticSpec {
        let plain = SyntheticSpec::default();
        let mut spec = SyntheticSpec {
            seed: self.seed,
            tokens: self.tokens,
            vocab_size: self.vocab_size.unwrap_or(plain.vocab_size),
            seq_len: self.seq_len.unwrap_or(plain.seq_len),
            document_tokens: self.document_tokens.unwrap_or(plain.document_tokens),
            definition_rate: self.definition_rate.unwrap_or(plain.definition_rate),
            reference_rate: self.reference_rate.unwrap_or(plain.reference_rate),
            value_tokens: self.value_tokens.unwrap_or(plain.value_tokens),
            distance_exponent: self.distance_exponent.unwrap_or(plain.distance_exponent),
            order_weights: self.order_weights.clone().unwrap_or(plain.order_weights),
            candidates: self.candidates.unwrap_or(plain.candidates),
            candidate_exponent: self.candidate_exponent.unwrap_or(plain.candidate_exponent),
            symbol_exponent: self.symbol_exponent.unwrap_or(plain.symbol_exponent),
            ..plain
        };
        let rows = 200u64.saturating_mul(spec.seq_len.saturating_mul(4).saturating_add(1));
        spec.validation_tokens = self.validation_tokens.unwrap_or(rows);
        spec
    }
}

fn synth(args: &SynthArgs) -> anyhow::Result<ExitStatus> {
    let existed = exists(&args.out)?;
    let bar = Bar::new();
    let info = synthetic::generate(&args.spec(), &args.out, &|p| bar.show(p)).map_err(failure)?;
    bar.clear();
    if existed {
        output::note("nothing to do: this very corpus is already complete");
    }
    print(&args.out, &info, args.json)
}

fn run_pack(args: PackArgs) -> anyhow::Result<ExitStatus> {
    let spec = PackSpec {
        inputs: args.inputs,
        tokenizer: args.tokenizer,
        seed: args.seed,
        validation_fraction: args.validation_fraction,
        field: args.field,
        eos: args.eos,
    };
    let existed = exists(&args.out)?;
    let bar = Bar::new();
    let packed = pack(&spec, &args.out, &|p| bar.show(p)).map_err(failure)?;
    bar.clear();
    if existed {
        output::note("nothing to do: this very corpus is already complete");
    } else {
        let skipped = match packed.binary_files {
            0 => String::new(),
            n => format!("; {} files skipped as binary", units::grouped(n)),
        };
        output::note(&format!("{} documents{skipped}", units::grouped(packed.documents)));
    }
    print(&args.out, &packed.info, args.json)
}

fn phonebook(args: &PhonebookArgs) -> anyhow::Result<ExitStatus> {
    if args.out.extension().is_none_or(|extension| extension != "jsonl") {
        return Err(usage(format!("--out {}: expected a name that ends in .jsonl", args.out.display())));
    }
    let books = TrainingBooks { documents: args.documents, entries: args.entries.0.clone(), seed: args.seed };
    let bar = Bar::new();
    let told = |done| bar.show(Progress { stage: "writing texts", done, total: args.documents });
    let bytes = books.write(&args.out, &told).map_err(failure)?;
    bar.clear();
    if args.json {
        let file = args.out.to_string_lossy();
        output::json(&serde_json::json!({ "file": file, "documents": args.documents, "bytes": bytes }))?;
    } else {
        let (documents, bytes) = (units::grouped(args.documents), units::grouped(bytes));
        output::print(&format!("{}: {documents} texts, {bytes} bytes", args.out.display()))?;
    }
    Ok(ExitStatus::Done)
}

fn exists(folder: &Path) -> anyhow::Result<bool> {
    Ok(CorpusInfo::in_folder(folder).map_err(failure)?.is_some())
}

/// What the user gave is status 2, what the system refused status 1.
fn failure(error: DataError) -> anyhow::Error {
    let status = if error.is_input() { ExitStatus::Usage } else { ExitStatus::Internal };
    exit(status, error)
}

fn print(folder: &Path, info: &CorpusInfo, json: bool) -> anyhow::Result<ExitStatus> {
    if json {
        output::json(&serde_json::json!({
            "dir": folder.to_string_lossy(),
            "train_tokens": info.train_tokens,
            "validation_tokens": info.validation_tokens,
            "vocab_size": info.vocab_size,
            "floor_nats": info.floor_nats,
        }))?;
    } else {
        output::print(&table(folder, info))?;
    }
    Ok(ExitStatus::Done)
}

fn table(folder: &Path, info: &CorpusInfo) -> String {
    let mut lines = vec![
        ("corpus".to_owned(), folder.display().to_string()),
        ("training tokens".to_owned(), units::grouped(info.train_tokens)),
        ("validation tokens".to_owned(), units::grouped(info.validation_tokens)),
        ("vocabulary".to_owned(), units::grouped(info.vocab_size)),
    ];
    lines.extend(
        info.floor_at.iter().map(|(k, nats)| (format!("floor, {k} x context"), format!("{nats:.4} nats/token"))),
    );
    for (kind, floor) in &info.floor_by_kind {
        let share = floor.tokens as f64 / info.floor_by_kind.values().map(|k| k.tokens).sum::<u64>() as f64;
        lines.push((
            format!("  {}", kind.replace('_', " ")),
            format!("{:.4} nats, {:.1} % of tokens", floor.nats, 100.0 * share),
        ));
    }
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<22}{value}")).collect();
    lines.join("\n")
}

/// A progress bar on stderr, where that is a terminal.
pub(super) struct Bar(Option<indicatif::ProgressBar>);

impl Bar {
    /// One that shows nothing yet.
    pub(super) fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = indicatif::ProgressStyle::with_template("{msg:<18} {wide_bar} {percent:>3} % {eta:>4}");
            indicatif::ProgressBar::new(1).with_style(style.expect("the template is well-formed"))
        }))
    }

    /// Shows how far the corpus is.
    pub(super) fn show(&self, progress: Progress) {
        let Some(bar) = &self.0 else { return };
        if bar.message() != progress.stage {
            bar.reset();
            bar.set_message(progress.stage);
        }
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
