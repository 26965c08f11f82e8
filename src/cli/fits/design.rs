//! `lossfloor design`

use super::input::ColumnArgs;
use super::parse_form;
use super::parse_pairs;
use super::sheet::{Format, FormatArgs, Sheet};
use crate::analysis::calibrate::{Quantity, Simulation, Tally};
use crate::analysis::design::{self, Addition, Assessment, Proposal, Resolution, cost};
use crate::analysis::forms::{Form, Input};
use crate::analysis::{FitOptions, IntervalMethod, Law, Noise, Objective, Sample, display, fit};
use crate::cli::{ExitStatus, exit, output, usage};
use crate::units::parse_quantity;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The design table of the specification, section 5.3.
const TABLE_DECADES: [f64; 6] = [1.5, 2.0, 2.86, 4.0, 5.0, 6.0];
const TABLE_POINTS: [usize; 6] = [4, 5, 6, 8, 10, 20];
/// Scales that are tried when no candidates are named: so many per decade, from a decade below the design to one above.
const CANDIDATES_PER_DECADE: usize = 8;
/// Condition numbers beyond this leave combinations of parameters that ordinary noise swamps.
const ILL_CONDITIONED: f64 = 1e8;

/// The curve that is taken for true: given, or fitted to a table.
#[derive(clap::Args, Clone, Debug)]
pub struct CurveArgs {
    /// Table of results whose fitted curve is taken for true: .csv, .jsonl or .parquet
    #[arg(required_unless_present = "params")]
    pub file: Option<PathBuf>,
    /// The law
    #[arg(long, value_parser = parse_form, default_value = "power+floor")]
    pub form: &'static dyn Form,
    /// The curve itself instead of a table: every parameter of the law, such as A=39.8,b=0.0694,C=0.585
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = parse_pairs, conflicts_with = "file")]
    pub params: Vec<Vec<(String, f64)>>,
    /// Column of the scale, such as FLOPs or tokens; without a table, the scales of the design: 1e18,1e19,1e20
    #[arg(long, value_name = "COL|X,...")]
    pub x: Option<String>,
    /// Column of the parameters N
    #[arg(long, value_name = "COL", requires = "file")]
    pub n: Option<String>,
    /// Column of the training tokens D
    #[arg(long, value_name = "COL", requires = "file")]
    pub d: Option<String>,
    /// Column of the distinct training tokens
    #[arg(long, value_name = "COL", requires = "file")]
    pub u: Option<String>,
    /// Column of the loss
    #[arg(long, value_name = "COL", requires = "file", required_unless_present = "params")]
    pub y: Option<String>,
    /// Column that splits the rows into series
    #[arg(long, value_name = "COL", requires = "file")]
    pub group: Option<String>,
    /// Column that tells repetitions with different seeds apart
    #[arg(long, value_name = "COL", requires = "file")]
    pub seed: Option<String>,
    /// Rows to take, such as "depth >= 8 and architecture in [samba, sambay]"
    #[arg(long = "where", value_name = "CONDITION", requires = "file")]
    pub condition: Option<String>,
    /// What is minimised: lsq, or log-lsq, whose noise is that of the logarithm of the loss
    #[arg(long, value_name = "LOSS", default_value = "lsq")]
    pub loss: Objective,
    /// Standard deviation of one loss; of its logarithm for log-lsq. Default with a table: that of the residuals, or of
    /// repeated seeds
    #[arg(long, value_name = "SD", required_unless_present = "file")]
    pub sigma: Option<f64>,
}

/// A group of the table and its runs.
pub(super) type Named = (Option<String>, Sample);

/// A curve that is taken for true.
pub(super) struct Curve {
    /// The group of the table.
    pub group: Option<String>,
    /// The law.
    pub law: Law,
    /// The noise of one loss.
    pub sd: f64,
    /// The runs that it was fitted to.
    pub sample: Option<Sample>,
}

