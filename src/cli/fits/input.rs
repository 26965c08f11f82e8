//! The table that a command fits, its columns and its rows.

use crate::analysis::forms::{Form, Input};
use crate::analysis::{Columns, Noise, Row, Sample, Table};
use crate::cli::{output, usage};
use crate::expression::Expression;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which columns mean what, and which rows take part.
#[derive(clap::Args, Clone, Debug)]
pub struct ColumnArgs {
    /// Column of the scale, such as FLOPs or tokens
    #[arg(long, value_name = "COL")]
    pub x: Option<String>,
    /// Column of the parameters N
    #[arg(long, value_name = "COL")]
    pub n: Option<String>,
    /// Column of the training tokens D
    #[arg(long, value_name = "COL")]
    pub d: Option<String>,
    /// Column of the distinct training tokens
    #[arg(long, value_name = "COL")]
    pub u: Option<String>,
    /// Column of the loss
    #[arg(long, value_name = "COL")]
    pub y: String,
    /// Column that splits the rows into series
    #[arg(long, value_name = "COL")]
    pub group: Option<String>,
    /// Column of how much a row counts
    #[arg(long, value_name = "COL")]
    pub weight: Option<String>,
    /// Column that tells repetitions with different seeds apart; `fit` takes the noise of one loss from their spread
    #[arg(long, value_name = "COL")]
    pub seed: Option<String>,
    /// Column of the run: a bootstrap of `fit` draws rows of one run together
    #[arg(long, value_name = "COL")]
    pub cluster: Option<String>,
    /// Rows to take, such as "depth >= 8 and architecture in [samba, sambay]"
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Leave out the K rows with the highest losses of the whole table
    #[arg(long, value_name = "K")]
    pub drop_highest: Option<usize>,
}

/// A column that some command does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// An input.
    Input(Input),
    /// That of the seeds.
    Seed,
    /// That of the run.
    Cluster,
}

impl ColumnArgs {
    fn of(&self, input: Input) -> Option<&String> {
        match input {
            Input::X => self.x.as_ref(),
            Input::Parameters => self.n.as_ref(),
            Input::Tokens => self.d.as_ref(),
            Input::Unique => self.u.as_ref(),
        }
    }

    /// Says which of these columns a command was given without having a use for them.
    pub fn without_use(&self, command: &str, columns: &[Unused]) {
        let given = |column: &&Unused| match column {
            Unused::Input(input) => self.of(*input).is_some(),
            Unused::Seed => self.seed.is_some(),
            Unused::Cluster => self.cluster.is_some(),
        };
        let option = |column: &Unused| match column {
            Unused::Input(input) => input.option(),
            Unused::Seed => "--seed",
            Unused::Cluster => "--cluster",
        };
        let options: Vec<&str> = columns.iter().filter(given).map(option).collect();
        if !options.is_empty() {
            output::note(&format!("{command} has no use for {}", options.join(" and ")));
        }
    }

    /// The inputs of which a form makes no use.
    pub fn beyond(form: &dyn Form) -> Vec<Unused> {
        let all = [Input::X, Input::Parameters, Input::Tokens, Input::Unique];
        all.into_iter().filter(|input| !form.inputs().contains(input)).map(Unused::Input).collect()
    }

    /// The columns of a form's inputs, all of them named.
    pub fn inputs(&self, form: &dyn Form) -> anyhow::Result<Vec<String>> {
        let missing: Vec<&str> =
            form.inputs().iter().filter(|input| self.of(**input).is_none()).map(|input| input.option()).collect();
        if !missing.is_empty() {
            return Err(usage(format!("--form {} needs {} as well", form.name(), missing.join(" and "))));
        }
        Ok(form.inputs().iter().filter_map(|input| self.of(*input).cloned()).collect())
    }

    /// Reads a table with these columns as inputs.
    pub fn read(&self, file: &Path, inputs: Vec<String>) -> anyhow::Result<Source> {
        self.read_as(file, Columns { inputs, ..Columns::default() })
    }

    /// Reads a table with these columns as inputs, and a column of standard errors of the loss.
    pub fn read_with_errors(&self, file: &Path, inputs: Vec<String>, y_se: Option<String>) -> anyhow::Result<Source> {
        self.read_as(file, Columns { inputs, y_se, ..Columns::default() })
    }

    /// Reads a table with these columns as inputs, and one that says which rows belong together.
    pub fn read_paired(&self, file: &Path, inputs: Vec<String>, pair: Option<String>) -> anyhow::Result<Source> {
        self.read_as(file, Columns { inputs, pair, ..Columns::default() })
    }

