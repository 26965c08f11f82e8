//! `lossfloor calibrate`

use super::curve::{Curve, CurveArgs};
use super::parse_scale;
use super::sheet::{FormatArgs, Sheet};
use crate::analysis::calibrate::{Quantity, Simulation, SubsetTally, Subsets, Tally};
use crate::analysis::design::Proposal;
use crate::analysis::forms::Input;
use crate::analysis::{IntervalMethod, Sample, ends};
use crate::binomial;
use crate::cli::{ExitStatus, exit, output, picture, usage};
use crate::plot::figures::{Coverage, EvaluationSeries};
use crate::plot::{DataPoint, Span};
use serde_json::{Map, Value, json};

/// Subsets that share no run, below which a share of them says next to nothing.
const FEW: usize = 20;

/// Say how often intervals cover the truth: on losses drawn from a curve, or on finished runs whose floor is known
#[derive(clap::Args, Debug)]
pub struct CalibrateArgs {
    #[command(flatten)]
    curve: CurveArgs,
    /// The floor that the runs of the table really have, such as that of synthetic text; then nothing is simulated
    #[arg(long, value_name = "FLOOR", value_parser = parse_scale, requires = "file")]
    truth: Option<f64>,
    /// Most subsets of one size of each group of runs
    #[arg(long, value_name = "K", default_value_t = 200, requires = "truth")]
    subsets: usize,
    /// Numbers of log-spaced points to simulate; default with a table its own runs, otherwise 5,6,8,12
    #[arg(long, value_name = "K,...", value_delimiter = ',', conflicts_with = "truth")]
    points: Vec<usize>,
    /// Over how many decades; default with a table that of its runs
    #[arg(long, value_name = "DECADES", conflicts_with = "truth")]
    decades: Option<f64>,
    /// The smallest scale; default with a table that of its runs
    #[arg(long, value_name = "X", value_parser = parse_scale, conflicts_with = "truth")]
    from: Option<f64>,
    /// How many decades beyond the largest point to predict
    #[arg(long, value_name = "DECADES", default_value_t = 1.0, conflicts_with = "truth")]
    beyond: f64,
    /// Sets of losses to draw
    #[arg(long, value_name = "K", default_value_t = 2000)]
    simulations: usize,
    /// Kinds of interval: profile, wald, bootstrap:K
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', default_value = "profile")]
    interval: Vec<IntervalMethod>,
    /// Tell the intervals the noise instead of letting them take it from the residuals
    #[arg(long)]
    known_sigma: bool,
    /// Seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    random_seed: u64,
    #[command(flatten)]
    figure: picture::BesideArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Runs `lossfloor calibrate`.
pub fn run(args: CalibrateArgs) -> anyhow::Result<ExitStatus> {
    let form = args.curve.form;
    if form.floor().is_none() {
        return Err(usage(format!("--form {}: it has no floor", form.name())));
    }
    if args.interval.contains(&IntervalMethod::None) || args.simulations == 0 || args.subsets == 0 {
        return Err(usage("--interval none has nothing to judge; --simulations and --subsets are one or more"));
    }
    args.figure.check()?;
    match args.truth {
        Some(truth) => finished(&args, truth),
        None => simulated(&args),
    }
}

const SIMULATED: &[&str] = &[
    "group",
    "n",
    "interval",
    "quantity",
    "truth",
    "coverage",
    "low",
    "high",
    "median_width",
    "open_below",
    "open_above",
    "bias",
    "draws",
    "without",
];

/// A coverage with its 95 % interval, of so many independent trials.
fn coverage(share: Option<f64>, trials: usize) -> [Value; 3] {
    let ends = share.filter(|_| trials > 0).map(|share| binomial::wilson(share, trials as f64));
    [json!(share), json!(ends.map(|(lo, _)| lo)), json!(ends.map(|(_, hi)| hi))]
}

fn name(quantity: &Quantity) -> String {
    match quantity {
        Quantity::Parameter(name) => (*name).to_owned(),
        Quantity::Loss(inputs) => {
            let inputs: Vec<String> = inputs.iter().map(|x| format!("{x:.2e}")).collect();
            format!("L({})", inputs.join(","))
        }
    }
}

impl CalibrateArgs {
    /// The designs to simulate for a curve.
    fn proposals(&self, curve: &Curve) -> anyhow::Result<Vec<Proposal>> {
        let form = curve.law.form;
        let spaced = !self.points.is_empty() || self.decades.is_some() || self.from.is_some();
        if let (Some(sample), false) = (&curve.sample, spaced) {
            return Ok(vec![Proposal::new(sample.inputs.columns.clone())]);
        }
        if form.inputs() != [Input::X] {
            return Err(usage(format!("--points is for laws of one scale, not {}; hint: name a table", form.name())));
        }
        let range = curve.sample.as_ref().map(|sample| ends(&sample.inputs.columns[0]));
        let from = self.from.or(range.map(|(lo, _)| lo));
        let decades = self.decades.or(range.map(|(lo, hi)| (hi / lo).log10()));
        let (Some(from), Some(decades)) = (from, decades) else {
            return Err(usage("--from and --decades have to say where the points lie"));
        };
        let points = if self.points.is_empty() { &[5, 6, 8, 12][..] } else { &self.points };
        if let Some(few) = points.iter().find(|points| **points <= form.size()) {
            return Err(usage(format!("--points {few}: {} needs {} or more", form.name(), form.size() + 1)));
        }
        if !(decades > 0.0 && decades < 100.0 && self.beyond > 0.0 && self.beyond < 100.0) {
            return Err(usage("--decades and --beyond have to be more than nothing"));
        }
        Ok(points.iter().map(|points| Proposal::spaced(from, decades, *points)).collect())
    }
}

fn simulated(args: &CalibrateArgs) -> anyhow::Result<ExitStatus> {
    let form = args.curve.form;
    let floor = form.floor().map(|at| Quantity::Parameter(form.terms()[at].name));
    let mut covered: Vec<Covered> = Vec::new();
    let mut sheet = Sheet::new(SIMULATED);
    for curve in args.curve.curves()? {
        for proposal in args.proposals(&curve)? {
            // Every input grows by as many decades: of a law of parameters and tokens, along the ray of the largest
            // run.
            let far = proposal.inputs.columns.iter().map(|column| ends(column).1 * 10f64.powf(args.beyond));
            let mut quantities: Vec<Quantity> =
                form.terms().iter().filter(|t| t.depends.is_empty()).map(|t| Quantity::Parameter(t.name)).collect();
            quantities.extend(form.shapes().iter().map(|shape| Quantity::Parameter(shape.name)));
            quantities.push(Quantity::Loss(far.collect()));
            let simulation = Simulation {
                law: curve.law.clone(),
                sd: curve.sd,
                objective: args.curve.loss,
                known_noise: args.known_sigma,
                methods: args.interval.clone(),
                quantities,
                draws: args.simulations,
                seed: args.random_seed,
                proposal,
            };
            let n = simulation.proposal.runs();
            let tallies = simulation.run();
            let floors = tallies.iter().filter(|tally| Some(&tally.quantity) == floor.as_ref());
            covered.extend(floors.map(|tally| (curve.group.clone(), n, tally.clone(), tally.made())));
            sheet.rows.extend(tallies.iter().map(|tally| simulated_row(&curve.group, n, tally)));
        }
    }
    let sheet = if args.curve.group.is_none() { sheet.without("group") } else { sheet };
    output::note(
        "coverage: share of simulated intervals that hold the truth, with its binomial 95 % interval; 95 % is due",
    );
    sheet.write_short(args.format.chosen(), Map::new(), &["open_above", "without"])?;
    args.draw(&covered)?;
    Ok(ExitStatus::Done)
}

/// How often intervals of one kind held the floor: group, number of runs, what was counted, independent trials.
type Covered = (Option<String>, usize, Tally, usize);

impl CalibrateArgs {
    /// Writes the figure that was asked for.
    fn draw(&self, covered: &[Covered]) -> anyhow::Result<()> {
        let mut series: Vec<EvaluationSeries> = Vec::new();
        for (group, runs, tally, trials) in covered {
            let Some(share) = tally.coverage() else { continue };
            let name = group.iter().cloned().chain([tally.method.name()]).collect::<Vec<_>>().join(", ");
            let bar = (*trials > 0).then(|| binomial::wilson(share, *trials as f64));
            let y_bar = bar.map(|(lo, hi)| Span::new(lo, hi));
            let point = DataPoint { x: *runs as f64, y: share, x_bar: None, y_bar };
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => series.push(EvaluationSeries { name, points: vec![point] }),
            }
        }
        let coverage = |width| Coverage {
            title: "Intervals that hold the true floor".to_owned(),
            x_label: "runs in a fit".to_owned(),
            nominal: 0.95,
            series,
            width,
        };
        self.figure.draw(|width| coverage(width).chart())
    }
}