impl CurveArgs {
    fn columns(&self) -> anyhow::Result<ColumnArgs> {
        let y = self.y.clone().ok_or_else(|| usage("--y has to name the column of the loss"))?;
        Ok(ColumnArgs {
            x: self.x.clone(),
            n: self.n.clone(),
            d: self.d.clone(),
            u: self.u.clone(),
            step: None,
            lr: None,
            y,
            group: self.group.clone(),
            weight: None,
            seed: self.seed.clone(),
            cluster: None,
            condition: self.condition.clone(),
            drop_highest: 0,
        })
    }

    /// Refuses what no design can be judged by.
    fn check(&self) -> anyhow::Result<()> {
        if self.form.of_curves() {
            return Err(usage(format!("--form {}: it is a law of loss curves, not of runs", self.form.name())));
        }
        if self.loss.is_robust() {
            return Err(usage(format!("--loss {}: only lsq and log-lsq have a noise to design for", self.loss.name())));
        }
        match self.sigma {
            Some(sd) if !(sd > 0.0 && sd.is_finite()) => {
                Err(usage(format!("--sigma {sd}: a standard deviation is a positive number")))
            }
            _ => Ok(()),
        }
    }

    /// The samples of the table, by group, with the noise of repeated seeds where there are any.
    pub(super) fn samples(&self) -> anyhow::Result<(Vec<Named>, Noise)> {
        self.check()?;
        let Some(file) = &self.file else { return Err(usage("a table of results is needed")) };
        let columns = self.columns()?;
        let source = columns.read(file, columns.inputs(self.form)?)?;
        source.say();
        let noise = match (self.sigma, &self.seed) {
            (Some(sd), _) => Noise::Known { sd, freedom: None },
            (None, None) => Noise::FromResiduals,
            (None, Some(_)) => match source.table.replicate_sd(self.loss != Objective::LeastSquares) {
                Some((sd, freedom)) => {
                    output::note(&format!(
                        "noise of one loss from repeated seeds: {sd:.2e} ({freedom} degrees of freedom)"
                    ));
                    Noise::Known { sd, freedom: Some(freedom) }
                }
                None => Noise::FromResiduals,
            },
        };
        let groups = source.groups().into_iter().filter(|group| !group.rows.is_empty());
        Ok((groups.map(|group| (group.name.clone(), group.sample())).collect(), noise))
    }

    /// The curves, one for each group of the table, and the noise around them.
    pub(super) fn curves(&self) -> anyhow::Result<Vec<Curve>> {
        self.check()?;
        if self.file.is_none() {
            let sd = self.sigma.ok_or_else(|| usage("--sigma has to give the noise of one loss"))?;
            return Ok(vec![Curve { group: None, law: self.given()?, sd, sample: None }]);
        }
        let (samples, noise) = self.samples()?;
        let mut out = Vec::new();
        let mut reasons = Vec::new();
        for (group, sample) in samples {
            let options = FitOptions {
                objective: self.loss,
                interval: IntervalMethod::None,
                leave_one_out: false,
                noise,
                ..FitOptions::new(self.form)
            };
            let name = group.as_deref().unwrap_or("all").to_owned();
            match fit(&sample, &options) {
                Ok(fit) => {
                    let sd = match noise {
                        Noise::Known { sd, .. } => sd,
                        Noise::FromResiduals => fit.residual_sd,
                    };
                    if sd <= 0.0 {
                        return Err(usage(format!("{name}: the curve fits without residuals; hint: --sigma SD")));
                    }
                    out.push(Curve { group, law: fit.law, sd, sample: Some(sample) });
                }
                Err(error) => reasons.push(format!("{name}: {error}")),
            }
        }
        reasons.iter().for_each(|reason| output::note(reason));
        if out.is_empty() {
            return Err(exit(ExitStatus::NoFit, "no group has a fitted curve"));
        }
        Ok(out)
    }

