//! `figures` of a study as written.

use super::StudyFile;
use crate::analysis::{IntervalMethod, isoflop};
use crate::expression::Expression;
use crate::plot::{Palette, Width};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One of `figures`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
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
    pub evaluation: Option<EvaluationFigure>,
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
    pub width: Width,
    /// Colours or greys.
    #[serde(default)]
    pub palette: Palette,
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
    /// A law of N and D: losses against D with a curve for each range of N, residuals, and the plane of N and D with
    /// lines of equal loss.
    Surface,
    /// The best N and D by compute after a law of N and D, and beside it the optima of runs at equal compute where
    /// `isoflop` names some.
    Allocation,
}

/// What a kind of figure is made from.
enum Source {
    /// One of the study's evaluations, or a table of shares.
    Evaluation,
    /// The section that names a table.
    Table(&'static str),
    /// A fit of one scale.
    OneScale,
    /// A fit of one scale whose law has a floor.
    OneScaleFloor,
    /// Any fit whose law has a floor and a profile.
    Profile,
    /// A fit that compares its groups.
    Comparison,
    /// A fit of N and D that has a best allocation.
    Allocating,
}

impl FigureKind {
    fn shows_a_fit(self) -> bool {
        !matches!(self.source(), Source::Evaluation | Source::Table(_))
    }

    fn source(self) -> Source {
        match self {
            Self::Evaluation => Source::Evaluation,
            Self::Isoflop => Source::Table("isoflop"),
            Self::Grid => Source::Table("grid"),
            Self::Curves => Source::Table("curves"),
            Self::Loss => Source::OneScale,
            Self::Reducible => Source::OneScaleFloor,
            Self::Profiles => Source::Profile,
            Self::Forest => Source::Comparison,
            Self::Surface | Self::Allocation => Source::Allocating,
        }
    }
}

/// `evaluation` of one of `figures`: one of the study's evaluations, or a table with one row for each series and setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct EvaluationFigure {
    /// Which of `evaluations`.
    pub of: Option<String>,
    /// A table instead.
    pub table: Option<PathBuf>,
    /// Column of the setting, such as a window, or of the course of training, such as tokens.
    pub x: String,
    /// What x is, for people.
    pub x_label: Option<String>,
    /// Column of what was measured; default `value`.
    #[serde(default = "value")]
    pub y: String,
    /// Of a table: number of trials behind each share, for its binomial interval. Evaluations have intervals of their own.
    pub trials: Option<f64>,
    /// Column that splits the rows; of an evaluation, none for a single series.
    pub group: Option<String>,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Horizontal lines, by what they are: a series without a setting.
    #[serde(default)]
    pub references: BTreeMap<String, f64>,
}

fn value() -> String {
    "value".to_owned()
}

