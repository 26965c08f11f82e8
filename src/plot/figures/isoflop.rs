//! Loss against size at equal compute, and where the valley runs.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{Band, DataPoint, Line, Mark, PointSet, XyPanel};
use super::{extremes, fitted_lines};

/// Runs of equal compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Its name in the legend, such as "10¹⁹ FLOPs".
    pub name: String,
    /// Size and loss; both positive.
    pub points: Vec<DataPoint>,
    /// The parabola through them, by rising size; may be empty.
    pub parabola: Vec<(f64, f64)>,
    /// Its minimum: size and loss.
    pub minimum: Option<(f64, f64)>,
}

/// The best size against compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Valley {
    /// Compute with its unit.
    pub x_label: String,
    /// Compute and best size of each budget, in the order of the budgets, with bars where they are known.
    pub optima: Vec<DataPoint>,
    /// The power law through them, by rising compute; may be empty.
    pub law: Vec<(f64, f64)>,
    /// Its confidence band; may be empty.
    pub band: Vec<(f64, f64, f64)>,
    /// The law in words, such as "N ∝ C^0.49 [0.45, 0.53]".
    pub legend: String,
}

/// Parabolas of several budgets and the valley along their minima.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Isoflop {
    /// Heading; may be empty.
    pub title: String,
    /// Size with its unit, such as "parameters N".
    pub size_label: String,
    /// Loss with its unit.
    pub loss_label: String,
    /// By rising compute.
    pub budgets: Vec<Budget>,
    /// The second panel.
    pub valley: Option<Valley>,
    /// Width on paper.
    pub width: Width,
}

impl Isoflop {
    /// The chart: beside each other on the full width, below each other in a column.
    pub fn chart(&self) -> Chart {
        let mut panel =
            XyPanel { x: Axis::log(&self.size_label), y: Axis::log(&self.loss_label), ..XyPanel::default() };
        let mut legend = Vec::new();
        for (i, budget) in self.budgets.iter().enumerate() {
            let look = Look(i);
            if let Some((first, last)) = extremes(budget.points.iter().map(|point| point.x)) {
                panel.lines.extend(fitted_lines(look, &budget.parabola, first, last));
            }
            let points = budget.points.clone();
            panel.points.push(PointSet { name: budget.name.clone(), look, points, ..PointSet::default() });
            panel.marks.extend(budget.minimum.map(|(x, y)| Mark { look, x, y }));
            let key = if budget.parabola.is_empty() { Key::MARKER } else { Key::both(Stroke::Solid) };
            legend.push(LegendEntry::new(&budget.name, look, key));
        }
        let mut panels = vec![panel.into()];
        if let Some(valley) = &self.valley {
            let look = Look(self.budgets.len());
            panels.push(self.valley_panel(valley, look).into());
            let key = Key { band: !valley.band.is_empty(), ..Key::line(Stroke::Solid) };
            legend.push(LegendEntry::new(&valley.legend, look, key));
        }
        let stars = self.budgets.iter().any(|budget| budget.minimum.is_some());
        Chart {
            title: self.title.clone(),
            width: self.width,
            columns: if self.width == Width::Full { panels.len() } else { 1 },
            panels,
            legend,
            caption_note: stars.then(|| "Stars: minima of the parabolas.".to_owned()),
        }
    }

    fn valley_panel(&self, valley: &Valley, look: Look) -> XyPanel {
        let mut panel = XyPanel {
            x: Axis::log(&valley.x_label),
            y: Axis::log(format!("best {}", self.size_label)),
            ..XyPanel::default()
        };
        if let Some((first, last)) = extremes(valley.optima.iter().map(|point| point.x)) {
            panel.lines = fitted_lines(look, &valley.law, first, last);
        } else {
            panel.lines.push(Line { look, points: valley.law.clone(), ..Line::default() });
        }
        if !valley.band.is_empty() {
            panel.bands.push(Band { look, samples: valley.band.clone() });
        }
        // Each optimum looks like its budget.
        let one = |(i, point): (usize, &DataPoint)| PointSet {
            name: self.budgets.get(i).map_or_else(|| "optima".to_owned(), |budget| budget.name.clone()),
            look: Look(i),
            points: vec![*point],
            ..PointSet::default()
        };
        panel.points = valley.optima.iter().enumerate().map(one).collect();
        panel
    }
}