    /// The law of --params.
    fn given(&self) -> anyhow::Result<Law> {
        let names = self.form.parameters();
        let pairs: Vec<&(String, f64)> = self.params.iter().flatten().collect();
        let wrong = || usage(format!("--params: {} has {}, none of them negative", self.form.name(), names.join(", ")));
        if pairs.iter().any(|(name, value)| !names.contains(&&**name) || *value < 0.0) || pairs.len() != names.len() {
            return Err(wrong());
        }
        let value = |name: &&str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| *value).ok_or_else(wrong);
        Ok(Law { form: self.form, parameters: names.iter().map(value).collect::<Result<_, _>>()? })
    }
}

/// Values of some inputs: `x=1e18,1e19`, `n=1e8,2e8:d=2e9`, `n=1e8..1e10/5:tpp=20,40`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// For each name its values.
    axes: Vec<(String, Vec<f64>)>,
}

/// A list of numbers, any of which may be a range LO..HI/K of K numbers in geometric progression.
fn parse_list(text: &str) -> Result<Vec<f64>, String> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let range = part.split_once("..").and_then(|(lo, rest)| {
            let (hi, count) = rest.split_once('/')?;
            let (lo, hi, count) = (parse_quantity(lo)?, parse_quantity(hi)?, count.trim().parse::<usize>().ok()?);
            (lo > 0.0 && hi > lo && (2..=10_000).contains(&count)).then_some((lo, hi, count))
        });
        match (range, parse_quantity(part)) {
            (Some((lo, hi, count)), _) => {
                out.extend((0..count).map(|i| lo * (hi / lo).powf(i as f64 / (count - 1) as f64)));
            }
            (None, Some(value)) if value > 0.0 => out.push(value),
            _ => return Err(format!("'{part}' is neither a positive number nor a range LO..HI/COUNT")),
        }
    }
    Ok(out)
}

/// `--grid` and `--candidates`
fn parse_grid(text: &str) -> Result<Grid, String> {
    let axis = |part: &str| {
        let (name, values) = part.split_once('=').ok_or_else(|| format!("'{part}' is not INPUT=VALUE,..."))?;
        let name = name.trim().to_owned();
        if !["x", "n", "d", "u", "tpp"].contains(&name.as_str()) {
            return Err(format!("'{name}' is none of x, n, d, u and tpp (tokens per parameter)"));
        }
        Ok((name, parse_list(values)?))
    };
    Ok(Grid { axes: text.split(':').map(axis).collect::<Result<_, String>>()? })
}

impl Grid {
    /// Every combination of its values, as inputs of `form`.
    fn points(&self, form: &dyn Form) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut combinations: Vec<Vec<f64>> = vec![Vec::new()];
        for (_, values) in &self.axes {
            let longer = |before: Vec<f64>| values.iter().map(move |value| [&before[..], &[*value]].concat());
            combinations = combinations.into_iter().flat_map(longer).collect();
        }
        let at = |name: &str| self.axes.iter().position(|(axis, _)| axis == name);
        let input = |input: &Input, values: &[f64]| {
            let name = input.option().trim_start_matches('-');
            match (at(name), at("n"), at("tpp")) {
                (Some(own), _, _) => Some(values[own]),
                (None, Some(n), Some(tpp)) if *input == Input::Tokens => Some(values[n] * values[tpp]),
                _ => None,
            }
        };
        let missing = || {
            let names: Vec<&str> = form.inputs().iter().map(|i| i.option().trim_start_matches('-')).collect();
            usage(format!("a grid of {} gives {}, such as {}", form.name(), names.join(" and "), example(form)))
        };
        let point = |values: Vec<f64>| {
            form.inputs().iter().map(|i| input(i, &values).ok_or_else(missing)).collect::<anyhow::Result<Vec<f64>>>()
        };
        combinations.into_iter().map(point).collect()
    }
}

fn example(form: &dyn Form) -> &'static str {
    if form.inputs().contains(&Input::X) { "x=1e18,1e19,1e20" } else { "n=1e8,3e8:tpp=10,20,40" }
}

