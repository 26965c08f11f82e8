//! What a report says, as blocks that both renderers print.

use super::{GroupResult, ReportFigure, ReportFit, ReportInput};
use crate::analysis::{Fit, FitStatus, Form, Objective, display};
use crate::record::{RunRecord, RunStatus};
use crate::units;
use std::collections::BTreeMap;

/// A piece of a report; text is plain and escaped by the renderers.
pub(super) enum Block<'a> {
    Heading(u8, String),
    Paragraph(String),
    /// Something a reader must not miss.
    Warning(String, Vec<String>),
    List(Vec<String>),
    /// Header, rows, and how many leading columns are text (the rest are numbers).
    Table(Vec<String>, Vec<Vec<String>>, usize),
    Figure(&'a ReportFigure),
    Command(String, String),
}

/// `text` with the characters of markup replaced: those of HTML, which Markdown takes over, and what `own` names.
pub(super) fn escaped(text: &str, own: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            other => match own(other) {
                Some(replacement) => out += replacement,
                None => out.push(other),
            },
        }
    }
    out
}

pub(super) fn blocks(input: &ReportInput) -> Vec<Block<'_>> {
    let records = super::results::ordered(&input.records);
    let mut out = vec![Block::Heading(1, input.title.clone())];
    let completed = records.iter().filter(|record| record.status == RunStatus::Completed).count();
    let planned = records.len() + input.missing.len();
    let runs_of = if planned > 0 { format!(": {completed} of {planned} runs completed") } else { String::new() };
    out.push(Block::Paragraph(format!("Study {}{runs_of}. Written by {}.", input.study, input.generated_by)));
    let troubles = troubles(input, &records);
    if !troubles.is_empty() {
        out.push(Block::Warning(format!("{} of {planned} runs are not in the fits", troubles.len()), troubles));
    }
    if !input.unmeasured.is_empty() {
        let heading = match input.unmeasured.len() {
            1 => "1 checkpoint is not evaluated".to_owned(),
            many => format!("{many} checkpoints are not evaluated"),
        };
        out.push(Block::Warning(heading, input.unmeasured.clone()));
    }
    let ways = ways(&records);
    if ways.len() > 1 {
        let heading = "Not all runs were computed alike: their losses differ by rounding as well as by model";
        let runs = |n: usize| if n == 1 { "1 run".to_owned() } else { format!("{n} runs") };
        let items = ways.iter().map(|(way, n)| format!("{}: {way}", runs(*n))).collect();
        out.push(Block::Warning(heading.to_owned(), items));
    }
    out.extend(input.figures.iter().map(Block::Figure));
    out.extend(corpus(input));
    out.extend(fits(input));
    out.extend(evaluations(input));
    if planned > 0 {
        out.push(Block::Heading(2, "Runs".to_owned()));
        if let [(way, _)] = &ways[..] {
            out.push(Block::Paragraph(format!("All were computed on {way}.")));
        }
        out.push(runs(&records, ways.len() > 1));
    }
    if !input.commands.is_empty() {
        out.push(Block::Heading(2, "How to get each number again".to_owned()));
        out.extend(input.commands.iter().map(|c| Block::Command(c.what.clone(), c.command.clone())));
    }
    out
}

/// How the completed runs were computed, and how many each way.
fn ways(records: &[&RunRecord]) -> Vec<(String, usize)> {
    let mut ways = BTreeMap::new();
    for record in records.iter().filter(|record| record.status == RunStatus::Completed) {
        *ways.entry(record.computed_with()).or_insert(0) += 1;
    }
    ways.into_iter().collect()
}

fn troubles(input: &ReportInput, records: &[&RunRecord]) -> Vec<String> {
    let failed = records.iter().filter(|record| record.status != RunStatus::Completed).map(|record| {
        let reason = record.reason.as_deref().unwrap_or("no reason recorded");
        format!(
            "{} {} (depth {}, {} tokens, seed {}): {}, {reason}",
            record.label,
            record.run_id,
            record.depth,
            units::si(record.tokens as f64),
            record.seed,
            record.status.name()
        )
    });
    let missing = input.missing.iter().map(|run| format!("{} {}: no record ({})", run.label, run.run_id, run.state));
    failed.chain(missing).collect()
}