    fn read_as(&self, file: &Path, special: Columns) -> anyhow::Result<Source> {
        let condition = self.condition.as_deref().map(Expression::parse).transpose();
        let columns = Columns {
            y: self.y.clone(),
            group: self.group.clone(),
            weight: self.weight.clone(),
            cluster: self.cluster.clone(),
            seed: self.seed.clone(),
            condition: condition.map_err(|error| usage(format!("--where: {error}")))?,
            ..special
        };
        let mut table = Table::read(file, &columns).map_err(usage)?;
        let hash = std::fs::read(file).map(|bytes| Sha256::digest(&bytes)).unwrap_or_default();
        let dropped = table.drop_highest(self.drop_highest.unwrap_or(0));
        if table.rows.is_empty() {
            return Err(usage(format!("{}: --drop-highest {} leaves no row", file.display(), dropped.len())));
        }
        Ok(Source {
            file: file.to_owned(),
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            columns: columns.inputs,
            y: self.y.clone(),
            dropped,
            table,
        })
    }
}

/// A table that was read.
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Of its bytes.
    pub sha256: String,
    /// Columns of the inputs.
    pub columns: Vec<String>,
    /// Column of the loss.
    pub y: String,
    /// Rows left out by --drop-highest.
    pub dropped: Vec<Row>,
    /// What takes part.
    pub table: Table,
}

/// The rows of one group.
pub struct Group {
    /// Its name; `None` when no column splits the rows.
    pub name: Option<String>,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Rows set aside, by status.
    pub excluded: BTreeMap<String, usize>,
}

impl Group {
    /// For messages.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or("all")
    }

    /// What was set aside of it, and how often.
    fn set_aside(&self) -> Vec<String> {
        let note = |(status, count): (&String, &usize)| {
            format!("{}: {count} {status} row{} left out", self.label(), if *count == 1 { "" } else { "s" })
        };
        self.excluded.iter().map(note).collect()
    }

    /// What is fitted.
    pub fn sample(&self) -> Sample {
        Sample::of_rows(&self.rows)
    }
}

impl Source {
    /// The rows of each group.
    pub fn groups(&self) -> Vec<Group> {
        let of = |name: Option<String>| {
            let mut excluded = BTreeMap::new();
            for row in self.table.excluded.iter().filter(|row| row.group == name) {
                *excluded.entry(row.status.clone()).or_insert(0) += 1;
            }
            Group { rows: self.table.rows.iter().filter(|row| row.group == name).cloned().collect(), name, excluded }
        };
        self.table.groups().into_iter().map(of).collect()
    }

    /// The noise of one loss (of its logarithm where `log`) from rows that repeat others with another seed, and says it;
    /// `None` when none do.
    pub fn seed_noise(&self, log: bool) -> Option<Noise> {
        let (sd, freedom) = self.table.replicate_sd(log)?;
        output::note(&format!("noise of one loss from repeated seeds: {sd:.2e} ({freedom} degrees of freedom)"));
        Some(Noise::Known { sd, freedom: Some(freedom) })
    }

    /// What a JSON document says of the data.
    pub fn provenance(&self) -> Value {
        json!({
            "file": self.file.display().to_string(), "sha256": self.sha256, "rows": self.table.rows.len(),
            "x": self.columns, "y": self.y,
            "dropped_lines": self.dropped.iter().map(|row| row.line).collect::<Vec<_>>(),
        })
    }

    /// What has to be said about the table itself.
    pub fn notes(&self) -> Vec<String> {
        let mut out: Vec<String> = self
            .table
            .mixed
            .iter()
            .map(|(column, values)| {
                format!("rows differ in {column} ({}): their losses differ by rounding, too", values.join(", "))
            })
            .collect();
        if !self.dropped.is_empty() {
            let lines: Vec<String> = self.dropped.iter().map(|row| format!("{} ({:.4})", row.line, row.y)).collect();
            out.push(format!("left out as the highest losses: line {}", lines.join(", ")));
        }
        out.extend(self.groups().iter().flat_map(Group::set_aside));
        for (column, [(below, first), (above, line)]) in &self.table.gaps {
            out.push(format!(
                "{column}: nothing between {below:e} (line {first}) and {above:e} (line {line}); check that both are in one unit"
            ));
        }
        for (line, first) in self.table.duplicates() {
            out.push(format!("line {line} says the same as line {first}; both count"));
        }
        if let Some((column, values)) = &self.table.series {
            let values = if values.len() > 6 { format!("{} values", values.len()) } else { values.join(", ") };
            out.push(format!("rows differ in {column} ({values}); hint: --group {column} fits each by itself"));
        }
        out
    }

    /// Says on stderr what has to be said about the table.
    pub fn say(&self) {
        self.notes().iter().for_each(|note| output::note(note));
    }
}
