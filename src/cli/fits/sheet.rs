//! Rows of results in the form that was asked for: a table for the terminal, JSON, CSV, Markdown or LaTeX.

use crate::analysis::display;
use crate::cli::output;
use anyhow::Context;
use comfy_table::{CellAlignment, ColumnConstraint, Table, Width};
use serde_json::{Map, Value};

/// `--format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal
    #[default]
    Table,
    /// One JSON document
    Json,
    /// Comma-separated values
    Csv,
    /// A Markdown table
    Markdown,
    /// A LaTeX tabular
    Latex,
}

/// `--format` and its short form.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct FormatArgs {
    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print one JSON document, as --format json
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    /// What was asked for.
    pub fn chosen(self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// Rows with named columns.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// Cells, `Value::Null` for what does not exist.
    pub rows: Vec<Vec<Value>>,
}

impl Sheet {
    /// An empty sheet.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// The rows as JSON objects.
    pub fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Value>| {
            let pairs = self.columns.iter().zip(row).map(|(name, value)| ((*name).to_owned(), value.clone()));
            Value::Object(pairs.collect::<Map<String, Value>>())
        };
        self.rows.iter().map(object).collect()
    }

    /// Writes the rows to stdout. JSON gets the rows with `more` keys beside them.
    pub fn write(&self, format: Format, more: Map<String, Value>) -> anyhow::Result<()> {
        match format {
            Format::Json => {
                let mut document = more;
                document.insert("rows".to_owned(), Value::Array(self.objects()));
                output::json(&document)
            }
            Format::Table => output::print(&self.terminal()),
            Format::Csv => output::print(self.csv()?.trim_end()),
            Format::Markdown => output::print(&self.markdown()),
            Format::Latex => output::print(&self.latex()),
        }
    }

    /// The columns for which `keep` holds, given their place and name.
    pub fn keep(&self, keep: impl Fn(usize, &str) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.columns.len()).filter(|at| keep(*at, self.columns[*at])).collect();
        let pick = |row: &Vec<Value>| kept.iter().map(|at| row[*at].clone()).collect();
        Self { columns: kept.iter().map(|at| self.columns[*at]).collect(), rows: self.rows.iter().map(pick).collect() }
    }

    /// The sheet with other headings of some columns.
    pub fn renamed(mut self, names: &[(&str, &'static str)]) -> Self {
        for column in &mut self.columns {
            *column = names.iter().find(|(old, _)| old == column).map_or(*column, |(_, new)| *new);
        }
        self
    }

    /// The sheet without a column.
    pub fn without(&self, column: &str) -> Self {
        self.keep(|_, name| name != column)
    }

    /// Whether a column says different things, empty cells aside.
    pub fn varies(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]).filter(|cell| !cell.is_null());
        let first = cells.next();
        cells.any(|cell| Some(cell) != first)
    }

    /// Writes the rows; for a terminal with three significant digits, and without those of the `optional` columns in
    /// which there is nothing but zeros.
    pub fn write_short(&self, format: Format, more: Map<String, Value>, optional: &[&str]) -> anyhow::Result<()> {
        if format == Format::Table {
            self.rounded(|_| 3, optional).write(format, more)
        } else {
            self.write(format, more)
        }
    }

    /// Numbers as text with so many significant digits, by the name of their column, without those of the `optional`
    /// columns in which there is nothing but zeros.
    pub fn rounded(&self, digits: impl Fn(&str) -> i32, optional: &[&str]) -> Self {
        let nothing = |row: &Vec<Value>, at: usize| row[at].is_null() || row[at].as_f64() == Some(0.0);
        let empty = |at: usize, name: &str| optional.contains(&name) && self.rows.iter().all(|row| nothing(row, at));
        let mut out = self.keep(|at, name| !empty(at, name));
        for at in 0..out.columns.len() {
            let text = |cell: &Value| match cell.as_f64().filter(|_| !cell.is_u64()) {
                Some(value) => display::significant(value, digits(out.columns[at])),
                None => cell.to_string(),
            };
            if !out.rows.iter().all(|row| row[at].is_null() || row[at].is_number()) {
                continue;
            }
            // Numbers as text are padded, because only numbers are set flush right.
            let width = out.rows.iter().map(|row| text(&row[at]).len()).max().unwrap_or(0);
            for row in out.rows.iter_mut().filter(|row| !row[at].is_null()) {
                row[at] = Value::String(format!("{:>width$}", text(&row[at])));
            }
        }
        out
    }

    fn is_number(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]).filter(|cell| !cell.is_null()).peekable();
        cells.peek().is_some() && cells.all(Value::is_number)
    }

    /// As a table for people, in which no word is broken. Where it would be too wide, columns that say one thing stand
    /// above it.
    fn terminal(&self) -> String {
        let table = output::table(&self.columns);
        let needed: usize = (0..self.columns.len()).map(|at| self.least_width(at)).sum();
        let says_one_thing = |at: usize| self.rows.len() > 1 && !self.varies(at) && !self.rows[0][at].is_null();
        if table.width().is_none_or(|width| needed <= width.into()) || !(0..self.columns.len()).any(says_one_thing) {
            return self.table(table);
        }
        let common = (0..self.columns.len()).filter(|at| says_one_thing(*at));
        let common = common.map(|at| format!("{} {}", self.columns[at], text(&self.rows[0][at]).trim_start()));
        let common = common.collect::<Vec<_>>().join(", ");
        let rest = self.keep(|at, _| !says_one_thing(at));
        format!(" {common}\n\n{}", rest.table(output::table(&rest.columns)))
    }

    fn table(&self, mut table: Table) -> String {
        for row in &self.rows {
            table.add_row(row.iter().map(text));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(self.least_width(at) as u16)));
            if self.is_number(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// The longest word of a column, between two spaces.
    fn least_width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| text(&row[column]));
        let longest = |text: String| text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
        2 + cells.chain([self.columns[column].to_owned()]).map(longest).max().unwrap_or(0)
    }

    fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.columns)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(|cell| match cell {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }))?;
        }
        let bytes = writer.into_inner().context("cannot write CSV")?;
        Ok(String::from_utf8(bytes)?)
    }

    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.columns.iter().map(|name| (*name).to_owned()).collect());
        let rule = (0..self.columns.len()).map(|at| if self.is_number(at) { "---:" } else { "---" }.to_owned());
        out += &line(rule.collect());
        for row in &self.rows {
            out += &line(row.iter().map(|cell| text(cell).replace('|', "\\|")).collect());
        }
        out.trim_end().to_owned()
    }

    fn latex(&self) -> String {
        let escape = |text: &str| {
            let special = |c: char| match c {
                '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
                '~' => "\\textasciitilde{}".to_owned(),
                '^' => "\\textasciicircum{}".to_owned(),
                '\\' => "\\textbackslash{}".to_owned(),
                '±' => "$\\pm$".to_owned(),
                'κ' => "$\\kappa$".to_owned(),
                'Δ' => "$\\Delta$".to_owned(),
                _ => c.to_string(),
            };
            text.chars().map(special).collect::<String>()
        };
        let alignment: String = (0..self.columns.len()).map(|at| if self.is_number(at) { 'r' } else { 'l' }).collect();
        let line = |cells: Vec<String>| cells.join(" & ") + " \\\\\n";
        let mut out = format!("\\begin{{tabular}}{{{alignment}}}\n\\hline\n");
        out += &line(self.columns.iter().map(|name| escape(name)).collect());
        out += "\\hline\n";
        for row in &self.rows {
            out += &line(row.iter().map(|cell| escape(&text(cell))).collect());
        }
        out + "\\hline\n\\end{tabular}"
    }
}

/// A cell for people: five significant digits.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(value)) => display::significant(value, 5),
            (None, None) => number.to_string(),
        },
        other => other.to_string(),
    }
}
