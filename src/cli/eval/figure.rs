//! The figure of one evaluation.

use crate::plot::figures::{Evaluation as Figure, EvaluationPanel, EvaluationSeries, SettingGrid, share_axis};
use crate::plot::{Axis, Best, Chart, DataPoint, Span, Width};
use crate::tasks::Tag;
use crate::tasks::measurement::{Evaluation, Measurement, Row};
use serde_json::Value;

/// What bars are where values are shares of right answers.
const OF_SHARES: &str = "Bars: 95 % Wilson intervals of the questions.";
/// The same where each share is of a range of distances.
const OF_RANGES: &str = "Bars: 95 % Wilson intervals of the questions; across, the range of distances.";
/// What they are where values are mean losses.
const OF_MEANS: &str = "Bars: 1.96 standard errors to either side; across, the range that a mean is over.";

/// The figure that suits a task: shares of right answers by what they are counted by, losses by place or distance.
pub(super) fn chart(evaluation: &Evaluation, width: Width) -> Chart {
    match &evaluation.settings {
        Measurement::Loss(_) => losses(evaluation, width),
        Measurement::Recall(_) => recalls(evaluation, width),
        Measurement::Niah(task) if task.by == [Tag::Length, Tag::Depth] && task.lengths.len() > 1 => {
            cells(evaluation, width)
        }
        Measurement::Niah(_) | Measurement::Phonebook(_) => shares(evaluation, width),
    }
}

fn number(row: &Row, key: &str) -> Option<f64> {
    row.get(key).and_then(Value::as_f64)
}

/// Values of a key in rising order, each once.
fn levels(rows: &[Row], key: &str) -> Vec<f64> {
    let mut out: Vec<f64> = rows.iter().filter_map(|row| number(row, key)).collect();
    out.sort_by(f64::total_cmp);
    out.dedup();
    out
}

/// Its interval, where it has one.
fn bar(row: &Row) -> Option<Span> {
    Some(Span::new(number(row, "low")?, number(row, "high")?))
}

/// The value of a row whose x is a range: the point in its middle, on a logarithmic axis.
fn over_range(row: &Row, least: f64) -> Option<DataPoint> {
    let (from, below) = (number(row, "from")?.max(least), number(row, "below")?);
    let x_bar = Some(Span::new(from, below));
    Some(DataPoint { x: (from * below).sqrt(), y: number(row, "value")?, x_bar, y_bar: bar(row) })
}

fn of_panel(title: &str, panel: EvaluationPanel, note: &str, width: Width) -> Chart {
    Figure { title: title.to_owned(), panels: vec![panel], note: note.to_owned(), width }.chart()
}

/// Shares by the last tag that takes several values, a series for each combination of the others.
fn shares(evaluation: &Evaluation, width: Width) -> Chart {
    let (rows, by) = (&evaluation.rows, evaluation.settings.by());
    let column = |tag: &Tag| if *tag == Tag::Distance { "from" } else { tag.name() };
    let several = |tag: &&Tag| levels(rows, column(tag)).len() > 1;
    let along = by.iter().rev().find(several).or(by.last()).copied().unwrap_or(Tag::Entries);
    let name = |row: &Row| {
        let others = by.iter().filter(|tag| **tag != along);
        let named = others.filter_map(|tag| Some(format!("{} {}", tag.name(), number(row, column(tag))?)));
        named.collect::<Vec<_>>().join(", ")
    };
    let mut series: Vec<EvaluationSeries> = Vec::new();
    for row in rows {
        let point = match along {
            Tag::Distance => over_range(row, 1.0),
            tag => number(row, tag.name()).zip(number(row, "value")).map(|(x, y)| DataPoint {
                x_bar: None,
                y_bar: bar(row),
                ..DataPoint::new(x, y)
            }),
        };
        let name = name(row);
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.extend(point),
            None => series.push(EvaluationSeries { name, points: point.into_iter().collect() }),
        }
    }
    let xs: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    let x = match along {
        Tag::Entries => Axis::over("entries of the phonebook", &xs),
        Tag::Length => Axis::over("length (tokens)", &xs),
        Tag::Depth => Axis::linear("depth of the answer (0 beginning, 1 end)"),
        Tag::Distance => Axis::log("distance of the answer from the end (tokens)"),
    };
    let needles = matches!(evaluation.settings, Measurement::Niah(_));
    let title = if needles { "Needles in a haystack" } else { "Phonebook" };
    let y = share_axis("share of right answers", &series);
    let note = if along == Tag::Distance { OF_RANGES } else { OF_SHARES };
    of_panel(title, EvaluationPanel { x, y, series, ..EvaluationPanel::default() }, note, width)
}

/// Shares by length and depth.
fn cells(evaluation: &Evaluation, width: Width) -> Chart {
    let rows = &evaluation.rows;
    let (lengths, depths) = (levels(rows, "length"), levels(rows, "depth"));
    let share = |length: f64, depth: f64| {
        let here = |row: &&Row| number(row, "length") == Some(length) && number(row, "depth") == Some(depth);
        rows.iter().find(here).and_then(|row| number(row, "value"))
    };
    let figure = SettingGrid {
        title: "Needles in a haystack".to_owned(),
        x_label: "length (tokens)".to_owned(),
        y_label: "depth (0 beginning, 1 end)".to_owned(),
        values: depths.iter().map(|depth| lengths.iter().map(|length| share(*length, *depth)).collect()).collect(),
        x: lengths,
        y: depths,
        value_label: "share of right answers".to_owned(),
        decimals: 2,
        range: Some((0.0, 1.0)),
        best: Best::Unmarked,
        width,
    };
    figure.chart()
}

/// Losses by position, and of all positions up to a length beside the true floor.
fn losses(evaluation: &Evaluation, width: Width) -> Chart {
    let of = |kind: &'static str| evaluation.rows.iter().filter(move |row| row["positions"] == kind);
    let upto = |key: &'static str| {
        let points =
            of("to").filter_map(move |row| Some((row, DataPoint::new(number(row, "below")?, number(row, key)?))));
        points.map(move |(row, point)| DataPoint { y_bar: bar(row).filter(|_| key == "value"), ..point })
    };
    let named = |name: &str, points: Vec<DataPoint>| EvaluationSeries { name: name.to_owned(), points };
    let mut series = vec![
        named("at positions", of("at").filter_map(|row| over_range(row, 1.0)).collect()),
        named("mean up to a length", upto("value").collect()),
        named("true floor of that mean", upto("floor").collect()),
    ];
    series.retain(|series| !series.points.is_empty());
    let x = Axis::log("position in the row (tokens)");
    let y = Axis::linear("loss (nats per token)");
    of_panel("Loss by position", EvaluationPanel { x, y, series, ..EvaluationPanel::default() }, OF_MEANS, width)
}

/// Losses of recalled values by distance, between the floor and what they cost without recall.
fn recalls(evaluation: &Evaluation, width: Width) -> Chart {
    let points = evaluation.rows.iter().filter_map(|row| over_range(row, 1.0)).collect();
    let without = evaluation.rows.first().and_then(|row| number(row, "without_recall"));
    let mut references = vec![(0.0, "true floor".to_owned())];
    references.extend(without.map(|nats| (nats, "without recall".to_owned())));
    let panel = EvaluationPanel {
        x: Axis::log("distance of the last mention (tokens)"),
        y: Axis::linear("loss of a recalled value (nats)"),
        series: vec![EvaluationSeries { name: "recalled values".to_owned(), points }],
        references,
        ..EvaluationPanel::default()
    };
    of_panel("Recall by distance", panel, OF_MEANS, width)
}
