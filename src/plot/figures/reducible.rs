//! Loss above its fitted floor: straight lines on logarithmic axes, as far as the floor is right.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{DataPoint, PointSet, Span, XyPanel};
use super::{extremes, fitted_lines, standard_errors};

/// Losses of one series and the floor fitted to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReducibleSeries {
    /// Its name in the legend.
    pub name: String,
    /// Scale and loss; both positive.
    pub points: Vec<(f64, f64)>,
    /// The fitted floor C, in units of the loss.
    pub floor: f64,
    /// Its interval; an end may be open.
    pub floor_interval: Option<Span>,
    /// Scale and fitted reducible loss (without C) by rising scale; may be empty.
    pub curve: Vec<(f64, f64)>,
    /// Numbers for the legend; may be empty.
    pub legend: String,
}

/// L − C against scale.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reducible {
    /// Heading; may be empty.
    pub title: String,
    /// What x is, with its unit.
    pub x_label: String,
    /// What y is, with its unit.
    pub y_label: String,
    /// In the order of the legend.
    pub series: Vec<ReducibleSeries>,
    /// Width on paper.
    pub width: Width,
}

impl Reducible {
    /// The chart. Bars show what L − C can be within the interval of C; where that may be nothing, they reach to the
    /// bottom, and where the interval has no lower end, up to L. Points at or below their floor have no place on a logarithmic axis; the note counts them.
    pub fn chart(&self) -> Chart {
        let mut panel = XyPanel { x: Axis::log(&self.x_label), y: Axis::log(&self.y_label), ..XyPanel::default() };
        panel.dodge = if self.series.len() > 4 { 3.0 } else { 6.0 };
        let mut legend = Vec::new();
        let mut below = 0;
        for (i, series) in self.series.iter().enumerate() {
            let look = Look(i);
            let above = |loss: f64, floor: f64| Some(loss - floor).filter(|rest| *rest > 0.0);
            let point = |&(x, loss): &(f64, f64)| {
                let bar = |interval: Span| Span {
                    lo: interval.hi.and_then(|hi| above(loss, hi)),
                    hi: Some(loss - interval.lo.unwrap_or(0.0)),
                };
                Some(DataPoint { x, y: above(loss, series.floor)?, x_bar: None, y_bar: series.floor_interval.map(bar) })
            };
            let points: Vec<DataPoint> = series.points.iter().filter_map(point).collect();
            below += series.points.len() - points.len();
            if let Some((first, last)) = extremes(points.iter().map(|point| point.x)) {
                panel.lines.extend(fitted_lines(look, &series.curve, first, last));
            }
            panel.points.push(PointSet { name: series.name.clone(), look, points, ..PointSet::default() });
            let key = if series.curve.is_empty() { Key::MARKER } else { Key::both(Stroke::Solid) };
            legend.push(LegendEntry { name: series.name.clone(), detail: series.legend.clone(), look, key });
        }
        let mut note = "Bars: L − C within the interval of C; an arrow: it goes on, downwards to zero.".to_owned();
        if self.series.iter().any(|series| series.floor_interval.is_some_and(|interval| interval.lo.is_none())) {
            note += " An interval of C without a lower end begins at C = 0.";
        }
        note += standard_errors(self.series.iter().map(|series| &*series.legend));
        if below > 0 {
            note += &format!(" Not shown: {below} point(s) at or below their C.");
        }
        Chart::single(&self.title, self.width, panel, legend, Some(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Panel;

    #[test]
    fn bars_end_where_the_floor_allows() {
        let floor_interval = Some(Span::new(1.7, 1.95));
        let points = vec![(1.0, 2.5), (10.0, 1.9), (100.0, 1.75)];
        let series = vec![ReducibleSeries { points, floor: 1.8, floor_interval, ..ReducibleSeries::default() }];
        let chart = Reducible { series, ..Reducible::default() }.chart();
        let Panel::Xy(panel) = &chart.panels[0] else { panic!() };
        let bars: Vec<Span> = panel.points[0].points.iter().filter_map(|point| point.y_bar).collect();
        assert!(bars.len() == 2 && bars[0].lo.is_some() && bars[1].lo.is_none() && bars[1].hi.is_some());
        assert!(chart.caption_note.unwrap().contains("1 point(s)"));
    }
}