/// Say what a set of runs could tell, before any of them is run
#[derive(clap::Args, Debug)]
pub struct DesignArgs {
    #[command(flatten)]
    curve: CurveArgs,
    /// Runs of the design: x=1e18,1e19 or n=1e8,3e8:d=2e9,6e9 (every combination) or n=1e8..1e10/5:tpp=20; repeatable.
    /// Default with a table: its own runs
    #[arg(long, value_name = "INPUT=VALUE,...", value_parser = parse_grid)]
    grid: Vec<Grid>,
    /// Log-spaced scales of the design: how many
    #[arg(long, value_name = "K", requires = "decades", requires = "from", conflicts_with = "grid")]
    points: Option<usize>,
    /// Over how many decades
    #[arg(long, value_name = "DECADES")]
    decades: Option<f64>,
    /// The smallest scale
    #[arg(long, value_name = "X", value_parser = parse_scale)]
    from: Option<f64>,
    /// Runs at each point, with different seeds
    #[arg(long, value_name = "K", default_value_t = 1)]
    seeds: usize,
    /// Say what would tell two floors apart that differ by this much, at two standard errors
    #[arg(long, value_name = "DIFFERENCE")]
    resolve: Option<f64>,
    /// Fit so many simulated sets of losses, and give the width of the profile intervals and how often the floor's is
    /// open
    #[arg(long, value_name = "K")]
    simulate: Option<usize>,
    /// Seed of simulated losses
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    random_seed: u64,
    /// Suggest the K next runs that shrink the error of the floor most
    #[arg(long, value_name = "K", conflicts_with = "table")]
    add: Option<usize>,
    /// Runs to choose from, as for --grid; default for a law of x: from a decade below the design to one above
    #[arg(long, value_name = "INPUT=VALUE,...", value_parser = parse_grid, requires = "add")]
    candidates: Vec<Grid>,
    /// The most that the suggested runs may cost together: FLOPs 6·N·D, or the sum of their x
    #[arg(long, value_name = "COST", value_parser = parse_scale, requires = "add")]
    budget: Option<f64>,
    /// Print κ by decades and number of points instead, from the smallest scale of the design
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// A positive number with an optional suffix.
pub(super) fn parse_scale(text: &str) -> Result<f64, String> {
    parse_quantity(text).filter(|value| *value > 0.0).ok_or_else(|| format!("'{text}' is not a positive number"))
}

impl DesignArgs {
    /// The runs to judge for a curve.
    fn proposal(&self, curve: &Curve) -> anyhow::Result<Proposal> {
        let form = curve.law.form;
        let columns = |points: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            (0..form.inputs().len()).map(|k| points.iter().map(|point| point[k]).collect()).collect()
        };
        let own = self.curve.x.as_ref().filter(|_| curve.sample.is_none());
        let proposal = match (&self.points, self.decades, self.from) {
            (Some(points), Some(decades), Some(from)) => {
                if form.inputs() != [Input::X] {
                    return Err(usage(format!("--points is for laws of one scale; {} needs --grid", form.name())));
                }
                let usable = decades > 0.0 && decades <= 100.0 && (2..=1_000_000).contains(points);
                if !usable {
                    return Err(usage("--points has to be two or more, --decades more than nothing"));
                }
                Proposal::spaced(from, decades, *points)
            }
            _ if !self.grid.is_empty() => {
                let points: Vec<Vec<Vec<f64>>> =
                    self.grid.iter().map(|grid| grid.points(form)).collect::<anyhow::Result<_>>()?;
                Proposal::new(columns(points.concat()))
            }
            _ if own.is_some() => {
                let list = own.map(|text| parse_list(text)).transpose().map_err(|e| usage(format!("--x: {e}")))?;
                Proposal::new(vec![list.unwrap_or_default()])
            }
            _ => match (&curve.sample, self.from) {
                (Some(sample), _) => Proposal::new(sample.inputs.columns.clone()),
                // A design table needs no more than where it begins.
                (None, Some(from)) if self.table => Proposal::new(vec![vec![from]]),
                (None, _) => return Err(usage(format!("no runs to judge; hint: --grid {}", example(form)))),
            },
        };
        if self.seeds == 0 {
            return Err(usage("--seeds has to be one or more"));
        }
        Ok(proposal.repeated(self.seeds))
    }

