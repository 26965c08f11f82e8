//! Packing text into a corpus of which the input may be larger than memory.
//!
//! One pass reads, tokenises in parallel and spills each document to a bucket chosen by the upper bits of a hash of
//! (seed, content, ordinal); then bucket after bucket is sorted by that hash and appended to the shards. The order is
//! that of a random permutation and depends on nothing but seed and input. A document goes to validation by a hash of
//! its content alone, so that copies of one document never stand on both sides, whatever the seed. Where that leaves
//! one side empty (a handful of documents), validation is the end of the shuffled stream instead.
//!
//! `train:VOCAB` reads the input twice: first a sample of at most 64 MiB for the vocabulary.

use super::documents::{InputFile, ReadCounts, discover, read_documents};
use super::folder::{Claim, OutputFolder, claim};
use super::hash::{absorb, mix64, short_hex};
use super::info::{self, CorpusInfo, CorpusKind};
use super::litpack::ShardWriter;
pub use super::tokenizer::TokenizerChoice;
use super::tokenizer::{SAMPLE_BYTES, Tokenizer};
use super::{DataError, PackedDataset, Progress, ProgressFn};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Tokens in a shard.
const SHARD_TOKENS: u64 = 1 << 25;
/// Text that is tokenised at a time.
const BATCH_BYTES: usize = 16 << 20;
/// What a bucket should hold; its size is what memory must take, a few times over.
const BUCKET_BYTES: u64 = 128 << 20;
/// Open files at a time.
const MOST_BUCKETS: u64 = 256;
/// A document gives at most this much to the sample that a vocabulary is trained on.
const SAMPLE_DOCUMENT_BYTES: usize = 1 << 20;

/// Everything that determines a corpus of text.
#[derive(Clone, Debug, PartialEq)]
pub struct PackSpec {
    /// Files and folders.
    pub inputs: Vec<PathBuf>,
    /// How text becomes ids.
    pub tokenizer: TokenizerChoice,
    /// Of the order of documents.
    pub seed: u64,
    /// Share of documents that become validation, above 0 and below 1.
    pub validation_fraction: f64,
    /// The field of JSON lines that holds the text.
    pub field: String,
    /// The end-of-document token of a `tokenizer.json`, when it is not one of the usual.
    pub eos: Option<String>,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The corpus.
    pub info: CorpusInfo,
    /// Documents read now: zero when the corpus was already complete.
    pub documents: u64,
    /// Files passed over because they are not text.
    pub binary_files: u64,
}

/// Makes the corpus of `spec` in `folder`, or finds it there already complete.
pub fn pack(spec: &PackSpec, folder: &Path, progress: ProgressFn) -> Result<Packed, DataError> {
    if !(spec.validation_fraction > 0.0 && spec.validation_fraction < 1.0) {
        return Err(DataError::Parameter {
            name: "validation_fraction",
            value: spec.validation_fraction.to_string(),
            expected: "above 0 and below 1".to_owned(),
        });
    }
    let files = discover(&spec.inputs)?;
    let given = match &spec.tokenizer {
        TokenizerChoice::File(path) => Some((path, std::fs::read(path).map_err(DataError::read(path))?)),
        _ => None,
    };
    let tokenizer = match (&spec.tokenizer, &given) {
        (TokenizerChoice::Train(size), _) => format!("train:{size}"),
        (_, Some((_, json))) => format!("sha256:{}", short_hex(&Sha256::digest(json))),
        _ => "bytes".to_owned(),
    };
    let source = serde_json::json!({
        "files": files.len(),
        "bytes": files.iter().map(|file| file.bytes).sum::<u64>(),
        "listing": listing(&files),
        "tokenizer": tokenizer,
        "eos": spec.eos,
        "field": spec.field,
        "validation_fraction": spec.validation_fraction,
        "seed": spec.seed,
    });
    let output = match claim(folder, CorpusKind::Text, &source)? {
        Claim::Complete(info) => return Ok(Packed { info: *info, documents: 0, binary_files: 0 }),
        Claim::Ours(output) => output,
    };
    let tokenizer = match (&spec.tokenizer, &given) {
        (TokenizerChoice::Train(size), _) => Tokenizer::train(*size, sample(&files, spec, progress)?)?,
        (_, Some((path, json))) => Tokenizer::from_json(&path.display().to_string(), json, spec.eos.as_deref())?,
        _ => Tokenizer::bytes(),
    };
    let spilled = spill(&files, spec, &tokenizer, output.path(), progress)?;
    if spilled.tokens() < 2 {
        return Err(DataError::Input {
            path: spec.inputs.first().cloned().unwrap_or_default(),
            reason: format!("no text in {} files ({} binary)", files.len(), spilled.counts.binary_files),
        });
    }
    let (train_tokens, validation_tokens) = merge(&spilled, spec, &tokenizer, output.path(), progress)?;
    commit(output, spec, &tokenizer, source, [train_tokens, validation_tokens], &spilled.counts)
}

