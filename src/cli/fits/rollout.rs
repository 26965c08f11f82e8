//! `lossfloor rollout`

use super::input::{ColumnArgs, Unused};
use super::parse_form;
use super::sets::{DataSet, TableArg, applicable, brief, data_sets, print_parts, say_reasons};
use super::sheet::{Format, FormatArgs, Sheet};
use crate::analysis::forms::Form;
use crate::analysis::rollout::{self, Amount, Rollout, Scale, Split};
use crate::analysis::{FitError, FitStatus, Objective, Sample};
use crate::cli::{ExitStatus, exit, output, usage};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

/// The name of rows that are over all data sets.
const OVERALL: &str = "geometric mean";
const COLUMNS: &[&str] = &[
    "data",
    "form",
    "loss",
    "hold_out",
    "step",
    "sets",
    "n",
    "held",
    "decades",
    "error_percent",
    "bias_percent",
    "largest_percent",
    "aicc",
    "status",
    "reason",
];

/// Predict the largest runs from the others, for every form and loss
#[derive(clap::Args, Debug)]
pub struct RolloutArgs {
    /// Tables of results: .csv, .jsonl or .parquet; each group of each is a data set. What is said of one table alone
    /// stands behind its name: gadre.csv:y=loss_c4_val,group=dataset or 'runs.csv:where=d <= u'; of x, n, d, u, y, group,
    /// drop-highest and, last, where
    #[arg(required = true, value_name = "FILE[:OPTION=VALUE,...]")]
    tables: Vec<TableArg>,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Runs to predict, the largest: a share such as 20%, or a count; several to compare
    #[arg(long, value_name = "SHARE|COUNT", value_delimiter = ',', default_value = "20%")]
    hold_out: Vec<Amount>,
    /// Cuts: after the largest runs, predict those below them from the rest, and so on
    #[arg(long, value_name = "K", default_value_t = 1)]
    steps: usize,
    /// What makes a run large: x, n, d or compute (6·N·D); default x, or compute where --x is not given
    #[arg(long, value_name = "SCALE", default_value = "x", hide_default_value = true)]
    by: Scale,
    /// Forms to try; default all whose inputs are named, but over-training, which is tied
    /// in other letters. A form of x takes 6·N·D where --x is not given
    #[arg(long, value_name = "FORM,...", value_delimiter = ',', value_parser = parse_form)]
    forms: Vec<&'static dyn Form>,
    /// Losses to minimise
    #[arg(long, value_name = "LOSS,...", value_delimiter = ',', default_value = "lsq,log-lsq,huber:1e-3")]
    losses: Vec<Objective>,
    #[command(flatten)]
    format: FormatArgs,
}

/// One fit and what it predicts.
struct Cell<'a> {
    data: &'a DataSet,
    form: &'static dyn Form,
    objective: Objective,
    hold_out: Amount,
    /// The place of the split among those of its data set, and the split.
    split: Option<(usize, &'a Split)>,
    outcome: Result<Rollout, String>,
}

impl Cell<'_> {
    /// The errors, of a fit that reached an optimum.
    fn usable(&self) -> Option<&Rollout> {
        self.outcome.as_ref().ok().filter(|rollout| rollout.status != FitStatus::Stuck)
    }

    fn row(&self) -> Vec<Value> {
        let (step, split) = self.split.unzip();
        let (status, reason) = match &self.outcome {
            Ok(rollout) => (rollout.status.name(), None),
            Err(reason) => ("no_fit", Some(reason)),
        };
        let percent = |of: fn(&Rollout) -> f64| self.outcome.as_ref().ok().map(|rollout| 100.0 * of(rollout));
        vec![
            json!(self.data.name),
            json!(self.form.name()),
            json!(self.objective.name()),
            json!(self.hold_out.name()),
            json!(step.map(|step| step + 1)),
            Value::Null,
            json!(split.map(|split| split.fitted.len())),
            json!(split.map(|split| split.held.len())),
            json!(split.map(|split| split.decades)),
            json!(percent(Rollout::mean)),
            json!(percent(Rollout::bias)),
            json!(percent(Rollout::largest)),
            json!(self.outcome.as_ref().ok().and_then(|rollout| rollout.aicc)),
            json!(status),
            json!(reason),
        ]
    }
}

