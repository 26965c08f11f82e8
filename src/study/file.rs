//! [`StudyFile`]: a study as written.

use super::StudyError;
use crate::analysis::forms::{FORMS, Form, Input, lookup};
use crate::config::{ConfigError, load};
use crate::data::SyntheticSpec;
use crate::data::pack::PackSpec;
use crate::expression::Expression;
use crate::units::{optional_quantity, parse_quantity};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
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

/// One of `figures`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureSection {
    /// Its files' name.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub kind: FigureKind,
    /// The fit whose points and curves it shows; kinds that show a table have none.
    #[serde(default)]
    pub fit: String,
    /// Of an evaluation: where its numbers stand.
    pub evaluation: Option<EvaluationSection>,
    /// Of runs at equal compute: where they stand.
    pub isoflop: Option<IsoflopSection>,
    /// Of a grid of two settings: where its losses stand.
    pub grid: Option<GridSection>,
    /// Of loss curves: where they stand.
    pub curves: Option<CurvesSection>,
    /// Whether a loss figure gets a panel of measured minus fitted loss.
    #[serde(default)]
    pub residuals: bool,
    /// On paper.
    #[serde(default)]
    pub width: PaperWidth,
    /// Heading.
    pub title: Option<String>,
    /// Default the column.
    pub y_label: Option<String>,
    /// One sentence below it in the report.
    pub caption: Option<String>,
}

/// Kinds of figures.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FigureKind {
    /// Losses against x with fitted curves and their bands.
    #[default]
    Loss,
    /// L - C on logarithmic axes, with the interval of C.
    Reducible,
    /// How much worse each fit gets when its floor is held elsewhere.
    Profiles,
    /// Differences of floors and multipliers of x, of a fit that compares its groups.
    Forest,
    /// Shares of successes against a setting.
    Evaluation,
    /// Losses against size at equal compute, with parabolas and the power law of their minima.
    Isoflop,
    /// Losses of a search over two settings, such as learning rate and batch size, as a heat map.
    Grid,
    /// Losses in the course of training.
    Curves,
}

impl FigureKind {
    /// The spelling of kinds that show a table without a fit, and of their section.
    fn of_table(self) -> Option<&'static str> {
        match self {
            Self::Evaluation => Some("evaluation"),
            Self::Isoflop => Some("isoflop"),
            Self::Grid => Some("grid"),
            Self::Curves => Some("curves"),
            Self::Loss | Self::Reducible | Self::Profiles | Self::Forest => None,
        }
    }
}

/// How wide a figure is on paper.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PaperWidth {
    /// The whole width of the text.
    #[default]
    Full,
    /// One of two columns.
    Column,
}

/// `evaluation` of one of `figures`: a table with one row for each series and setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSection {
    /// The table.
    pub table: PathBuf,
    /// Column of the setting, such as a window.
    pub x: String,
    /// What x is, for people.
    pub x_label: Option<String>,
    /// Column of the share of successes.
    pub y: String,
    /// Number of trials behind each share, for its binomial interval.
    pub trials: f64,
    /// Column that splits the rows.
    pub group: String,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Horizontal lines, by what they are: a series without a setting.
    #[serde(default)]
    pub references: BTreeMap<String, f64>,
}

/// `isoflop` of one of `figures`: a table with one row for each run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsoflopSection {
    /// The table.
    pub table: PathBuf,
    /// Column of the size, such as parameters.
    pub n: String,
    /// What a size is, for people; default the column.
    pub n_label: Option<String>,
    /// Column of the training FLOPs; those that agree to three digits are one budget.
    pub flops: String,
    /// Column of the loss.
    pub y: String,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
}

/// `grid` of one of `figures`: a table with one row for each run; of several with equal settings the least loss counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSection {
    /// The table.
    pub table: PathBuf,
    /// Column of the setting that is varied along the rows, such as the learning rate.
    pub x: String,
    /// What x is, for people; default the column.
    pub x_label: Option<String>,
    /// Column of the other setting, such as the batch size.
    pub y: String,
    /// Column of the loss.
    pub loss: String,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
}

/// `curves` of one of `figures`: a table with one row for each run and step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvesSection {
    /// The table.
    pub table: PathBuf,
    /// Column of steps or tokens.
    pub x: String,
    /// What x is, for people; default the column.
    pub x_label: Option<String>,
    /// Column of the loss.
    pub y: String,
    /// Column that tells the runs apart.
    pub run: String,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
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

impl FigureSection {
    /// The table of a figure that shows no fit.
    pub(super) fn table(&self) -> Option<&Path> {
        match self.kind {
            FigureKind::Evaluation => self.evaluation.as_ref().map(|section| section.table.as_path()),
            FigureKind::Isoflop => self.isoflop.as_ref().map(|section| section.table.as_path()),
            FigureKind::Grid => self.grid.as_ref().map(|section| section.table.as_path()),
            FigureKind::Curves => self.curves.as_ref().map(|section| section.table.as_path()),
            FigureKind::Loss | FigureKind::Reducible | FigureKind::Profiles | FigureKind::Forest => None,
        }
    }

    /// Which rows of that table it shows.
    fn condition(&self) -> Option<&str> {
        match self.kind {
            FigureKind::Evaluation => self.evaluation.as_ref()?.condition.as_deref(),
            FigureKind::Isoflop => self.isoflop.as_ref()?.condition.as_deref(),
            FigureKind::Grid => self.grid.as_ref()?.condition.as_deref(),
            FigureKind::Curves => self.curves.as_ref()?.condition.as_deref(),
            FigureKind::Loss | FigureKind::Reducible | FigureKind::Profiles | FigureKind::Forest => None,
        }
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
        for figure in &self.figures {
            let fit = self.fits.iter().find(|fit| fit.name == figure.fit);
            if let Some(kind) = figure.kind.of_table() {
                if figure.table().is_none() {
                    return refuse("figures", format!("{}: kind {kind} needs {kind}: {{...}}", figure.name));
                }
                if let Some(Err(error)) = figure.condition().map(Expression::parse) {
                    return refuse("figures", format!("{}: where: {error}", figure.name));
                }
            } else if fit.is_none() {
                return refuse("figures", format!("{} shows '{}', which is none of fits", figure.name, figure.fit));
            }
            if figure.kind == FigureKind::Forest && fit.is_some_and(|fit| fit.compare.is_none()) {
                let problem = format!("{} shows differences: fit '{}' needs compare: {{}}", figure.name, figure.fit);
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
