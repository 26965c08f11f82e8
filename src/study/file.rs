//! [`StudyFile`]: a study as written.

use super::StudyError;
use super::figure_file::FigureSection;
use crate::analysis::forms::{FORMS, Form, Input, lookup};
use crate::config::{ConfigError, load};
use crate::data::SyntheticSpec;
use crate::data::pack::PackSpec;
use crate::expression::Expression;
use crate::tasks::measurement::Measurement;
use crate::tasks::phonebook::{EntryRange, TrainingBooks};
use crate::units::{count, optional_quantity, parse_quantity};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A study as written. Paths are relative to where the program is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Its name, and that of its results' folder.
    pub study: String,
    /// What is trained on; the sweep's own data when nothing is said.
    #[serde(default)]
    pub data: DataSection,
    /// The sweep's file; none for a study of tables that exist already.
    pub sweep: Option<PathBuf>,
    /// Tasks that its runs' checkpoints are given.
    #[serde(default)]
    pub evaluations: Vec<EvaluationSection>,
    /// Laws to fit.
    #[serde(default)]
    pub fits: Vec<FitSection>,
    /// Figures of these fits.
    #[serde(default)]
    pub figures: Vec<FigureSection>,
    /// The report.
    #[serde(default)]
    pub report: ReportSection,
}

/// `data`: at most one of `synth`, `pack` and `phonebook`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[serde(default, deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
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

/// One of `evaluations`: a task that checkpoints of every run are given.
#[derive(Clone, Debug, Deserialize)]
pub struct EvaluationSection {
    /// What figures and its table call it.
    pub name: String,
    /// Which checkpoints.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// Sequences at once; changes no result beyond rounding. Default 8.
    #[serde(default = "eight")]
    pub batch: u64,
    /// The task and its settings.
    #[serde(flatten)]
    pub measurement: Measurement,
}

fn eight() -> u64 {
    8
}

/// Which checkpoints of a run are evaluated.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoints {
    /// The last one.
    #[default]
    Last,
    /// Every one that is kept.
    All,
}

/// One of `fits`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitSection {
    /// What figures call it.
    pub name: String,
    /// `power` or `power+floor`.
    pub form: String,
    /// Column of the scale.
    pub x: String,
    /// Column of the loss.
    pub y: String,
    /// Column that splits the rows.
    pub group: Option<String>,
    /// What x is, for people; default the column.
    pub x_label: Option<String>,
    /// The table; default that of the study's runs.
    pub table: Option<PathBuf>,
    /// Rows to take, as `--where` of `fit`.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Compares the groups with each other.
    pub compare: Option<CompareSection>,
}

/// `compare` of one of `fits`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareSection {
    /// Groups, in this order; default all.
    pub groups: Vec<String>,
    /// The group that others are compared with; default the first.
    pub baseline: Option<String>,
    /// Column that says which rows have the same budget; default equal x.
    pub pair: Option<String>,
}

/// `report`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSection {
    /// Heading; default the study's name.
    pub title: Option<String>,
    /// One line on the corpus.
    pub corpus: Option<String>,
}

impl EvaluationSection {
    fn check(&self, study: &StudyFile) -> Result<(), String> {
        if study.sweep.is_none() {
            return Err("without a sweep there are no checkpoints".to_owned());
        }
        if ["runs", "fits"].contains(&self.name.as_str()) {
            return Err(format!("{}.csv is a table of the study itself; use another name", self.name));
        }
        if study.evaluations.iter().filter(|other| other.name == self.name).count() > 1 {
            return Err("two evaluations have this name".to_owned());
        }
        if self.batch == 0 {
            return Err("batch: at least one sequence at a time".to_owned());
        }
        self.measurement.check()
    }
}

impl FitSection {
    /// The form, which [`StudyFile::read`] has checked.
    pub(super) fn law(&self) -> &'static dyn Form {
        lookup(&self.form).expect("checked when the file was read")
    }

    /// What x is, for people.
    pub(super) fn x_label(&self) -> &str {
        self.x_label.as_deref().unwrap_or(&self.x)
    }
}

