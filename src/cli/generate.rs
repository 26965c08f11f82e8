//! `lossfloor generate`: text from a checkpoint.

use super::inference::{Loaded, ModelArgs, check_ids, data_error, guarded};
use super::{ExitStatus, output, usage};
use crate::data::Tokenizer;
use crate::decode::{Generator, GrowingText, Sampling};
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Continue prompts with a model; text goes to stdout as it comes, speeds to stderr
#[derive(clap::Args, Debug)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    source: Source,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    max_new: u64,
    /// Divides the logits; 0 takes the likeliest token each time
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw from the fewest likeliest tokens with this share of the probability
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Draw from so many of the likeliest tokens
    #[arg(long, value_name = "N")]
    top_k: Option<u64>,
    /// Of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Text that ends a continuation, itself left out; may be repeated. The token that ends a document always does
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Where prompts come from.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Source {
    /// A prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A text file that is one prompt
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A file of prompts, one JSON object with a `prompt` a line
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    prompt: String,
}

impl Source {
    fn prompts(&self) -> anyhow::Result<Vec<String>> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read {}: {e}", path.display())))
        };
        match self {
            Self { prompt: Some(prompt), .. } => Ok(vec![prompt.clone()]),
            Self { file: Some(path), .. } => Ok(vec![read(path)?]),
            Self { prompts: Some(path), .. } => {
                let text = read(path)?;
                let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                lines
                    .map(|(number, line)| {
                        let line: Line = serde_json::from_str(line).map_err(|e| {
                            usage(format!("{}:{}: not an object with a prompt: {e}", path.display(), number + 1))
                        })?;
                        Ok(line.prompt)
                    })
                    .collect()
            }
            _ => unreachable!("clap wants one of them"),
        }
    }
}

/// What one prompt was continued with.
#[derive(Debug, serde::Serialize)]
struct Continuation {
    prompt: String,
    text: String,
    /// Tokens generated, the last one included where it ended the text.
    tokens: usize,
    /// `length`, `end` (of the document) or `stop`.
    ended: &'static str,
}

/// A continuation as it grows.
struct Growing<'a> {
    text: GrowingText<'a>,
    /// Bytes that have been handed out.
    shown: usize,
    tokens: usize,
    ended: Option<&'static str>,
}

impl<'a> Growing<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { text: GrowingText::new(tokenizer), shown: 0, tokens: 0, ended: None }
    }

    fn take(&mut self, token: i64, stops: &[String], most: usize) -> anyhow::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.tokens += 1;
        if self.text.push(token).map_err(data_error)? {
            self.ended = Some("end");
        } else if let Some(at) = stops.iter().filter_map(|stop| self.text.text().find(stop.as_str())).min() {
            self.text.truncate(at);
            self.ended = Some("stop");
        } else if self.tokens == most {
            self.ended = Some("length");
        }
        Ok(())
    }

    /// Text that is certain and was not handed out yet: the beginning of a stop is held back.
    fn fresh(&mut self, stops: &[String]) -> &str {
        let held = match self.ended {
            Some(_) => 0,
            None => stops.iter().map(|stop| stop.len().saturating_sub(1)).max().unwrap_or(0),
        };
        let text = self.text.text();
        let mut end = text.len().saturating_sub(held).max(self.shown);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let from = std::mem::replace(&mut self.shown, end);
        &text[from.min(end)..end]
    }
}

/// What a batch took.
#[derive(Default)]
struct Times {
    first_s: f64,
    rest_s: f64,
    rest_tokens: usize,
}

pub fn run(args: GenerateArgs) -> anyhow::Result<ExitStatus> {
    super::runtime::use_threads(None)?;
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, top_k: args.top_k, seed: args.seed };
    sampling.validate().map_err(|error| usage(format!("--{error}")))?;
    if args.stop.iter().any(String::is_empty) {
        return Err(usage("--stop is empty; expected text"));
    }
    let prompts = args.source.prompts()?;
    let Loaded { folder, lm, .. } = args.model.load()?;
    let tokenizer = args.model.tokenizer(&folder)?;
    let mut encoded = Vec::new();
    for (number, prompt) in prompts.iter().enumerate() {
        let mut ids = tokenizer.encode(prompt).map_err(data_error)?;
        if ids.is_empty() {
            // An empty prompt asks for a document.
            ids.push(tokenizer.eos());
        }
        check_ids(&ids, &folder.model, &format!("prompt {}", number + 1))?;
        encoded.push(ids.into_iter().map(i64::from).collect::<Vec<i64>>());
    }
    let Some(longest) = encoded.iter().map(Vec::len).max() else { return Err(usage("there are no prompts")) };
    let most = args.max_new as usize;
    let batch = encoded.len().min(args.batch as usize);
    let mut rows = Vec::new();
    let mut times = Times::default();
    guarded(|| {
        let mut generator = Generator::new(lm, batch, longest + most, sampling);
        for (prompts, ids) in prompts.chunks(batch).zip(encoded.chunks(batch)) {
            let streamed = !args.json && encoded.len() == 1;
            let grown = continue_batch(&mut generator, ids, &tokenizer, &args.stop, most, streamed, &mut times)?;
            rows.extend(prompts.iter().zip(grown).map(|(prompt, growing)| Continuation {
                prompt: prompt.clone(),
                tokens: growing.tokens,
                ended: growing.ended.unwrap_or("length"),
                text: growing.text.into_text(),
            }));
        }
        Ok(())
    })?;
    let speed = if times.rest_s > 0.0 { times.rest_tokens as f64 / times.rest_s } else { 0.0 };
    if args.json {
        output::json(&serde_json::json!({ "rows": rows, "first_token_s": times.first_s, "tokens_per_s": speed }))?;
    } else if encoded.len() > 1 {
        for row in &rows {
            output::print(&serde_json::to_string(row)?)?;
        }
    }
    output::note(&format!("first token after {:.3} s, then {speed:.0} tokens/s", times.first_s));
    Ok(ExitStatus::Done)
}

/// Continues as many prompts as the generator has sequences, or fewer.
fn continue_batch<'a>(
    generator: &mut Generator,
    ids: &[Vec<i64>],
    tokenizer: &'a Tokenizer,
    stops: &[String],
    most: usize,
    streamed: bool,
    times: &mut Times,
) -> anyhow::Result<Vec<Growing<'a>>> {
    let mut prompts = ids.to_vec();
    prompts.resize_with(generator.sequences(), || ids[0].clone());
    let mut grown: Vec<Growing> = ids.iter().map(|_| Growing::new(tokenizer)).collect();
    let start = Instant::now();
    generator.read(&prompts);
    let mut first_s = 0.0;
    for step in 0..most {
        let tokens = generator.tokens_since(step);
        if step == 0 {
            first_s = start.elapsed().as_secs_f64();
        }
        for (growing, tokens) in grown.iter_mut().zip(&tokens) {
            times.rest_tokens += usize::from(step > 0 && growing.ended.is_none());
            growing.take(tokens[0], stops, most)?;
        }
        if streamed {
            show(grown[0].fresh(stops));
        }
        if grown.iter().all(|growing| growing.ended.is_some()) {
            break;
        }
        generator.step()?;
    }
    times.first_s += first_s;
    times.rest_s += start.elapsed().as_secs_f64() - first_s;
    if streamed {
        show("\n");
    }
    Ok(grown)
}

/// Writes text at once. A closed pipe ends output quietly.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
