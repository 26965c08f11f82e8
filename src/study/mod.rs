//! A whole study: one file that names data, sweep, fits, figures and a report, and the steps that make them.
//!
//! Each step looks at what it would write and at what that depends on, and does nothing when both are as they were: an
//! interrupted study carries on, a finished one is only read. Corpora and runs know themselves whether they are
//! complete; for the rest `state.json` keeps a hash of what each step was made from.

pub mod drawing;
mod evaluation_figure;
mod evaluations;
mod figures;
mod file;
mod fit_table;
mod law_figures;
mod metrics;
mod outputs;
mod table_figures;
mod tidy;

pub use evaluations::{Evaluated, PendingEvaluation, Unmeasured};
pub use file::{
    Checkpoints, CompareSection, CurvesSection, DataSection, EvaluationFigure, EvaluationSection, FigureKind,
    FigureSection, FitSection, GridSection, IsoflopSection, PackSection, PhonebookSection, ReportSection, StudyFile,
};
pub use tidy::TidyTable;

use crate::analysis::FrameError;
use crate::analysis::compare::CompareError;
use crate::config::ConfigError;
use crate::data::pack::pack;
use crate::data::{CorpusInfo, DataError, Progress, ProgressFn, synthetic};
use crate::files::{ReadError, WriteError};
use crate::plot::PlotError;
use crate::report::results::{self, ResultsError};
use crate::runs::Observer;
use crate::sweep::devices::Machine;
use crate::sweep::{SweepError, SweepFile, SweepPlan, plan};
use crate::tasks::phonebook::TrainingBooks;
use std::path::{Path, PathBuf};

