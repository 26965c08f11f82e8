//! [`StudyFile`]: a study as written.

mod data;
mod evaluation;
mod figure;
mod fit;

pub use data::{DataSection, PackSection, PhonebookSection};
pub use evaluation::{Checkpoints, EvaluationSection};
pub(super) use figure::FigureTable;
pub use figure::{CurvesSection, EvaluationFigure, FigureKind, FigureSection, GridSection, IsoflopSection};
pub use fit::{CompareSection, FitSection};

use super::StudyError;
use crate::config::{ConfigError, load};
use crate::data::SyntheticSpec;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A study as written. Paths are relative to where the program is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
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

/// `report`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
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
            if let Err(problem) = fit.check() {
                return refuse("fits", format!("{}: {problem}", fit.name));
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
        let spec = load::from_tree(data::plain_numbers(written.clone()), &format!("{origin}: data.synth"))?;
        Ok(Some(spec))
    }
}
