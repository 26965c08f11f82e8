//! A law of parameters and tokens: losses against tokens, what is left, and lines of equal loss in the plane of both.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{DataPoint, Line, PointSet, Reference, XyPanel};
use super::{extremes, fitted_lines};

/// One run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SurfacePoint {
    /// Parameters.
    pub n: f64,
    /// Training tokens.
    pub d: f64,
    /// Measured loss.
    pub loss: f64,
    /// Measured loss less that of the law, where there is one.
    pub residual: Option<f64>,
}

/// Runs of similar size, and the law at a size among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SurfaceLevel {
    /// Its name in the legend, such as a range of N.
    pub name: String,
    /// Its runs.
    pub points: Vec<SurfacePoint>,
    /// Tokens and loss of the law at one N, by rising tokens.
    pub curve: Vec<(f64, f64)>,
}

/// A line of equal loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contour {
    /// The loss, in words.
    pub label: String,
    /// N and D, by rising N.
    pub points: Vec<(f64, f64)>,
}

/// A law of N and D with the runs that it was fitted to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surface {
    /// Heading; may be empty.
    pub title: String,
    /// Parameters, with their unit.
    pub n_label: String,
    /// Tokens, with their unit.
    pub d_label: String,
    /// Loss, with its unit.
    pub loss_label: String,
    /// By rising N.
    pub levels: Vec<SurfaceLevel>,
    /// Of the law, over the plane.
    pub contours: Vec<Contour>,
    /// N and D of least loss for their compute, by rising N; may be empty.
    pub best: Vec<(f64, f64)>,
    /// Width on paper.
    pub width: Width,
}

impl Surface {
    /// The chart: losses with residuals below them, and the plane beside or below.
    pub fn chart(&self) -> Chart {
        let mut legend: Vec<LegendEntry> =
            self.levels.iter().enumerate().map(|(i, level)| entry(level, Look(i))).collect();
        let mut panels = vec![self.losses().into()];
        let residuals = self.residuals();
        if !residuals.is_empty() {
            panels.push(residuals.into());
        }
        panels.push(self.plane().into());
        if !self.best.is_empty() {
            legend.push(LegendEntry::new("compute-optimal N and D", self.best_look(), Key::line(Stroke::Own)));
        }
        Chart {
            title: self.title.clone(),
            width: self.width,
            panels,
            columns: if self.width == Width::Full { 2 } else { 1 },
            legend,
            caption_note: Some(self.note()),
        }
    }

    fn note(&self) -> String {
        let mut out = String::new();
        if self.levels.iter().any(|level| !level.curve.is_empty()) {
            out += "Curves: the law at the middle of each range of N, dashed beyond its runs; residuals take each run's own N.";
        }
        if let (Some(first), Some(last)) = (self.contours.first(), self.contours.last()) {
            // Not every line has room for its label.
            out += &format!(" Grey lines: equal loss after the law, {} to {}.", first.label, last.label);
        }
        out
    }

    /// The look of the best line: one whose own stroke is a line of dashes.
    fn best_look(&self) -> Look {
        Look(self.levels.len().max(1))
    }

    fn losses(&self) -> XyPanel {
        let mut panel = XyPanel { x: Axis::log(&self.d_label), y: Axis::log(&self.loss_label), ..XyPanel::default() };
        for (i, level) in self.levels.iter().enumerate() {
            if let Some((first, last)) = extremes(level.points.iter().map(|point| point.d)) {
                panel.lines.extend(fitted_lines(Look(i), &level.curve, first, last));
            }
            panel.points.push(level.set(i, |point| Some((point.d, point.loss))));
        }
        panel
    }

    fn residuals(&self) -> XyPanel {
        XyPanel {
            x: Axis::log(&self.d_label),
            y: Axis::linear(format!("measured − fitted {}", self.loss_label)),
            references: vec![Reference::default()],
            points: self
                .levels
                .iter()
                .enumerate()
                .map(|(i, l)| l.set(i, |point| Some((point.d, point.residual?))))
                .collect(),
            share_x_with_above: true,
            ..XyPanel::default()
        }
    }

    fn plane(&self) -> XyPanel {
        let points = self.levels.iter().enumerate().map(|(i, level)| level.set(i, |point| Some((point.n, point.d))));
        let mut panel = XyPanel {
            x: Axis::log(&self.n_label),
            y: Axis::log(&self.d_label),
            points: points.collect(),
            ..XyPanel::default()
        };
        panel.lines.extend(self.contours.iter().map(|contour| Line {
            look: Look::NEUTRAL,
            points: contour.points.clone(),
            thin: true,
            label: contour.label.clone(),
            ..Line::default()
        }));
        if !self.best.is_empty() {
            let points = self.best.clone();
            panel.lines.push(Line { look: self.best_look(), points, stroke: Stroke::Own, ..Line::default() });
        }
        panel
    }
}

impl SurfaceLevel {
    fn set(&self, look: usize, of: fn(&SurfacePoint) -> Option<(f64, f64)>) -> PointSet {
        let points = self.points.iter().filter_map(of).map(|(x, y)| DataPoint::new(x, y));
        PointSet { name: self.name.clone(), look: Look(look), points: points.collect(), ..PointSet::default() }
    }
}

fn entry(level: &SurfaceLevel, look: Look) -> LegendEntry {
    let key = if level.curve.is_empty() { Key::MARKER } else { Key::both(Stroke::Solid) };
    LegendEntry::new(&level.name, look, key)
}
