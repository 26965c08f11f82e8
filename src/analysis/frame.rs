//! Tables of results (.csv, .jsonl, .parquet) to typed rows; bad rows are refused by line number, and rows of runs that did not
//! complete are set aside and counted, never dropped in silence. The only file that names polars.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use polars::prelude::{CsvReadOptions, SerReader};

use crate::expression::{Expression, ExpressionError, Scope};
use crate::units;

/// The columns to read.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Scales, one for a law of x, two for a law of (n, d).
    pub inputs: Vec<String>,
    /// The loss.
    pub y: String,
    /// Standard error of the loss; an empty cell means unknown.
    pub y_se: Option<String>,
    /// What splits the rows into series.
    pub group: Option<String>,
    /// How much each row counts.
    pub weight: Option<String>,
    /// Rows with the same text here are drawn together by a bootstrap; of loss curves, it tells the runs apart.
    pub cluster: Option<String>,
    /// What tells repetitions of one configuration apart.
    pub seed: Option<String>,
    /// What rows of different groups have in common that are compared with each other.
    pub pair: Option<String>,
    /// Which rows take part at all.
    pub condition: Option<Expression>,
}

/// One row that takes part. Inputs and loss are positive and finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// One-based line of the file.
    pub line: usize,
    /// The group's name; `None` when no group column was asked for.
    pub group: Option<String>,
    /// Values of [`Columns::inputs`].
    pub inputs: Vec<f64>,
    /// The loss.
    pub y: f64,
    /// Its standard error.
    pub y_se: Option<f64>,
    /// How much it counts.
    pub weight: Option<f64>,
    /// The run it belongs to.
    pub cluster: Option<String>,
    /// What tells repetitions of one configuration apart.
    pub seed: Option<String>,
    /// What rows of different groups have in common that are compared with each other.
    pub pair: Option<String>,
}

/// One row that was set aside because its `status` is not `completed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// One-based line of the file.
    pub line: usize,
    /// The group's name.
    pub group: Option<String>,
    /// What the status column says.
    pub status: String,
}

/// A table of results as far as a fit needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Rows to fit, in the order of the file.
    pub rows: Vec<Row>,
    /// Rows set aside.
    pub excluded: Vec<Excluded>,
    /// Columns that say how a run was computed, and in which the rows to fit differ, with their values.
    pub mixed: Vec<(&'static str, Vec<String>)>,
    /// A column that seems to split the rows into series although none was asked for, with its values.
    pub series: Option<(String, Vec<String>)>,
}

/// Columns that usually tell series apart.
const SERIES: [&str; 5] = ["architecture", "series", "dataset", "model", "label"];
/// Columns that say how a run ended, and what they say of one that may be used.
const STATUS: [(&str, &str); 2] = [("status", "completed"), ("State", "finished")];
/// Neighbouring values of an input further apart than this are in different units.
const LARGEST_GAP: f64 = 1e6;

/// Columns that say how a run was computed: where rows differ in them, losses differ by rounding as well.
const COMPUTED_WITH: [&str; 3] = ["device", "precision", "backend"];

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
    #[error("--where: {0}")]
    Condition(#[from] ExpressionError),
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

/// Longest message of a library in an error; it may quote a cell.
const SAID: usize = 200;

/// The text of a cell in an error: on one line, and not all of it where it is long.
fn shown(text: &str) -> String {
    plain(text, SHOWN)
}

/// At most so many characters of a text, none of them a control character.
fn plain(text: &str, most: usize) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let start: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() { start + "..." } else { start }
}

/// Cells as text, before any column is understood.
struct Raw {
    columns: Vec<String>,
    rows: Vec<(usize, Vec<Option<String>>)>,
}