fn corpus<'a>(input: &ReportInput) -> Vec<Block<'a>> {
    let Some(corpus) = &input.corpus else { return Vec::new() };
    let floor = match corpus.floor {
        Some(floor) => format!("Its exact irreducible loss is {floor:.5} nats per token."),
        None => "Its irreducible loss is not known.".to_owned(),
    };
    let evaluated = match input.floor.filter(|floor| corpus.floor.is_some_and(|whole| whole != *floor)) {
        Some(floor) => {
            format!(" On the part that runs were evaluated on, which is what counts for fits, it is {floor:.5}.")
        }
        None => String::new(),
    };
    vec![
        Block::Heading(2, "Corpus".to_owned()),
        Block::Paragraph(format!(
            "{}: {} training tokens, {} validation tokens, vocabulary of {}. {floor}{evaluated}",
            corpus.description,
            units::grouped(corpus.train_tokens),
            units::grouped(corpus.validation_tokens),
            units::grouped(corpus.vocab_size)
        )),
    ]
}

fn fits<'a>(input: &ReportInput) -> Vec<Block<'a>> {
    let mut out = Vec::new();
    for fit in &input.fits {
        let heading = if input.fits.len() > 1 { format!("Fits: {}", fit.name) } else { "Fits".to_owned() };
        out.push(Block::Heading(2, heading));
        out.extend(fit.verdict.clone().map(Block::Paragraph));
        out.push(Block::Paragraph(method(fit)));
        out.push(Block::Table(
            fit_header(fit.law),
            fit.groups.iter().map(|group| fit_row(fit.law, group)).collect(),
            1,
        ));
        let verdicts: Vec<String> = fit.groups.iter().flat_map(|g| verdict(g, input.floor)).collect();
        if !verdicts.is_empty() {
            out.push(Block::List(verdicts));
        }
    }
    out
}

/// The last checkpoint of each run; all of them are in the table of the evaluation.
fn evaluations<'a>(input: &ReportInput) -> Vec<Block<'a>> {
    let blocks = input.evaluations.iter().flat_map(|evaluation| {
        let (unit, interval) = match evaluation.is_share {
            true => ("the share of right answers", "Wilson's interval of the questions"),
            false => ("nats per token", "1.96 standard errors to either side"),
        };
        let text = format!(
            "The last checkpoint of each run ({}). The value is {unit}, its interval at 95 % {interval}; other seeds of \
             training would differ by more. {}.csv has every checkpoint.",
            evaluation.what, evaluation.name
        );
        [
            Block::Heading(2, format!("Evaluation: {}", evaluation.name)),
            Block::Paragraph(text),
            Block::Table(evaluation.header.clone(), evaluation.rows.clone(), 2),
        ]
    });
    blocks.collect()
}

fn dash() -> String {
    "–".to_owned()
}

/// How the numbers of a fit come about.
fn method(fit: &ReportFit) -> String {
    let by = match fit.objective {
        Objective::LeastSquares => "unweighted least squares".to_owned(),
        Objective::LogLeastSquares => "least squares of logarithms".to_owned(),
        Objective::Huber(delta) => format!("Huber's loss of logarithms with threshold {delta}"),
        Objective::AbsoluteDeviation => "absolute deviations of logarithms".to_owned(),
    };
    let mut out = format!("{} by {by}, {}. ± is one standard error", fit.law.formula(), fit.inputs);
    if let Some(floor) = fit.law.floor_name() {
        out += &format!(
            "; the interval is at 95 %. κ is se({floor}) divided by the residual standard deviation: how far noise in \
             one loss is magnified in {floor}"
        );
    }
    out + "."
}

fn fit_header(law: &dyn Form) -> Vec<String> {
    let mut out = vec!["group".to_owned()];
    out.extend(law.parameters().iter().map(|name| format!("{name} ± se")));
    if let Some(floor) = law.floor_name() {
        out.extend([format!("95 % interval of {floor}"), format!("{floor}, one point left out")]);
    }
    out.extend(["R²", "n"].map(str::to_owned));
    out.extend(law.floor_name().map(|_| "κ".to_owned()));
    out
}