    fn candidates(&self, form: &dyn Form, proposal: &Proposal) -> anyhow::Result<Vec<Vec<f64>>> {
        if !self.candidates.is_empty() {
            let points: Vec<Vec<Vec<f64>>> =
                self.candidates.iter().map(|grid| grid.points(form)).collect::<anyhow::Result<_>>()?;
            return Ok(points.concat());
        }
        let [x] = &proposal.inputs.columns[..] else {
            return Err(usage(format!("--add needs --candidates for {}, such as {}", form.name(), example(form))));
        };
        let (lo, hi) = x.iter().fold((f64::INFINITY, 0.0_f64), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
        let decades = (hi / lo).log10() + 2.0;
        let steps = (decades * CANDIDATES_PER_DECADE as f64).round().max(1.0) as usize;
        Ok((0..=steps).map(|i| vec![0.1 * lo * 10f64.powf(decades * i as f64 / steps as f64)]).collect())
    }
}

/// What was found out about one curve's design.
struct Judged {
    curve: Curve,
    proposal: Proposal,
    assessment: Assessment,
    resolution: Option<Resolution>,
    simulated: Vec<Tally>,
    additions: Vec<Addition>,
}

const COLUMNS: &[&str] = &["group", "parameter", "value", "kappa", "se", "width", "width_known"];
const SIMULATED_COLUMNS: &[&str] =
    &["group", "parameter", "value", "kappa", "se", "width", "width_known", "width_profile", "open_below", "coverage"];

impl Judged {
    fn floor(&self) -> Option<&'static str> {
        let form = self.curve.law.form;
        form.floor().map(|t| form.terms()[t].name)
    }

    /// One row for each parameter, and one for the difference of two floors.
    fn rows(&self, simulated: bool) -> Vec<Vec<Value>> {
        let sd = self.curve.sd;
        let row = |name: String, value: Value, magnification: f64, tally: Option<&Tally>| {
            let mut row = vec![
                json!(self.curve.group),
                json!(name),
                value,
                json!(magnification),
                json!(magnification * sd),
                json!(self.assessment.width(magnification, sd, false)),
                json!(self.assessment.width(magnification, sd, true)),
            ];
            if simulated {
                row.push(json!(tally.and_then(|tally| tally.median_width)));
                row.push(json!(tally.and_then(|tally| tally.share(tally.open_below))));
                row.push(json!(tally.and_then(Tally::coverage)));
            }
            row
        };
        let mut out = Vec::new();
        for parameter in &self.assessment.parameters {
            let quantity = Quantity::Parameter(parameter.name);
            let tally = self.simulated.iter().find(|tally| tally.quantity == quantity);
            out.push(row(parameter.name.to_owned(), json!(parameter.value), parameter.magnification, tally));
        }
        if let (Some(kappa), Some(floor)) = (self.assessment.kappa, self.floor()) {
            // Two architectures with this design each, and noise of their own.
            out.push(row(format!("Δ{floor} of two"), Value::Null, std::f64::consts::SQRT_2 * kappa, None));
        }
        out
    }

    /// The design as it is, and then each suggested run.
    fn addition_rows(&self) -> Vec<Vec<Value>> {
        let form = self.curve.law.form;
        let row = |step: usize, point: Value, cost: Value, total: f64, kappa: Option<f64>| {
            let se = kappa.map(|kappa| kappa * self.curve.sd);
            vec![json!(self.curve.group), json!(step), point, cost, json!(total), json!(kappa), json!(se)]
        };
        let mut total = self.proposal.cost(form);
        let mut out = vec![row(0, Value::Null, Value::Null, total, self.assessment.kappa)];
        for (i, addition) in self.additions.iter().enumerate() {
            total += addition.cost;
            let point = point_text(form, &addition.point);
            out.push(row(i + 1, json!(point), json!(addition.cost), total, Some(addition.kappa)));
        }
        out
    }

