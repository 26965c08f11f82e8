//! Generating a synthetic corpus: documents in parallel, each from a generator of its own, written in order. The files
//! do not depend on the number of threads.
//!
//! Training shards are one stream of documents, each ended by EOS, cut at the wanted length. Validation is made of
//! rows: EOS, then documents, cut where the row ends. Every row so begins with a document, and a model that reads the
//! row has seen everything that the source's probabilities depend on: the floor of these rows is exact.

use super::folder::{Claim, claim};
use super::hash::mix64;
use super::info::{self, CorpusInfo, CorpusKind, KindFloor};
use super::litpack::ShardWriter;
use super::predictor::{KINDS, Predictor};
use super::source::{EOS, Law, State, SyntheticSpec};
use super::{DataError, PackedDataset, Progress, ProgressFn, floor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Tokens in a training shard: 64 MiB in 16 bits.
const SHARD_TOKENS: u64 = 1 << 25;
/// Tokens held in memory at a time, roughly.
const BATCH_TOKENS: u64 = 1 << 22;

/// Makes the corpus of `spec` in `folder`, or finds it there already complete.
pub fn generate(spec: &SyntheticSpec, folder: &Path, progress: ProgressFn) -> Result<CorpusInfo, DataError> {
    spec.check()?;
    let source = serde_json::to_value(spec).expect("a specification has string keys and finite numbers");
    let output = match claim(folder, CorpusKind::Synthetic, &source)? {
        Claim::Complete(info) => return Ok(*info),
        Claim::Ours(output) => output,
    };
    let law = Law::new(spec);
    let train_tokens = write_training(spec, &law, output.path(), progress)?;
    let (validation_tokens, tally) = write_validation(spec, &law, output.path(), progress)?;
    let fingerprint = |split: &str| -> Result<String, DataError> {
        Ok(PackedDataset::open(&output.path().join(split), 0, None)?.fingerprint())
    };
    let info = CorpusInfo {
        schema: info::SCHEMA,
        kind: CorpusKind::Synthetic,
        vocab_size: spec.vocab_size,
        train_tokens,
        validation_tokens,
        eos_id: u64::from(EOS),
        seed: spec.seed,
        source,
        tokenizer: None,
        train_fingerprint: fingerprint("train")?,
        validation_fingerprint: fingerprint("validation")?,
        validation_row_tokens: Some(spec.row_tokens()),
        floor_nats: Some(tally.quarter(1).nats),
        floor_at: (1..=4).map(|k| (k.to_string(), tally.quarter(k).nats)).collect(),
        entropy_at: (1..=4).map(|k| (k.to_string(), tally.quarter(k).entropy_nats)).collect(),
        floor_by_kind: KINDS
            .iter()
            .enumerate()
            .filter(|&(kind, _)| tally.kinds[kind].tokens > 0)
            .map(|(kind, &name)| (name.to_owned(), tally.kinds[kind].mean()))
            .collect(),
    };
    output.commit(&info)?;
    Ok(info)
}

/// The generator of document or row `index`: two splits never share one.
fn generator(seed: u64, split: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.as_chunks_mut::<8>().0.iter_mut().zip([mix64(seed), seed, split, index]) {
        *bytes = word.to_le_bytes();
    }
    ChaCha8Rng::from_seed(key)
}

/// Document `index` of the training stream, its EOS included.
fn document(law: &Law, seed: u64, index: u64) -> Vec<u32> {
    let mut rng = generator(seed, 0, index);
    let mut state = State::new(law);
    let mut tokens = Vec::new();
    loop {
        let token = law.sample(&state, &mut rng);
        tokens.push(token);
        if token == EOS {
            return tokens;
        }
        state.advance(law, token);
    }
}

fn write_training(spec: &SyntheticSpec, law: &Law, folder: &Path, progress: ProgressFn) -> Result<u64, DataError> {
    let mut writer = ShardWriter::new(folder, "train_synthetic", spec.vocab_size, SHARD_TOKENS);
    let batch = (BATCH_TOKENS as f64 / spec.document_tokens).ceil() as u64;
    let mut next = 0;
    while writer.tokens() < spec.tokens {
        // The last batch is made as small as the rest needs, give or take; what is too much is cut.
        let left = ((spec.tokens - writer.tokens()) as f64 / spec.document_tokens * 1.1).ceil() as u64 + 1;
        let documents: Vec<Vec<u32>> =
            (next..next + batch.min(left)).into_par_iter().map(|index| document(law, spec.seed, index)).collect();
        next += documents.len() as u64;
        for document in &documents {
            let left = (spec.tokens - writer.tokens()).min(document.len() as u64) as usize;
            writer.push(&document[..left])?;
        }
        progress(Progress { stage: "training tokens", done: writer.tokens(), total: spec.tokens });
    }
    writer.finish()
}

/// Sums of one kind of token, or of one quarter of the rows.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: u64,
    nats: f64,
    entropy: f64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.tokens += other.tokens;
        self.nats += other.nats;
        self.entropy += other.entropy;
    }

    fn mean(&self) -> KindFloor {
        let n = self.tokens as f64;
        KindFloor { tokens: self.tokens, nats: self.nats / n, entropy_nats: self.entropy / n }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    kinds: [Sums; KINDS.len()],
    quarters: [Sums; 4],
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.kinds.iter_mut().zip(other.kinds).for_each(|(a, b)| a.add(b));
        self.quarters.iter_mut().zip(other.quarters).for_each(|(a, b)| a.add(b));
    }

    /// Over the first `k` quarters of the rows.
    fn quarter(&self, k: usize) -> KindFloor {
        let mut sum = Sums::default();
        self.quarters[..k].iter().for_each(|&quarter| sum.add(quarter));
        sum.mean()
    }
}