/// `isoflop` of one of `figures`: a table with one row for each run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct IsoflopSection {
    /// The table; default that of the study's runs.
    pub table: Option<PathBuf>,
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
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct GridSection {
    /// The table; default that of the study's runs.
    pub table: Option<PathBuf>,
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
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct CurvesSection {
    /// The table; default what the study's runs logged.
    pub table: Option<PathBuf>,
    /// Column of steps or tokens.
    pub x: String,
    /// What x is, for people; default the column.
    pub x_label: Option<String>,
    /// Column of the loss.
    pub y: String,
    /// Column that tells the runs apart.
    pub run: String,
    /// Column of what the legend says; runs that agree in it look alike. Default that of the runs.
    pub name: Option<String>,
    /// Rows to take.
    #[serde(rename = "where")]
    pub condition: Option<String>,
}

/// A table that a figure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::study) enum FigureTable<'a> {
    /// One that the study's file names.
    File(&'a Path),
    /// That of the study's runs.
    Runs,
    /// What these runs logged.
    Metrics,
}

impl<'a> FigureTable<'a> {
    fn or(self, named: &'a Option<PathBuf>) -> Self {
        named.as_deref().map_or(self, Self::File)
    }
}

impl FigureSection {
    /// The table that it shows beside or instead of a fit, where it is not one of the study's evaluations.
    pub(in crate::study) fn table(&self) -> Option<FigureTable<'_>> {
        match self.kind {
            FigureKind::Evaluation => self.evaluation.as_ref()?.table.as_deref().map(FigureTable::File),
            FigureKind::Isoflop | FigureKind::Allocation => {
                self.isoflop.as_ref().map(|section| FigureTable::Runs.or(&section.table))
            }
            FigureKind::Grid => self.grid.as_ref().map(|section| FigureTable::Runs.or(&section.table)),
            FigureKind::Curves => self.curves.as_ref().map(|section| FigureTable::Metrics.or(&section.table)),
            FigureKind::Loss
            | FigureKind::Reducible
            | FigureKind::Profiles
            | FigureKind::Forest
            | FigureKind::Surface => None,
        }
    }

    /// The evaluation of the study that it shows.
    pub(in crate::study) fn evaluation(&self) -> Option<&str> {
        self.evaluation.as_ref().filter(|_| self.kind == FigureKind::Evaluation)?.of.as_deref()
    }

    /// Which rows of that it shows.
    fn condition(&self) -> Option<&str> {
        match self.kind {
            FigureKind::Evaluation => self.evaluation.as_ref()?.condition.as_deref(),
            FigureKind::Isoflop | FigureKind::Allocation => self.isoflop.as_ref()?.condition.as_deref(),
            FigureKind::Grid => self.grid.as_ref()?.condition.as_deref(),
            FigureKind::Curves => self.curves.as_ref()?.condition.as_deref(),
            FigureKind::Loss
            | FigureKind::Reducible
            | FigureKind::Profiles
            | FigureKind::Forest
            | FigureKind::Surface => None,
        }
    }

    /// Refuses a figure that shows nothing of `study`: what is wrong with it.
    pub(super) fn check(&self, study: &StudyFile) -> Result<(), String> {
        if let Some(Err(error)) = self.condition().map(Expression::parse) {
            return Err(format!("where: {error}"));
        }
        if study.sweep.is_none() && self.table().is_some_and(|table| !matches!(table, FigureTable::File(_))) {
            return Err("without a sweep, it needs its table".to_owned());
        }
        let sections: [(&str, bool, &[FigureKind]); 6] = [
            ("evaluation", self.evaluation.is_some(), &[FigureKind::Evaluation]),
            ("isoflop", self.isoflop.is_some(), &[FigureKind::Isoflop, FigureKind::Allocation]),
            ("grid", self.grid.is_some(), &[FigureKind::Grid]),
            ("curves", self.curves.is_some(), &[FigureKind::Curves]),
            ("residuals", self.residuals, &[FigureKind::Loss]),
            ("fit", !self.fit.is_empty() && !self.kind.shows_a_fit(), &[]),
        ];
        if let Some((key, ..)) = sections.iter().find(|(_, there, kinds)| *there && !kinds.contains(&self.kind)) {
            return Err(format!("{key} says nothing to this kind of figure; hint: another kind, or without {key}"));
        }
        match self.kind.source() {
            Source::Evaluation => self.check_evaluation(study),
            Source::Table(section) if self.table().is_none() => Err(format!("kind {section} needs {section}: {{...}}")),
            Source::Table(_) => Ok(()),
            source => self.check_fit(&source, study),
        }
    }

    fn check_fit(&self, source: &Source, study: &StudyFile) -> Result<(), String> {
        let Some(fit) = study.fits.iter().find(|fit| fit.name == self.fit) else {
            return Err(format!("shows '{}', which is none of fits", self.fit));
        };
        let form = &fit.form;
        let problem = match source {
            Source::OneScale | Source::OneScaleFloor if !fit.is_of_one_scale() => {
                format!("a form of one scale, which {form} is not")
            }
            Source::Profile if IntervalMethod::Profile.suits(fit.options().objective).is_err() => {
                return Err(format!("its fit '{}' is of lad, which has no profile", self.fit));
            }
            Source::OneScaleFloor | Source::Profile if fit.law().floor_name().is_none() => {
                format!("a form with a floor; {form} has none")
            }
            Source::Allocating if !isoflop::allocates(fit.law()) => {
                format!("a form with a best N and D by compute, such as chinchilla; {form} is none")
            }
            Source::Comparison if fit.compare.is_none() => {
                return Err(format!("shows differences: fit '{}' needs compare: {{}}", self.fit));
            }
            _ => return Ok(()),
        };
        Err(format!("its fit '{}' has to be of {problem}", self.fit))
    }

    fn check_evaluation(&self, study: &StudyFile) -> Result<(), String> {
        let Some(figure) = &self.evaluation else { return Err("kind evaluation needs evaluation: {...}".to_owned()) };
        match (&figure.of, &figure.table) {
            (Some(name), None) if !study.evaluations.iter().any(|section| section.name == *name) => {
                Err(format!("shows '{name}', which is none of evaluations"))
            }
            (Some(_), None) if figure.trials.is_some() => {
                Err("evaluation.trials is for a table: an evaluation has intervals of its own".to_owned())
            }
            (Some(_), None) => Ok(()),
            (None, Some(_)) if figure.trials.is_some_and(|trials| !(trials >= 1.0 && trials.is_finite())) => {
                Err("evaluation.trials: the number of trials behind each share, at least 1".to_owned())
            }
            (None, Some(_)) if figure.trials.is_none() || figure.group.is_none() => {
                Err("evaluation of a table needs trials and group".to_owned())
            }
            (None, Some(_)) => Ok(()),
            _ => Err("evaluation needs either of: NAME or table: FILE".to_owned()),
        }
    }
}
