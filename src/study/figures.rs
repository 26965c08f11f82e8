//! The figures of a study, from its fits.

use super::file::FigureKind;
use super::outputs::{Fitted, comparison};
use super::{
    Evaluated, FigureSection, FitSection, Study, StudyError, drawing, evaluation_figure, law_figures, table_figures,
};
use crate::analysis::forms::Input;
use crate::analysis::{FitOptions, IntervalMethod, Row, Sample, display, profile};
use crate::plot::figures::{ProfileCurve, ProfileCurves, Reducible, ReducibleSeries, forest};
use crate::plot::{Axis, Chart, Figure, FloorLine, ForestPanel, ForestRow, Look, SeriesPoint, Span};

/// Resamples behind the best allocation of a fit whose intervals come from elsewhere.
const ALLOCATION_DRAWS: usize = 400;

impl Study {
    /// One figure; `floor` is the true floor of the loss that runs report, where it is known.
    pub(super) fn chart(
        &self,
        section: &FigureSection,
        floor: Option<f64>,
        evaluated: &[Evaluated],
    ) -> Result<Chart, StudyError> {
        let table = section.table().map(|table| self.shown_table(table));
        let of_table = table.as_ref().and_then(|table| table_figures::chart(section, table));
        if let Some(chart) =
            of_table.or_else(|| evaluation_figure::chart(section, evaluated, &|name| self.evaluation_table(name)))
        {
            return chart;
        }
        let fit = self.file.fits.iter().find(|fit| fit.name == section.fit).expect("checked when the file was read");
        let mut options = fit.options();
        match section.kind {
            FigureKind::Profiles => options.interval = IntervalMethod::Profile,
            FigureKind::Allocation if !matches!(options.interval, IntervalMethod::Bootstrap(_)) => {
                options.interval = IntervalMethod::Bootstrap(ALLOCATION_DRAWS);
            }
            _ => {}
        }
        let groups = self.fitted_by(fit, &options, section.kind == FigureKind::Loss)?;
        Ok(match section.kind {
            FigureKind::Reducible => reducible_chart(section, fit, groups),
            FigureKind::Profiles => profile_chart(section, fit, &options, groups),
            FigureKind::Forest => forest_chart(section, fit, &groups)?,
            FigureKind::Surface => law_figures::surface_chart(section, fit, groups),
            FigureKind::Allocation => law_figures::allocation_chart(section, fit, groups, table.as_deref())?,
            // Kinds that show a table are drawn by now.
            _ => loss_chart(section, fit, groups, floor),
        })
    }
}

fn forest_chart(section: &FigureSection, fit: &FitSection, groups: &[Fitted]) -> Result<Chart, StudyError> {
    let compared = comparison(fit, groups)?.expect("checked when the file was read");
    let Some(comparison) = compared.comparison else { return Ok(Chart::default()) };
    let texts = display::with_intervals(comparison.pairs.iter().map(|t| (t.difference, &t.interval)));
    let floors = comparison.pairs.iter().zip(texts).enumerate().map(|(i, (t, text))| ForestRow {
        label: "ΔC".to_owned(),
        group: Some(format!("{} against {}", t.group, t.baseline)),
        estimate: t.difference,
        lo: t.interval.lo,
        hi: t.interval.hi,
        text,
        look: Look(i),
    });
    let texts = display::with_intervals(comparison.multipliers.iter().map(|m| (m.multiplier, &m.interval)));
    let multipliers = comparison.multipliers.iter().zip(texts).map(|(m, text)| ForestRow {
        label: format!("at loss {:.3}", m.loss),
        group: Some(format!("{} against {}", m.group, m.baseline)),
        estimate: m.multiplier,
        lo: m.interval.lo,
        hi: m.interval.hi,
        text,
        look: Look(comparison.pairs.iter().position(|t| t.group == m.group && t.baseline == m.baseline).unwrap_or(0)),
    });
    let panels = vec![
        ForestPanel {
            title: Some("difference of the floors".to_owned()),
            x: Axis::linear("ΔC (nats per token)"),
            rows: floors.collect(),
            reference: Some((0.0, "equal".to_owned())),
        },
        ForestPanel {
            title: Some("multiplier at equal loss".to_owned()),
            x: Axis::log(format!("multiple of {} that the baseline needs for the same loss", fit.label(Input::X))),
            rows: multipliers.collect(),
            reference: Some((1.0, "equal".to_owned())),
        },
    ];
    let panels = panels.into_iter().filter(|panel| !panel.rows.is_empty()).collect();
    let chart = forest(section.title.clone().unwrap_or_default(), section.width, panels);
    // Names of groups are long: one panel below the other leaves them room.
    Ok(Chart { columns: 1, ..chart })
}

