//! `lossfloor robustness`

use super::input::{ColumnArgs, Unused};
use super::sets::{DataSet, TableArg, applicable, brief, data_sets, print_parts, say_reasons};
use super::sheet::{Format, FormatArgs, Sheet};
use super::{parse_form, parse_pairs};
use crate::analysis::forms::{Form, Input};
use crate::analysis::robustness::{self, Choice, Outcome, Spread};
use crate::analysis::rollout::{Amount, Points, Scale, levels};
use crate::analysis::{FitError, FitStatus, Objective, Sample};
use crate::cli::{ExitStatus, exit, output, usage};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// With more scales than this in a data set, the windows are shares of the points.
const MANY_SCALES: usize = 20;
const COLUMNS: &[&str] = &[
    "data",
    "form",
    "loss",
    "counting",
    "drop",
    "window",
    "n",
    "status",
    "floor",
    "floor_low",
    "floor_high",
    "floor_interval",
    "a_opt",
    "prediction",
    "reason",
];

/// Fit every combination of form, loss, outlier cut, counting and window, and state what they agree on
#[derive(clap::Args, Debug)]
pub struct RobustnessArgs {
    /// Tables of results: .csv, .jsonl or .parquet; each group of each is a data set. What is said of one table alone
    /// stands behind its name: gadre.csv:y=loss_c4_val,group=dataset or 'runs.csv:where=d <= u'; of x, n, d, u, y, group,
    /// drop-highest and, last, where.
    /// --x, --n and --d may name several columns, as in --x flops,flops_with_embedding: ways of counting, each tried
    #[arg(required = true, value_name = "FILE[:OPTION=VALUE,...]")]
    tables: Vec<TableArg>,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Forms to try; default all whose inputs are named, but broken and over-training. A form of x takes 6·N·D
    /// where --x is not given
    #[arg(long, value_name = "FORM,...", value_delimiter = ',', value_parser = parse_form)]
    forms: Vec<&'static dyn Form>,
    /// Losses to minimise
    #[arg(
        long,
        value_name = "LOSS,...",
        value_delimiter = ',',
        default_value = "lsq,log-lsq,huber:1e-2,huber:1e-3,lad"
    )]
    losses: Vec<Objective>,
    /// How many of the highest losses to leave out; never more than a fifth of the rows
    #[arg(long, value_name = "K,...", value_delimiter = ',', default_value = "0,1,2,5,10")]
    drops: Vec<usize>,
    /// How many of the smallest scales to leave out, or what share of the rows; default 0,1,2, of more than 20 scales
    /// 0,10%,20%
    #[arg(long, value_name = "K|SHARE,...", value_delimiter = ',')]
    windows: Vec<Amount>,
    /// Where to state the loss, such as x=1e24 or n=7e10,d=1.4e12; default one decade beyond the largest run
    #[arg(long, value_name = "INPUT=VALUE,...", value_parser = parse_pairs)]
    at: Vec<Vec<(String, f64)>>,
    /// The two groups whose difference is judged; default both where there are two
    #[arg(long, value_name = "A,B", requires = "group")]
    compare: Option<String>,
    /// Without the intervals of the floors, which take most of the time
    #[arg(long)]
    no_intervals: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// One way of counting: the columns it takes, and the data sets with these.
struct Counting {
    name: String,
    data: Vec<DataSet>,
    at: Points,
}

/// Every combination of the columns that were named, in which a column stands for each option.
fn countings(columns: &ColumnArgs) -> Vec<(String, ColumnArgs)> {
    let parts = |column: &Option<String>| match column {
        Some(names) => names.split(',').map(|name| Some(name.trim().to_owned())).collect(),
        None => vec![None],
    };
    let mut out = Vec::new();
    for x in parts(&columns.x) {
        for n in parts(&columns.n) {
            for d in parts(&columns.d) {
                let named = [&x, &n, &d].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
                out.push((named, ColumnArgs { x: x.clone(), n: n.clone(), d: d.clone(), ..columns.clone() }));
            }
        }
    }
    out
}

/// One fit of one data set.
struct Cell<'a> {
    data: &'a DataSet,
    counting: &'a str,
    choice: Choice,
    outcome: Result<Outcome, FitError>,
}

impl Cell<'_> {
    /// What it gives, if it reached an optimum.
    fn usable(&self) -> Option<&Outcome> {
        self.outcome.as_ref().ok().filter(|outcome| outcome.status != FitStatus::Stuck)
    }

    fn row(&self) -> Vec<Value> {
        let outcome = self.outcome.as_ref().ok();
        let interval = outcome.and_then(|outcome| outcome.floor_interval);
        let n = || robustness::kept(&self.data.points, self.choice.drop, self.choice.window).len();
        vec![
            json!(self.data.name),
            json!(self.choice.form.name()),
            json!(self.choice.objective.name()),
            json!(self.counting),
            json!(self.choice.drop),
            json!(self.choice.window.name()),
            json!(outcome.map_or_else(n, |outcome| outcome.n)),
            json!(outcome.map_or("no_fit", |outcome| outcome.status.name())),
            json!(outcome.and_then(|outcome| outcome.floor)),
            json!(interval.and_then(|interval| interval.lo)),
            json!(interval.and_then(|interval| interval.hi)),
            json!(interval.map(|_| "profile")),
            json!(outcome.and_then(|outcome| outcome.a_opt)),
            json!(outcome.and_then(|outcome| outcome.prediction)),
            json!(self.outcome.as_ref().err().map(FitError::to_string)),
        ]
    }
}

