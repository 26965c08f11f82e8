//! The data sets that `rollout` and `robustness` try forms on.

use super::input::ColumnArgs;
use super::sheet::{Format, Sheet};
use crate::analysis::forms::{FORMS, Form, Input};
use crate::analysis::rollout::Points;
use crate::cli::{output, usage};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// A table, and what is said of it alone: `FILE[:OPTION=VALUE,...]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TableArg {
    /// The argument as written.
    text: String,
    file: PathBuf,
    /// Options of columns and rows, with their values.
    own: Vec<(String, String)>,
}

/// What may be said of a table alone. A condition may hold commas, so that it comes last.
const OWN: [&str; 8] = ["x", "n", "d", "u", "y", "group", DROP_HIGHEST, CONDITION];
const DROP_HIGHEST: &str = "drop-highest";
const CONDITION: &str = "where";
/// What the names of tables end in.
const ENDINGS: [&str; 3] = [".csv:", ".jsonl:", ".parquet:"];

impl FromStr for TableArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let colon = ENDINGS.iter().filter_map(|ending| Some(text.find(ending)? + ending.len() - 1)).min();
        let (file, mut rest) = colon.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        let mut own: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            let part =
                if rest.trim_start().starts_with(CONDITION) { rest } else { rest.split(',').next().unwrap_or(rest) };
            rest = rest[part.len()..].trim_start_matches(',');
            let pair = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            match pair.filter(|(key, value)| OWN.contains(key) && !value.is_empty()) {
                Some((key, _)) if own.iter().any(|(known, _)| known == key) => {
                    return Err(format!("'{key}' is said twice of {file}"));
                }
                Some((key, value)) => own.push((key.to_owned(), value.to_owned())),
                None => {
                    let known = OWN.join(", ");
                    return Err(format!("'{part}' of {file} is not OPTION=VALUE; the options are {known}"));
                }
            }
        }
        Ok(Self { text: text.to_owned(), file: PathBuf::from(file), own })
    }
}

impl TableArg {
    /// The columns and rows of this table, where `all` is said of every table.
    fn columns(&self, all: &ColumnArgs) -> anyhow::Result<ColumnArgs> {
        let mut columns = all.clone();
        for (key, value) in &self.own {
            match key.as_str() {
                "y" => columns.y.clone_from(value),
                "x" => columns.x = Some(value.clone()),
                "n" => columns.n = Some(value.clone()),
                "d" => columns.d = Some(value.clone()),
                "u" => columns.u = Some(value.clone()),
                "group" => columns.group = Some(value.clone()),
                DROP_HIGHEST => {
                    let file = self.file.display();
                    let refused = |_| usage(format!("{DROP_HIGHEST}={value} of {file} is no count of rows, such as 5"));
                    columns.drop_highest = Some(value.parse::<usize>().map_err(refused)?);
                }
                _ => columns.condition = Some(value.clone()),
            }
        }
        Ok(columns)
    }

    /// What it is called among `all`: the file's name without its ending, where that is enough.
    fn name(&self, all: &[Self]) -> String {
        let stem = |table: &Self| table.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let alone = |same: &dyn Fn(&Self) -> bool| all.iter().filter(|other| same(other)).count() == 1;
        match stem(self) {
            Some(short) if alone(&|other| stem(other).as_ref() == Some(&short)) => short,
            _ if alone(&|other| other.file == self.file) => self.file.display().to_string(),
            _ => self.text.clone(),
        }
    }
}

/// In N and D it is the tied form with other letters, so it is fitted only when it is asked for.
const SAME_AS_TIED: &str = "over-training";

/// The rows of one group of one file.
pub(super) struct DataSet {
    /// File and group, as far as they tell data sets apart.
    pub name: String,
    /// Which of the tables it is of.
    pub table: usize,
    pub group: Option<String>,
    pub points: Points,
}