fn simulated_row(group: &Option<String>, n: usize, tally: &Tally) -> Vec<Value> {
    let [share, low, high] = coverage(tally.coverage(), tally.made());
    vec![
        json!(group),
        json!(n),
        json!(tally.method.name()),
        json!(name(&tally.quantity)),
        json!(tally.truth),
        share,
        low,
        high,
        json!(tally.median_width),
        json!(tally.share(tally.open_below)),
        json!(tally.share(tally.open_above)),
        json!(tally.bias),
        json!(tally.draws),
        json!(tally.without),
    ]
}

const FINISHED: &[&str] = &[
    "group",
    "runs",
    "interval",
    "subsets",
    "independent",
    "coverage",
    "low",
    "high",
    "bias",
    "rmse",
    "median_width",
    "open_below",
    "without",
];

/// The name of rows over all groups.
const ALL: &str = "all";

fn finished(args: &CalibrateArgs, truth: f64) -> anyhow::Result<ExitStatus> {
    let (groups, noise) = args.curve.samples()?;
    let subsets = Subsets {
        form: args.curve.form,
        objective: args.curve.loss,
        noise,
        methods: args.interval.clone(),
        truth,
        most: args.subsets,
        seed: args.random_seed,
    };
    let mut sheet = Sheet::new(FINISHED);
    let samples: Vec<Sample> = groups.iter().map(|(_, sample)| sample.clone()).collect();
    let all = subsets.run(&samples).unwrap_or_default();
    if groups.len() > 1 {
        for ((group, _), sample) in groups.iter().zip(&samples) {
            let of_group = subsets.run(std::slice::from_ref(sample)).unwrap_or_default();
            sheet.rows.extend(of_group.iter().map(|one| finished_row(group.as_deref(), one)));
        }
    }
    let over_all = if groups.len() > 1 { Some(ALL) } else { groups.first().and_then(|(group, _)| group.as_deref()) };
    sheet.rows.extend(all.iter().map(|one| finished_row(over_all, one)));
    if all.is_empty() {
        let needed = args.curve.form.size() + 1;
        return Err(usage(format!("no group has runs at {needed} different inputs, which one fit needs")));
    }
    let independent = all.iter().map(|one| one.independent).max().unwrap_or(0);
    if independent < FEW {
        output::note(&format!(
            "subsets share runs: no more than {independent} of one size are independent, so that these shares are \
             anecdotes; the interval of the coverage (low, high) takes that into account"
        ));
    } else {
        output::note("subsets share runs; the interval of the coverage (low, high) counts only those that share none");
    }
    let sheet = if args.curve.group.is_none() { sheet.without("group") } else { sheet };
    let more = Map::from_iter([("truth".to_owned(), json!(truth))]);
    sheet.write_short(args.format.chosen(), more, &["without"])?;
    let of_all = |one: &SubsetTally| (None, one.size, one.tally.clone(), one.independent);
    args.draw(&all.iter().map(of_all).collect::<Vec<Covered>>())?;
    if all.iter().all(|one| one.tally.made() == 0) {
        return Err(exit(ExitStatus::NoFit, "no subset of the runs has a fit with an interval"));
    }
    Ok(ExitStatus::Done)
}

fn finished_row(group: Option<&str>, one: &SubsetTally) -> Vec<Value> {
    let tally = &one.tally;
    let [share, low, high] = coverage(tally.coverage(), one.independent);
    vec![
        json!(group),
        json!(one.size),
        json!(tally.method.name()),
        json!(tally.draws),
        json!(one.independent),
        share,
        low,
        high,
        json!(tally.bias),
        json!(tally.error),
        json!(tally.median_width),
        json!(tally.share(tally.open_below)),
        json!(tally.without),
    ]
}
