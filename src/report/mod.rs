//! A study's report: from typed results to one Markdown text and one self-contained HTML page with the same content.
//!
//! Nothing here knows how a study runs, and nothing is read or dated here: the same input gives the same bytes.

mod content;
mod html;
mod markdown;
pub mod results;

use std::path::PathBuf;

use crate::analysis::{Fit, FitError, Form, Objective};
use crate::record::RunRecord;

/// Everything a report says.
#[derive(Clone, Debug, Default)]
pub struct ReportInput {
    /// Heading.
    pub title: String,
    /// The study's name.
    pub study: String,
    /// Program and version.
    pub generated_by: String,
    /// Every run, whatever became of it, in any order.
    pub records: Vec<RunRecord>,
    /// Planned runs that left no record.
    pub missing: Vec<MissingRun>,
    /// The fits.
    pub fits: Vec<ReportFit>,
    /// Figures in the order of the report.
    pub figures: Vec<ReportFigure>,
    /// What tasks found of the last checkpoints.
    pub evaluations: Vec<ReportEvaluation>,
    /// Checkpoints that have no result, with the reason.
    pub unmeasured: Vec<String>,
    /// What was trained on.
    pub corpus: Option<CorpusSummary>,
    /// The true floor of the loss that the runs report, in nats per token.
    pub floor: Option<f64>,
    /// How to get each number again.
    pub commands: Vec<RerunCommand>,
}

/// A planned run without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRun {
    /// Its identity.
    pub run_id: String,
    /// Its series.
    pub label: String,
    /// Where it stands: `pending`, `running`, ...
    pub state: String,
}

/// One law fitted to every group.
#[derive(Clone, Debug)]
pub struct ReportFit {
    /// Its name in the study.
    pub name: String,
    /// What the inputs are, such as "x = counted training FLOPs".
    pub inputs: String,
    /// The law.
    pub law: &'static dyn Form,
    /// What was minimised.
    pub objective: Objective,
    /// One fit, or the reason why there is none, for each group.
    pub groups: Vec<GroupResult>,
    /// What a comparison of the groups amounts to.
    pub verdict: Option<String>,
}

/// What the fit of one group gave.
#[derive(Clone, Debug)]
pub struct GroupResult {
    /// The group's name.
    pub group: String,
    /// The fit.
    pub outcome: Result<Fit, FitError>,
}

/// What a task found of the last checkpoint of each run.
#[derive(Clone, Debug, Default)]
pub struct ReportEvaluation {
    /// Its name in the study.
    pub name: String,
    /// The task and its settings.
    pub what: String,
    /// Whether values are shares of right answers; else they are nats.
    pub is_share: bool,
    /// Names of the columns, the first two text.
    pub header: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

/// A figure to show.
#[derive(Clone, Debug)]
pub struct ReportFigure {
    /// One sentence below it.
    pub caption: String,
    /// The SVG file as the Markdown text links to it, relative to the report.
    pub svg_path: PathBuf,
    /// The PNG file likewise.
    pub png_path: Option<PathBuf>,
    /// The SVG document that the HTML page contains.
    pub svg: String,
}

/// The corpus of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct CorpusSummary {
    /// One line.
    pub description: String,
    /// Training tokens available.
    pub train_tokens: u64,
    /// Validation tokens.
    pub validation_tokens: u64,
    /// Different tokens.
    pub vocab_size: u64,
    /// The exact irreducible loss of the validation tokens, in nats per token, where it is known.
    pub floor: Option<f64>,
}

/// A command that gives a number of the report again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerunCommand {
    /// Which number.
    pub what: String,
    /// The command line.
    pub command: String,
}

impl ReportInput {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(&content::blocks(self))
    }

    /// The report as one HTML page that needs no other file.
    pub fn html(&self) -> String {
        html::render(&self.title, &content::blocks(self))
    }
}

#[cfg(test)]
mod tests;