/// One validation row.
struct Row {
    tokens: Vec<u32>,
    nats: Vec<f32>,
    tally: Tally,
}

fn row(law: &Law, spec: &SyntheticSpec, index: u64) -> Row {
    let mut rng = generator(spec.seed, 1, index);
    let mut state = State::new(law);
    let mut predictor = Predictor::new(law);
    let length = spec.row_tokens() as usize;
    let mut row = Row { tokens: vec![EOS], nats: vec![0.0], tally: Tally::default() };
    row.tokens.reserve_exact(length);
    row.nats.reserve_exact(length);
    for position in 0..length - 1 {
        let token = law.sample(&state, &mut rng);
        let assessment = predictor.assess(&state, token);
        // Written as f32, counted as f32: the totals are those of the file.
        let nats = assessment.nats as f32;
        let sums = Sums { tokens: 1, nats: f64::from(nats), entropy: assessment.entropy };
        row.tally.kinds[assessment.kind].add(sums);
        row.tally.quarters[position * 4 / (length - 1)].add(sums);
        row.tokens.push(token);
        row.nats.push(nats);
        state.advance(law, token);
    }
    row
}

fn write_validation(
    spec: &SyntheticSpec,
    law: &Law,
    folder: &Path,
    progress: ProgressFn,
) -> Result<(u64, Tally), DataError> {
    let row_tokens = spec.row_tokens();
    let rows = spec.validation_tokens.div_ceil(row_tokens);
    // One shard, so that rows of any length that is evaluated lie as they do in the floor file.
    let mut writer = ShardWriter::new(folder, "validation_synthetic", spec.vocab_size, u64::MAX);
    let path = folder.join(floor::FILE_NAME);
    let mut floors = BufWriter::new(File::create(&path).map_err(DataError::write(&path))?);
    let mut total = Tally::default();
    let batch = (BATCH_TOKENS / row_tokens).max(1);
    for first in (0..rows).step_by(batch as usize) {
        let made: Vec<Row> =
            (first..rows.min(first + batch)).into_par_iter().map(|index| row(law, spec, index)).collect();
        for row in &made {
            writer.push(&row.tokens)?;
            total.add(&row.tally);
            for nats in &row.nats {
                floors.write_all(&nats.to_le_bytes()).map_err(DataError::write(&path))?;
            }
        }
        progress(Progress { stage: "validation tokens", done: writer.tokens(), total: rows * row_tokens });
    }
    let file = floors.into_inner().map_err(|e| DataError::write(&path)(e.into_error()))?;
    file.sync_all().map_err(DataError::write(&path))?;
    Ok((writer.finish()?, total))
}

#[cfg(test)]
#[path = "synthetic_tests.rs"]
mod tests;
