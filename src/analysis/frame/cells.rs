//! Files of tables to cells of text, with their lines. The only file that names polars.

use super::FrameError;
use super::error::{plain, shown};
use crate::expression::{Expression, TableRow};
use crate::units;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use polars::prelude::{CsvReadOptions, SerReader};
use std::path::{Path, PathBuf};

/// Longest message of a library in an error; it may quote a cell.
const SAID: usize = 200;

/// A row: its one-based line, and a cell for each column.
pub(in crate::analysis) type TextRow = (usize, Vec<Option<String>>);

/// A table whose cells are still text.
pub(in crate::analysis) struct Cells {
    path: PathBuf,
    pub(in crate::analysis) columns: Vec<String>,
    pub(in crate::analysis) rows: Vec<TextRow>,
}

/// What a format gives: columns and rows.
type Parsed = (Vec<String>, Vec<TextRow>);

impl Cells {
    /// Reads the table at `path`.
    pub(in crate::analysis) fn read(path: &Path) -> Result<Self, FrameError> {
        let unknown = |found: String| FrameError::UnknownFormat { path: path.to_owned(), found };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        let parse = match extension.as_str() {
            "csv" => parse_csv,
            "jsonl" => parse_jsonl,
            "parquet" => parse_parquet,
            "" => return Err(unknown("its name has no ending".to_owned())),
            other => return Err(unknown(format!("unknown ending .{other}"))),
        };
        let bytes = std::fs::read(path).map_err(|source| FrameError::Unreadable { path: path.to_owned(), source })?;
        let (columns, rows) =
            parse(&bytes).map_err(|message| FrameError::Malformed { path: path.to_owned(), message })?;
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    /// The place of a column that there may be.
    pub(in crate::analysis) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// The place of a column that there has to be.
    pub(in crate::analysis) fn column(&self, name: &str) -> Result<usize, FrameError> {
        self.find(name).ok_or_else(|| FrameError::MissingColumn {
            path: self.path.clone(),
            column: name.to_owned(),
            columns: self.columns.clone(),
        })
    }

    /// The number in a cell, as far as it is what is `expected`.
    pub(in crate::analysis) fn number(
        &self,
        (line, cells): &TextRow,
        at: usize,
        (expected, accepts): (&'static str, fn(f64) -> bool),
    ) -> Result<f64, FrameError> {
        let text = cells[at].as_deref().unwrap_or("").trim();
        units::parse_quantity(text).filter(|value| accepts(*value)).ok_or_else(|| FrameError::BadCell {
            path: self.path.clone(),
            line: *line,
            column: self.columns[at].clone(),
            value: text.to_owned(),
            expected,
        })
    }

    /// The rows for which a condition holds, if there is one.
    pub(in crate::analysis) fn rows_where(&self, condition: Option<&Expression>) -> Result<Vec<&TextRow>, FrameError> {
        let mut kept = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let scope = scope(&self.columns, &row.1);
            if condition.map_or(Ok(true), |condition| condition.holds(&scope))? {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// The file.
    pub(in crate::analysis) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// What [`Cells::number`] takes for losses and scales.
pub(in crate::analysis) const POSITIVE: (&str, fn(f64) -> bool) =
    ("positive number", |value| value.is_finite() && value > 0.0);

/// What it takes for shares.
pub(in crate::analysis) const SHARE: (&str, fn(f64) -> bool) =
    ("share from 0 to 1", |value| (0.0..=1.0).contains(&value));

/// A row as a condition sees it: numbers where the text is one.
fn scope<'a>(columns: &'a [String], cells: &[Option<String>]) -> TableRow<'a> {
    let value = |cell: &Option<String>| match cell.as_deref() {
        None | Some("") => serde_json::Value::Null,
        Some(text) => units::parse_quantity(text).map_or_else(|| text.into(), |number| serde_json::json!(number)),
    };
    TableRow { columns, values: cells.iter().map(value).collect() }
}

/// Refuses a header that names one column twice: which one is meant cannot be known.
fn names_are_distinct(bytes: &[u8]) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    // What is no CSV is refused with better words below.
    let Ok(header) = reader.byte_headers() else { return Ok(()) };
    let names: Vec<&[u8]> = header.iter().map(<[u8]>::trim_ascii).collect();
    match (1..names.len()).find(|at| names[..*at].contains(&names[*at]) && !names[*at].is_empty()) {
        Some(twice) => {
            Err(format!("column '{}' stands twice in the header", shown(&String::from_utf8_lossy(names[twice]))))
        }
        None => Ok(()),
    }
}

fn parse_csv(bytes: &[u8]) -> Result<Parsed, String> {
    names_are_distinct(bytes)?;
    // Every column as text: a cell that is no number is then reported with its line instead of turning the column.
    let frame = CsvReadOptions::default()
        .with_infer_schema_length(Some(0))
        .into_reader_with_file_handle(std::io::Cursor::new(bytes))
        .finish()
        .map_err(|error| format!("not a CSV table: {}", first_line(&error.to_string())))?;
    let columns: Vec<String> = frame.get_column_names().iter().map(|name| name.trim().to_owned()).collect();
    let cells: Vec<_> = frame
        .columns()
        .iter()
        .map(|column| column.str().map_err(|error| first_line(&error.to_string())))
        .collect::<Result<_, _>>()?;
    // polars gives an empty line as a row of nulls, so that line numbers stay right.
    let rows = (0..frame.height())
        .map(|i| (i + 2, cells.iter().map(|column| column.get(i).map(str::to_owned)).collect::<Vec<_>>()))
        .filter(|(_, cells)| cells.iter().any(|cell| cell.as_deref().is_some_and(|text| !text.is_empty())))
        .collect();
    Ok((columns, rows))
}

/// The first line of a library's message, which may quote bytes of the file.
fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default(), SAID)
}

fn parse_jsonl(bytes: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut columns: Vec<String> = Vec::new();
    let mut objects = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)
            .map_err(|error| format!("line {}, column {}: not a JSON object", i + 1, error.column()))?;
        for key in object.keys() {
            if !columns.contains(key) {
                columns.push(key.clone());
            }
        }
        objects.push((i + 1, object));
    }
    let cell = |value: &serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let rows = objects
        .iter()
        .map(|(line, object)| (*line, columns.iter().map(|key| object.get(key).and_then(cell)).collect()))
        .collect();
    Ok((columns, rows))
}

fn parse_parquet(bytes: &[u8]) -> Result<Parsed, String> {
    let refused = |error: parquet::errors::ParquetError| {
        format!("not a readable Parquet table: {}", first_line(&error.to_string()))
    };
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).map_err(refused)?;
    let columns: Vec<String> =
        reader.metadata().file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut rows = Vec::new();
    for (i, row) in reader.get_row_iter(None).map_err(refused)?.enumerate() {
        let row = row.map_err(refused)?;
        let cells = row.get_column_iter().map(|(_, field)| match field {
            Field::Null => None,
            Field::Str(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        // The line that the row would have in the same table written as CSV.
        rows.push((i + 2, cells.collect()));
    }
    Ok((columns, rows))
}
