//! What is measured of a model, with every setting that decides the numbers ([`Measurement`]), and what was found
//! ([`Evaluation`], a file beside a run's record).

use super::needle::{Haystack, Needles};
use super::phonebook::Phonebook;
use super::{Question, Summary, Tag};
use crate::data::{DataError, Tokenizer};
use crate::files::{WriteError, write_atomic};
use crate::units::{counts, optional_count};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// A row of results: what was varied, then `value`, its 95 % interval `low` to `high`, and `n` observations.
pub type Row = Map<String, Value>;

/// A row with these keys.
pub fn row(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Row {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The keys of a row that say what was found; the others say what was varied.
pub const FOUND: [&str; 4] = ["value", "low", "high", "n"];

/// A task with its settings. Written as a map whose key `task` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Measurement {
    /// Cross-entropy by length of context and by position.
    Loss(CorpusRows),
    /// Numbers from lists of names and numbers.
    Phonebook(PhonebookTask),
    /// Numbers hidden in a long text.
    Niah(NeedleTask),
    /// Values of the synthetic corpus by the distance of their last mention.
    Recall(CorpusRows),
}

/// Settings of the tasks that read rows of a validation corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct CorpusRows {
    /// Validation shards; default those of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Rows to read, or all where there are fewer; default 64.
    #[serde(deserialize_with = "crate::units::count")]
    pub rows: u64,
    /// Tokens of a row; default four training contexts for the loss, the corpus' rows for recall.
    #[serde(deserialize_with = "optional_count", skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

impl Default for CorpusRows {
    fn default() -> Self {
        Self { data: None, rows: 64, length: None }
    }
}

/// Settings of the phonebook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct PhonebookTask {
    /// Numbers of entries; default 480.
    #[serde(deserialize_with = "counts")]
    pub entries: Vec<u64>,
    /// Measurements of 32 questions each; default 4.
    pub measurements: u64,
    /// What answers are counted by: `entries`, `depth`, `distance`; default entries.
    pub by: Vec<Tag>,
}

impl Default for PhonebookTask {
    fn default() -> Self {
        Self { entries: vec![480], measurements: 4, by: vec![Tag::Entries] }
    }
}

/// Settings of needles in a haystack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct NeedleTask {
    /// Tokens of prompt and answer together; default 4096.
    #[serde(deserialize_with = "counts")]
    pub lengths: Vec<u64>,
    /// Questions of each length and depth; default 10.
    pub repeats: u64,
    /// A text file that the needles lie in; default five sentences again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haystack: Option<PathBuf>,
    /// Keys with values, keys asked for, and values of a key, as `KEYS:ASKED:VALUES`; default 1:1:1.
    pub needles: NeedleCounts,
    /// Of drawn questions; default 0.
    pub seed: u64,
    /// What answers are counted by: `length`, `depth`, `distance`; default length and depth.
    pub by: Vec<Tag>,
}

impl Default for NeedleTask {
    fn default() -> Self {
        Self {
            lengths: vec![4096],
            repeats: 10,
            haystack: None,
            needles: NeedleCounts::default(),
            seed: 0,
            by: vec![Tag::Length, Tag::Depth],
        }
    }
}

/// `KEYS:ASKED:VALUES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NeedleCounts {
    /// Keys that have values.
    pub keys: usize,
    /// Keys that are asked for.
    pub asked: usize,
    /// Values of each key.
    pub values: usize,
}

impl Default for NeedleCounts {
    fn default() -> Self {
        Self { keys: 1, asked: 1, values: 1 }
    }
}

impl std::fmt::Display for NeedleCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.keys, self.asked, self.values)
    }
}

impl From<NeedleCounts> for String {
    fn from(counts: NeedleCounts) -> Self {
        counts.to_string()
    }
}

impl std::str::FromStr for NeedleCounts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<usize>> = text.split(':').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[keys, asked, values]) => Ok(Self { keys, asked, values }),
            _ => Err(format!("'{text}' does not read as KEYS:ASKED:VALUES, such as 4:1:1")),
        }
    }
}