fn commit(
    output: OutputFolder,
    spec: &PackSpec,
    tokenizer: &Tokenizer,
    source: serde_json::Value,
    tokens: [u64; 2],
    counts: &ReadCounts,
) -> Result<Packed, DataError> {
    let json = tokenizer.json()?;
    if let Some(json) = &json {
        crate::files::write_atomic(&output.path().join("tokenizer.json"), json.as_bytes())?;
    }
    let fingerprint = |split: &str| -> Result<String, DataError> {
        Ok(PackedDataset::open(&output.path().join(split), 0, None)?.fingerprint())
    };
    let info = CorpusInfo {
        schema: info::SCHEMA,
        kind: CorpusKind::Text,
        vocab_size: tokenizer.vocab_size(),
        train_tokens: tokens[0],
        validation_tokens: tokens[1],
        eos_id: u64::from(tokenizer.eos()),
        seed: spec.seed,
        source,
        tokenizer: json.map(|_| "tokenizer.json".to_owned()),
        train_fingerprint: fingerprint("train")?,
        validation_fingerprint: fingerprint("validation")?,
        validation_row_tokens: None,
        floor_nats: None,
        floor_at: BTreeMap::new(),
        entropy_at: BTreeMap::new(),
        floor_by_kind: BTreeMap::new(),
    };
    output.commit(&info)?;
    Ok(Packed { info, documents: counts.documents, binary_files: counts.binary_files })
}

/// Identity of the input: names below the inputs and sizes.
fn listing(files: &[InputFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.name.as_bytes());
        hash.update([0]);
        hash.update(file.bytes.to_le_bytes());
    }
    short_hex(&hash.finalize())
}

/// Documents, evenly over the whole input, that together stay within [`SAMPLE_BYTES`].
fn sample(files: &[InputFile], spec: &PackSpec, progress: ProgressFn) -> Result<Vec<String>, DataError> {
    let total = files.iter().map(|file| file.bytes).sum();
    let text: u64 = files.iter().map(InputFile::text_bytes).sum();
    let share = SAMPLE_BYTES as f64 / text.max(1) as f64;
    let (mut chosen, mut bytes, mut ordinal) = (Vec::new(), 0, 0u64);
    read_documents(files, &spec.field, |mut document, done| {
        ordinal += 1;
        if unit(mix64(ordinal)) < share && bytes < SAMPLE_BYTES {
            let cut = document.floor_char_boundary(SAMPLE_DOCUMENT_BYTES);
            document.truncate(cut);
            bytes += document.len() as u64;
            chosen.push(document);
        }
        progress(Progress { stage: "sampling", done, total });
        Ok(())
    })?;
    Ok(chosen)
}

/// A hash as a number in [0, 1).
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A tokenised document on its way to its place.
struct Document {
    key: u64,
    ordinal: u64,
    validation: bool,
    ids: Vec<u32>,
}

impl Document {
    fn new(text: &str, ordinal: u64, spec: &PackSpec, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let digest = Sha256::digest(text.as_bytes());
        let word = |at: usize| u64::from_le_bytes(digest[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self {
            key: absorb(absorb(word(8), spec.seed), ordinal),
            ordinal,
            validation: unit(word(0)) < spec.validation_fraction,
            ids: tokenizer.encode_document(text)?,
        })
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&self.key.to_le_bytes())?;
        out.write_all(&self.ordinal.to_le_bytes())?;
        out.write_all(&(self.ids.len() as u64 * 2 + u64::from(self.validation)).to_le_bytes())?;
        let ids: Vec<u8> = self.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        out.write_all(&ids)
    }

