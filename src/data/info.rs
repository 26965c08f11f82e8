//! `corpus.json`: what a corpus is. Written last and atomically, so that its presence means the corpus is complete.

use super::DataError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of `corpus.json`; raised when a field changes its meaning.
pub const SCHEMA: u32 = 1;
/// The file, in the corpus' folder.
pub const FILE_NAME: &str = "corpus.json";

/// Where the tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CorpusKind {
    /// A source of which every probability is known.
    Synthetic,
    /// Somebody's text.
    Text,
}

/// Irreducible loss of one kind of validation token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindFloor {
    /// Validation targets of this kind.
    pub tokens: u64,
    /// Mean of -ln p(token | past) over them, nats per token.
    pub nats: f64,
    /// Mean entropy of p(. | past) at them, nats per token: what `nats` is a sample of.
    pub entropy_nats: f64,
}

/// A corpus, as `corpus.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusInfo {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Synthetic or text.
    pub kind: CorpusKind,
    /// Ids lie below this.
    pub vocab_size: u64,
    /// Tokens in the training shards.
    pub train_tokens: u64,
    /// Tokens in the validation shards.
    pub validation_tokens: u64,
    /// The id that ends a document.
    pub eos_id: u64,
    /// Seed of the source, or of the order of documents.
    pub seed: u64,
    /// All parameters that made the corpus; equal parameters make equal corpora.
    pub source: serde_json::Value,
    /// The tokenizer's file in the same folder, where there is one.
    pub tokenizer: Option<String>,
    /// [`PackedDataset::fingerprint`](super::PackedDataset::fingerprint) of the training shards.
    pub train_fingerprint: String,
    /// The same of the validation shards.
    pub validation_fingerprint: String,
    /// Validation rows of this many tokens begin with a document each; only for them the floor is exact.
    pub validation_row_tokens: Option<u64>,
    /// `floor_at["1"]`: the floor of the loss that runs report as theirs. Null for text, whose floor nobody knows.
    pub floor_nats: Option<f64>,
    /// Realised floor, nats per token, over the first k quarters of every validation row, k = 1 to 4.
    pub floor_at: BTreeMap<String, f64>,
    /// Mean conditional entropy of the same tokens.
    pub entropy_at: BTreeMap<String, f64>,
    /// The floor over whole validation rows, by kind of token.
    pub floor_by_kind: BTreeMap<String, KindFloor>,
}

impl CorpusInfo {
    /// The complete corpus in `folder`, if there is one.
    pub fn in_folder(folder: &Path) -> Result<Option<Self>, DataError> {
        let path = folder.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Something on the way being a file means there is no corpus here, too.
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(DataError::read(&path)(error)),
        };
        let refuse = |reason| DataError::Corpus { path: path.clone(), reason };
        // The schema goes first: a later layout would fail on some field, which says less.
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| refuse(format!("not the description of a corpus: {e}")))?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            schema => return Err(refuse(format!("schema {schema:?}, expected {SCHEMA}"))),
        }
        serde_json::from_str(&text).map(Some).map_err(|e| refuse(format!("not the description of a corpus: {e}")))
    }

    /// The corpus that a data path such as `data/quick/validation` belongs to, if it has a description.
    pub fn beside(path: &Path) -> Result<Option<Self>, DataError> {
        Self::in_folder(folder_of(path))
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), DataError> {
        let mut text = serde_json::to_string_pretty(self).expect("a description has string keys and finite numbers");
        text.push('\n');
        Ok(crate::files::write_atomic(&folder.join(FILE_NAME), text.as_bytes())?)
    }
}

/// The corpus folder of a data path: itself, or where its shards lie.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        _ if path.is_dir() => path,
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