fn fit_row(law: &dyn Form, result: &GroupResult) -> Vec<String> {
    let mut row = vec![result.group.clone()];
    let Ok(fit) = &result.outcome else {
        row.push("no fit".to_owned());
        row.resize_with(fit_header(law).len(), dash);
        return row;
    };
    row.extend(fit.estimates.iter().map(display::with_error));
    if let Some(floor) = fit.floor() {
        row.push(floor.interval.as_ref().map_or_else(dash, display::interval));
        row.push(fit.left_out.map_or_else(dash, |range| {
            let [least, most] = [range.least, range.most].map(|value| display::significant(value, 4));
            match range.without_fit {
                0 => format!("{least} to {most}"),
                lost => format!("{least} to {most}, {lost} without a fit"),
            }
        }));
    }
    row.push(format!("{:.6}", fit.r2));
    row.push(fit.n.to_string());
    row.extend(law.floor_name().map(|_| fit.kappa.map_or_else(dash, |kappa| format!("{kappa:.1}"))));
    row
}

/// What has to be said about one fit, the true floor first.
fn verdict(result: &GroupResult, floor: Option<f64>) -> Vec<String> {
    let group = &result.group;
    let fit = match &result.outcome {
        Ok(fit) => fit,
        Err(error) => return vec![format!("{group}: no fit, because {error}.")],
    };
    let mut out = Vec::new();
    if let (Some(floor), Some(c)) = (floor, fit.floor()) {
        let fitted = format!("{group}: the fitted {} = {}", c.name, display::with_error(c));
        out.push(match &c.interval {
            Some(interval) => format!(
                "{fitted}; its interval ({}) {} the true floor {floor:.4}.",
                display::interval(interval),
                if interval.contains(floor) { "covers" } else { "does not cover" }
            ),
            None => format!("{fitted}; without an interval nothing can be said about the true floor {floor:.4}."),
        });
    }
    out.extend(caveats(group, fit));
    out
}

fn caveats(group: &str, fit: &Fit) -> Vec<String> {
    let mut out = Vec::new();
    if fit.status == FitStatus::BoundHit {
        out.push(format!(
            "{group}: the optimum lies on a bound ({}), so there is no standard error.",
            fit.bounds.join(", ")
        ));
    }
    if let Some(floor) = fit.floor().filter(|floor| floor.interval.is_some_and(|interval| interval.lo.is_none())) {
        out.push(format!("{group}: these runs do not bound {} from below.", floor.name));
    }
    out
}

fn runs<'a>(records: &[&RunRecord], say_how: bool) -> Block<'a> {
    let row = |record: &&RunRecord| {
        let loss = match (record.val_loss, record.val_loss_se) {
            (Some(loss), Some(se)) => format!("{loss:.4} ± {se:.4}"),
            (Some(loss), None) => format!("{loss:.4} (no s.e.)"),
            (None, _) => dash(),
        };
        let mut cells = vec![
            record.label.clone(),
            record.architecture.clone(),
            record.run_id.clone(),
            record.status.name().to_owned(),
            record.depth.to_string(),
            record.d_model.to_string(),
            units::si(record.params_total as f64),
            units::si(record.tokens as f64),
            format!("{:.3e}", record.flops),
            record.seed.to_string(),
            loss,
            units::duration(record.wall_s),
            units::si(record.tokens_per_s),
        ];
        if say_how {
            cells.push(record.computed_with());
        }
        cells
    };
    let mut header = vec![
        "label",
        "architecture",
        "run",
        "status",
        "depth",
        "width",
        "params",
        "tokens",
        "FLOPs",
        "seed",
        "validation loss ± se",
        "wall",
        "tokens/s",
    ];
    if say_how {
        header.push("computed on");
    }
    let header = header.into_iter().map(str::to_owned).collect();
    Block::Table(header, records.iter().map(row).collect(), 4)
}