/// A number that every fit gives.
type Quantity = (&'static str, fn(&Outcome) -> Option<f64>);

const QUANTITIES: [Quantity; 3] = [
    ("floor", |outcome| outcome.floor),
    ("a_opt", |outcome| outcome.a_opt),
    ("prediction", |outcome| outcome.prediction),
];

/// The spread of each number over the fits of each data set, then that of the differences of two groups, choice by
/// choice.
fn summary(data: &[DataSet], cells: &[Cell], compare: Option<&(String, String)>) -> Sheet {
    let mut sheet = Sheet::new(&["data", "quantity", "fits", "least", "median", "most", "same_sign"]);
    let mut add = |name: &str, quantity: &str, values: Vec<f64>, signs: bool| {
        let Some(spread) = Spread::of(values) else { return };
        sheet.rows.push(vec![
            json!(name),
            json!(quantity),
            json!(spread.count),
            json!(spread.least),
            json!(spread.median),
            json!(spread.most),
            json!(spread.same_sign.filter(|_| signs)),
        ]);
    };
    for data in data {
        for (name, of) in QUANTITIES {
            let of_data = cells.iter().filter(|cell| cell.data.name == data.name);
            add(&data.name, name, of_data.filter_map(|cell| of(cell.usable()?)).collect(), false);
        }
    }
    let Some((a, b)) = compare else { return sheet };
    let in_group = |cell: &&Cell, name: &String| cell.data.group.as_ref() == Some(name);
    for (name, of) in QUANTITIES {
        let difference = |cell: &Cell| {
            let same = |other: &&Cell| {
                in_group(other, b)
                    && other.data.table == cell.data.table
                    && other.counting == cell.counting
                    && other.choice == cell.choice
            };
            let other = cells.iter().find(same)?;
            Some(of(cell.usable()?)? - of(other.usable()?)?)
        };
        let differences = cells.iter().filter(|cell| in_group(cell, a)).filter_map(difference).collect();
        add(&format!("{a} - {b}"), name, differences, true);
    }
    sheet
}

/// The groups of `--compare`, or the only two.
fn compared(asked: Option<&str>, data: &[DataSet]) -> anyhow::Result<Option<(String, String)>> {
    let mut groups: Vec<&String> = Vec::new();
    for group in data.iter().filter_map(|data| data.group.as_ref()) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let Some(asked) = asked else {
        return Ok(match groups[..] {
            [a, b] => Some((a.clone(), b.clone())),
            _ => None,
        });
    };
    // A group's name may hold a comma.
    let pair =
        asked.match_indices(',').map(|(at, _)| (asked[..at].trim().to_owned(), asked[at + 1..].trim().to_owned()));
    let found = pair.into_iter().find(|(a, b)| a != b && groups.contains(&a) && groups.contains(&b));
    found.map(Some).ok_or_else(|| {
        let names: Vec<&str> = groups.iter().map(|name| name.as_str()).collect();
        usage(format!("--compare '{asked}' is not two of the groups {}", names.join(", ")))
    })
}

/// The point of `--at`.
fn point(pairs: &[(String, f64)]) -> anyhow::Result<Points> {
    let mut known = Vec::new();
    for (name, value) in pairs {
        let input = [Input::X, Input::Parameters, Input::Tokens, Input::Unique]
            .into_iter()
            .find(|input| input.letter() == name)
            .filter(|_| *value > 0.0 && value.is_finite());
        known.push(input.ok_or_else(|| usage(format!("--at {name}={value}: positive values of x, n, d or u")))?);
    }
    let columns = pairs.iter().map(|(_, value)| vec![*value]).collect();
    Ok(Points::new(known, Sample::new(columns, vec![1.0])))
}

/// The inputs of one point.
fn inputs(point: &Points) -> Vec<(&'static str, f64)> {
    let input = |input: Input| Some((input.letter(), point.input(input)?[0]));
    [Input::X, Input::Parameters, Input::Tokens, Input::Unique].into_iter().filter_map(input).collect()
}

impl RobustnessArgs {
    fn read(&self) -> anyhow::Result<Vec<Counting>> {
        let mut out: Vec<Counting> = Vec::new();
        for (name, columns) in countings(&self.columns) {
            let data = data_sets(&self.tables, &columns, !out.is_empty())?;
            let at = match &self.at[..] {
                [] => robustness::beyond(data.iter().map(|data| &data.points)),
                pairs => {
                    let pairs = pairs.concat();
                    if let Some(x) = columns.x.filter(|_| !pairs.iter().any(|(name, _)| name == Input::X.letter())) {
                        output::note(&format!(
                            "--at: {x} of the point is taken to be 6·N·D; hint: x=... says what it is"
                        ));
                    }
                    Some(point(&pairs)?)
                }
            };
            out.push(Counting { name, data, at: at.ok_or_else(|| usage("no rows to use"))? });
        }
        if out.len() > 1 && !self.at.is_empty() {
            output::note("--at names one number, which is another run in each way of counting");
        }
        Ok(out)
    }

    fn windows(&self, countings: &[Counting]) -> Vec<Amount> {
        if !self.windows.is_empty() {
            return self.windows.clone();
        }
        let scales = |data: &DataSet| data.points.scale(Scale::X).map_or(0, |scale| levels(&scale).len());
        let many = countings.iter().flat_map(|counting| &counting.data).any(|data| scales(data) > MANY_SCALES);
        if many {
            vec![Amount::Share(0.0), Amount::Share(0.1), Amount::Share(0.2)]
        } else {
            vec![Amount::Count(0), Amount::Count(1), Amount::Count(2)]
        }
    }

    fn choices(&self, data: &DataSet, windows: &[Amount]) -> anyhow::Result<Vec<Choice>> {
        // Six parameters with a free break follow any choice, and the search for them takes longest.
        let usual = |form: &&'static dyn Form| !self.forms.is_empty() || form.name() != "broken";
        let mut out = Vec::new();
        for form in applicable(&self.forms, std::slice::from_ref(data))?.into_iter().filter(usual) {
            for objective in &self.losses {
                // What leaves the same rows is one fit, however it is called.
                let mut seen = HashSet::new();
                for drop in self.drops.iter().filter(|drop| robustness::may_drop(&data.points, **drop)) {
                    let fresh = |window: &&Amount| seen.insert(robustness::kept(&data.points, *drop, **window));
                    let of_window =
                        |window: &Amount| Choice { form, objective: *objective, drop: *drop, window: *window };
                    out.extend(windows.iter().filter(fresh).map(of_window));
                }
            }
        }
        Ok(out)
    }
}

/// Runs `lossfloor robustness`.
pub fn run(args: RobustnessArgs) -> anyhow::Result<ExitStatus> {
    args.columns.without_use("robustness", &[Unused::Seed]);
    let countings = args.read()?;
    let compare = compared(args.compare.as_deref(), &countings[0].data)?;
    let windows = args.windows(&countings);
    let mut places: Vec<(&Counting, &DataSet, Choice)> = Vec::new();
    for counting in &countings {
        for data in &counting.data {
            let choices = args.choices(data, &windows)?;
            places.extend(choices.into_iter().map(|choice| (counting, data, choice)));
        }
    }
    let evaluated = places.into_par_iter().filter_map(|(counting, data, choice)| {
        let outcome = robustness::evaluate(&data.points, &choice, &counting.at, !args.no_intervals)?;
        Some(Cell { data, counting: &counting.name, choice, outcome })
    });
    let cells: Vec<Cell> = evaluated.collect();

    let mut sheet = Sheet::new(COLUMNS);
    sheet.rows.extend(cells.iter().map(Cell::row));
    let summary = summary(&countings[0].data, &cells, compare.as_ref());
    let reasons: Vec<String> = cells.iter().filter_map(|cell| Some(cell.outcome.as_ref().err()?.to_string())).collect();
    say_reasons(reasons.iter().map(String::as_str));
    match args.format.chosen() {
        Format::Json => {
            let at = |counting: &Counting| {
                let values = inputs(&counting.at).into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
                (counting.name.clone(), Value::Object(values.collect()))
            };
            let more = [
                ("summary".to_owned(), json!(summary.objects())),
                ("at".to_owned(), Value::Object(countings.iter().map(at).collect())),
            ];
            sheet.write(Format::Json, Map::from_iter(more))?;
        }
        Format::Table => {
            let short = [
                ("floor_low", "low"),
                ("floor_high", "high"),
                ("floor_interval", "interval"),
                ("prediction", "loss at"),
            ];
            print_parts(&brief(&sheet, &["counting"], &["n", "reason"]).renamed(&short), 2)?;
            output::print("")?;
            print_parts(&summary, 1)?;
            for counting in &countings {
                let at: Vec<String> =
                    inputs(&counting.at).into_iter().map(|(name, value)| format!("{name} = {value:.3e}")).collect();
                let name = if countings.len() > 1 { format!("{}: ", counting.name) } else { String::new() };
                output::note(&format!("{name}predictions are of the loss at {}", at.join(", ")));
            }
            output::note(
                "the spread over choices is no interval: each fit has its own error, and compare tests differences",
            );
        }
        format => sheet.write(format, Map::new())?,
    }
    if cells.iter().all(|cell| cell.usable().is_none()) {
        return Err(exit(ExitStatus::NoFit, "no combination has a fit"));
    }
    Ok(ExitStatus::Done)
}
