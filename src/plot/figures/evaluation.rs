//! Accuracy against a setting or a distance, and coverage of intervals.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{DataPoint, Direction, PointSet, Reference, XyPanel};

/// Measurements of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationSeries {
    /// Its name in the legend; equal names in several panels are one entry and look alike. A series alone may have none.
    pub name: String,
    /// By rising x, joined by a line; vertical bars are binomial intervals.
    pub points: Vec<DataPoint>,
}

/// A linear axis for the shares of these series: from 0 to 1 with room for the markers of either, unless all of them
/// with their bars lie so close together that they could not be told apart on it.
pub fn share_axis(label: impl Into<String>, series: &[EvaluationSeries]) -> Axis {
    /// Of the whole axis.
    const CLOSE: f64 = 0.2;
    let points = || series.iter().flat_map(|series| &series.points);
    let bars = points().filter_map(|point| point.y_bar).flat_map(|bar| [bar.lo, bar.hi]).flatten();
    let ends = |(lo, hi): (f64, f64), value: f64| (lo.min(value), hi.max(value));
    let (lo, hi) = points().map(|point| point.y).chain(bars).fold((f64::INFINITY, f64::NEG_INFINITY), ends);
    let axis = Axis::linear(label);
    if hi > lo && hi - lo < CLOSE { axis } else { axis.within(-0.03, 1.03) }
}

/// One panel of measurements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationPanel {
    /// Heading.
    pub title: Option<String>,
    /// What is varied; ticks at its values can be given.
    pub x: Axis,
    /// What is measured; accuracies are best shown from 0 to 1.
    pub y: Axis,
    /// Series.
    pub series: Vec<EvaluationSeries>,
    /// Horizontal lines: chance, or a series that has no x.
    pub references: Vec<(f64, String)>,
}

/// Panels of measurements side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Heading; may be empty.
    pub title: String,
    /// Panels.
    pub panels: Vec<EvaluationPanel>,
    /// What bars are, such as "Bars: 95 % Wilson intervals."; may be empty.
    pub note: String,
    /// Width on paper.
    pub width: Width,
}

impl Evaluation {
    /// The chart: up to three panels in a row on the full width, one in a column.
    pub fn chart(&self) -> Chart {
        let mut legend: Vec<LegendEntry> = Vec::new();
        let mut panels = Vec::new();
        for part in &self.panels {
            let mut panel = XyPanel {
                title: part.title.clone(),
                x: part.x.clone(),
                y: part.y.clone(),
                dodge: if part.series.len() > 4 { 4.0 } else { 6.0 },
                ..XyPanel::default()
            };
            for series in &part.series {
                let known = legend.iter().position(|entry| entry.name == series.name);
                let look = Look(known.unwrap_or(legend.len()));
                if known.is_none() && !series.name.is_empty() {
                    legend.push(LegendEntry::new(&series.name, look, Key::both(Stroke::Own)));
                }
                let points = series.points.clone();
                let joined = Some(Stroke::Own);
                panel.points.push(PointSet { name: series.name.clone(), look, points, joined, hollow: false });
            }
            let line = |(value, label): &(f64, String)| Reference {
                value: *value,
                label: label.clone(),
                direction: Direction::Horizontal,
            };
            panel.references = part.references.iter().map(line).collect();
            panels.push(panel.into());
        }
        Chart {
            title: self.title.clone(),
            width: self.width,
            columns: if self.width == Width::Full { panels.len().clamp(1, 3) } else { 1 },
            panels,
            legend,
            caption_note: (!self.note.is_empty()).then(|| self.note.clone()),
        }
    }
}

/// How often intervals hold the truth, by the number of points that they are made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Heading; may be empty.
    pub title: String,
    /// What x is, such as "points in a fit".
    pub x_label: String,
    /// Nominal coverage, 0 to 1.
    pub nominal: f64,
    /// Kinds of intervals: x and achieved coverage (0 to 1) with binomial bars.
    pub series: Vec<EvaluationSeries>,
    /// Width on paper.
    pub width: Width,
}

impl Coverage {
    /// From the lowest end of all bars to the highest, with some room: the bars are what the figure is about.
    fn shares(&self) -> Option<(f64, f64)> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ends = points().filter_map(|point| point.y_bar).flat_map(|bar| [bar.lo, bar.hi]).flatten();
        let all = points().map(|point| point.y).chain(ends).filter(|share| share.is_finite());
        let (lo, hi) = all.fold((self.nominal, self.nominal), |(lo, hi), share| (lo.min(share), hi.max(share)));
        let room = 0.06 * (hi - lo);
        (room > 0.0).then_some((lo - room, hi + room))
    }

    /// The chart.
    pub fn chart(&self) -> Chart {
        let mut values: Vec<f64> = self.series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let panel = EvaluationPanel {
            x: Axis::linear(&self.x_label).with_ticks(super::super::axis::Ticks::Values(values)),
            y: Axis { range: self.shares(), ..Axis::linear("achieved coverage") },
            series: self.series.clone(),
            references: vec![(self.nominal, format!("nominal {} %", (1e4 * self.nominal).round() / 1e2))],
            ..EvaluationPanel::default()
        };
        let (title, note) = (self.title.clone(), "Bars: 95 % binomial intervals of the simulation.".to_owned());
        Evaluation { title, panels: vec![panel], note, width: self.width }.chart()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::chart::Panel;
    use super::super::super::xy::Span;
    use super::*;

    #[test]
    fn shares_that_are_alike_fill_the_axis() {
        let series = |shares: &[f64]| {
            let point = |share: &f64| DataPoint::with_bar(1.0, *share, Span::new(share - 0.02, *share));
            [EvaluationSeries { points: shares.iter().map(point).collect(), ..EvaluationSeries::default() }]
        };
        assert_eq!(share_axis("share", &series(&[0.2, 0.9])).range, Some((-0.03, 1.03)));
        assert_eq!(share_axis("share", &series(&[])).range, Some((-0.03, 1.03)));
        assert_eq!(share_axis("share", &series(&[0.98, 1.0])).range, None);
    }

    #[test]
    fn whole_bars_of_coverages_are_shown() {
        let bars = [(5.0, 0.951, 0.936, 0.963), (6.0, 0.951, 0.936, 0.963), (12.0, 0.949, 0.934, 0.961)];
        let points = bars.map(|(n, share, lo, hi)| DataPoint::with_bar(n, share, Span::new(lo, hi))).to_vec();
        let series = vec![EvaluationSeries { name: "profile".to_owned(), points }];
        let chart = Coverage { nominal: 0.95, series, ..Coverage::default() }.chart();
        let Panel::Xy(panel) = &chart.panels[0] else { panic!("{chart:?}") };
        let (lo, hi) = panel.y_range(panel.x_range());
        assert!(lo < 0.934 && lo > 0.93 && hi > 0.963 && hi < 0.97, "{lo} {hi}");
    }
}
