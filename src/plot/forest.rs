//! Estimates with intervals, one below the other.

use plotters::prelude::DrawingBackend;
use plotters::style::Color;

use super::PlotError;
use super::axis::{Axis, Mapping, Scale, minus};
use super::canvas::{Align, Canvas, Towards, area};
use super::geometry::Rect;
use super::marker::marker;
use super::style::{CURVE, FADED, GRID, INK, LABEL, Look, MARKER, NOTE, Stroke, THIN, TICK, WHITE};
use super::text::{fitted, widest, width, wrapped};

/// One estimate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForestRow {
    /// What is estimated.
    pub label: String,
    /// Heading above the first of the rows in a row that have it.
    pub group: Option<String>,
    /// In units of the axis.
    pub estimate: f64,
    /// Lower end of the interval; open if absent.
    pub lo: Option<f64>,
    /// Upper end of the interval; open if absent.
    pub hi: Option<f64>,
    /// The numbers in words, such as `0.022 [−0.11, 0.15]`; may be empty.
    pub text: String,
    /// Marker and colour.
    pub look: Look,
}

/// A panel of estimates on one axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForestPanel {
    /// Heading.
    pub title: Option<String>,
    /// The axis below the rows.
    pub x: Axis,
    /// From top to bottom.
    pub rows: Vec<ForestRow>,
    /// A vertical line and what it is, such as no difference.
    pub reference: Option<(f64, String)>,
}

const GAP: f64 = 14.0;
const INDENT: f64 = 16.0;
const HEADING: f64 = 1.6 * TICK;

/// Widths of the columns, and whether numbers stand below their label instead of at the right.
struct Columns {
    left: f64,
    right: f64,
    stacked: bool,
}

impl ForestPanel {
    pub(super) fn check(&self) -> Result<(), PlotError> {
        if let Some(row) = self.rows.iter().find(|row| !self.x.takes(row.estimate)) {
            return Err(PlotError::BadValue { what: row.label.clone(), value: row.estimate });
        }
        if let Some((value, label)) = self.reference.as_ref().filter(|(value, _)| !self.x.takes(*value)) {
            return Err(PlotError::BadValue { what: label.clone(), value: *value });
        }
        match self.x.range {
            Some((lo, hi)) if !(self.x.takes(lo) && self.x.takes(hi) && lo < hi) => {
                Err(PlotError::BadRange { axis: self.x.label.clone(), lo, hi })
            }
            _ => Ok(()),
        }
    }

    fn indent(&self) -> f64 {
        if self.rows.iter().any(|row| row.group.is_some()) { INDENT } else { 0.0 }
    }

    fn columns(&self, room: f64) -> Columns {
        let labels = self.indent() + widest(self.rows.iter().map(|row| row.label.as_str()), TICK);
        let texts = self.rows.iter().map(|row| width(&minus(row.text.clone()), NOTE)).fold(0.0, f64::max);
        if labels + texts <= 0.55 * room {
            return Columns { left: labels, right: if texts > 0.0 { texts + GAP } else { 0.0 }, stacked: false };
        }
        let left = labels.min(0.5 * room).max((texts + self.indent()).min(0.65 * room));
        Columns { left, right: 0.0, stacked: texts > 0.0 }
    }

    /// The lines of a row's label: two at most where numbers stand below it, else one.
    fn label_lines(&self, row: &ForestRow, columns: &Columns) -> Vec<String> {
        let limit = columns.left + GAP / 2.0 - self.indent();
        wrapped(&row.label, " ", TICK, limit, if columns.stacked { 2 } else { 1 })
    }

    /// Height of a row; all are as high as the highest.
    fn row_height(&self, columns: &Columns) -> f64 {
        let lines = self.rows.iter().map(|row| self.label_lines(row, columns).len()).max().unwrap_or(1);
        if columns.stacked { (1.55 + 1.2 * lines as f64) * TICK } else { 1.75 * TICK }
    }

    fn heading(&self, i: usize) -> Option<&str> {
        let group = self.rows[i].group.as_deref()?;
        let before = i.checked_sub(1).and_then(|before| self.rows[before].group.as_deref());
        (before != Some(group)).then_some(group)
    }

    fn headings(&self) -> usize {
        (0..self.rows.len()).filter(|i| self.heading(*i).is_some()).count()
    }

    fn title_lines(&self, width: f64) -> Vec<String> {
        self.title.as_deref().map_or(Vec::new(), |title| wrapped(title, " ", LABEL, width, 2))
    }