impl TryFrom<String> for NeedleCounts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Measurement {
    /// The word for its task.
    pub fn task(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Phonebook(_) => "phonebook",
            Self::Niah(_) => "niah",
            Self::Recall(_) => "recall",
        }
    }

    /// Whether its values are shares of right answers; else they are nats.
    pub fn is_share(&self) -> bool {
        matches!(self, Self::Phonebook(_) | Self::Niah(_))
    }

    /// What its answers are counted by; nothing where it asks no questions.
    pub fn by(&self) -> &[Tag] {
        match self {
            Self::Phonebook(task) => &task.by,
            Self::Niah(task) => &task.by,
            Self::Loss(_) | Self::Recall(_) => &[],
        }
    }

    /// Refuses settings that measure nothing: what, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let counted = |by: &[Tag], known: &[Tag]| {
            let names = || known.iter().map(|tag| tag.name()).collect::<Vec<_>>().join(", ");
            let twice = |at: usize, tag: &Tag| by[..at].contains(tag);
            match by.iter().enumerate().find(|(at, tag)| !known.contains(tag) || twice(*at, tag)) {
                _ if by.is_empty() => Err(format!("by: names nothing; known: {}", names())),
                Some((_, tag)) if known.contains(tag) => Err(format!("by: names {} twice", tag.name())),
                Some((_, tag)) => Err(format!("by: {} is no part of {}; known: {}", tag.name(), self.task(), names())),
                None => Ok(()),
            }
        };
        let some = |what: &str, number: usize| match number {
            0 => Err(format!("{what}: expected at least one")),
            _ => Ok(()),
        };
        match self {
            Self::Loss(rows) | Self::Recall(rows) => {
                some("rows", rows.rows as usize)?;
                match rows.length {
                    Some(length) if !(2..1 << 30).contains(&length) => {
                        Err("length: expected a number of tokens from 2".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            Self::Phonebook(task) => {
                some("entries", task.entries.len())?;
                some("measurements", task.measurements as usize)?;
                counted(&task.by, &[Tag::Entries, Tag::Depth, Tag::Distance])?;
                task.books().try_for_each(|book| book.check().map_err(|error| error.to_string()))
            }
            Self::Niah(task) => {
                some("lengths", task.lengths.len())?;
                some("repeats", task.repeats as usize)?;
                counted(&task.by, &[Tag::Length, Tag::Depth, Tag::Distance])?;
                task.needles(Haystack::Filler).check().map_err(|error| error.to_string())
            }
        }
    }

    /// The questions it asks, prompts measured by `tokenizer`; none where it asks none.
    pub fn questions(&self, tokenizer: &Tokenizer) -> Result<Vec<Question>, DataError> {
        match self {
            Self::Phonebook(task) => {
                let books = task.books().map(|book| book.questions(tokenizer));
                Ok(books.collect::<Result<Vec<_>, _>>()?.concat())
            }
            Self::Niah(task) => {
                let haystack = match &task.haystack {
                    None => Haystack::Filler,
                    Some(path) => Haystack::Text(std::fs::read_to_string(path).map_err(|source| {
                        let reason = source.to_string();
                        DataError::Input { path: path.clone(), reason }
                    })?),
                };
                task.needles(haystack).questions(tokenizer)
            }
            Self::Loss(_) | Self::Recall(_) => Ok(Vec::new()),
        }
    }

    /// The arguments of `lossfloor eval CHECKPOINT` that measure it.
    pub fn arguments(&self) -> Vec<String> {
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let by = || self.by().iter().map(|tag| tag.name()).collect::<Vec<_>>().join(",");
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given: Vec<(&str, Option<String>)> = match self {
            Self::Loss(rows) | Self::Recall(rows) => vec![
                ("--data", path(&rows.data)),
                ("--rows", Some(rows.rows.to_string())),
                ("--length", rows.length.map(|length| length.to_string())),
            ],
            Self::Phonebook(task) => vec![
                ("--entries", Some(list(&task.entries))),
                ("--measurements", Some(task.measurements.to_string())),
                ("--by", Some(by())),
            ],
            Self::Niah(task) => vec![
                ("--lengths", Some(list(&task.lengths))),
                ("--repeats", Some(task.repeats.to_string())),
                ("--haystack", path(&task.haystack)),
                ("--needles", Some(task.needles.to_string())),
                ("--seed", Some(task.seed.to_string())),
                ("--by", Some(by())),
            ],
        };
        let given = given.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?]));
        ["--task".to_owned(), self.task().to_owned()].into_iter().chain(given.flatten()).collect()
    }
}

impl PhonebookTask {
    fn books(&self) -> impl Iterator<Item = Phonebook> + '_ {
        let measurements = self.measurements as usize;
        self.entries.iter().map(move |&entries| Phonebook { measurements, ..Phonebook::published(entries as usize) })
    }
}

impl NeedleTask {
    fn needles(&self, haystack: Haystack) -> Needles {
        let NeedleCounts { keys, asked, values } = self.needles;
        Needles {
            haystack,
            keys,
            asked,
            values,
            lengths: self.lengths.iter().map(|&length| length as usize).collect(),
            repeats: self.repeats as usize,
            seed: self.seed,
            ..Needles::single(0)
        }
    }
}

