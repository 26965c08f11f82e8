//! [`TidyTable`]: rows of named values, one observation each.

use crate::analysis::FrameError;
use crate::expression::{Expression, TableRow};
use crate::report::results::{ResultsError, csv_of};
use crate::tasks::measurement::{FOUND, Row};
use serde_json::Value;

/// Rows of named values. Not every row has every column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TidyTable {
    /// In the order that they are written.
    columns: Vec<String>,
    rows: Vec<Row>,
}

impl TidyTable {
    /// A table without rows that begins with these columns.
    pub fn new(first: &[&str]) -> Self {
        Self { columns: first.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds rows. Columns that are new stand behind the others, those that say what was found last of a row's.
    pub fn extend(&mut self, rows: Vec<Row>) {
        for row in &rows {
            let is_found = |key: &&String| FOUND.contains(&key.as_str());
            let varied = row.keys().filter(|key| !is_found(key)).cloned();
            let found = FOUND.iter().filter(|key| row.contains_key(**key)).map(|key| (*key).to_owned());
            for column in varied.chain(found).collect::<Vec<_>>() {
                if !self.columns.contains(&column) {
                    self.columns.push(column);
                }
            }
        }
        self.rows.extend(rows);
    }

    /// Every row.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows that a condition holds for; the error of a condition over columns that are not there.
    pub fn matching(&self, condition: Option<&str>) -> Result<Vec<&Row>, FrameError> {
        let condition = condition.map(Expression::parse).transpose()?;
        let holds = |row: &&Row| match &condition {
            None => Ok(true),
            Some(condition) => {
                let values = self.columns.iter().map(|column| row.get(column).cloned().unwrap_or_default()).collect();
                condition.holds(&TableRow { columns: &self.columns, values })
            }
        };
        let rows = self.rows.iter().map(|row| Ok(holds(&row)?.then_some(row)));
        Ok(rows.collect::<Result<Vec<_>, FrameError>>()?.into_iter().flatten().collect())
    }

    /// Its columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// CSV with a header; a value that a row lacks is an empty cell.
    pub fn to_csv(&self) -> Result<String, ResultsError> {
        let cells = |row: &Row| self.columns.iter().map(|column| shown(row.get(column))).collect::<Vec<String>>();
        csv_of(std::iter::once(self.columns.clone()).chain(self.rows.iter().map(cells)))
    }
}

/// A value as a cell.
pub(super) fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::measurement::row;
    use serde_json::json;

    fn table() -> TidyTable {
        let mut table = TidyTable::new(&["run_id", "tokens"]);
        let first = [("run_id", json!("a")), ("tokens", json!(10)), ("value", json!(0.5)), ("entries", json!(3))];
        let second = [("run_id", json!("b, c")), ("tokens", json!(20)), ("value", json!(0.0)), ("sd", Value::Null)];
        table.extend(vec![row(first), row(second)]);
        table
    }

    #[test]
    fn it_is_written_with_every_column() {
        assert_eq!(table().to_csv().unwrap(), "run_id,tokens,entries,value,sd\na,10,3,0.5,\n\"b, c\",20,,0.0,\n");
    }

    #[test]
    fn conditions_see_every_column() {
        let table = table();
        assert_eq!(table.matching(None).unwrap().len(), 2);
        assert_eq!(table.matching(Some("entries == 3")).unwrap().len(), 1);
        assert_eq!(table.matching(Some("tokens > 5 and value < 0.1")).unwrap()[0]["run_id"], "b, c");
        assert!(table.matching(Some("distance > 3")).unwrap_err().to_string().contains("distance"));
    }
}