    fn above(&self, width: f64) -> f64 {
        let reference = self.reference.as_ref().is_some_and(|(_, label)| !label.is_empty());
        self.title_lines(width).len() as f64 * 1.3 * LABEL + if reference { 1.35 * NOTE } else { 0.0 } + 6.0
    }

    fn below(&self, width: f64) -> f64 {
        9.0 + 1.3 * TICK + self.x.title().height(width)
    }

    /// Height that suits a cell of that width.
    pub(super) fn height(&self, width: f64) -> f64 {
        let rows = self.row_height(&self.columns(width)) * self.rows.len() as f64 + HEADING * self.headings() as f64;
        self.above(width) + rows + self.below(width)
    }

    /// Whether the interval of a row ends in an arrow.
    pub(super) fn has_arrows(&self) -> bool {
        let (lo, hi) = self.range();
        let inside = |end: Option<f64>| end.is_some_and(|end| end >= lo && end <= hi);
        !self.rows.iter().all(|row| inside(row.lo) && inside(row.hi))
    }

    /// All estimates, and all intervals but those that are so wide that the others would vanish beside them.
    fn range(&self) -> (f64, f64) {
        if let Some(range) = self.x.range {
            return range;
        }
        let scaled = |value: f64| if self.x.scale == Scale::Log { value.ln() } else { value };
        let mut widths: Vec<f64> = self.rows.iter().filter_map(|row| Some(scaled(row.hi?) - scaled(row.lo?))).collect();
        widths.retain(|width| width.is_finite());
        widths.sort_by(f64::total_cmp);
        let usual = widths.get(widths.len() / 2).copied().unwrap_or(f64::INFINITY);
        let centre = self.rows.iter().map(|row| row.estimate).chain(self.reference.iter().map(|(value, _)| *value));
        let mut values: Vec<f64> = centre.map(scaled).collect();
        for row in &self.rows {
            for end in [row.lo, row.hi].into_iter().flatten().filter(|end| self.x.takes(*end)) {
                let reach = (scaled(end) - scaled(row.estimate)).abs();
                if reach <= 5.0 * usual {
                    values.push(scaled(end));
                }
            }
        }
        let lo = values.iter().copied().fold(f64::INFINITY, f64::min);
        let hi = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // An arrow needs room between the estimate and the edge.
        let arrow = 0.12 * (hi - lo);
        let goes_on =
            |end: Option<f64>| end.is_none_or(|end| !self.x.takes(end) || scaled(end) < lo || scaled(end) > hi);
        let left =
            self.rows.iter().filter(|row| goes_on(row.lo)).map(|row| scaled(row.estimate) - arrow).fold(lo, f64::min);
        let right =
            self.rows.iter().filter(|row| goes_on(row.hi)).map(|row| scaled(row.estimate) + arrow).fold(hi, f64::max);
        let (lo, hi) = (left, right);
        let pad = match hi - lo {
            span if span > 0.0 => 0.06 * span,
            _ if lo == 0.0 => 1.0,
            _ => 0.1 * lo.abs(),
        };
        let back = |value: f64| if self.x.scale == Scale::Log { value.exp() } else { value };
        (back(lo - pad), back(hi + pad))
    }

