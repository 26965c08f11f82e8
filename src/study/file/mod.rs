//! [`StudyFile`]: a study as written.

mod figure;
mod fit;

pub use figure::{
    CurvesSection, EvaluationSection, FigureKind, FigureSection, GridSection, IsoflopSection, PaperWidth,
};
pub use fit::{CompareSection, FitSection};

use super::StudyError;
use crate::config::{ConfigError, load};
use crate::data::SyntheticSpec;
use crate::data::pack::PackSpec;
use crate::units::{optional_quantity, parse_quantity};
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

/// `data`: at most one of `synth` and `pack`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// The corpus' folder; default `data/<study>` where one is made.
    pub path: Option<PathBuf>,
    /// A synthetic corpus: settings of `data synth`.
    pub synth: Option<Value>,
    /// A corpus of text.
    pub pack: Option<PackSection>,
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

/// `report`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSection {
    /// Heading; default the study's name.
    pub title: Option<String>,
    /// One line on the corpus.
    pub corpus: Option<String>,
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
        let named =
            std::iter::once(("study", &self.study)).chain(self.figures.iter().map(|figure| ("figures", &figure.name)));
        for (place, name) in named {
            if !plain(name) {
                return refuse(place, format!("'{name}' becomes a file name: use letters, digits, '-', '_' and '.'"));
            }
        }
        if self.data.synth.is_some() && self.data.pack.is_some() {
            return refuse("data", "a corpus is either synth or pack, not both".to_owned());
        }
        for fit in &self.fits {
            if self.sweep.is_none() && fit.table.is_none() {
                return refuse("fits", format!("{}: without a sweep, a fit needs its table", fit.name));
            }
            if let Err(problem) = fit.check() {
                return refuse("fits", format!("{}: {problem}", fit.name));
            }
            if self.fits.iter().filter(|other| other.name == fit.name).count() > 1 {
                return refuse("fits", format!("two fits are called '{}'", fit.name));
            }
        }
        for figure in &self.figures {
            if let Err(problem) = figure.check(self.fits.iter().find(|fit| fit.name == figure.fit)) {
                return refuse("figures", problem);
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

impl PackSection {
    /// What is to be packed.
    pub(super) fn spec(&self, origin: &str) -> Result<PackSpec, StudyError> {
        let refuse =
            |place: &str, problem: String| ConfigError::misplaced(origin, &format!("data.pack.{place}"), &problem);
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
