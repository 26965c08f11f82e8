//! Tables of results (.csv, .jsonl, .parquet) to typed rows; bad rows are refused by line number, and rows of runs that did not
//! complete are set aside and counted, never dropped in silence.

pub(super) mod cells;
mod error;

pub use error::FrameError;

use crate::expression::Expression;
use cells::{Cells, POSITIVE, SHARE, TextRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The columns to read.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Scales, one for a law of x, two for a law of (n, d).
    pub inputs: Vec<String>,
    /// The loss.
    pub y: String,
    /// Whether `y` is a share from 0 to 1 rather than a loss.
    pub y_is_share: bool,
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
    /// Inputs with a wide gap between two neighbouring values: column, value below and above, line of each.
    pub gaps: Vec<(String, [(f64, usize); 2])>,
    /// A column that seems to split the rows into series although none was asked for, with its values.
    pub series: Option<(String, Vec<String>)>,
}

/// Columns that usually tell series apart.
const SERIES: [&str; 5] = ["architecture", "series", "dataset", "model", "label"];
/// Columns that say how a run ended, and what they say of one that may be used.
const STATUS: [(&str, &str); 2] = [("status", "completed"), ("State", "finished")];
/// Neighbouring values of an input, or groups, further apart than this are in different units.
const LARGEST_GAP: f64 = 1e6;
/// Neighbouring values further apart than this may be.
const WIDE_GAP: f64 = 1e4;

/// Columns that say how a run was computed: where rows differ in them, losses differ by rounding as well.
const COMPUTED_WITH: [&str; 3] = ["device", "precision", "backend"];