fn loss_chart(section: &FigureSection, fit: &FitSection, groups: Vec<Fitted>, floor: Option<f64>) -> Chart {
    let point = |row: &Row| SeriesPoint { x: row.inputs[0], y: row.y, y_se: row.y_se };
    let series = groups
        .into_iter()
        .map(|group| drawing::series(&group.group, group.rows.iter().map(point).collect(), group.curve));
    let figure = Figure {
        title: section.title.clone().unwrap_or_default(),
        x_label: fit.label(Input::X).to_owned(),
        y_label: section.y_label.clone().unwrap_or_else(|| fit.y.clone()),
        series: series.filter(|series| !series.points.is_empty()).collect(),
        floor: floor.filter(|_| fit.y == "val_loss").map(|loss| FloorLine { loss, label: "true floor".to_owned() }),
        residuals: section.residuals,
        width: section.width,
    };
    figure.chart()
}

fn reducible_chart(section: &FigureSection, fit: &FitSection, groups: Vec<Fitted>) -> Chart {
    let series = groups.into_iter().filter_map(|group| {
        let fitted = group.outcome.ok()?;
        let floor = fitted.floor()?;
        let curve = group.curve.map(|curve| curve.samples).unwrap_or_default();
        Some(ReducibleSeries {
            name: group.group,
            points: group.rows.iter().map(|row| (row.inputs[0], row.y)).collect(),
            floor: floor.value,
            floor_interval: floor.interval.map(|i| Span { lo: i.lo, hi: i.hi }),
            curve: curve.into_iter().map(|(x, loss)| (x, loss - floor.value)).collect(),
            legend: format!("{} = {}", floor.name, display::with_error(floor)),
        })
    });
    let figure = Reducible {
        title: section.title.clone().unwrap_or_default(),
        x_label: fit.label(Input::X).to_owned(),
        y_label: section.y_label.clone().unwrap_or_else(|| "L - C (nats per token)".to_owned()),
        series: series.collect(),
        width: section.width,
    };
    figure.chart()
}

fn profile_chart(section: &FigureSection, fit: &FitSection, options: &FitOptions, groups: Vec<Fitted>) -> Chart {
    let curves = groups.into_iter().filter_map(|group| {
        let fitted = group.outcome.ok()?;
        let floor = fitted.floor()?;
        let samples = profile(&Sample::of_rows(&group.rows), options, floor.name, 61)?;
        let interval = floor.interval.as_ref().map_or(String::new(), display::interval);
        Some(ProfileCurve {
            name: group.group,
            samples,
            optimum: Some(floor.value),
            legend: format!("{} = {} ({interval})", floor.name, display::significant(floor.value, 4)),
        })
    });
    let figure = ProfileCurves {
        title: section.title.clone().unwrap_or_default(),
        x_label: format!("irreducible loss {} (nats per token)", fit.law().floor_name().unwrap_or_default()),
        y_label: section.y_label.clone().unwrap_or_else(|| {
            let minimised = if options.objective.is_robust() { "objective" } else { "sum of squares" };
            format!("rise of the {minimised} / 95 % limit")
        }),
        cut: 1.0,
        cut_label: "95 %".to_owned(),
        curves: curves.collect(),
        width: section.width,
    };
    figure.chart()
}