impl Table {
    /// Reads the columns of `wanted` from the table at `path`.
    pub fn read(path: &Path, wanted: &Columns) -> Result<Self, FrameError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        let parse = match extension.as_str() {
            "csv" => parse_csv,
            "jsonl" => parse_jsonl,
            "parquet" => parse_parquet,
            "" => return Err(unknown(path, "its name has no ending".to_owned())),
            other => return Err(unknown(path, format!("unknown ending .{other}"))),
        };
        let bytes = std::fs::read(path).map_err(|source| FrameError::Unreadable { path: path.to_owned(), source })?;
        let raw = parse(&bytes).map_err(|message| FrameError::Malformed { path: path.to_owned(), message })?;
        Reader { path, raw }.table(wanted)
    }

    /// Takes the rows with the `count` highest losses away and returns them.
    pub fn drop_highest(&mut self, count: usize) -> Vec<Row> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| self.rows[*b].y.total_cmp(&self.rows[*a].y));
        order.truncate(count);
        order.sort_unstable();
        order.into_iter().rev().map(|at| self.rows.remove(at)).collect()
    }

    /// Lines that repeat an earlier one in all that was read, seed and run included, with that line.
    pub fn duplicates(&self) -> Vec<(usize, usize)> {
        let same = |a: &Row, b: &Row| Row { line: 0, ..a.clone() } == Row { line: 0, ..b.clone() };
        let mut seen: HashMap<u64, Vec<&Row>> = HashMap::new();
        let mut out = Vec::new();
        for row in &self.rows {
            let alike = seen.entry(row.y.to_bits()).or_default();
            match alike.iter().find(|first| same(first, row)) {
                Some(first) => out.push((row.line, first.line)),
                None => alike.push(row),
            }
        }
        out
    }

    /// Standard deviation of the logarithm of repeated losses (or of the losses themselves), pooled over rows that agree
    /// in group and inputs, with its degrees of freedom. `None` when nothing is repeated.
    pub fn replicate_sd(&self, log: bool) -> Option<(f64, f64)> {
        let mut sets: HashMap<(Option<&str>, Vec<u64>), Vec<f64>> = HashMap::new();
        for row in self.rows.iter().filter(|row| row.seed.is_some()) {
            let place = row.inputs.iter().map(|x| x.to_bits()).collect();
            let loss = if log { row.y.ln() } else { row.y };
            sets.entry((row.group.as_deref(), place)).or_default().push(loss);
        }
        let (mut squares, mut freedom) = (0.0, 0.0);
        for losses in sets.values().filter(|losses| losses.len() > 1) {
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            squares += losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>();
            freedom += (losses.len() - 1) as f64;
        }
        (freedom > 0.0 && squares > 0.0).then(|| ((squares / freedom).sqrt(), freedom))
    }

    /// The names of the groups in the order of their first row, set-aside rows included.
    pub fn groups(&self) -> Vec<Option<String>> {
        let mut named: Vec<(usize, &Option<String>)> = self.rows.iter().map(|row| (row.line, &row.group)).collect();
        named.extend(self.excluded.iter().map(|row| (row.line, &row.group)));
        named.sort_by_key(|(line, _)| *line);
        let mut out: Vec<Option<String>> = Vec::new();
        for (_, group) in named {
            if !out.contains(group) {
                out.push(group.clone());
            }
        }
        out
    }
}

fn unknown(path: &Path, found: String) -> FrameError {
    FrameError::UnknownFormat { path: path.to_owned(), found }
}

/// A table whose cells are still text.
struct Reader<'a> {
    path: &'a Path,
    raw: Raw,
}