/// Why a study cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The file or a value in it is not what was expected.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The corpus cannot be made.
    #[error("cannot make the corpus: {0}")]
    Data(#[from] DataError),
    /// The sweep cannot be planned.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// The table of runs cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The table of runs cannot be read as a fit needs it.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Groups cannot be compared.
    #[error("fit {fit}: {source}")]
    Compare {
        /// The fit's name.
        fit: String,
        /// Why.
        source: CompareError,
    },
    /// A figure cannot be drawn.
    #[error("figure {name}: {source}")]
    Plot {
        /// Its name.
        name: String,
        /// Why.
        source: PlotError,
    },
    /// A figure would have several values at one place.
    #[error("figure {name}: {problem}")]
    Ambiguous {
        /// Its name.
        name: String,
        /// Where, and what to do.
        problem: String,
    },
    /// One of fits or figures cannot be made.
    #[error("{kind} {name}: {source}")]
    Of {
        /// `fit` or `figure`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: Box<StudyError>,
    },
    /// An output cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An output cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StudyError {
    /// The error of one of fits or figures, unless it names one already.
    fn of(self, kind: &'static str, name: &str) -> Self {
        match self {
            Self::Of { .. } | Self::Compare { .. } | Self::Plot { .. } | Self::Ambiguous { .. } => self,
            source => Self::Of { kind, name: name.to_owned(), source: Box::new(source) },
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Made or remade its outputs.
    Made,
    /// Found them as they have to be.
    Current,
}

/// A study and where its outputs lie.
#[derive(Clone, Debug)]
pub struct Study {
    /// As written.
    pub file: StudyFile,
    /// The file, for messages and for the report.
    pub origin: PathBuf,
    /// Folder of its outputs.
    pub folder: PathBuf,
    /// Folder of all runs.
    pub runs_dir: PathBuf,
    /// `key=value` as given, for the report.
    assignments: Vec<String>,
    /// Those for its sweep, without the prefix.
    sweep_assignments: Vec<String>,
}

impl Study {
    /// Reads a study; `key=value` assignments change it, and with the prefix `sweep.` its sweep (`sweep.seed=2`).
    pub fn read(path: &Path, assignments: &[String], results_dir: &Path, runs_dir: &Path) -> Result<Self, StudyError> {
        let (for_sweep, own): (Vec<&String>, Vec<&String>) = assignments.iter().partition(|a| a.starts_with("sweep."));
        let file = StudyFile::read(path, &own)?;
        Ok(Self {
            folder: results_dir.join(&file.study),
            file,
            origin: path.to_owned(),
            runs_dir: runs_dir.to_owned(),
            assignments: assignments.to_vec(),
            sweep_assignments: for_sweep.iter().map(|a| a.trim_start_matches("sweep.").to_owned()).collect(),
        })
    }

    /// The folder of its corpus, where it says one.
    pub fn corpus_folder(&self) -> Option<PathBuf> {
        let data = &self.file.data;
        match (&data.path, data.synth.is_some() || data.pack.is_some() || data.phonebook.is_some()) {
            (Some(path), _) => Some(path.clone()),
            (None, true) => Some(Path::new("data").join(&self.file.study)),
            (None, false) => None,
        }
    }

    /// Its corpus, once there is one.
    pub fn corpus(&self) -> Result<Option<CorpusInfo>, StudyError> {
        Ok(self.corpus_folder().map(|folder| CorpusInfo::in_folder(&folder)).transpose()?.flatten())
    }

    /// Makes the corpus, or finds it complete.
    pub fn prepare_data(&self, progress: ProgressFn) -> Result<Step, StudyError> {
        let Some(folder) = self.corpus_folder() else { return Ok(Step::Current) };
        let before = CorpusInfo::in_folder(&folder)?;
        let origin = self.origin.display().to_string();
        let now = if let Some(spec) = self.file.synthetic(&origin)? {
            Some(synthetic::generate(&spec, &folder, progress)?)
        } else if let Some(section) = &self.file.data.pack {
            Some(pack(&section.spec(&origin)?, &folder, progress)?.info)
        } else if let Some(section) = &self.file.data.phonebook {
            let texts = write_books(&section.books(), &folder, progress)?;
            Some(pack(&section.spec(texts, &origin)?, &folder, progress)?.info)
        } else {
            before.clone()
        };
        Ok(if before == now { Step::Current } else { Step::Made })
    }

    /// Its sweep, on its corpus; `None` for a study of tables that exist already.
    pub fn plan(&self, machine: &Machine, observer: &Observer) -> Result<Option<(SweepFile, SweepPlan)>, StudyError> {
        let Some(file) = &self.file.sweep else { return Ok(None) };
        let mut assignments = Vec::new();
        if let Some(folder) = self.corpus_folder() {
            for (key, prefix) in [("data.train", "train"), ("data.val", "validation")] {
                let path = folder.join(prefix);
                assignments.push(format!("{key}={}", serde_json::json!(path.to_string_lossy())));
            }
        }
        assignments.extend(self.sweep_assignments.iter().cloned());
        let sweep = SweepFile::read(file, &assignments)?;
        let plan = SweepPlan::new(&sweep, &self.runs_dir, machine, observer)?;
        Ok(Some((sweep, plan)))
    }

    /// The table of its runs.
    pub fn table(&self) -> PathBuf {
        self.folder.join("runs.csv")
    }

    /// The table of the losses of its runs in the course of training.
    fn metrics_table(&self) -> PathBuf {
        self.folder.join("metrics.csv")
    }

    /// Writes the table of every run that has ended.
    pub fn write_runs(&self, plan: &SweepPlan) -> Result<Step, StudyError> {
        let text = results::to_csv(&plan::collect(plan, &self.runs_dir)?)?;
        outputs::write_if_changed(&self.table(), text.as_bytes())
    }

    /// The report that ends it.
    pub fn report_path(&self) -> PathBuf {
        self.folder.join("report.html")
    }
}

/// The file of a corpus' phonebooks, written unless it is there: its name has all that decides them.
fn write_books(books: &TrainingBooks, folder: &Path, progress: ProgressFn) -> Result<PathBuf, DataError> {
    let (fewest, most) = (books.entries.start(), books.entries.end());
    let name = format!("phonebooks-{}-of-{fewest}-{most}-seed-{}.jsonl", books.documents, books.seed);
    let path = folder.join(name);
    if !path.exists() {
        let total = books.documents;
        books.write(&path, &|done| progress(Progress { stage: "writing texts", done, total }))?;
    }
    Ok(path)
}
