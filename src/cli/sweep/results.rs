//! `lossfloor sweep results`: one table of every run that has ended, with the keys that set the runs apart; and what a
//! sweep asks for `after` its runs.

use super::manage::SelectArgs;
use super::{failure, out, write_results};
use crate::cli::{ExitStatus, exit, usage};
use crate::files::write_atomic;
use crate::record::RunRecord;
use crate::sweep::file::AfterStep;
use crate::sweep::select::Selection;
use crate::sweep::{SweepFile, SweepPlan, plan};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `lossfloor sweep results`
#[derive(Args, Debug)]
pub struct ResultsArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// csv, json (lines) or parquet; default by the ending of --out, else csv
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file; default standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do what the sweep asks for after its runs; tables go to this folder
    #[arg(long, value_name = "DIR")]
    after: Option<PathBuf>,
}

/// What a table is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Json,
    Parquet,
}

pub(super) fn results(args: &ResultsArgs) -> anyhow::Result<ExitStatus> {
    let (sweep, plan, rows) = args.select.plan()?;
    let runs_dir = &args.select.sweep.runs;
    let columns = Columns::of(&plan, &rows, runs_dir)?;
    if let Some(folder) = &args.after {
        let table = folder.join(format!("{}.csv", plan.name));
        write_results(&plan, runs_dir, &table)?;
        let of = |condition: &Option<String>| {
            let selection = Selection { names: Vec::new(), condition: condition.clone() };
            Columns::of(&plan, &selection.of(&sweep, &plan).map_err(failure)?, runs_dir)
        };
        return follow(&sweep, &of, folder);
    }
    if columns.rows.is_empty() {
        return Err(exit(ExitStatus::Usage, "no run has ended yet, so there are no results"));
    }
    let by_name = args.out.as_ref().and_then(|path| path.extension()?.to_str().map(str::to_owned));
    let format = args.format.unwrap_or(match by_name.as_deref() {
        Some("parquet") => Format::Parquet,
        Some("json" | "jsonl") => Format::Json,
        _ => Format::Csv,
    });
    let bytes = match format {
        Format::Csv => columns.csv()?,
        Format::Json => columns.json_lines(),
        Format::Parquet => columns.parquet()?,
    };
    match &args.out {
        Some(path) => write_atomic(path, &bytes)?,
        None if format == Format::Parquet => return Err(usage("parquet is not for a terminal; hint: --out FILE")),
        None => out::print(String::from_utf8_lossy(&bytes).trim_end())?,
    }
    Ok(ExitStatus::Done)
}

