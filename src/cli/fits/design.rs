//! `lossfloor design`

use super::curve::{Curve, CurveArgs};
use super::grid::{Grid, example, parse_grid, parse_list};
use super::parse_scale;
use super::sheet::{FormatArgs, Sheet};
use crate::analysis::calibrate::{Quantity, Simulation, Tally};
use crate::analysis::design::{self, Addition, Assessment, Proposal, Resolution, cost};
use crate::analysis::forms::{Form, Input};
use crate::analysis::{IntervalMethod, display, ends};
use crate::cli::{ExitStatus, output, usage};
use serde_json::{Map, Value, json};

/// The design table of the specification, section 5.3.
const TABLE_DECADES: [f64; 6] = [1.5, 2.0, 2.86, 4.0, 5.0, 6.0];
const TABLE_POINTS: [usize; 6] = [4, 5, 6, 8, 10, 20];
/// Scales that are tried when no candidates are named: so many per decade, from a decade below the design to one above.
const CANDIDATES_PER_DECADE: usize = 8;
/// Condition numbers beyond this leave combinations of parameters that ordinary noise swamps.
const ILL_CONDITIONED: f64 = 1e8;

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
        let (lo, hi) = ends(x);
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
        form.floor_name()
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
            self.proposal.inputs.distinct(usize::MAX),
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

/// `x=1e20` or `n=1e8,d=2e9`
fn point_text(form: &dyn Form, point: &[f64]) -> String {
    let part = |(input, value): (&Input, &f64)| format!("{}={}", input.letter(), display::significant(*value, 4));
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
    let sheet = if args.curve.group.is_none() { sheet.without("group") } else { sheet };
    let designs: Vec<Value> = judged.iter().map(Judged::document).collect();
    let more = Map::from_iter([("designs".to_owned(), json!(designs))]);
    judged.iter().flat_map(Judged::notes).for_each(|note| output::note(&note));
    sheet.write_short(format, more, &[])?;
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
    let sheet = if args.curve.group.is_none() { sheet.without("group") } else { sheet };
    sheet.write_short(args.format.chosen(), Map::new(), &[])?;
    Ok(ExitStatus::Done)
}