    /// What else has to be said.
    fn notes(&self) -> Vec<String> {
        let mut out = Vec::new();
        let name = self.curve.group.as_ref().map_or(String::new(), |group| format!("{group}: "));
        let assessment = &self.assessment;
        let kappa = match (assessment.kappa, self.floor()) {
            (Some(kappa), Some(floor)) => format!(", κ = se({floor})/σ = {kappa:.1}"),
            _ => String::new(),
        };
        out.push(format!(
            "{name}{} runs at {} points, σ {:.2e}{kappa}, condition {:.0e}",
            assessment.runs,
            self.proposal.inputs.len(),
            self.curve.sd,
            assessment.condition
        ));
        if let Some((lo, hi)) = assessment.tokens_per_parameter {
            out.push(format!("{name}tokens per parameter {lo:.1} to {hi:.1}"));
        }
        out.extend(self.warnings().into_iter().map(|warning| format!("{name}{warning}")));
        if let Some(r) = &self.resolution {
            let floor = self.floor().unwrap_or("C");
            out.push(format!(
                "{name}Δ{floor} = {} at 2 standard errors needs κ ≤ {:.1}, or σ ≤ {:.1e} with these runs, or \
                 {:.0} runs at each point",
                r.difference,
                r.kappa,
                r.sd,
                (r.repeats * self.seeds()).ceil()
            ));
            if self.proposal.inputs.columns.len() == 1 {
                let points = r.points.map_or("no number of".to_owned(), |points| points.to_string());
                let decades = r.decades.map_or("no number of".to_owned(), |decades| format!("{decades:.2}"));
                out.push(format!(
                    "{name}the same with {points} log-spaced points over this range, or {decades} decades from the \
                     smallest scale"
                ));
            }
        }
        out
    }

    fn seeds(&self) -> f64 {
        self.proposal.repeats.first().map_or(1.0, |repeats| *repeats as f64)
    }

    fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.assessment.is_collinear() {
            out.push(
                "tokens per parameter are nearly constant: the terms of N and D can hardly be told apart, and the law \
                 predicts badly off this ray; hint: vary them (Kricheli et al. 2026, arXiv:2605.08541)"
                    .to_owned(),
            );
        }
        if self.assessment.condition > ILL_CONDITIONED {
            let condition = self.assessment.condition;
            out.push(format!("condition number {condition:.0e}: some combination of parameters stays undetermined"));
        }
        if self.assessment.freedom <= 0.0 {
            out.push(
                "as many parameters as runs: the noise cannot be estimated from residuals; hint: repeat seeds, or give \
                 --sigma to the fit"
                    .to_owned(),
            );
        }
        out
    }

    fn document(&self) -> Value {
        let (form, assessment) = (self.curve.law.form, &self.assessment);
        let parameters: Map<String, Value> = form
            .parameters()
            .iter()
            .zip(&self.curve.law.parameters)
            .map(|(n, v)| ((*n).to_owned(), json!(v)))
            .collect();
        let resolution = self.resolution.map(|r| {
            json!({
                "difference": r.difference, "kappa": r.kappa, "sigma": r.sd, "repeats": r.repeats,
                "points": r.points, "decades": r.decades,
            })
        });
        json!({
            "group": self.curve.group, "form": form.name(), "params": parameters, "sigma": self.curve.sd,
            "points": self.proposal.inputs.len(), "runs": assessment.runs, "freedom": assessment.freedom,
            "cost": self.proposal.cost(form), "kappa": assessment.kappa,
            "condition": Some(assessment.condition).filter(|condition| condition.is_finite()),
            "tokens_per_parameter": assessment.tokens_per_parameter.map(|(lo, hi)| [lo, hi]),
            "resolve": resolution, "warnings": self.warnings(),
        })
    }
}