    pub(super) fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, cell: &Rect) -> Result<(), PlotError> {
        let columns = self.columns(cell.width());
        let top = cell.top + self.above(cell.width());
        let plot = Rect::new(
            cell.left + columns.left + GAP,
            top,
            cell.right - columns.right - 6.0,
            cell.bottom - self.below(cell.width()),
        );
        let (lo, hi) = self.range();
        let map = Mapping { scale: self.x.scale, lo, hi, from: plot.left, to: plot.right };
        let mut y = cell.top - 0.3 * LABEL;
        for line in self.title_lines(cell.width()) {
            y += 1.3 * LABEL;
            canvas.text(&line, (cell.left, y), LABEL, Align::Left, INK)?;
        }
        self.axis(canvas, cell, &plot, &map)?;
        // Rows share the height that headings leave.
        let pitch = (plot.height() - HEADING * self.headings() as f64) / self.rows.len().max(1) as f64;
        let mut y = plot.top;
        for (i, row) in self.rows.iter().enumerate() {
            if let Some(heading) = self.heading(i) {
                let text = fitted(heading, TICK, cell.width());
                let at = (cell.left, y + 0.5 * HEADING + 0.4 * TICK);
                // It may reach over the grid, where its row has nothing else.
                canvas.polygon(&area(&text, at, TICK, Align::Left).corners(), WHITE.to_rgba())?;
                canvas.text(&text, at, TICK, Align::Left, FADED)?;
                y += HEADING;
            }
            self.row(canvas, row, (cell, &plot), &columns, &map, y + 0.5 * pitch)?;
            y += pitch;
        }
        Ok(())
    }

    fn axis<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        cell: &Rect,
        plot: &Rect,
        map: &Mapping,
    ) -> Result<(), PlotError> {
        let inwards = |text: &str, x: f64, em: f64| {
            let half = width(text, em) / 2.0;
            x.clamp(cell.left + half, (cell.right - half).max(cell.left + half))
        };
        let place = |(value, label): &(f64, String)| {
            let mut taken = area(label, (inwards(label, map.pixel(*value), TICK), 0.0), TICK, Align::Centre);
            taken.right += 0.7 * TICK;
            taken
        };
        let apart = |set: &[(f64, String)]| set.windows(2).all(|pair| !place(&pair[0]).overlaps(&place(&pair[1])));
        for (value, label) in map.ticks(&self.x.ticks, apart) {
            let x = map.pixel(value);
            canvas.line(&[(x, plot.top), (x, plot.bottom)], GRID.to_rgba(), 1.0)?;
            canvas.line(&[(x, plot.bottom), (x, plot.bottom + 6.0)], INK.to_rgba(), 1.2)?;
            let at = (inwards(&label, x, TICK), plot.bottom + 9.0 + 0.85 * TICK);
            canvas.text(&label, at, TICK, Align::Centre, INK)?;
        }
        canvas.line(&[(plot.left, plot.bottom), (plot.right, plot.bottom)], INK.to_rgba(), 1.3)?;
        self.x.title().draw(canvas, cell, (plot.left + plot.right) / 2.0)?;
        if let Some((value, label)) = self.reference.as_ref().filter(|(value, _)| map.shows(*value)) {
            let x = map.pixel(*value);
            canvas.dashed(&[(x, plot.bottom), (x, plot.top)], FADED.to_rgba(), THIN, Look(0).dashes(Stroke::Dotted))?;
            let label = fitted(label, NOTE, cell.width());
            canvas.text(&label, (inwards(&label, x, NOTE), plot.top - 0.3 * NOTE), NOTE, Align::Centre, FADED)?;
        }
        Ok(())
    }

    fn row<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        row: &ForestRow,
        (cell, plot): (&Rect, &Rect),
        columns: &Columns,
        map: &Mapping,
        y: f64,
    ) -> Result<(), PlotError> {
        let left = cell.left + self.indent();
        let lines = self.label_lines(row, columns);
        let more = lines.len().saturating_sub(1) as f64;
        let (shift, text_at) = if columns.stacked {
            (-0.58 * TICK, (left, y + 0.98 * NOTE + 0.6 * more * TICK))
        } else {
            (0.0, (cell.right, y + 0.36 * NOTE))
        };
        for (i, line) in lines.iter().enumerate() {
            let y = y + shift + 0.36 * TICK + 1.2 * (i as f64 - 0.5 * more) * TICK;
            canvas.text(line, (left, y), TICK, Align::Left, INK)?;
        }
        let align = if columns.stacked { Align::Left } else { Align::Right };
        let room = if columns.stacked { plot.left - GAP / 2.0 - left } else { columns.right };
        canvas.text(&fitted(&minus(row.text.clone()), NOTE, room), text_at, NOTE, align, INK)?;

        let colour = row.look.colour(canvas.palette).to_rgba();
        let (from, to) = (row.lo.map_or(map.from, |lo| map.clamped(lo)), row.hi.map_or(map.to, |hi| map.clamped(hi)));
        canvas.line(&[(from, y), (to, y)], colour, CURVE)?;
        let shown = |end: Option<f64>| end.is_some_and(|end| self.x.takes(end) && map.shows(end));
        for (end, x, towards) in [(row.lo, from, Towards::Left), (row.hi, to, Towards::Right)] {
            if shown(end) {
                canvas.line(&[(x, y - 6.0), (x, y + 6.0)], colour, CURVE)?;
            } else {
                canvas.arrowhead((x, y), towards, 13.0, colour)?;
            }
        }
        if map.shows(row.estimate) {
            marker(canvas, row.look, (map.pixel(row.estimate), y), MARKER, false)
        } else {
            Ok(())
        }
    }
}
