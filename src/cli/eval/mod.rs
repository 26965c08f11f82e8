//! `lossfloor eval`: what a checkpoint does with its context.

mod figure;

use super::inference::{Loaded, ModelArgs, guarded, token_count};
use super::{ExitStatus, output, picture, usage};
use crate::evaluate::{EvaluateError, OnProgress, Subject, evaluate};
use crate::runs::RunFolder;
use crate::tasks::Tag;
use crate::tasks::measurement::{CorpusRows, Evaluation, FOUND, Measurement, NeedleTask, PhonebookTask, Row};
use crate::train::device_name;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::PathBuf;

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
    entries: Vec<u64>,
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
    /// niah: of drawn questions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// phonebook, niah: what answers are counted by, of entries, length, depth, distance [default: entries for phonebook, length,depth for niah]
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    by: Option<Vec<Tag>>,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,
    #[command(flatten)]
    figure: picture::BesideArgs,
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

impl EvalArgs {
    fn measurement(&self) -> anyhow::Result<Measurement> {
        let rows =
            || CorpusRows { data: self.data.clone(), rows: self.rows, length: self.length.map(|length| length as u64) };
        let by = |standard: Vec<Tag>| self.by.clone().unwrap_or(standard);
        Ok(match self.task {
            Task::Loss => Measurement::Loss(rows()),
            Task::Recall => Measurement::Recall(rows()),
            Task::Phonebook => Measurement::Phonebook(PhonebookTask {
                entries: self.entries.clone(),
                measurements: self.measurements,
                by: by(PhonebookTask::default().by),
            }),
            Task::Niah => Measurement::Niah(NeedleTask {
                lengths: self.lengths.iter().map(|&length| length as u64).collect(),
                repeats: self.repeats,
                haystack: self.haystack.clone(),
                needles: self.needles.parse().map_err(|problem| usage(format!("--needles: {problem}")))?,
                seed: self.seed,
                by: by(NeedleTask::default().by),
            }),
        })
    }
}

pub fn run(args: EvalArgs) -> anyhow::Result<ExitStatus> {
    let measurement = args.measurement()?;
    measurement.check().map_err(usage)?;
    args.figure.check()?;
    super::runtime::use_threads(None)?;
    let bar = indicatif::ProgressBar::new(0);
    let measured = measure(&args.model, measurement, args.batch as usize, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let (evaluation, origin) = measured?;
    if let Some((run, step)) = origin.filter(|_| !args.no_save) {
        let path = run.evaluation(&evaluation.task, step);
        evaluation.write(&path)?;
        output::note(&format!("kept in {}", path.display()));
    }
    args.figure.draw(|width| figure::chart(&evaluation, width))?;
    if args.json {
        output::json(&json!({ "task": evaluation.task, "rows": evaluation.rows }))?;
    } else {
        print(&evaluation)?;
    }
    Ok(ExitStatus::Done)
}

/// Measures a model, `batch` sequences at a time; also the folder of the run and the step that it is of, where it is of one.
pub fn measure(
    model: &ModelArgs,
    measurement: Measurement,
    batch: usize,
    progress: OnProgress,
) -> anyhow::Result<(Evaluation, Option<(RunFolder, u64)>)> {
    let Loaded { folder, lm, device, options, run } = model.load()?;
    let asks = matches!(measurement, Measurement::Phonebook(_) | Measurement::Niah(_));
    let subject = Subject {
        lm,
        vocab_size: folder.model.shape.vocab_size,
        context: folder.context,
        tokenizer: asks.then(|| model.tokenizer(&folder)).transpose()?,
        validation: run.as_ref().map(|(_, config)| config.val_data.clone()),
    };
    let failed = |error: EvaluateError| if error.is_input() { usage(error) } else { error.into() };
    let rows = guarded(|| evaluate(subject, &measurement, batch, progress).map_err(failed))?;
    let computed = [device_name(device), options.precision.name().to_owned(), options.backend.name().to_owned()];
    let step = folder.origin.as_ref().map_or(0, |origin| origin.step);
    Ok((Evaluation::new(measurement, computed, rows), run.map(|(folder, _)| (folder, step))))
}

/// One column for each key of the first row.
fn print(evaluation: &Evaluation) -> anyhow::Result<()> {
    let Some(first) = evaluation.rows.first() else { return output::print("nothing was measured") };
    if let Some(nats) = first.get("without_recall").and_then(Value::as_f64) {
        output::note(&format!("a model that recalls nothing loses {nats:.4} nats a value"));
    }
    let aside = |key: &&str| !FOUND.contains(key) && *key != "without_recall";
    let mut keys: Vec<&str> = first.keys().map(String::as_str).filter(aside).collect();
    keys.extend(FOUND);
    let mut table = output::table(&keys);
    for row in &evaluation.rows {
        table.add_row(keys.iter().map(|key| cell(row, key)));
    }
    output::print(&table.to_string())
}

fn cell(row: &Row, key: &str) -> String {
    match &row[key] {
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            // Something that was varied, such as a depth.
            Some(value) if !FOUND.contains(&key) && (10.0 * value).fract() == 0.0 => format!("{value}"),
            other => format!("{:.4}", other.unwrap_or(f64::NAN)),
        },
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