impl Reader<'_> {
    fn table(&self, wanted: &Columns) -> Result<Table, FrameError> {
        let inputs = wanted.inputs.iter().map(|name| self.column(name)).collect::<Result<Vec<_>, _>>()?;
        let y = self.column(&wanted.y)?;
        let y_se = wanted.y_se.as_ref().map(|name| self.column(name)).transpose()?;
        let optional = |name: &Option<String>| name.as_ref().map(|name| self.column(name)).transpose();
        let (group, weight) = (optional(&wanted.group)?, optional(&wanted.weight)?);
        let (cluster, seed, pair) = (optional(&wanted.cluster)?, optional(&wanted.seed)?, optional(&wanted.pair)?);
        let status = STATUS
            .iter()
            .find_map(|(name, good)| Some((self.raw.columns.iter().position(|column| column == name)?, *good)));
        let mut kept = Vec::with_capacity(self.raw.rows.len());
        for row in &self.raw.rows {
            let scope = RowScope::new(&self.raw.columns, &row.1);
            if wanted.condition.as_ref().map_or(Ok(true), |condition| condition.holds(&scope))? {
                kept.push(row);
            }
        }
        let mut table = Table { mixed: self.mixed(&kept, status), ..Table::default() };
        if wanted.group.is_none() {
            let of = |name: &&str| {
                let at = self.raw.columns.iter().position(|column| column == name)?;
                Some(((*name).to_owned(), distinct(&kept, at))).filter(|(_, values)| (2..=30).contains(&values.len()))
            };
            table.series = SERIES.iter().find_map(of);
        }
        for (line, cells) in kept {
            let group = group.map(|at| cells[at].clone().unwrap_or_default());
            let ended = status.and_then(|(at, good)| cells[at].clone().filter(|status| status != good));
            if let Some(status) = ended {
                table.excluded.push(Excluded { line: *line, group, status });
                continue;
            }
            let number = |at: usize| self.positive(*line, at, cells[at].as_deref());
            table.rows.push(Row {
                line: *line,
                group,
                inputs: inputs.iter().map(|at| number(*at)).collect::<Result<_, _>>()?,
                y: number(y)?,
                y_se: y_se
                    .filter(|at| cells[*at].as_deref().is_some_and(|text| !text.is_empty()))
                    .map(number)
                    .transpose()?,
                weight: weight.map(number).transpose()?,
                cluster: cluster.map(|at| cells[at].clone().unwrap_or_default()),
                seed: seed.map(|at| cells[at].clone().unwrap_or_default()),
                pair: pair.map(|at| cells[at].clone().unwrap_or_default()),
            });
        }
        if table.rows.is_empty() {
            return Err(FrameError::NoRows { path: self.path.to_owned(), excluded: table.excluded.len() });
        }
        self.check_units(wanted, &table)?;
        Ok(table)
    }

    fn mixed(
        &self,
        kept: &[&(usize, Vec<Option<String>>)],
        status: Option<(usize, &str)>,
    ) -> Vec<(&'static str, Vec<String>)> {
        let used =
            |row: &&&(usize, Vec<Option<String>>)| status.is_none_or(|(at, good)| row.1[at].as_deref() == Some(good));
        let used: Vec<_> = kept.iter().filter(used).copied().collect();
        let columns = COMPUTED_WITH.iter().filter_map(|name| {
            let at = self.raw.columns.iter().position(|column| column == name)?;
            Some((*name, distinct(&used, at)))
        });
        columns.filter(|(_, values): &(_, Vec<String>)| values.len() > 1).collect()
    }

    /// Refuses an input of which one value stands far away from all others.
    fn check_units(&self, wanted: &Columns, table: &Table) -> Result<(), FrameError> {
        for (k, column) in wanted.inputs.iter().enumerate() {
            let mut values: Vec<(f64, usize)> = table.rows.iter().map(|row| (row.inputs[k], row.line)).collect();
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            let Some(gap) = values.windows(2).position(|pair| pair[1].0 / pair[0].0 > LARGEST_GAP) else { continue };
            // The smaller side is the odd one out.
            let (odd, neighbour) =
                if gap < values.len() / 2 { (values[gap], values[gap + 1]) } else { (values[gap + 1], values[gap]) };
            return Err(FrameError::Unit {
                path: self.path.to_owned(),
                line: odd.1,
                column: column.clone(),
                value: odd.0,
                neighbour: neighbour.0,
                factor: odd.0 / neighbour.0,
            });
        }
        Ok(())
    }

    fn column(&self, name: &str) -> Result<usize, FrameError> {
        self.raw.columns.iter().position(|column| column == name).ok_or_else(|| FrameError::MissingColumn {
            path: self.path.to_owned(),
            column: name.to_owned(),
            columns: self.raw.columns.clone(),
        })
    }

    fn positive(&self, line: usize, at: usize, text: Option<&str>) -> Result<f64, FrameError> {
        let text = text.unwrap_or("").trim();
        units::parse_quantity(text).filter(|value| value.is_finite() && *value > 0.0).ok_or_else(|| {
            FrameError::BadCell {
                path: self.path.to_owned(),
                line,
                column: self.raw.columns[at].clone(),
                value: text.to_owned(),
                expected: "positive number",
            }
        })
    }
}

/// The values of one column.
fn distinct(rows: &[&(usize, Vec<Option<String>>)], at: usize) -> Vec<String> {
    let values: BTreeSet<String> = rows.iter().map(|(_, cells)| cells[at].clone().unwrap_or_default()).collect();
    values.into_iter().collect()
}

/// A row as a condition sees it: numbers where the text is one.
struct RowScope<'a> {
    columns: &'a [String],
    values: Vec<serde_json::Value>,
}

impl<'a> RowScope<'a> {
    fn new(columns: &'a [String], cells: &[Option<String>]) -> Self {
        let value = |cell: &Option<String>| match cell.as_deref() {
            None | Some("") => serde_json::Value::Null,
            Some(text) => units::parse_quantity(text).map_or_else(|| text.into(), |number| serde_json::json!(number)),
        };
        Self { columns, values: cells.iter().map(value).collect() }
    }
}

impl Scope for RowScope<'_> {
    fn value(&self, key: &str) -> Option<&serde_json::Value> {
        self.columns.iter().position(|column| column == key).map(|at| &self.values[at])
    }

    fn knows(&self, key: &str) -> bool {
        self.columns.iter().any(|column| column == key)
    }

    fn keys(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }

    fn unknown(&self) -> (&str, &str) {
        ("there is no column", "see the first line of the table")
    }
}

fn parse_csv(bytes: &[u8]) -> Result<Raw, String> {
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
    Ok(Raw { columns, rows })
}

