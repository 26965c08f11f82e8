//! `lossfloor plot`

use super::input::{ColumnArgs, Unused};
use super::parse_form;
use crate::analysis::{self, FitOptions, Form};
use crate::cli::{ExitStatus, exit, output, picture, usage};
use crate::plot::{Figure, FloorLine, SeriesPoint};
use crate::study::drawing;
use std::path::PathBuf;

/// Arguments of `lossfloor plot`.
#[derive(clap::Args, Debug)]
pub struct PlotArgs {
    /// Table of results: .csv, .jsonl or .parquet; rows whose column `status` is not `completed` are set aside
    file: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Column with the standard error of the loss, drawn as error bars
    #[arg(long, value_name = "COL")]
    y_se: Option<String>,
    /// True irreducible loss, drawn as a line
    #[arg(long, value_name = "LOSS", allow_negative_numbers = true)]
    floor: Option<f64>,
    /// The law of one scale to draw through each series
    #[arg(long, value_parser = parse_form)]
    fit: Option<&'static dyn Form>,
    /// The figure to write: .svg or .png
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Shade the confidence band of each law
    #[arg(long, requires = "fit")]
    band: bool,
    /// Add a panel of measured minus fitted loss
    #[arg(long, requires = "fit")]
    residuals: bool,
    #[command(flatten)]
    paper: picture::PaperArgs,
    /// Title above the figure
    #[arg(long)]
    title: Option<String>,
}

/// Runs `lossfloor plot`.
pub fn run(args: PlotArgs) -> anyhow::Result<ExitStatus> {
    picture::check("--out", &args.out)?;
    let unused = [ColumnArgs::beyond(analysis::forms::power()), vec![Unused::Seed, Unused::Cluster]].concat();
    args.columns.without_use("plot", &unused);
    if let Some(floor) = args.floor.filter(|floor| !(*floor > 0.0 && floor.is_finite())) {
        return Err(usage(format!("--floor {floor}: a loss floor is a positive number")));
    }
    let Some(x) = args.columns.x.clone() else { return Err(usage("plot needs --x, the column of the scale")) };
    if let Some(form) = args.fit.filter(|form| form.inputs() != [analysis::forms::Input::X]) {
        return Err(usage(format!("--fit {}: a figure has one scale; hint: --fit power+floor", form.name())));
    }
    let source = args.columns.read_with_errors(&args.file, vec![x.clone()], args.y_se.clone())?;
    source.say();
    let (mut series, mut failures, mut drawn) = (Vec::new(), Vec::new(), 0);
    for group in source.groups() {
        let mut curve = None;
        if let Some(form) = args.fit {
            match drawing::fitted(&group.sample(), &FitOptions::new(form), args.band) {
                Ok((_, drawn)) => curve = Some(drawn),
                Err(error) => {
                    output::note(&format!("{}: no curve: {error}", group.label()));
                    failures.push(error);
                }
            }
            drawn += usize::from(curve.is_some());
        }
        let point = |row: &analysis::Row| SeriesPoint { x: row.inputs[0], y: row.y, y_se: row.y_se };
        let points = group.rows.iter().map(point).collect();
        series.push(drawing::series(group.label(), points, curve));
    }
    if let Some(error) = failures.first().filter(|_| drawn == 0) {
        let status = if failures.iter().all(|e| e.is_input()) { ExitStatus::Usage } else { ExitStatus::NoFit };
        return Err(exit(status, format!("{}: {error}", args.file.display())));
    }
    let figure = Figure {
        title: args.title.unwrap_or_default(),
        x_label: x,
        y_label: args.columns.y.clone(),
        series,
        floor: args.floor.map(|loss| FloorLine { loss, label: "true floor".to_owned() }),
        residuals: args.residuals,
        width: args.paper.width(),
    };
    picture::write(&args.out, &figure.chart(), args.paper.palette())?;
    Ok(ExitStatus::Done)
}
