//! Why a table cannot be read, in one line.

use crate::expression::ExpressionError;
use std::path::PathBuf;

/// A table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a kind of table that is known.
    #[error("cannot read {}: {found}; accepted are .csv, .jsonl and .parquet", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What its name ends in.
        found: String,
    },
    /// The text is not a table.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A named column is not there.
    #[error("{}: no column '{}'; {}", path.display(), shown(column), columns_hint(column, columns))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A cell is not what its column needs.
    #[error("{} line {line}, column '{}': '{}' is not a {expected}", path.display(), shown(column), shown(value))]
    BadCell {
        /// The file.
        path: PathBuf,
        /// One-based line.
        line: usize,
        /// The column.
        column: String,
        /// The text found.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A condition over columns is wrong.
    #[error("where: {0}")]
    Condition(#[from] ExpressionError),
    /// A group whose values are out of all proportion to those of another.
    #[error("{}, column '{column}': group '{}' is at {factor:.0e} times the values of group '{}'; hint: are they in the same unit?", path.display(), shown(group), shown(other))]
    GroupUnit {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The group with the larger values.
        group: String,
        /// The one with the smaller ones.
        other: String,
        /// Their ratio, from geometric means.
        factor: f64,
    },
    /// A value that is out of all proportion to the others.
    #[error("{} line {line}, column '{column}': {value:e} is {factor:.0e} times its nearest neighbour {neighbour:e}; hint: are they in the same unit?", path.display())]
    Unit {
        /// The file.
        path: PathBuf,
        /// One-based line.
        line: usize,
        /// The column.
        column: String,
        /// The value.
        value: f64,
        /// The nearest other value.
        neighbour: f64,
        /// Their ratio.
        factor: f64,
    },
    /// Nothing to fit.
    #[error("{}: no rows to use{}", path.display(), if *excluded > 0 { format!(" ({excluded} rows have a status other than 'completed')") } else { String::new() })]
    NoRows {
        /// The file.
        path: PathBuf,
        /// Rows set aside.
        excluded: usize,
    },
}

fn columns_hint(column: &str, columns: &[String]) -> String {
    let nearest =
        columns.iter().max_by(|a, b| strsim::jaro_winkler(column, a).total_cmp(&strsim::jaro_winkler(column, b)));
    match nearest {
        Some(name) if strsim::jaro_winkler(column, name) > 0.8 => format!("hint: did you mean '{}'?", shown(name)),
        _ => format!("its columns are {}", columns.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")),
    }
}

/// Longest text of a cell in an error.
const SHOWN: usize = 60;

/// The text of a cell in an error: on one line, and not all of it where it is long.
pub(super) fn shown(text: &str) -> String {
    plain(text, SHOWN)
}

/// At most so many characters of a text, none of them a control character.
pub(super) fn plain(text: &str, most: usize) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let start: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() { start + "..." } else { start }
}
