//! Laws of loss curves: measured and fitted losses, what is left, and the learning rates behind them.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{Direction, Line, Reference, XyPanel};
use super::curves::{MOST, decimated};
use super::extremes;

/// One run and what the law says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CurveFitRun {
    /// Its name in the legend.
    pub name: String,
    /// Numbers for the legend; may be empty.
    pub detail: String,
    /// Step and measured loss, by rising step; empty where nothing was measured.
    pub measured: Vec<(f64, f64)>,
    /// Step and loss by the law, by rising step.
    pub law: Vec<(f64, f64)>,
    /// Step and measured loss less that of the law.
    pub residuals: Vec<(f64, f64)>,
    /// Step and learning rate, by rising step.
    pub rates: Vec<(f64, f64)>,
    /// Whether the law was fitted to it.
    pub fitted: bool,
}

/// Loss curves under several schedules with one law.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CurveFits {
    /// Heading; may be empty.
    pub title: String,
    /// What the loss is, with its unit.
    pub y_label: String,
    /// Runs in the order of the legend.
    pub runs: Vec<CurveFitRun>,
    /// Width on paper.
    pub width: Width,
}

/// Share of the law's own range by which the axis of losses goes on beyond it, where first losses are much higher.
const ROOM: f64 = 0.04;

impl CurveFits {
    /// The chart: losses above, residuals and rates below on the same axis of steps. Measured losses are thin, the law is
    /// thick, and dashed where it was not fitted.
    pub fn chart(&self) -> Chart {
        let x = || Axis::linear("step");
        let mut losses = XyPanel { x: x(), y: Axis::linear(&self.y_label), ..XyPanel::default() };
        losses.y.range = self.loss_range();
        let mut residuals =
            XyPanel { x: x(), y: Axis::linear(format!("measured − fitted {}", self.y_label)), ..XyPanel::default() };
        residuals.references.push(Reference { direction: Direction::Horizontal, ..Reference::default() });
        let mut rates = XyPanel { x: x(), y: Axis::linear("learning rate"), ..XyPanel::default() };
        let mut legend = Vec::new();
        for (i, run) in self.runs.iter().enumerate() {
            let look = Look(i);
            let line = |points: &[(f64, f64)], axis: &Axis, stroke, thin| {
                let usable = |point: &&(f64, f64)| axis.takes(point.0) && point.1.is_finite();
                let points: Vec<(f64, f64)> = points.iter().filter(usable).copied().collect();
                Line { look, points: decimated(&points, axis.scale, MOST), stroke, thin, ..Line::default() }
            };
            let stroke = if run.fitted { Stroke::Solid } else { Stroke::Dashed };
            losses.lines.push(line(&run.measured, &losses.x, Stroke::Solid, true));
            losses.lines.push(line(&run.law, &losses.x, stroke, false));
            residuals.lines.push(line(&run.residuals, &residuals.x, Stroke::Solid, true));
            rates.lines.push(line(&run.rates, &rates.x, Stroke::Solid, true));
            let key = Key::line(stroke);
            legend.push(LegendEntry { name: run.name.clone(), detail: run.detail.clone(), look, key });
        }
        let below = [residuals, rates].into_iter().filter(|panel| !panel.is_empty());
        let below = below.map(|panel| XyPanel { share_x_with_above: true, ..panel }.into());
        let mut note = "Thin: measured. Thick: the law. Percent: its mean error.".to_owned();
        if self.runs.iter().any(|run| !run.fitted) {
            note += " Dashed: not among the curves that it was fitted to.";
        }
        Chart {
            title: self.title.clone(),
            width: self.width,
            panels: std::iter::once(losses.into()).chain(below).collect(),
            columns: 1,
            legend,
            caption_note: Some(note),
        }
    }

    /// From the lowest loss to the highest of the law; measured ones of the first steps may lie beyond.
    fn loss_range(&self) -> Option<(f64, f64)> {
        let all = |of: fn(&CurveFitRun) -> &[(f64, f64)]| self.runs.iter().flat_map(of).map(|point| point.1);
        let (low, high) = extremes(all(|run| &run.law))?;
        let (least, _) = extremes(all(|run| &run.measured)).unwrap_or((low, high));
        let room = ROOM * (high - low.min(least));
        (room > 0.0).then(|| (low.min(least) - room, high + room))
    }
}