/// A table by columns: the fields of records, then the keys that set runs apart, `variant` and `tag`.
struct Columns {
    names: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Columns {
    fn of(plan: &SweepPlan, rows: &[usize], runs_dir: &Path) -> anyhow::Result<Self> {
        let records = plan::collect(plan, runs_dir).map_err(failure)?;
        let chosen: Vec<_> = rows.iter().map(|&row| &plan.runs[row]).collect();
        let own: BTreeSet<&str> = chosen
            .iter()
            .flat_map(|run| run.point.values.iter().map(|(key, _)| key.as_str()))
            .chain(["variant", "tag"])
            .filter(|key| chosen.iter().any(|run| run.point.flat.contains_key(*key)))
            .collect();
        let mut fields: Vec<String> = Vec::new();
        let mut table = Vec::new();
        for record in records {
            let Some(run) = chosen.iter().find(|run| run.id.0 == record.run_id) else { continue };
            if fields.is_empty() {
                fields = in_order(&record)?;
            }
            let values = serde_json::to_value(&record)?;
            let of_record = fields.iter().map(|name| values[name].clone());
            table.push(of_record.chain(own.iter().map(|key| plain(run.point.flat.get(*key)))).collect());
        }
        fields.extend(own.iter().map(|key| (*key).to_owned()));
        Ok(Self { names: fields, rows: table })
    }

    fn csv(&self) -> anyhow::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.names)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(|value| match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }))?;
        }
        Ok(writer.into_inner()?)
    }

    fn json_lines(&self) -> Vec<u8> {
        let line = |row: &Vec<Value>| {
            let fields: Map<String, Value> = self.names.iter().cloned().zip(row.iter().cloned()).collect();
            format!("{}\n", Value::Object(fields))
        };
        self.rows.iter().map(line).collect::<String>().into_bytes()
    }

    fn parquet(&self) -> anyhow::Result<Vec<u8>> {
        use parquet::basic::{LogicalType, Repetition, Type as Physical};
        use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
        use parquet::file::properties::WriterProperties;
        use parquet::file::writer::SerializedFileWriter;
        use parquet::schema::types::Type;
        use std::sync::Arc;
        let numeric: Vec<bool> = (0..self.names.len())
            .map(|column| self.rows.iter().all(|row| row[column].is_number() || row[column].is_null()))
            .collect();
        let mut fields = Vec::new();
        for (name, numeric) in self.names.iter().zip(&numeric) {
            let kind = if *numeric { Physical::DOUBLE } else { Physical::BYTE_ARRAY };
            let field = Type::primitive_type_builder(name, kind)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type((!numeric).then_some(LogicalType::String));
            fields.push(Arc::new(field.build()?));
        }
        let schema = Arc::new(Type::group_type_builder("results").with_fields(fields).build()?);
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default()))?;
        let mut group = writer.next_row_group()?;
        for (column, numeric) in numeric.iter().enumerate() {
            let mut out = group.next_column()?.context("a writer for each column")?;
            let present: Vec<i16> = self.rows.iter().map(|row| i16::from(!row[column].is_null())).collect();
            if *numeric {
                let values: Vec<f64> = self.rows.iter().filter_map(|row| row[column].as_f64()).collect();
                out.typed::<DoubleType>().write_batch(&values, Some(&present), None)?;
            } else {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let values: Vec<ByteArray> = self
                    .rows
                    .iter()
                    .filter(|row| !row[column].is_null())
                    .map(|row| ByteArray::from(text(&row[column]).into_bytes()))
                    .collect();
                out.typed::<ByteArrayType>().write_batch(&values, Some(&present), None)?;
            }
            out.close()?;
        }
        group.close()?;
        Ok(writer.into_inner()?)
    }
}

/// The fields of a record in the order in which they are declared.
fn in_order(record: &RunRecord) -> anyhow::Result<Vec<String>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(record)?;
    let text = writer.into_inner()?;
    Ok(csv::Reader::from_reader(text.as_slice()).headers()?.iter().map(str::to_owned).collect())
}

/// A value as a table holds it: `2^19` and `100B` are numbers there.
fn plain(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => match crate::units::parse_quantity(text) {
            Some(number) => number.into(),
            None => text.clone().into(),
        },
        Some(value) => value.clone(),
        None => Value::Null,
    }
}

/// Carries out `after`, in its order; a step that fails does not keep the next one from its turn.
fn follow(
    sweep: &SweepFile,
    columns_of: &dyn Fn(&Option<String>) -> anyhow::Result<Columns>,
    folder: &Path,
) -> anyhow::Result<ExitStatus> {
    let full = folder.join(format!("{}-runs.csv", sweep.sweep));
    let columns = columns_of(&None)?;
    if columns.rows.is_empty() {
        return Err(exit(ExitStatus::Usage, "no run has ended, so there is nothing to follow"));
    }
    write_atomic(&full, &columns.csv()?)?;
    out::note(&format!("results: {}", full.display()));
    let mut failed = 0;
    for (index, step) in sweep.after.iter().enumerate() {
        let place = format!("after[{index}]");
        let done = match step {
            AfterStep { fit: Some(name), .. } => columns_of(&step.condition).and_then(|columns| {
                let chosen = folder.join(format!("{}-{name}.csv", sweep.sweep));
                write_atomic(&chosen, &columns.csv()?)?;
                fit(step, &chosen, &chosen.with_extension("json"))
            }),
            AfterStep { table: Some(value), .. } => {
                columns_of(&step.condition).and_then(|columns| pivot(step, value, &columns))
            }
            AfterStep { command: Some(command), .. } => run_command(command, &full),
            _ => Err(failure(sweep.layout(&place, "has none of fit, table and command"))),
        };
        if let Err(error) = done {
            out::note(&format!("error: {place}: {error:#}"));
            failed += 1;
        }
    }
    Ok(if failed == 0 { ExitStatus::Done } else { ExitStatus::Internal })
}