/// Writes a sheet; for a terminal with three significant digits, and without those of the `optional` columns in which
/// there is nothing but zeros.
pub(super) fn write(sheet: Sheet, format: Format, more: Map<String, Value>, optional: &[&str]) -> anyhow::Result<()> {
    if format != Format::Table {
        return sheet.write(format, more);
    }
    let nothing = |cell: &Value| cell.is_null() || cell.as_f64() == Some(0.0);
    let mut out = sheet.clone();
    for (at, column) in sheet.columns.iter().enumerate() {
        if optional.contains(column) && sheet.rows.iter().all(|row| nothing(&row[at])) {
            out = without(out, column);
        }
    }
    for at in 0..out.columns.len() {
        let text = |cell: &Value| match cell.as_f64().filter(|_| !cell.is_u64()) {
            Some(value) => display::significant(value, 3),
            None => cell.to_string(),
        };
        if !out.rows.iter().all(|row| row[at].is_null() || row[at].is_number()) {
            continue;
        }
        // Numbers as text are padded, because only numbers are set flush right.
        let width = out.rows.iter().map(|row| text(&row[at]).len()).max().unwrap_or(0);
        for row in out.rows.iter_mut().filter(|row| !row[at].is_null()) {
            row[at] = json!(format!("{:>width$}", text(&row[at])));
        }
    }
    out.write(format, more)
}

/// A sheet that lacks a column, for one that would be empty.
pub(super) fn without(sheet: Sheet, column: &str) -> Sheet {
    let keep = |at: &usize| sheet.columns[*at] != column;
    let kept: Vec<usize> = (0..sheet.columns.len()).filter(keep).collect();
    Sheet {
        columns: kept.iter().map(|at| sheet.columns[*at]).collect(),
        rows: sheet.rows.iter().map(|row| kept.iter().map(|at| row[*at].clone()).collect()).collect(),
    }
}

/// `x=1e20` or `n=1e8,d=2e9`
fn point_text(form: &dyn Form, point: &[f64]) -> String {
    let part = |(input, value): (&Input, &f64)| {
        format!("{}={}", input.option().trim_start_matches('-'), display::significant(*value, 4))
    };
    form.inputs().iter().zip(point).map(part).collect::<Vec<_>>().join(",")
}

/// Runs `lossfloor design`.
pub fn run(args: DesignArgs) -> anyhow::Result<ExitStatus> {
    if args.resolve.is_some_and(|difference| difference <= 0.0) || args.simulate == Some(0) || args.add == Some(0) {
        return Err(usage("--resolve, --simulate and --add have to be more than nothing"));
    }
    let curves = args.curve.curves()?;
    let form = args.curve.form;
    let format = args.format.chosen();
    if args.table {
        return table(&args, &curves);
    }
    if form.floor().is_none() && (args.add.is_some() || args.resolve.is_some()) {
        return Err(usage(format!("--add and --resolve are about the floor, which {} has none of", form.name())));
    }
    let objective = args.curve.loss;
    let mut judged = Vec::new();
    for curve in curves {
        let proposal = args.proposal(&curve)?;
        let Some(assessment) = design::assess(&curve.law, &proposal, objective) else {
            let (runs, size) = (proposal.runs(), form.size());
            return Err(usage(format!("{runs} runs at these inputs do not determine the {size} parameters")));
        };
        let (law, sd) = (&curve.law, curve.sd);
        let resolution = args.resolve.and_then(|by| design::resolve(law, &proposal, sd, by, objective));
        let additions = match args.add {
            Some(count) => {
                let candidates = args.candidates(form, &proposal)?;
                design::additions(law, &proposal, &candidates, (count, args.budget), objective)
            }
            None => Vec::new(),
        };
        let simulated = match args.simulate {
            Some(draws) if assessment.freedom > 0.0 => Simulation {
                law: law.clone(),
                proposal: proposal.clone(),
                sd,
                objective,
                known_noise: false,
                methods: vec![IntervalMethod::Profile],
                quantities: form.parameters().iter().map(|name| Quantity::Parameter(name)).collect(),
                draws,
                seed: args.random_seed,
            }
            .run(),
            _ => Vec::new(),
        };
        if args.add.is_some() && additions.is_empty() {
            let cheapest =
                args.candidates(form, &proposal)?.iter().map(|p| cost(form, p)).fold(f64::INFINITY, f64::min);
            output::note(&format!("--budget allows none of the candidates; the cheapest costs {cheapest:.2e}"));
        }
        judged.push(Judged { curve, proposal, assessment, resolution, simulated, additions });
    }
    let mut sheet = if args.add.is_some() {
        Sheet::new(&["group", "step", "run", "cost", "total_cost", "kappa", "se"])
    } else {
        Sheet::new(if args.simulate.is_some() { SIMULATED_COLUMNS } else { COLUMNS })
    };
    for one in &judged {
        let rows = if args.add.is_some() { one.addition_rows() } else { one.rows(args.simulate.is_some()) };
        sheet.rows.extend(rows);
    }
    let sheet = if args.curve.group.is_none() { without(sheet, "group") } else { sheet };
    let designs: Vec<Value> = judged.iter().map(Judged::document).collect();
    let more = Map::from_iter([("designs".to_owned(), json!(designs))]);
    judged.iter().flat_map(Judged::notes).for_each(|note| output::note(&note));
    write(sheet, format, more, &[])?;
    Ok(ExitStatus::Done)
}

