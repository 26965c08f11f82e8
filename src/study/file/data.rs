//! `data` of a study as written.

use crate::config::ConfigError;
use crate::data::pack::PackSpec;
use crate::study::StudyError;
use crate::tasks::phonebook::{EntryRange, TrainingBooks};
use crate::units::{count, optional_quantity, parse_quantity};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// `data`: at most one of `synth`, `pack` and `phonebook`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct DataSection {
    /// The corpus' folder; default `data/<study>` where one is made.
    pub path: Option<PathBuf>,
    /// A synthetic corpus: settings of `data synth`.
    pub synth: Option<Value>,
    /// A corpus of text.
    pub pack: Option<PackSection>,
    /// A corpus of phonebooks: settings of `data phonebook` and of `data pack`.
    pub phonebook: Option<PhonebookSection>,
}

/// `data.pack`: settings of `data pack`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct PackSection {
    /// Files and folders of text.
    pub inputs: Vec<PathBuf>,
    /// `bytes`, `train:VOCAB` or a `tokenizer.json`; default bytes.
    pub tokenizer: Option<String>,
    /// Of the order of documents; default 0.
    pub seed: u64,
    /// Share of documents that become validation; default 0.05.
    #[serde(deserialize_with = "optional_quantity")]
    pub validation_fraction: Option<f64>,
    /// Field of JSON lines that holds the text; default `text`.
    pub field: Option<String>,
    /// End-of-document token of a `tokenizer.json`.
    pub eos: Option<String>,
}

/// `data.phonebook`: texts from which a model learns to look up numbers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct PhonebookSection {
    /// Texts, a phonebook each.
    #[serde(deserialize_with = "count")]
    pub documents: u64,
    /// Entries of a phonebook: a number, or any from MIN to MAX as `MIN..MAX`.
    pub entries: EntryRange,
    /// Of names, numbers, sizes, and of the order of documents; default 0.
    #[serde(default)]
    pub seed: u64,
    /// `bytes`, `train:VOCAB` or a `tokenizer.json`; default bytes.
    pub tokenizer: Option<String>,
    /// Share of documents that become validation; default 0.05.
    #[serde(default, deserialize_with = "optional_quantity")]
    pub validation_fraction: Option<f64>,
}

/// `2M` and `2^21` as the numbers that they stand for.
pub(super) fn plain_numbers(value: Value) -> Value {
    match value {
        Value::String(text) => match parse_quantity(&text) {
            Some(number) if number.fract() == 0.0 && (0.0..2f64.powi(53)).contains(&number) => (number as u64).into(),
            Some(number) => number.into(),
            None => Value::String(text),
        },
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, plain_numbers(v))).collect()),
        Value::Null => Value::Object(serde_json::Map::new()),
        other => other,
    }
}

impl PhonebookSection {
    /// The texts.
    pub(in crate::study) fn books(&self) -> TrainingBooks {
        TrainingBooks { documents: self.documents, entries: self.entries.0.clone(), seed: self.seed }
    }

    /// What is to be packed: the texts, which lie in `file`.
    pub(in crate::study) fn spec(&self, file: PathBuf, origin: &str) -> Result<PackSpec, StudyError> {
        let section = PackSection {
            inputs: vec![file],
            tokenizer: self.tokenizer.clone(),
            seed: self.seed,
            validation_fraction: self.validation_fraction,
            ..PackSection::default()
        };
        section.spec_at(origin, "data.phonebook")
    }
}

impl PackSection {
    /// What is to be packed.
    pub(in crate::study) fn spec(&self, origin: &str) -> Result<PackSpec, StudyError> {
        self.spec_at(origin, "data.pack")
    }

    fn spec_at(&self, origin: &str, section: &str) -> Result<PackSpec, StudyError> {
        let refuse =
            |place: &str, problem: String| ConfigError::misplaced(origin, &format!("{section}.{place}"), &problem);
        if self.inputs.is_empty() {
            let hint = "no text is named; hint: add --set data.pack.inputs=[FOLDER]";
            return Err(refuse("inputs", hint.to_owned()).into());
        }
        let tokenizer = self.tokenizer.as_deref().unwrap_or("bytes").parse();
        Ok(PackSpec {
            inputs: self.inputs.clone(),
            tokenizer: tokenizer.map_err(|problem| refuse("tokenizer", problem))?,
            seed: self.seed,
            validation_fraction: self.validation_fraction.unwrap_or(0.05),
            field: self.field.clone().unwrap_or_else(|| "text".to_owned()),
            eos: self.eos.clone(),
        })
    }
}
