//! `lossfloor eval`: what a checkpoint does with its context.

use super::inference::{Loaded, ModelArgs, check_ids, data_error, guarded, token_count};
use super::{ExitStatus, output, usage};
use crate::data::{FloorTable, PackedDataset, TargetReader, Tokenizer};
use crate::decode::{Generator, Sampling, scores};
use crate::files::write_atomic;
use crate::tasks::needle::{Haystack, Needles};
use crate::tasks::phonebook::Phonebook;
use crate::tasks::recall::{RecallTally, recalls};
use crate::tasks::{Question, summaries};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Evaluate a checkpoint: loss by length, phonebook, needles in a haystack, recall by distance
#[derive(clap::Args, Debug)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What to measure
    #[arg(long, value_enum)]
    task: Task,
    /// loss, recall: validation shards such as data/quick/validation [default: those of the run]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// loss, recall: rows to read
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// loss, recall: tokens of a row [default: four times what the model was trained on for loss, the corpus' rows for recall]
    #[arg(long, value_name = "TOKENS", value_parser = token_count::<2>)]
    length: Option<usize>,
    /// phonebook: numbers of entries; 1850 fill 32K tokens of Llama's vocabulary
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "480")]
    entries: Vec<usize>,
    /// phonebook: measurements of 32 questions each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    measurements: u64,
    /// niah: lengths in tokens of prompt and answer together
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = token_count::<2>, default_value = "4096")]
    lengths: Vec<usize>,
    /// niah: questions of each length and depth
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    repeats: u64,
    /// niah: a text file that the needles lie in [default: five sentences again and again]
    #[arg(long, value_name = "FILE")]
    haystack: Option<PathBuf>,
    /// niah: keys with values, keys asked for, and values of a key, as KEYS:ASKED:VALUES
    #[arg(long, value_name = "K:A:V", default_value = "1:1:1")]
    needles: String,
    /// Of drawn questions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,
    /// Do not keep the result beside the run's record
    #[arg(long)]
    no_save: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `--task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Cross-entropy by length of context, and by position
    Loss,
    /// A number from a list of names and numbers
    Phonebook,
    /// Numbers hidden in a long text, by length and depth
    Niah,
    /// Values of the synthetic corpus by the distance of their last mention, beside the true floor
    Recall,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Phonebook => "phonebook",
            Self::Niah => "niah",
            Self::Recall => "recall",
        }
    }
}

/// A row of results: what was varied, then `value`, `low`, `high`, `n`.
type Row = Map<String, Value>;

fn row(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Row {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub fn run(args: EvalArgs) -> anyhow::Result<ExitStatus> {
    super::runtime::use_threads(None)?;
    let loaded = args.model.load()?;
    let place = loaded.run.as_ref().map(|(folder, _)| {
        let step = loaded.folder.origin.as_ref().map_or(0, |origin| origin.step);
        folder.file(&format!("eval-{}-step-{step}.json", args.task.name()))
    });
    let rows = match args.task {
        Task::Loss => loss(&args, &loaded)?,
        Task::Recall => recall(&args, &loaded)?,
        Task::Phonebook | Task::Niah => questions(&args, loaded)?,
    };
    let document = json!({ "task": args.task.name(), "rows": rows });
    if let Some(path) = place.filter(|_| !args.no_save) {
        write_atomic(&path, format!("{document:#}\n").as_bytes())?;
        output::note(&format!("kept in {}", path.display()));
    }
    if args.json {
        output::json(&document)?;
    } else {
        print(&rows)?;
    }
    Ok(ExitStatus::Done)
}

/// What was found, as the last columns of a table; what was varied stands before.
const FOUND: [&str; 4] = ["value", "low", "high", "n"];

/// One column for each key of the first row.
fn print(rows: &[Row]) -> anyhow::Result<()> {
    let Some(first) = rows.first() else { return output::print("nothing was measured") };
    let mut keys: Vec<&str> = first.keys().map(String::as_str).filter(|key| !FOUND.contains(key)).collect();
    keys.extend(FOUND);
    let mut table = output::table(&keys);
    for row in rows {
        table.add_row(keys.iter().map(|key| match &row[*key] {
            Value::Number(number) if number.is_f64() => match number.as_f64() {
                // A tag, such as a number of entries.
                Some(whole) if whole.fract() == 0.0 && !FOUND.contains(key) => format!("{whole}"),
                other => format!("{:.4}", other.unwrap_or(f64::NAN)),
            },
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
    }
    output::print(&table.to_string())
}

/// The validation data that was named, else that of the run.
fn data_of(args: &EvalArgs, loaded: &Loaded) -> anyhow::Result<PathBuf> {
    let of_run = loaded.run.as_ref().map(|(_, run)| run.val_data.clone());
    args.data
        .clone()
        .or(of_run)
        .ok_or_else(|| usage("the model lies in no run's folder; hint: name data with --data PATH"))
}

/// Rows of a corpus, [n, length + 1] ids each.
fn open_data(path: &Path, length: usize, loaded: &Loaded) -> anyhow::Result<PackedDataset> {
    PackedDataset::open(path, length, Some(loaded.folder.model.shape.vocab_size as u64)).map_err(data_error)
}

/// Mean loss of the first k contexts of rows, k = 1 to 4, and by position in ranges that double.
fn loss(args: &EvalArgs, loaded: &Loaded) -> anyhow::Result<Vec<Row>> {
    const CONTEXTS: usize = 4;
    let path = data_of(args, loaded)?;
    let context = loaded.folder.context.unwrap_or_else(|| args.length.map_or(1024, |length| length.div_ceil(CONTEXTS)));
    let length = args.length.unwrap_or(CONTEXTS * context);
    let data = open_data(&path, length, loaded)?;
    let rows = (args.rows).min(data.blocks()) as usize;
    let losses = row_losses(args, loaded, &data, length, rows)?;
    let floors = FloorTable::beside(&path).map_err(data_error)?;
    let floor = |positions: usize| -> anyhow::Result<Value> {
        let Some(table) = &floors else { return Ok(Value::Null) };
        let floor = table.floor_of_rows(positions, length + 1, 0, rows).map_err(data_error)?;
        Ok(if floor.exact { json!(floor.nats) } else { Value::Null })
    };
    let mut out = Vec::new();
    let mut lengths: Vec<usize> = (1..=CONTEXTS).map(|k| k * context).filter(|l| *l < length).collect();
    lengths.push(length);
    for to in lengths {
        out.push(loss_row("to", 0..to, &losses, floor(to)?));
    }
    let mut from = 0;
    while from < length {
        let to = (2 * from).max(64).min(length);
        out.push(loss_row("at", from..to, &losses, Value::Null));
        from = to;
    }
    Ok(out)
}

/// Mean of some positions' losses, with 1.96 standard errors between rows on either side.
fn loss_row(kind: &str, positions: std::ops::Range<usize>, losses: &[Vec<f32>], floor: Value) -> Row {
    let count = positions.len();
    let means: Vec<f64> = losses
        .iter()
        .map(|row| row[positions.clone()].iter().map(|&loss| f64::from(loss)).sum::<f64>() / count as f64)
        .collect();
    let n = means.len() as f64;
    let value = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|mean| (mean - value).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 1.96 * (variance / n).sqrt();
    let end = |end: f64| if half.is_finite() { json!(end) } else { Value::Null };
    row([
        ("positions", json!(kind)),
        ("from", json!(positions.start)),
        ("below", json!(positions.end)),
        ("value", json!(value)),
        ("low", end(value - half)),
        ("high", end(value + half)),
        ("n", json!(count * losses.len())),
        ("floor", floor),
    ])
}

/// Losses of every target of rows.
fn row_losses(
    args: &EvalArgs,
    loaded: &Loaded,
    data: &PackedDataset,
    length: usize,
    rows: usize,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let at_once = args.batch as usize;
    let mut losses = Vec::with_capacity(rows);
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let ids = data.rows(first as u64, count).map_err(data_error)?;
        losses.extend(guarded(|| {
            let ids = Tensor::from_slice(&ids).view([count as i64, length as i64 + 1]).to_device(loaded.device);
            let (inputs, targets) = (ids.narrow(1, 0, length as i64), ids.narrow(1, 1, length as i64));
            let losses = tch::no_grad(|| loaded.lm.token_losses(&inputs, &targets));
            Ok(Vec::<Vec<f32>>::try_from(losses.to_device(Device::Cpu).to_kind(Kind::Float))?)
        })?);
    }
    Ok(losses)
}

/// Losses of recalled values of the synthetic corpus, by distance.
fn recall(args: &EvalArgs, loaded: &Loaded) -> anyhow::Result<Vec<Row>> {
    let path = data_of(args, loaded)?;
    let Some(reader) = TargetReader::beside(&path).map_err(data_error)? else {
        return Err(usage(format!("{} is not of a synthetic corpus, whose recalls are known", path.display())));
    };
    let info = crate::data::CorpusInfo::beside(&path).map_err(data_error)?;
    let of_corpus = info.and_then(|info| info.validation_row_tokens).map(|tokens| tokens as usize - 1);
    let Some(length) = args.length.or(of_corpus) else {
        return Err(usage("the corpus does not say how long its rows are; hint: name --length"));
    };
    let data = open_data(&path, length, loaded)?;
    let rows = args.rows.min(data.blocks());
    let mut tally = RecallTally::default();
    for index in 0..rows {
        let ids = data.rows(index, 1).map_err(data_error)?;
        let (losses, hits) = guarded(|| {
            let row = Tensor::from_slice(&ids).view([1, length as i64 + 1]).to_device(loaded.device);
            let (inputs, targets) = (row.narrow(1, 0, length as i64), row.narrow(1, 1, length as i64));
            tch::no_grad(|| {
                let logits = loaded.lm.forward(&inputs);
                let losses = -logits.log_softmax(-1, Kind::Float).gather(2, &targets.unsqueeze(2), false).view([-1]);
                let hits = logits.argmax(-1, false).eq_tensor(&targets).view([-1]);
                Ok((
                    Vec::<f32>::try_from(losses.to_device(Device::Cpu))?,
                    Vec::<bool>::try_from(hits.to_device(Device::Cpu))?,
                ))
            })
        })?;
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        for recall in recalls(&reader.targets(&ids).map_err(data_error)?) {
            tally.add(&recall, &losses, &hits);
        }
    }
    let of = |found: crate::tasks::recall::RecallRow| {
        row([
            ("from", json!(found.from)),
            ("below", json!(found.below)),
            ("value", json!(found.value)),
            ("low", json!(found.low)),
            ("high", json!(found.high)),
            ("n", json!(found.n)),
            ("floor", json!(0.0)),
            ("exact", json!(found.exact)),
            ("exact_low", json!(found.exact_interval.0)),
            ("exact_high", json!(found.exact_interval.1)),
            ("key_loss", json!(found.key_loss)),
            ("key_floor", json!(found.key_floor)),
        ])
    };
    output::note(&format!("a model that recalls nothing loses {:.4} nats a value", reader.nats_without_recall()));
    Ok(tally.rows().into_iter().map(of).collect())
}

/// The questions of a task, and what results are grouped by.
fn asked(args: &EvalArgs, tokenizer: &Tokenizer) -> anyhow::Result<(Vec<Question>, &'static [&'static str])> {
    if args.task == Task::Phonebook {
        let mut all = Vec::new();
        for &entries in &args.entries {
            let phonebook = Phonebook { measurements: args.measurements as usize, ..Phonebook::published(entries) };
            all.extend(phonebook.questions(tokenizer).map_err(data_error)?);
        }
        return Ok((all, &["entries"]));
    }
    let numbers: Option<Vec<usize>> = args.needles.split(':').map(|number| number.parse().ok()).collect();
    let Some([keys, asked, values]) = numbers.as_deref() else {
        return Err(usage(format!("--needles {} does not read as KEYS:ASKED:VALUES, such as 4:1:1", args.needles)));
    };
    let haystack = match &args.haystack {
        None => Haystack::Filler,
        Some(path) => Haystack::Text(
            std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?,
        ),
    };
    let needles = Needles {
        haystack,
        keys: *keys,
        asked: *asked,
        values: *values,
        lengths: args.lengths.clone(),
        repeats: args.repeats as usize,
        seed: args.seed,
        ..Needles::single(args.lengths[0])
    };
    Ok((needles.questions(tokenizer).map_err(data_error)?, &["length", "depth"]))
}

/// Answers the questions of a task and scores them.
fn questions(args: &EvalArgs, loaded: Loaded) -> anyhow::Result<Vec<Row>> {
    let tokenizer = args.model.tokenizer(&loaded.folder)?;
    let (questions, by) = asked(args, &tokenizer)?;
    for question in &questions {
        check_ids(&question.prompt, &loaded.folder.model, "a prompt")?;
    }
    let longest = questions.iter().map(|question| question.prompt.len() + question.most_new_tokens).max();
    let Some(capacity) = longest else { return Ok(Vec::new()) };
    let batch = questions.len().min(args.batch as usize);
    let scores = guarded(|| {
        let mut generator = Generator::new(loaded.lm, batch, capacity, Sampling::GREEDY);
        let bar = indicatif::ProgressBar::new(questions.len() as u64);
        let scores = scores(&mut generator, &questions, &tokenizer, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        Ok(scores)
    })?;
    let scored: Vec<(Question, f64)> = questions.into_iter().zip(scores).collect();
    let of = |(tags, summary): (std::collections::BTreeMap<&'static str, f64>, crate::tasks::Summary)| {
        let mut out = row(tags.into_iter().map(|(tag, value)| (tag, json!(value))));
        out.extend(row([
            ("value", json!(summary.value)),
            ("low", json!(summary.low)),
            ("high", json!(summary.high)),
            ("n", json!(summary.n)),
            ("sd", json!(summary.sd)),
        ]));
        out
    };
    Ok(summaries(&scored, by).into_iter().map(of).collect())
}
