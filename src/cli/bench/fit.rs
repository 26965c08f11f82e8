//! `lossfloor bench fit`

use super::document;
use crate::analysis::{self, Columns, FitOptions, IntervalMethod, Objective, Sample, Table, forms};
use crate::cli::{ExitStatus, output, usage};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `lossfloor bench fit`.
#[derive(clap::Args, Debug)]
pub struct FitArgs {
    /// Table with parameters n, tokens d and loss; its five highest losses are left out
    #[arg(long, value_name = "FILE", default_value = "tests/data/fits/chinchilla.csv")]
    data: PathBuf,
    /// Groups of six points
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    groups: usize,
    /// Resamples
    #[arg(long, value_name = "N", default_value_t = 4000)]
    draws: usize,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// One measurement.
#[derive(Serialize)]
struct Line {
    what: String,
    seconds: f64,
    note: String,
}

/// Runs `lossfloor bench fit`.
pub fn run(args: &FitArgs) -> anyhow::Result<ExitStatus> {
    let columns = Columns { inputs: vec!["n".into(), "d".into()], y: "loss".into(), ..Columns::default() };
    let mut table = Table::read(&args.data, &columns).map_err(usage)?;
    table.drop_highest(5);
    let sample = Sample::of_rows(&table.rows);
    let lines = [one(&sample)?, grid(&sample)?, resamples(&sample, args.draws)?, groups(args.groups)];
    let threads = rayon::current_num_threads();
    if args.json {
        document::print(&format!("cpu, {threads} threads"), json!({}), &lines)?;
    } else {
        let mut table = output::table(&["what", "seconds", ""]);
        for line in &lines {
            table.add_row([line.what.clone(), format!("{:.4}", line.seconds), line.note.clone()]);
        }
        output::print(&format!("{table}\n{threads} threads"))?;
    }
    Ok(ExitStatus::Done)
}

fn options(interval: IntervalMethod) -> FitOptions {
    let objective = Objective::Huber(1e-3);
    FitOptions { objective, interval, leave_one_out: false, ..FitOptions::new(forms::chinchilla()) }
}

/// Median of eleven fits, each with its starting grid and sixteen confirming starts.
fn one(sample: &Sample) -> anyhow::Result<Line> {
    let mut times = Vec::new();
    let mut objective = 0.0;
    for _ in 0..11 {
        let start = Instant::now();
        objective = analysis::fit(sample, &options(IntervalMethod::None)).map_err(usage)?.objective;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let what = format!("one certified fit of {} points, huber:1e-3", sample.len());
    Ok(Line { what, seconds: times[5], note: format!("objective {objective:.16}") })
}

/// The grid of starts of Hoffmann et al. 2022, appendix D.3: 5 values of ln A, of ln B and of ln E, 6 of each exponent.
fn grid(sample: &Sample) -> anyhow::Result<Line> {
    let steps = |from: f64, by: f64, n: usize| (0..n).map(move |i| from + by * i as f64);
    let mut starts = Vec::new();
    for alpha in steps(0.0, 0.5, 5) {
        for beta in steps(0.0, 0.5, 5) {
            for e in steps(-1.0, 0.5, 5) {
                for a in steps(0.0, 5.0, 6) {
                    for b in steps(0.0, 5.0, 6) {
                        // An exponent of zero makes its term constant; the bound of the search stands for it.
                        starts.push(vec![a.exp(), b.exp(), e.exp(), f64::max(alpha, 1e-4), f64::max(beta, 1e-4)]);
                    }
                }
            }
        }
    }
    let begin = Instant::now();
    let ends = analysis::descend(sample, forms::chinchilla(), Objective::Huber(1e-3), &starts).map_err(usage)?;
    let seconds = begin.elapsed().as_secs_f64();
    let best = ends.iter().copied().fold(f64::INFINITY, f64::min);
    let reached = ends.iter().filter(|end| **end <= best * (1.0 + 1e-9)).count();
    let what = format!("{} starts of all five parameters", starts.len());
    Ok(Line { what, seconds, note: format!("{reached} reach {best:.16}") })
}

/// The fit with a bootstrap of that many draws, each a fit of its own.
fn resamples(sample: &Sample, draws: usize) -> anyhow::Result<Line> {
    let begin = Instant::now();
    let fit = analysis::fit(sample, &options(IntervalMethod::Bootstrap(draws))).map_err(usage)?;
    let seconds = begin.elapsed().as_secs_f64();
    let se = fit.floor().and_then(|floor| floor.se).unwrap_or(f64::NAN);
    Ok(Line { what: format!("{draws} resamples, refitted"), seconds, note: format!("se of E {se:.5}") })
}

/// Groups of six points of a known curve with noise: fit and profile intervals of A, b and C.
fn groups(count: usize) -> Line {
    let sample = |i: usize| {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(i as u64);
        Sample::of_pairs((0..6).map(|k| {
            let x = 1e18 * 10f64.powf(0.6 * f64::from(k));
            let noise: f64 = StandardNormal.sample(&mut rng);
            (x, 40.0 * x.powf(-0.07) + 0.6 + 0.001 * noise)
        }))
    };
    let samples: Vec<Sample> = (0..count).map(sample).collect();
    let options = FitOptions { leave_one_out: false, starts: 0, ..FitOptions::new(forms::power_floor()) };
    let begin = Instant::now();
    let fits = samples.par_iter().filter_map(|sample| analysis::fit(sample, &options).ok());
    let covered = fits.filter(|fit| fit.floor().and_then(|c| c.interval).is_some_and(|i| i.contains(0.6))).count();
    let seconds = begin.elapsed().as_secs_f64();
    let note = format!("{:.1} % of the intervals of C cover the truth", 100.0 * covered as f64 / count.max(1) as f64);
    Line { what: format!("{count} groups of 6 points, power+floor, profile intervals"), seconds, note }
}