/// Fits through the command that a person would use.
fn fit(step: &AfterStep, table: &Path, out_path: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mut command = std::process::Command::new(program);
    command.arg("fit").arg(table).args(["--form", step.form.as_deref().unwrap_or("power+floor")]);
    command.arg("--x").arg(column(step.x.as_deref().unwrap_or("flops")));
    command.arg("--y").arg(column(step.y.as_deref().unwrap_or("val_loss")));
    if let Some(group) = &step.group_by {
        command.arg("--group").arg(column(group));
    }
    let shown = command.output()?;
    out::print(&String::from_utf8_lossy(&shown.stdout))?;
    let document = command.arg("--json").output()?;
    if !document.status.success() && document.stdout.is_empty() {
        return Err(anyhow::anyhow!("{}", String::from_utf8_lossy(&document.stderr).trim().to_owned()));
    }
    write_atomic(out_path, &document.stdout)?;
    out::note(&format!("fit: {}", out_path.display()));
    Ok(())
}

/// The column that holds a key of the configuration.
fn column(key: &str) -> &str {
    match key {
        "model.arch" => "architecture",
        other => other,
    }
}

/// A table of one value by two keys, mean and spread over the rest.
fn pivot(step: &AfterStep, value: &str, columns: &Columns) -> anyhow::Result<()> {
    let place = |name: &str| {
        let name = column(name);
        columns.names.iter().position(|known| known == name).with_context(|| format!("there is no column '{name}'"))
    };
    let (rows_by, columns_by) = (step.rows.as_deref(), step.columns.as_deref());
    let row_key = place(rows_by.context("a table needs rows: a key")?)?;
    let column_key = place(columns_by.context("a table needs columns: a key")?)?;
    let value_at = place(value)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let distinct = |at: usize| {
        let mut seen: Vec<Value> = Vec::new();
        for row in &columns.rows {
            if !seen.contains(&row[at]) {
                seen.push(row[at].clone());
            }
        }
        seen.sort_by(|a, b| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => text(a).cmp(&text(b)),
        });
        seen
    };
    let (row_values, column_values) = (distinct(row_key), distinct(column_key));
    let header: Vec<String> = std::iter::once(String::new()).chain(column_values.iter().map(text)).collect();
    let mut table = out::table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &row_values {
        let cells = column_values.iter().map(|column| {
            let values: Vec<f64> = columns
                .rows
                .iter()
                .filter(|one| one[row_key] == *row && one[column_key] == *column)
                .filter_map(|one| one[value_at].as_f64())
                .collect();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let spread = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            match values.len() {
                0 => "-".to_owned(),
                1 => format!("{mean:.4}"),
                count => format!("{mean:.4} ± {spread:.4} ({count})"),
            }
        });
        table.add_row(std::iter::once(text(row)).chain(cells));
    }
    out::print(&format!("{value} by {} and {}\n{table}", rows_by.unwrap_or(""), columns_by.unwrap_or("")))
}

fn run_command(command: &[String], table: &Path) -> anyhow::Result<()> {
    let table = table.display().to_string();
    let words: Vec<String> = command.iter().map(|word| word.replace("{results}", &table)).collect();
    let [program, arguments @ ..] = words.as_slice() else { return Err(anyhow::anyhow!("the command is empty")) };
    let status = std::process::Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("cannot start {program}"))?;
    if status.success() { Ok(()) } else { Err(anyhow::anyhow!("{program} ended with {status}")) }
}