/// One row for each hold-out, form and loss, over all data sets and cuts that have a fit: those over the most come first,
/// as means over fewer compare with no others, and of these the most accurate.
fn overall(cells: &[Cell]) -> Vec<Vec<Value>> {
    let mut keys: Vec<(String, &str, String)> = Vec::new();
    let key = |cell: &Cell| (cell.hold_out.name(), cell.form.name(), cell.objective.name());
    for key in cells.iter().map(key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut rows: Vec<(usize, Reverse<usize>, f64, Vec<Value>)> = Vec::new();
    let mut hold_outs: Vec<String> = Vec::new();
    for (hold_out, form, objective) in keys {
        if !hold_outs.contains(&hold_out) {
            hold_outs.push(hold_out.clone());
        }
        let of_key = cells.iter().filter(|cell| key(cell) == (hold_out.clone(), form, objective.clone()));
        let usable: Vec<(&Rollout, &Split)> = of_key.filter_map(|cell| Some((cell.usable()?, cell.split?.1))).collect();
        if usable.is_empty() {
            continue;
        }
        let decades = usable.iter().map(|(_, split)| split.decades).sum::<f64>() / usable.len() as f64;
        let error = rollout::geometric_mean(&usable.iter().map(|(rollout, _)| rollout.mean()).collect::<Vec<_>>());
        let row = vec![
            json!(OVERALL),
            json!(form),
            json!(objective),
            json!(hold_out),
            Value::Null,
            json!(usable.len()),
            Value::Null,
            json!(usable.iter().map(|(_, split)| split.held.len()).sum::<usize>()),
            json!(decades),
            json!(100.0 * error),
            Value::Null,
            json!(100.0 * usable.iter().map(|(rollout, _)| rollout.largest()).fold(0.0, f64::max)),
            Value::Null,
            Value::Null,
            Value::Null,
        ];
        rows.push((hold_outs.len(), Reverse(usable.len()), error, row));
    }
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
    rows.into_iter().map(|(.., row)| row).collect()
}

/// Runs `lossfloor rollout`.
pub fn run(args: RolloutArgs) -> anyhow::Result<ExitStatus> {
    if args.hold_out.iter().any(|amount| matches!(amount, Amount::Count(0) | Amount::Share(0.0))) || args.steps == 0 {
        return Err(usage("--hold-out and --steps have to be more than nothing"));
    }
    args.columns.without_use("rollout", &[Unused::Seed]);
    let data = data_sets(&args.tables, &args.columns, false)?;
    let forms = applicable(&args.forms, &data)?;
    let scale = |data: &DataSet| data.points.scale(args.by);
    let Some(scales) = data.iter().map(scale).collect::<Option<Vec<Vec<f64>>>>() else {
        return Err(usage("--by needs the column that it orders by: --x, --n or --d, for compute both --n and --d"));
    };
    let splits: Vec<Vec<Vec<Split>>> = scales
        .iter()
        .map(|scale| args.hold_out.iter().map(|amount| rollout::splits(scale, *amount, args.steps)).collect())
        .collect();
    let samples: Vec<Vec<Sample>> =
        data.iter().map(|data| forms.iter().filter_map(|form| data.points.sample(*form)).collect()).collect();

    let mut places = Vec::new();
    for (k, of_data) in splits.iter().enumerate() {
        for (h, of_amount) in of_data.iter().enumerate() {
            // A data set without a split has one row that says so.
            for step in 0..of_amount.len().max(1) {
                for f in 0..forms.len() {
                    places.extend(args.losses.iter().map(|objective| (k, h, step, f, *objective)));
                }
            }
        }
    }
    let cell = |(k, h, step, f, objective): &(usize, usize, usize, usize, Objective)| {
        let split = splits[*k][*h].get(*step);
        let outcome = match split {
            None => Err("all runs are of one size".to_owned()),
            Some(split) => rollout::roll(&samples[*k][*f], split, forms[*f], *objective)
                .map_err(|error: FitError| error.to_string()),
        };
        let split = split.map(|split| (*step, split));
        Cell { data: &data[*k], form: forms[*f], objective: *objective, hold_out: args.hold_out[*h], split, outcome }
    };
    let cells: Vec<Cell> = places.par_iter().map(cell).collect();

    let mut sheet = Sheet::new(COLUMNS);
    sheet.rows.extend(cells.iter().map(Cell::row));
    let several = data.len() > 1 || splits.iter().flatten().any(|splits| splits.len() > 1);
    let means = if several { overall(&cells) } else { Vec::new() };
    say_reasons(cells.iter().filter_map(|cell| cell.outcome.as_ref().err()).map(String::as_str));
    if several && cells.iter().any(|cell| cell.usable().is_none()) {
        output::note(
            "the geometric means are over the cells with a fit that reached an optimum, so many as 'sets' says: means over \
             different numbers of cells are not comparable",
        );
    }
    sheet.rows.extend(means);
    match args.format.chosen() {
        Format::Table => {
            let wide = ["decades", "largest_percent", "reason"];
            let sheet = brief(&sheet, &["hold_out", "step", "sets", "aicc"], &wide);
            let short = sheet.renamed(&[("error_percent", "error %"), ("bias_percent", "bias %"), ("aicc", "AICc")]);
            print_parts(&short, 1)?;
        }
        format => sheet.write(format, Map::new())?,
    }
    if cells.iter().all(|cell| cell.usable().is_none()) {
        return Err(exit(ExitStatus::NoFit, "no form has a fit to the smaller runs"));
    }
    Ok(ExitStatus::Done)
}