    /// The documents of a bucket, in their final order.
    fn read_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut documents = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(24);
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
            let (length, validation) = ((word(16) / 2) as usize, word(16) % 2 == 1);
            let (ids, rest) = rest.split_at(length * 4);
            let ids = ids.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
            documents.push(Self { key: word(0), ordinal: word(8), validation, ids });
            bytes = rest;
        }
        documents.sort_unstable_by_key(|document| (document.key, document.ordinal));
        documents
    }
}

/// What the first pass left.
struct Spilled {
    buckets: Vec<PathBuf>,
    train_tokens: u64,
    validation_tokens: u64,
    counts: ReadCounts,
}

impl Spilled {
    fn tokens(&self) -> u64 {
        self.train_tokens + self.validation_tokens
    }
}

fn spill(
    files: &[InputFile],
    spec: &PackSpec,
    tokenizer: &Tokenizer,
    folder: &Path,
    progress: ProgressFn,
) -> Result<Spilled, DataError> {
    let total = files.iter().map(|file| file.bytes).sum();
    let text: u64 = files.iter().map(InputFile::text_bytes).sum();
    // Four bytes an id, and at worst an id for each byte.
    let count = (text * 4).div_ceil(BUCKET_BYTES).clamp(1, MOST_BUCKETS);
    let buckets: Vec<PathBuf> = (0..count).map(|i| folder.join(format!("bucket_{i:03}.spill"))).collect();
    let mut writers = buckets
        .iter()
        .map(|path| Ok(BufWriter::with_capacity(1 << 16, File::create(path).map_err(DataError::write(path))?)))
        .collect::<Result<Vec<_>, DataError>>()?;
    let (mut tokens, mut ordinal) = ([0, 0], 0);
    let mut flush = |batch: &mut Vec<String>| -> Result<(), DataError> {
        let documents = batch
            .par_iter()
            .enumerate()
            .map(|(i, text)| Document::new(text, ordinal + i as u64, spec, tokenizer))
            .collect::<Result<Vec<_>, _>>()?;
        ordinal += batch.len() as u64;
        batch.clear();
        for document in documents {
            let bucket = ((u128::from(document.key) * u128::from(count)) >> 64) as usize;
            tokens[usize::from(document.validation)] += document.ids.len() as u64;
            document.write(&mut writers[bucket]).map_err(DataError::write(&buckets[bucket]))?;
        }
        Ok(())
    };
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    let counts = read_documents(files, &spec.field, |text, done| {
        batch_bytes += text.len();
        batch.push(text);
        if batch_bytes >= BATCH_BYTES {
            batch_bytes = 0;
            flush(&mut batch)?;
            progress(Progress { stage: "tokenising", done, total });
        }
        Ok(())
    })?;
    flush(&mut batch)?;
    progress(Progress { stage: "tokenising", done: total, total });
    for (writer, path) in writers.iter_mut().zip(&buckets) {
        writer.flush().map_err(DataError::write(path))?;
    }
    Ok(Spilled { buckets, train_tokens: tokens[0], validation_tokens: tokens[1], counts })
}

/// Sorts bucket after bucket into the shards; returns training and validation tokens.
fn merge(
    spilled: &Spilled,
    spec: &PackSpec,
    tokenizer: &Tokenizer,
    folder: &Path,
    progress: ProgressFn,
) -> Result<(u64, u64), DataError> {
    let mut train = ShardWriter::new(folder, "train_text", tokenizer.vocab_size(), SHARD_TOKENS);
    let mut validation = ShardWriter::new(folder, "validation_text", tokenizer.vocab_size(), SHARD_TOKENS);
    let total = spilled.tokens();
    let by_hash = spilled.train_tokens > 0 && spilled.validation_tokens > 0;
    let end = ((spec.validation_fraction * total as f64).round() as u64).clamp(1, total - 1);
    for path in &spilled.buckets {
        let documents = Document::read_all(&std::fs::read(path).map_err(DataError::read(path))?);
        for document in documents {
            if by_hash {
                if document.validation { validation.push(&document.ids)? } else { train.push(&document.ids)? }
            } else {
                let left = (total - end).saturating_sub(train.tokens()).min(document.ids.len() as u64);
                let (first, rest) = document.ids.split_at(left as usize);
                train.push(first)?;
                validation.push(rest)?;
            }
        }
        std::fs::remove_file(path).map_err(DataError::write(path))?;
        progress(Progress { stage: "writing tokens", done: train.tokens() + validation.tokens(), total });
    }
    Ok((train.finish()?, validation.finish()?))
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