/// A row for each cell of answered questions, its cell's tags first.
pub fn rows_of(cells: Vec<(Vec<f64>, Summary)>, by: &[Tag]) -> Vec<Row> {
    let of = |(cell, summary): (Vec<f64>, Summary)| {
        let tags = by.iter().zip(cell).flat_map(|(tag, cell)| tag.columns(cell));
        let found = [
            ("value", json!(summary.value)),
            ("low", json!(summary.low)),
            ("high", json!(summary.high)),
            ("n", json!(summary.n)),
            ("sd", json!(summary.sd)),
        ];
        row(tags.chain(found))
    };
    cells.into_iter().map(of).collect()
}

/// Version of an evaluation's file; raised when equal settings come to mean something else.
const SCHEMA: u32 = 1;

/// What was found, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Of the layout, and of the tasks.
    pub schema: u32,
    /// The word for the task, for whoever reads the file.
    pub task: String,
    /// What was measured.
    pub settings: Measurement,
    /// `cpu`, or the GPU's name.
    pub device: String,
    /// Number format of activations.
    pub precision: String,
    /// Implementation of the operations.
    pub backend: String,
    /// What was found.
    pub rows: Vec<Row>,
}

impl Evaluation {
    /// What `settings` found; `computed` is device, precision and backend.
    pub fn new(settings: Measurement, [device, precision, backend]: [String; 3], rows: Vec<Row>) -> Self {
        Self { schema: SCHEMA, task: settings.task().to_owned(), settings, device, precision, backend, rows }
    }

    /// What was found by these very settings, if the file at `path` says so. One that cannot be read, or that another
    /// version wrote, says nothing.
    pub fn kept(path: &Path, settings: &Measurement) -> Option<Self> {
        let kept: Self = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        (kept.schema == SCHEMA && kept.settings == *settings).then_some(kept)
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let text = serde_json::to_string_pretty(self).expect("string keys and plain values");
        write_atomic(path, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Measurement, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_with_their_defaults() {
        let read = |text| read(text).unwrap();
        assert_eq!(read(r#"{"task": "phonebook"}"#), Measurement::Phonebook(PhonebookTask::default()));
        let niah = read(r#"{"task": "niah", "lengths": ["4K", 512], "needles": "4:2:1"}"#);
        let Measurement::Niah(task) = &niah else { panic!("{niah:?}") };
        assert_eq!(task.lengths, [4000, 512]);
        assert_eq!(task.needles, NeedleCounts { keys: 4, asked: 2, values: 1 });
        let recall = read(r#"{"task": "recall", "rows": "2^4"}"#);
        assert_eq!(recall, Measurement::Recall(CorpusRows { rows: 16, ..CorpusRows::default() }));
    }

    #[test]
    fn settings_that_measure_nothing_are_refused() {
        for (text, word) in [
            (r#"{"task": "phonebook", "entries": [2]}"#, "entries"),
            (r#"{"task": "phonebook", "entries": []}"#, "at least one"),
            (r#"{"task": "phonebook", "by": ["length"]}"#, "length is no part of phonebook"),
            (r#"{"task": "phonebook", "by": ["depth", "depth"]}"#, "twice"),
            (r#"{"task": "niah", "by": []}"#, "names nothing"),
            (r#"{"task": "niah", "needles": "2:3:1"}"#, "asked"),
            (r#"{"task": "loss", "rows": 0}"#, "rows"),
        ] {
            let problem = read(text).unwrap().check().unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
        for text in
            [r#"{"task": "poem"}"#, r#"{"task": "loss", "entries": [3]}"#, r#"{"task": "niah", "needles": "1"}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_counts_for_its_own_settings_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eval-phonebook-step-7.json");
        let settings = Measurement::Phonebook(PhonebookTask::default());
        assert_eq!(Evaluation::kept(&path, &settings), None);
        let computed = ["cpu", "fp32", "fused"].map(str::to_owned);
        let found = Evaluation::new(settings.clone(), computed, vec![row([("value", json!(0.5))])]);
        found.write(&path).unwrap();
        assert_eq!(Evaluation::kept(&path, &settings), Some(found));
        let others = PhonebookTask { measurements: 5, ..PhonebookTask::default() };
        assert_eq!(Evaluation::kept(&path, &Measurement::Phonebook(others)), None);
        // What versions without settings wrote.
        std::fs::write(&path, r#"{"task": "phonebook", "rows": []}"#).unwrap();
        assert_eq!(Evaluation::kept(&path, &settings), None);
    }
}
