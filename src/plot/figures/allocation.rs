//! How the best size and the best number of tokens grow with compute; estimates with intervals.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::forest::ForestPanel;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{Band, DataPoint, PointSet, XyPanel};
use super::{extremes, fitted_lines};

/// Optima of one series and their power law.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LawSeries {
    /// Its name in the legend; equal names in several panels are one entry.
    pub name: String,
    /// Compute and optimum, with bars where they are known.
    pub points: Vec<DataPoint>,
    /// The power law, by rising compute; may be empty.
    pub law: Vec<(f64, f64)>,
    /// Its confidence band; may be empty.
    pub band: Vec<(f64, f64, f64)>,
    /// Least and greatest compute behind the law, beyond which it is dashed; those of the points where nothing is said.
    pub data: Option<(f64, f64)>,
}

/// One quantity against compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocationPanel {
    /// The quantity with its unit, such as "best parameters N".
    pub y_label: String,
    /// Series; those of one name look alike in all panels.
    pub series: Vec<LawSeries>,
}

/// Best sizes and tokens against compute, and the exponents of their growth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Heading; may be empty.
    pub title: String,
    /// Compute with its unit.
    pub compute_label: String,
    /// One panel for each quantity.
    pub panels: Vec<AllocationPanel>,
    /// The exponents, if there are any. Their looks are those of the series with the same name as label, if there is one.
    pub exponents: Option<ForestPanel>,
    /// Width on paper.
    pub width: Width,
}

impl Allocation {
    /// The chart: beside each other on the full width, below each other in a column.
    pub fn chart(&self) -> Chart {
        let mut legend: Vec<LegendEntry> = Vec::new();
        let mut panels = Vec::new();
        let mut dashes = false;
        for quantity in &self.panels {
            let (x, y) = (Axis::log(&self.compute_label), Axis::log(&quantity.y_label));
            let mut panel = XyPanel { x, y, ..XyPanel::default() };
            for series in &quantity.series {
                let known = legend.iter().position(|entry| entry.name == series.name);
                let look = Look(known.unwrap_or(legend.len()));
                if known.is_none() {
                    let line = match (series.law.is_empty(), series.points.is_empty()) {
                        (true, _) => Key::MARKER,
                        (false, true) => Key::line(Stroke::Solid),
                        (false, false) => Key::both(Stroke::Solid),
                    };
                    let key = Key { band: !series.band.is_empty(), ..line };
                    legend.push(LegendEntry::new(&series.name, look, key));
                }
                let of_points = || extremes(series.points.iter().map(|point| point.x));
                let (first, last) = series.data.or_else(of_points).unwrap_or((0.0, f64::INFINITY));
                panel.lines.extend(fitted_lines(look, &series.law, first, last));
                dashes |= panel.lines.iter().any(|line| line.stroke == Stroke::Dashed);
                if !series.band.is_empty() {
                    panel.bands.push(Band { look, samples: series.band.clone() });
                }
                let points = series.points.clone();
                panel.points.push(PointSet { name: series.name.clone(), look, points, ..PointSet::default() });
            }
            panels.push(panel.into());
        }
        if let Some(exponents) = &self.exponents {
            let mut exponents = exponents.clone();
            for row in &mut exponents.rows {
                if let Some(entry) = legend.iter().find(|entry| entry.name == row.label) {
                    row.look = entry.look;
                }
            }
            panels.push(exponents.into());
        }
        Chart {
            title: self.title.clone(),
            width: self.width,
            columns: if self.width == Width::Full { panels.len().min(3) } else { 1 },
            panels,
            legend,
            caption_note: dashes.then(|| "Dashed: beyond the data.".to_owned()),
        }
    }
}

/// Estimates with intervals alone, one panel below or beside the other.
pub fn forest(title: impl Into<String>, width: Width, panels: Vec<ForestPanel>) -> Chart {
    let columns = if width == Width::Full { panels.len().clamp(1, 2) } else { 1 };
    let arrows = panels.iter().any(ForestPanel::has_arrows);
    Chart {
        title: title.into(),
        width,
        panels: panels.into_iter().map(Into::into).collect(),
        columns,
        legend: Vec::new(),
        caption_note: arrows.then(|| "Arrow: the interval goes on beyond the axis.".to_owned()),
    }
}