/// κ by decades and number of points, for each curve.
fn table(args: &DesignArgs, curves: &[Curve]) -> anyhow::Result<ExitStatus> {
    let form = args.curve.form;
    if form.inputs() != [Input::X] || form.floor().is_none() {
        return Err(usage(format!("--table is for laws of one scale with a floor, not {}", form.name())));
    }
    let mut sheet = Sheet::new(&["group", "decades", "n=4", "n=5", "n=6", "n=8", "n=10", "n=20"]);
    for curve in curves {
        let proposal = args.proposal(curve)?;
        let from = proposal.inputs.columns[0].iter().copied().fold(f64::INFINITY, f64::min);
        let table = design::table(&curve.law, from, &TABLE_DECADES, &TABLE_POINTS, args.curve.loss);
        for (decades, row) in TABLE_DECADES.iter().zip(table) {
            let head = [json!(curve.group), json!(decades)];
            sheet.rows.push(head.into_iter().chain(row.into_iter().map(|kappa| json!(kappa))).collect());
        }
        output::note(&format!(
            "{}κ = se(floor)/σ of log-spaced points from x = {from:.3e}",
            curve.group.as_ref().map_or(String::new(), |group| format!("{group}: "))
        ));
    }
    let sheet = if args.curve.group.is_none() { without(sheet, "group") } else { sheet };
    write(sheet, args.format.chosen(), Map::new(), &[])?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    #[test]
    fn grids_give_every_combination() {
        let of = |text: &str, form: &dyn Form| parse_grid(text).unwrap().points(form);
        assert_eq!(of("x=1e18,1e19", forms::power_floor()).unwrap(), [[1e18], [1e19]]);
        let two = of("n=1e8,2e8:d=2B,4B", forms::chinchilla()).unwrap();
        assert_eq!(two, [[1e8, 2e9], [1e8, 4e9], [2e8, 2e9], [2e8, 4e9]]);
        assert_eq!(of("n=1e8:tpp=20", forms::chinchilla()).unwrap(), [[1e8, 2e9]]);
        let range = of("x=1e18..1e20/3", forms::power_floor()).unwrap();
        assert!(range.len() == 3 && (range[1][0] / 1e19 - 1.0).abs() < 1e-12);
        assert!(of("n=1e8", forms::chinchilla()).is_err());
        for bad in ["x", "y=1", "x=-1", "x=1e18..1e20", "x="] {
            assert!(parse_grid(bad).is_err(), "{bad}");
        }
    }
}