/// The data sets of some tables, with every input that has a column.
pub(super) fn data_sets(tables: &[TableArg], columns: &ColumnArgs, quiet: bool) -> anyhow::Result<Vec<DataSet>> {
    let mut out: Vec<DataSet> = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let columns = table.columns(columns)?;
        if columns.x.is_none() && (columns.n.is_none() || columns.d.is_none()) {
            return Err(usage("--x, or --n and --d, have to name the columns of the scale"));
        }
        let named = [
            (Input::X, &columns.x),
            (Input::Parameters, &columns.n),
            (Input::Tokens, &columns.d),
            (Input::Unique, &columns.u),
        ];
        let (known, wanted): (Vec<Input>, Vec<String>) =
            named.into_iter().filter_map(|(input, column)| Some((input, column.clone()?))).unzip();
        let source = columns.read(&table.file, wanted)?;
        let of_table = table.name(tables);
        if !quiet {
            let which = if tables.len() > 1 { format!("{of_table}: ") } else { String::new() };
            source.notes().iter().for_each(|note| output::note(&format!("{which}{note}")));
        }
        for group in source.groups().into_iter().filter(|group| !group.rows.is_empty()) {
            let name = match &group.name {
                None => of_table.clone(),
                Some(name) if tables.len() == 1 => name.clone(),
                Some(name) => format!("{of_table}/{name}"),
            };
            let points = Points::new(known.clone(), group.sample());
            out.push(DataSet { name, table: place, group: group.name, points });
        }
    }
    Ok(out)
}

/// The forms asked for, or all that can be fitted to every one of these data sets.
pub(super) fn applicable(asked: &[&'static dyn Form], data: &[DataSet]) -> anyhow::Result<Vec<&'static dyn Form>> {
    let lacking = |form: &'static dyn Form| data.iter().find(|data| data.points.sample(form).is_none());
    let fits = |form: &&'static dyn Form| lacking(*form).is_none();
    if let Some((form, data)) = asked.iter().find_map(|form| Some((form, lacking(*form)?))) {
        let unknown = form.inputs().iter().filter(|input| data.points.input(**input).is_none());
        let options: Vec<&str> = unknown.map(|input| input.option()).collect();
        let needed = options.join(" and ");
        return Err(usage(format!("--forms {} needs {needed} as well, for {}", form.name(), data.name)));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    Ok(FORMS.iter().copied().filter(|form| form.name() != SAME_AS_TIED).filter(fits).collect())
}

/// A sheet for a terminal, without the columns `wide`, nor those of `constant` that say the same in every row.
pub(super) fn brief(sheet: &Sheet, constant: &[&str], wide: &[&str]) -> Sheet {
    sheet.keep(|at, name| !wide.contains(&name) && (!constant.contains(&name) || sheet.varies(at)))
}

/// Prints neighbouring rows that agree in the first `count` columns as one table, below a line of what they agree in.
pub(super) fn print_parts(sheet: &Sheet, count: usize) -> anyhow::Result<()> {
    let parts = sheet.rows.chunk_by(|a, b| a[..count] == b[..count]);
    for (at, rows) in parts.enumerate() {
        let heading: Vec<&str> = rows[0][..count].iter().filter_map(Value::as_str).collect();
        output::print(&format!("{}{}", if at > 0 { "\n" } else { "" }, heading.join(", ")))?;
        let part = Sheet { columns: sheet.columns.clone(), rows: rows.to_vec() };
        part.keep(|at, _| at >= count).write(Format::Table, Map::new())?;
    }
    Ok(())
}

/// Says why fits are missing, each reason once.
pub(super) fn say_reasons<'a>(reasons: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    for (reason, count) in counts {
        output::note(&format!("{count} fit{} left out: {reason}", if count == 1 { "" } else { "s" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> TableArg {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_said_of_one_table_stands_behind_its_name() {
        let arg = table("a:b/c.csv:y=loss_c4, group = dataset,where=d <= u and s in [a, b]");
        assert_eq!(arg.file, PathBuf::from("a:b/c.csv"));
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [own("y", "loss_c4"), own("group", "dataset"), own("where", "d <= u and s in [a, b]")];
        assert_eq!(arg.own, expected);
        assert_eq!(table("plain.jsonl").own, []);
        for (text, expected) in [
            (
                "c.csv:loss=y",
                "'loss=y' of c.csv is not OPTION=VALUE; the options are x, n, d, u, y, group, drop-highest, where",
            ),
            ("c.csv:y=", "'y=' of c.csv is not OPTION=VALUE"),
            ("c.csv:y=a,y=b", "'y' is said twice of c.csv"),
        ] {
            assert!(text.parse::<TableArg>().unwrap_err().starts_with(expected), "{text}");
        }
    }

    #[test]
    fn tables_have_the_shortest_names_that_tell_them_apart() {
        let all = ["a/r.csv", "b/r.csv", "c/s.csv", "t.csv:y=l", "t.csv:y=m"].map(table);
        let names: Vec<String> = all.iter().map(|one| one.name(&all)).collect();
        assert_eq!(names, ["a/r.csv", "b/r.csv", "s", "t.csv:y=l", "t.csv:y=m"]);
    }
}