impl Table {
    /// Reads the columns of `wanted` from the table at `path`.
    pub fn read(path: &Path, wanted: &Columns) -> Result<Self, FrameError> {
        table(&Cells::read(path)?, wanted)
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

/// A column that says how a run ended, and what it says of a good end.
type Status = Option<(usize, &'static str)>;

fn text(cells: &[Option<String>], at: usize) -> String {
    cells[at].clone().unwrap_or_default()
}

/// The table of these columns.
fn table(cells: &Cells, wanted: &Columns) -> Result<Table, FrameError> {
    let inputs = wanted.inputs.iter().map(|name| cells.column(name)).collect::<Result<Vec<_>, _>>()?;
    let y = cells.column(&wanted.y)?;
    let optional = |name: &Option<String>| name.as_ref().map(|name| cells.column(name)).transpose();
    let (y_se, group, weight) = (optional(&wanted.y_se)?, optional(&wanted.group)?, optional(&wanted.weight)?);
    let (cluster, seed, pair) = (optional(&wanted.cluster)?, optional(&wanted.seed)?, optional(&wanted.pair)?);
    let status: Status = STATUS.iter().find_map(|(name, good)| Some((cells.find(name)?, *good)));
    let kept = cells.rows_where(wanted.condition.as_ref())?;
    let mut table = Table { mixed: mixed(cells, &kept, status), ..Table::default() };
    if wanted.group.is_none() {
        table.series = series(cells, wanted, &kept, &inputs);
    }
    for row in kept {
        let (line, texts) = row;
        let group = group.map(|at| text(texts, at));
        let ended = status.and_then(|(at, good)| texts[at].clone().filter(|status| status != good));
        if let Some(status) = ended {
            table.excluded.push(Excluded { line: *line, group, status });
            continue;
        }
        let number = |at: usize| cells.number(row, at, POSITIVE);
        let kind = if wanted.y_is_share { SHARE } else { POSITIVE };
        let known = |at: &usize| texts[*at].as_deref().is_some_and(|text| !text.is_empty());
        table.rows.push(Row {
            line: *line,
            group,
            inputs: inputs.iter().map(|at| number(*at)).collect::<Result<_, _>>()?,
            y: cells.number(row, y, kind)?,
            y_se: y_se.filter(known).map(number).transpose()?,
            weight: weight.map(number).transpose()?,
            cluster: cluster.map(|at| text(texts, at)),
            seed: seed.map(|at| text(texts, at)),
            pair: pair.map(|at| text(texts, at)),
        });
    }
    if table.rows.is_empty() {
        return Err(FrameError::NoRows { path: cells.path(), excluded: table.excluded.len() });
    }
    check_units(cells, wanted, &mut table)?;
    Ok(table)
}

/// A column that seems to split rows into series: one with a usual name, or one of words that differ where inputs agree.
fn series(cells: &Cells, wanted: &Columns, kept: &[&TextRow], inputs: &[usize]) -> Option<(String, Vec<String>)> {
    let of = |at: usize| (cells.columns[at].clone(), distinct(kept, at));
    let several = |(_, values): &(String, Vec<String>)| (2..=30).contains(&values.len()) && values.len() < kept.len();
    let usual = SERIES.iter().filter_map(|name| cells.find(name)).map(of).find(several);
    let other = || {
        let mut places: HashMap<Vec<&str>, Vec<&TextRow>> = HashMap::new();
        for row in kept {
            let place = inputs.iter().map(|at| row.1[*at].as_deref().unwrap_or("")).collect();
            places.entry(place).or_default().push(row);
        }
        let asked = [&wanted.seed, &wanted.cluster, &wanted.pair];
        let says_something_else = |at: &usize| {
            let name = &cells.columns[*at];
            STATUS.iter().any(|(status, _)| status == name)
                || COMPUTED_WITH.contains(&name.as_str())
                || asked.iter().any(|column| column.as_ref() == Some(name))
        };
        let is_word = |text: &String| !text.is_empty() && crate::units::parse_quantity(text).is_none();
        let differs = |at: usize| {
            let among = |rows: &Vec<&TextRow>| rows.iter().any(|row| row.1[at] != rows[0].1[at]);
            places.values().any(among)
        };
        let of_column = |at: usize| Some(of(at)).filter(|found| several(found) && found.1.iter().all(is_word));
        let mut columns = (0..cells.columns.len()).filter(|at| !says_something_else(at));
        columns.find_map(|at| of_column(at).filter(|_| differs(at)))
    };
    usual.or_else(other)
}

/// Columns that say how runs were computed and in which those that completed differ, with their values.
fn mixed(cells: &Cells, kept: &[&TextRow], status: Status) -> Vec<(&'static str, Vec<String>)> {
    let completed = |row: &&TextRow| status.is_none_or(|(at, good)| row.1[at].as_deref() == Some(good));
    let used: Vec<&TextRow> = kept.iter().copied().filter(completed).collect();
    let columns = COMPUTED_WITH.iter().filter_map(|name| Some((*name, distinct(&used, cells.find(name)?))));
    columns.filter(|(_, values)| values.len() > 1).collect()
}

/// Refuses an input of which one value stands far away from all others, or one group from another; notes wide gaps.
fn check_units(cells: &Cells, wanted: &Columns, table: &mut Table) -> Result<(), FrameError> {
    for (k, column) in wanted.inputs.iter().enumerate() {
        check_groups(cells, column, k, table)?;
        let mut values: Vec<(f64, usize)> = table.rows.iter().map(|row| (row.inputs[k], row.line)).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wide = values.windows(2).find(|pair| pair[1].0 / pair[0].0 > WIDE_GAP);
        table.gaps.extend(wide.map(|pair| (column.clone(), [pair[0], pair[1]])));
        let Some(gap) = values.windows(2).position(|pair| pair[1].0 / pair[0].0 > LARGEST_GAP) else { continue };
        // The smaller side is the odd one out.
        let (odd, neighbour) =
            if gap < values.len() / 2 { (values[gap], values[gap + 1]) } else { (values[gap + 1], values[gap]) };
        return Err(FrameError::Unit {
            path: cells.path(),
            line: odd.1,
            column: column.clone(),
            value: odd.0,
            neighbour: neighbour.0,
            factor: odd.0 / neighbour.0,
        });
    }
    Ok(())
}

/// Refuses groups whose values of an input are out of all proportion to each other.
fn check_groups(cells: &Cells, column: &str, input: usize, table: &Table) -> Result<(), FrameError> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for row in &table.rows {
        let (sum, count) = sums.entry(row.group.as_deref().unwrap_or_default()).or_default();
        *sum += row.inputs[input].ln();
        *count += 1;
    }
    let means = || sums.iter().map(|(group, (sum, count))| (*group, sum / *count as f64));
    let least = means().min_by(|a, b| a.1.total_cmp(&b.1));
    let most = means().max_by(|a, b| a.1.total_cmp(&b.1));
    let (Some((other, least)), Some((group, most))) = (least, most) else { return Ok(()) };
    if most - least <= LARGEST_GAP.ln() {
        return Ok(());
    }
    let (group, other) = (group.to_owned(), other.to_owned());
    Err(FrameError::GroupUnit {
        path: cells.path(),
        column: column.to_owned(),
        group,
        other,
        factor: (most - least).exp(),
    })
}

/// The values of one column.
fn distinct(rows: &[&TextRow], at: usize) -> Vec<String> {
    let values: BTreeSet<String> = rows.iter().map(|(_, cells)| text(cells, at)).collect();
    values.into_iter().collect()
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
    fn a_share_may_be_zero_but_not_above_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let columns =
            Columns { inputs: vec!["window".into()], y: "accuracy".into(), y_is_share: true, ..Columns::default() };
        std::fs::write(&path, "window,accuracy\n32,0\n64,1\n").unwrap();
        let table = Table::read(&path, &columns).unwrap();
        assert_eq!(table.rows.iter().map(|row| row.y).collect::<Vec<_>>(), [0.0, 1.0]);
        std::fs::write(&path, "window,accuracy\n32,0\n64,1.5\n").unwrap();
        let error = Table::read(&path, &columns).unwrap_err().to_string();
        assert!(error.contains("line 3, column 'accuracy': '1.5' is not a share from 0 to 1"), "{error}");
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
