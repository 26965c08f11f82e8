//! A study's CSV: one row per run, the columns being the fields of `RunRecord` in their order. `results/README.md` is
//! its dictionary.

use std::path::{Path, PathBuf};

use crate::files::{WriteError, write_atomic};
use crate::record::RunRecord;
use serde::Serialize;

/// A study's CSV could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A record could not be turned into a row.
    #[error("cannot turn a record into a row: {0}")]
    Encode(String),
    /// The system refused to read the file.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row is not a record.
    #[error("{} line {line}: {message}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// One-based line.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
}

/// The records by label, architecture, parametrization, depth, tokens, seed and id.
pub fn ordered(records: &[RunRecord]) -> Vec<&RunRecord> {
    let mut out: Vec<&RunRecord> = records.iter().collect();
    out.sort_by(|a, b| {
        let key = |r: &RunRecord| (r.depth, r.tokens, r.seed);
        (&a.label, &a.architecture, &a.parametrization, key(a), &a.run_id).cmp(&(
            &b.label,
            &b.architecture,
            &b.parametrization,
            key(b),
            &b.run_id,
        ))
    });
    out
}

/// The CSV of `records`, ordered; the order they come in does not matter.
pub fn to_csv(records: &[RunRecord]) -> Result<String, ResultsError> {
    csv_of(ordered(records))
}

/// The CSV of rows: structs, whose fields make the header, or lists of cells, of which the first is the header.
pub fn csv_of<R: Serialize>(rows: impl IntoIterator<Item = R>) -> Result<String, ResultsError> {
    let encode = |error: &dyn std::fmt::Display| ResultsError::Encode(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(|error| encode(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| encode(&error))?;
    String::from_utf8(bytes).map_err(|error| encode(&error))
}

/// Writes the CSV of `records` to `path`, whole or not at all.
pub fn write(path: &Path, records: &[RunRecord]) -> Result<(), ResultsError> {
    Ok(write_atomic(path, to_csv(records)?.as_bytes())?)
}

/// Reads a study's CSV.
pub fn read(path: &Path) -> Result<Vec<RunRecord>, ResultsError> {
    let bytes = std::fs::read(path).map_err(|source| ResultsError::Unreadable { path: path.to_owned(), source })?;
    let bad = |line: u64, error: csv::Error| {
        let line = error.position().map_or(line, csv::Position::line);
        ResultsError::BadRow { path: path.to_owned(), line, message: error.to_string() }
    };
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    reader.deserialize().enumerate().map(|(i, row)| row.map_err(|error| bad(i as u64 + 2, error))).collect()
}
