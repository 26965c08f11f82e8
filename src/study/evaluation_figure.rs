//! The figures of a study that show an evaluation: one of its own, or a table of somebody's.

use super::file::EvaluationFigure;
use super::tidy::shown;
use super::{Evaluated, FigureSection, StudyError, table_figures};
use crate::analysis::{Columns, FrameError, Table};
use crate::binomial;
use crate::plot::figures::{Evaluation, EvaluationPanel, EvaluationSeries, share_axis};
use crate::plot::{Axis, Chart, DataPoint, Span};
use crate::tasks::measurement::Row;
use std::path::{Path, PathBuf};

/// The chart of a section that shows an evaluation; `None` for other kinds.
pub(super) fn chart(
    section: &FigureSection,
    evaluated: &[Evaluated],
    table_of: &dyn Fn(&str) -> PathBuf,
) -> Option<Result<Chart, StudyError>> {
    let figure = section.evaluation.as_ref().filter(|_| section.kind == super::FigureKind::Evaluation)?;
    if let Some(name) = section.evaluation() {
        let own = evaluated.iter().find(|one| one.name == name).expect("checked when the file was read");
        return Some(own_chart(section, figure, own, &table_of(name)));
    }
    let path = figure.table.as_ref().expect("checked when the file was read");
    Some(table_chart(section, figure, path))
}

fn on_one_panel(section: &FigureSection, panel: EvaluationPanel, note: String) -> Chart {
    let title = section.title.clone().unwrap_or_default();
    Evaluation { title, panels: vec![panel], note, width: section.width }.chart()
}

fn references(figure: &EvaluationFigure) -> Vec<(f64, String)> {
    figure.references.iter().map(|(label, value)| (*value, label.clone())).collect()
}

/// Shares of a table, which says nothing of their intervals.
fn table_chart(section: &FigureSection, figure: &EvaluationFigure, path: &Path) -> Result<Chart, StudyError> {
    let trials = figure.trials.expect("checked when the file was read");
    let columns = Columns {
        inputs: vec![figure.x.clone()],
        y: figure.y.clone(),
        y_is_share: true,
        group: figure.group.clone(),
        condition: table_figures::condition(&figure.condition)?,
        ..Columns::default()
    };
    let table = Table::read(path, &columns)?;
    let xs: Vec<f64> = table.rows.iter().map(|row| row.inputs[0]).collect();
    let x = Axis::over(figure.x_label.as_ref().unwrap_or(&figure.x), &xs);
    let series = table.groups().into_iter().map(|name| {
        let rows = table.rows.iter().filter(|row| row.group == name);
        let mut points: Vec<DataPoint> = rows
            .map(|row| {
                let (lo, hi) = binomial::wilson(row.y, trials);
                DataPoint::with_bar(row.inputs[0], row.y, Span::new(lo, hi))
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        EvaluationSeries { name: name.unwrap_or_default(), points }
    });
    let series: Vec<EvaluationSeries> = series.collect();
    let y = share_axis(section.y_label.as_ref().unwrap_or(&figure.y), &series);
    let panel = EvaluationPanel { title: None, x, y, series, references: references(figure) };
    let note = format!("Bars: 95 % Wilson intervals of {trials} trials; the noise of training is not in them.");
    Ok(on_one_panel(section, panel, note))
}

/// What an evaluation of the study found.
fn own_chart(
    section: &FigureSection,
    figure: &EvaluationFigure,
    evaluated: &Evaluated,
    path: &Path,
) -> Result<Chart, StudyError> {
    let rows = evaluated.table.matching(figure.condition.as_deref())?;
    if rows.is_empty() {
        return Err(FrameError::NoRows { path: path.to_owned(), excluded: 0 }.into());
    }
    let known = evaluated.table.columns();
    for column in [&figure.x, &figure.y].into_iter().chain(&figure.group) {
        if !known.contains(column) {
            let (path, column, columns) = (path.to_owned(), column.clone(), known.to_vec());
            return Err(FrameError::MissingColumn { path, column, columns }.into());
        }
    }
    let series = series(section, figure, &rows)?;
    let xs: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    let share = evaluated.measurement.is_share() && figure.y == "value";
    let (unit, note) = match evaluated.measurement.is_share() {
        true => (
            "share of right answers",
            "Bars: 95 % Wilson intervals of the questions; the noise of training is not in them.",
        ),
        false => ("nats per token", "Bars: 95 % intervals of what was read; the noise of training is not in them."),
    };
    let label = section.y_label.as_deref().unwrap_or(if figure.y == "value" { unit } else { &figure.y });
    let panel = EvaluationPanel {
        title: None,
        x: Axis::over(figure.x_label.as_ref().unwrap_or(&figure.x), &xs),
        y: if share { share_axis(label, &series) } else { Axis::linear(label) },
        series,
        references: references(figure),
    };
    Ok(on_one_panel(section, panel, note.to_owned()))
}

/// A series for each value of the column that splits rows: numbers rising, words in the order of the table.
fn series(
    section: &FigureSection,
    figure: &EvaluationFigure,
    rows: &[&Row],
) -> Result<Vec<EvaluationSeries>, StudyError> {
    let group = |row: &Row| figure.group.as_ref().map(|column| shown(row.get(column))).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for row in rows {
        let name = group(row);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let number = |name: &String| name.parse::<f64>().ok();
    // A cell without a value, such as the window of a model that has none, stands last.
    if names.iter().all(|name| name.is_empty() || number(name).is_some()) {
        let place = |name: &String| number(name).unwrap_or(f64::INFINITY);
        names.sort_by(|a, b| place(a).total_cmp(&place(b)));
    }
    let titled = |name: &String| match &figure.group {
        Some(column) if number(name).is_some() => format!("{} {name}", column.replace('_', " ")),
        Some(column) if name.is_empty() => format!("no {}", column.replace('_', " ")),
        _ => name.clone(),
    };
    let of = |name: &String| {
        let here = rows.iter().filter(|row| group(row) == *name);
        let mut points: Vec<DataPoint> = here.filter_map(|row| point(figure, row)).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        match points.windows(2).find(|pair| pair[0].x == pair[1].x) {
            Some(pair) => Err(ambiguous(section, figure, &titled(name), pair[0].x)),
            None => Ok(EvaluationSeries { name: titled(name), points }),
        }
    };
    names.iter().map(of).collect()
}

/// Several rows for one place of a figure.
fn ambiguous(section: &FigureSection, figure: &EvaluationFigure, name: &str, x: f64) -> StudyError {
    let of = if name.is_empty() { String::new() } else { format!(" of {name}") };
    let problem = format!(
        "several rows{of} have {} = {x}; hint: take some of them with where, or tell them apart with group",
        figure.x
    );
    StudyError::Ambiguous { name: section.name.clone(), problem }
}

/// The point of a row, with the interval that stands beside its value; none where either number is missing.
fn point(figure: &EvaluationFigure, row: &Row) -> Option<DataPoint> {
    let number = |column: &str| row.get(column)?.as_f64();
    let [low, high] = match figure.y.as_str() {
        "value" => ["low".to_owned(), "high".to_owned()],
        other => ["low", "high"].map(|end| format!("{other}_{end}")),
    };
    let y_bar = number(&low).zip(number(&high)).map(|(low, high)| Span::new(low, high));
    Some(DataPoint { y_bar, ..DataPoint::new(number(&figure.x)?, number(&figure.y)?) })
}