/// The first line of a library's message, which may quote bytes of the file.
fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default(), SAID)
}

fn parse_jsonl(bytes: &[u8]) -> Result<Raw, String> {
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
    Ok(Raw { columns, rows })
}

fn parse_parquet(bytes: &[u8]) -> Result<Raw, String> {
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
    Ok(Raw { columns, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Table, FrameError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let columns = Columns {
            inputs: vec!["flops".into()],
            y: "loss".into(),
            group: Some("name".into()),
            ..Columns::default()
        };
        Table::read(&path, &columns)
    }

    #[test]
    fn csv_and_jsonl_give_the_same_rows() {
        let csv = read(
            "a.csv",
            "name,flops,loss,status\na,1e18,2.5,completed\nb,2e18,,diverged\nb,2000000T,2.25,completed\n",
        );
        let jsonl = read(
            "a.jsonl",
            "{\"name\":\"a\",\"flops\":1e18,\"loss\":2.5,\"status\":\"completed\"}\n\
             {\"name\":\"b\",\"flops\":2e18,\"loss\":null,\"status\":\"diverged\"}\n\
             {\"name\":\"b\",\"flops\":\"2000000T\",\"loss\":2.25}\n",
        );
        let (csv, jsonl) = (csv.unwrap(), jsonl.unwrap());
        assert_eq!(csv.rows.iter().map(|r| (r.inputs[0], r.y)).collect::<Vec<_>>(), [(1e18, 2.5), (2e18, 2.25)]);
        assert_eq!(csv.excluded, [Excluded { line: 3, group: Some("b".into()), status: "diverged".into() }]);
        assert_eq!(csv.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(jsonl.rows.iter().map(|r| (r.inputs[0], r.y)).collect::<Vec<_>>(), [(1e18, 2.5), (2e18, 2.25)]);
        assert_eq!(csv.groups(), [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn parquet_gives_the_same_rows() {
        use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
        use parquet::file::writer::SerializedFileWriter;
        let schema = "message table { required binary name (UTF8); required int64 flops; optional double loss; \
                      required binary status (UTF8); }";
        let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let strings = |texts: [&str; 3]| texts.map(ByteArray::from);
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&strings(["a", "b", "b"]), None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[10, 20, 30], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[2.5, 2.25], Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let status = strings(["completed", "diverged", "completed"]);
        column.typed::<ByteArrayType>().write_batch(&status, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, bytes).unwrap();
        let columns = Columns {
            inputs: vec!["flops".into()],
            y: "loss".into(),
            group: Some("name".into()),
            ..Columns::default()
        };
        let table = Table::read(&path, &columns).unwrap();
        assert_eq!(table.rows.iter().map(|r| (r.inputs[0], r.y)).collect::<Vec<_>>(), [(10.0, 2.5), (30.0, 2.25)]);
        assert_eq!(table.excluded.len(), 1);
    }

    #[test]
    fn messages_of_libraries_are_short_and_without_control_characters() {
        let unclosed = "flops,loss,name\n1e15,3,a\n1e16,2.9,\"b\"\r\0";
        for end in ["", "\u{1b}[31m", &"x".repeat(3000)] {
            let error = read("t.csv", &format!("{unclosed}{end}")).unwrap_err().to_string();
            assert!(error.contains("not a CSV table") && error.contains("\"b\"\u{fffd}\u{fffd}"), "{error:?}");
            assert!(!error.contains(char::is_control) && error.chars().count() < 400, "{error:?}");
        }
    }

    #[test]
    fn refusals_name_line_column_and_value() {
        for (text, expected) in [
            ("name,flops,loss\na,1,2\na,2,x\n", "line 3, column 'loss': 'x' is not a positive number"),
            ("name,flops,loss\na,1,2\n\na,2,x\n", "line 4, column 'loss': 'x'"),
            ("name,flops,loss\na,-1,2\n", "line 2, column 'flops': '-1'"),
            ("name,flops,loss\na,1,\n", "line 2, column 'loss': ''"),
            ("name,flop,loss\na,1,2\n", "no column 'flops'; hint: did you mean 'flop'?"),
            ("name,zzzz,loss\na,1,2\n", "no column 'flops'; its columns are name, zzzz, loss"),
            ("name,flops,loss\n", "no rows"),
            ("", "not a CSV table"),
        ] {
            let error = read("t.csv", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
        let error = read("t.jsonl", "{\"name\":\"a\"}\n[1]\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        for name in ["t.xlsx", "t"] {
            assert!(read(name, "").unwrap_err().to_string().contains("accepted are .csv, .jsonl and .parquet"));
        }
    }
}