/// Forms of one scale, which is what a study fits.
fn of_one_scale(form: &dyn Form) -> bool {
    form.inputs() == [Input::X]
}

impl StudyFile {
    /// Reads a study and applies `key=value` assignments.
    pub(super) fn read(path: &Path, assignments: &[&String]) -> Result<Self, StudyError> {
        let mut tree = load::read_tree(path)?;
        let mut study: Self = load::read(path)?;
        if !assignments.is_empty() {
            for assignment in assignments {
                load::set_from_text(&mut tree, assignment)?;
            }
            study = load::from_tree(tree, &path.display().to_string())?;
        }
        study.check(&path.display().to_string())?;
        Ok(study)
    }

    fn check(&self, origin: &str) -> Result<(), StudyError> {
        let refuse = |place: &str, problem: String| Err(ConfigError::misplaced(origin, place, &problem).into());
        let plain = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
        };
        let named = std::iter::once(("study", &self.study))
            .chain(self.evaluations.iter().map(|section| ("evaluations", &section.name)))
            .chain(self.figures.iter().map(|figure| ("figures", &figure.name)));
        for (place, name) in named {
            if !plain(name) {
                return refuse(place, format!("'{name}' becomes a file name: use letters, digits, '-', '_' and '.'"));
            }
        }
        let DataSection { synth, pack, phonebook, .. } = &self.data;
        if [synth.is_some(), pack.is_some(), phonebook.is_some()].iter().filter(|one| **one).count() > 1 {
            return refuse("data", "a corpus is one of synth, pack, phonebook".to_owned());
        }
        for fit in &self.fits {
            if self.sweep.is_none() && fit.table.is_none() {
                return refuse("fits", format!("{}: without a sweep, a fit needs its table", fit.name));
            }
            if let Some(Err(error)) = fit.condition.as_deref().map(Expression::parse) {
                return refuse("fits", format!("{}: where: {error}", fit.name));
            }
            if !lookup(&fit.form).is_some_and(of_one_scale) {
                let known: Vec<&str> =
                    FORMS.iter().filter(|form| of_one_scale(**form)).map(|form| form.name()).collect();
                return refuse("fits", format!("unknown form '{}'; known: {}", fit.form, known.join(", ")));
            }
            if self.fits.iter().filter(|other| other.name == fit.name).count() > 1 {
                return refuse("fits", format!("two fits are called '{}'", fit.name));
            }
        }
        for section in &self.evaluations {
            if let Err(problem) = section.check(self) {
                return refuse("evaluations", format!("{}: {problem}", section.name));
            }
        }
        for figure in &self.figures {
            if let Err(problem) = figure.check(self) {
                return refuse("figures", format!("{}: {problem}", figure.name));
            }
            if self.figures.iter().filter(|other| other.name == figure.name).count() > 1 {
                return refuse("figures", format!("two figures are called '{}'", figure.name));
            }
        }
        Ok(())
    }

    /// The synthetic corpus, where the study has one.
    pub(super) fn synthetic(&self, origin: &str) -> Result<Option<SyntheticSpec>, StudyError> {
        let Some(written) = &self.data.synth else { return Ok(None) };
        let spec = load::from_tree(plain_numbers(written.clone()), &format!("{origin}: data.synth"))?;
        Ok(Some(spec))
    }
}

/// `2M` and `2^21` as the numbers that they stand for.
fn plain_numbers(value: Value) -> Value {
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
    pub(super) fn books(&self) -> TrainingBooks {
        TrainingBooks { documents: self.documents, entries: self.entries.0.clone(), seed: self.seed }
    }

    /// What is to be packed: the texts, which lie in `file`.
    pub(super) fn spec(&self, file: PathBuf, origin: &str) -> Result<PackSpec, StudyError> {
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
    pub(super) fn spec(&self, origin: &str) -> Result<PackSpec, StudyError> {
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
