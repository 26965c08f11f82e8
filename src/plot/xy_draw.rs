//! Drawing of a panel with two axes.

use plotters::prelude::DrawingBackend;
use plotters::style::{Color, RGBAColor};

use super::PlotError;
use super::axis::{Mapping, Scale};
use super::canvas::{Align, Canvas, Towards, area};
use super::geometry::{Point, Rect, clip};
use super::marker::{marker, star};
use super::style::{CURVE, FADED, GRID, INK, LABEL, Look, MARKER, NOTE, Stroke, THIN, TICK};
use super::text::{widest, wrapped};
use super::xy::{DataPoint, Direction, EdgeArrow, PointSet, Reference, Span, XyPanel};

/// Height of a line of a heading.
const HEAD_LINE: f64 = 1.3 * LABEL;
const GAP: f64 = 9.0;
/// From the edge to the first bar of an arrow, and from bar to bar.
const ARROW: f64 = 15.0;
const ARROW_STEP: f64 = 8.0;

/// What a label gives in covered data for a place one row nearer.
const PRICE: usize = 3;
/// How much data the end of a bar is to a label: it says whether an interval holds a value.
const CAP: usize = 4;

/// Where a panel stands: its whole area, and the area inside of its axes.
pub(super) struct Frame {
    pub cell: Rect,
    pub left: f64,
    pub right: f64,
    pub x_range: (f64, f64),
    /// Height of what stands above the axes.
    pub head: f64,
    /// Whether the x axis has its labels here, not on the panel below.
    pub labelled: bool,
}

impl XyPanel {
    fn head(&self, width: f64) -> [Vec<String>; 2] {
        let title = self.title.as_deref().map_or(Vec::new(), |title| wrapped(title, " ", LABEL, width, 2));
        [title, wrapped(&self.y.label, " ", LABEL, width, 2)]
    }

    /// Height of what stands above the axes in a cell of that width.
    pub(super) fn above(&self, width: f64) -> f64 {
        self.head(width).iter().map(Vec::len).sum::<usize>() as f64 * HEAD_LINE + GAP
    }

    /// Height of what stands below the axes in a cell of that width.
    pub(super) fn below(&self, labelled: bool, width: f64) -> f64 {
        if labelled { 1.3 * TICK + GAP + self.x.title().height(width) } else { GAP }
    }

    /// Width of what stands to the right of the axes.
    pub(super) fn beside(&self) -> f64 {
        let bars = if self.arrows.iter().any(|arrow| arrow.interval.is_some()) { self.arrows.len() } else { 0 };
        if self.arrows.is_empty() { 4.0 } else { ARROW + 4.0 + ARROW_STEP * bars.min(12) as f64 }
    }

    fn vertical(&self, x_range: (f64, f64), top: f64, bottom: f64) -> Mapping {
        let (lo, hi) = self.y_range(x_range);
        Mapping { scale: self.y.scale, lo, hi, from: bottom, to: top }
    }

    /// Ticks whose labels leave most of a cell of that width to the plot.
    fn y_ticks(&self, map: &Mapping, width: f64) -> Vec<(f64, String)> {
        // A low panel needs its few ticks more than air between them.
        let gap = if (map.from - map.to).abs() < 220.0 { 1.5 * TICK } else { 2.1 * TICK };
        let apart = |pair: &[(f64, String)]| (map.pixel(pair[0].0) - map.pixel(pair[1].0)).abs() >= gap;
        let narrow = |set: &[(f64, String)]| widest(set.iter().map(|(_, label)| label.as_str()), TICK) <= 0.4 * width;
        map.ticks(&self.y.ticks, |set| set.windows(2).all(apart) && narrow(set))
    }

    /// Width of the labels of the y axis, for an axis of that height in a cell of that width.
    pub(super) fn before(&self, x_range: (f64, f64), height: f64, width: f64) -> f64 {
        let ticks = self.y_ticks(&self.vertical(x_range, 0.0, height), width);
        widest(ticks.iter().map(|(_, label)| label.as_str()), TICK) + GAP
    }

    pub(super) fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, frame: &Frame) -> Result<(), PlotError> {
        let cell = &frame.cell;
        let plot = Rect::new(
            frame.left,
            cell.top + frame.head,
            frame.right,
            cell.bottom - self.below(frame.labelled, cell.width()),
        );
        let horizontal =
            Mapping { scale: self.x.scale, lo: frame.x_range.0, hi: frame.x_range.1, from: plot.left, to: plot.right };
        let vertical = self.vertical(frame.x_range, plot.top, plot.bottom);
        let lines = self.head(cell.width());
        // Next to a neighbour with more lines, these stay at the axes.
        let mut y = plot.top - GAP - HEAD_LINE * lines.iter().map(Vec::len).sum::<usize>() as f64 - 0.3 * LABEL;
        for line in lines.iter().flatten() {
            y += HEAD_LINE;
            canvas.text(line, (cell.left, y), LABEL, Align::Left, INK)?;
        }
        let drawn = Drawn { panel: self, cell: *cell, plot, x: horizontal, y: vertical };
        drawn.axes(canvas, frame.labelled)?;
        drawn.content(canvas)?;
        drawn.labels(canvas)
    }
}

/// A panel whose pixels are known.
struct Drawn<'a> {
    panel: &'a XyPanel,
    cell: Rect,
    plot: Rect,
    x: Mapping,
    y: Mapping,
}

impl Drawn<'_> {
    fn at(&self, (x, y): (f64, f64)) -> Point {
        (self.x.pixel(x), self.y.pixel(y))
    }

    fn axes<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, labelled: bool) -> Result<(), PlotError> {
        let (plot, grid, ink) = (&self.plot, GRID.to_rgba(), INK.to_rgba());
        for (tick, label) in self.panel.y_ticks(&self.y, self.cell.width()) {
            let y = self.y.pixel(tick);
            canvas.line(&[(plot.left, y), (plot.right, y)], grid, 1.0)?;
            canvas.text(&label, (plot.left - GAP, y + 0.35 * TICK), TICK, Align::Right, INK)?;
        }
        // A label at the very edge is moved inwards rather than cut.
        let place = |(tick, label): &(f64, String)| {
            let half = area(label, (0.0, 0.0), TICK, Align::Centre).right;
            let x =
                self.x.pixel(*tick).clamp(self.cell.left + half, (self.cell.right - half).max(self.cell.left + half));
            (x, Rect::new(x - half - 0.5 * TICK, 0.0, x + half + 0.5 * TICK, 1.0))
        };
        let apart = |set: &[(f64, String)]| set.windows(2).all(|pair| !place(&pair[0]).1.overlaps(&place(&pair[1]).1));
        for tick in self.x.ticks(&self.panel.x.ticks, apart) {
            let x = self.x.pixel(tick.0);
            canvas.line(&[(x, plot.top), (x, plot.bottom)], grid, 1.0)?;
            canvas.line(&[(x, plot.bottom), (x, plot.bottom + 6.0)], ink, 1.2)?;
            if labelled {
                let y = plot.bottom + GAP + 0.85 * TICK;
                canvas.text(&tick.1, (place(&tick).0, y), TICK, Align::Centre, INK)?;
            }
        }
        for x in self.x.minor(&self.panel.x.ticks).into_iter().map(|value| self.x.pixel(value)) {
            canvas.line(&[(x, plot.bottom), (x, plot.bottom - 5.0)], ink, 1.0)?;
        }
        for y in self.y.minor(&self.panel.y.ticks).into_iter().map(|value| self.y.pixel(value)) {
            canvas.line(&[(plot.left, y), (plot.left + 5.0, y)], ink, 1.0)?;
        }
        canvas.line(&[(plot.left, plot.top), (plot.left, plot.bottom), (plot.right, plot.bottom)], ink, 1.3)?;
        if labelled { self.panel.x.title().draw(canvas, &self.cell, (plot.left + plot.right) / 2.0) } else { Ok(()) }
    }

    fn content<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        let panel = self.panel;
        for band in &panel.bands {
            let edge = |value: f64| self.y.clamped(if value.is_nan() { f64::NEG_INFINITY } else { value });
            let inside = || band.samples.iter().filter(|sample| self.x.shows(sample.0));
            let upper = inside().map(|(x, _, hi)| (self.x.pixel(*x), edge(*hi)));
            let lower = inside().rev().map(|(x, lo, _)| (self.x.pixel(*x), edge(*lo)));
            let outline: Vec<Point> = upper.chain(lower).collect();
            if outline.len() > 3 {
                canvas.polygon(&outline, band.look.colour(canvas.palette).mix(0.16))?;
            }
        }
        for reference in &panel.references {
            let ends = match reference.direction {
                Direction::Horizontal => {
                    [(self.plot.left, self.y.pixel(reference.value)), (self.plot.right, self.y.pixel(reference.value))]
                }
                Direction::Vertical => {
                    [(self.x.pixel(reference.value), self.plot.bottom), (self.x.pixel(reference.value), self.plot.top)]
                }
            };
            for run in clip(&ends, &self.plot) {
                canvas.dashed(&run, FADED.to_rgba(), THIN, Look(0).dashes(Stroke::Dotted))?;
                self.remember(canvas, &run);
            }
        }
        for line in &panel.lines {
            let points: Vec<Point> = line.points.iter().map(|point| self.at(*point)).collect();
            self.stroke(canvas, &points, line.look, line.stroke, if line.thin { THIN } else { CURVE })?;
        }
        let sets = panel.points.len();
        for (i, set) in panel.points.iter().enumerate() {
            let shift = panel.dodge * (i as f64 - (sets.max(1) - 1) as f64 / 2.0);
            self.set(canvas, set, shift)?;
        }
        for mark in &panel.marks {
            let (x, y) = self.at((mark.x, mark.y));
            if self.x.shows(mark.x) && self.y.shows(mark.y) {
                star(canvas, (x, y), 1.7 * MARKER, mark.look.colour(canvas.palette))?;
            }
        }
        for (look, x) in panel.rug.iter().filter(|(_, x)| self.x.shows(*x)) {
            let colour = look.colour(canvas.palette).to_rgba();
            canvas.arrowhead((self.x.pixel(*x), self.plot.bottom - 15.0), Towards::Up, 15.0, colour)?;
        }
        for (i, arrow) in panel.arrows.iter().enumerate() {
            self.arrow(canvas, arrow, i)?;
        }
        Ok(())
    }

    /// Notes where data are, so that labels keep clear of them.
    fn remember<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, run: &[Point]) {
        for pair in run.windows(2) {
            let steps = ((pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1) / 8.0).ceil().max(1.0);
            let at = |t: f64| (pair[0].0 + t * (pair[1].0 - pair[0].0), pair[0].1 + t * (pair[1].1 - pair[0].1));
            canvas.data.extend((0..=steps as usize).map(|k| Rect::around(at(k as f64 / steps), 2.0)));
        }
    }

    fn stroke<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        points: &[Point],
        look: Look,
        stroke: Stroke,
        width: f64,
    ) -> Result<(), PlotError> {
        let colour = look.colour(canvas.palette).to_rgba();
        for run in clip(points, &self.plot) {
            canvas.dashed(&run, colour, width, look.dashes(stroke))?;
            self.remember(canvas, &run);
        }
        Ok(())
    }

    fn set<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, set: &PointSet, shift: f64) -> Result<(), PlotError> {
        let colour = set.look.colour(canvas.palette).to_rgba();
        let place = |point: &DataPoint| (self.x.pixel(point.x) + shift, self.y.pixel(point.y));
        if let Some(stroke) = set.joined {
            self.stroke(canvas, &set.points.iter().map(place).collect::<Vec<_>>(), set.look, stroke, THIN)?;
        }
        let radius = if set.points.len() > 40 { 0.6 * MARKER } else { MARKER };
        for point in set.points.iter().filter(|point| self.x.shows(point.x)) {
            let (x, y) = place(point);
            if let Some(bar) = point.y_bar {
                self.bar(canvas, &self.y, bar, |y| (x, y), colour)?;
            }
            if let Some(bar) = point.x_bar.filter(|_| self.y.shows(point.y)) {
                self.bar(canvas, &self.x, bar, |x| (x, y), colour)?;
            }
        }
        for point in set.points.iter().filter(|point| self.x.shows(point.x)) {
            let (x, y) = place(point);
            if self.y.shows(point.y) {
                marker(canvas, set.look, (x, y), radius, set.hollow)?;
            } else if point.y > self.y.hi {
                // Outside of a given range: the direction, at least.
                canvas.arrowhead((x, self.plot.top), Towards::Up, 1.6 * MARKER, colour)?;
            } else {
                canvas.arrowhead((x, self.plot.bottom), Towards::Down, 1.6 * MARKER, colour)?;
            }
        }
        Ok(())
    }

    /// A bar along an axis, with caps at the ends that are shown and arrows where it goes on beyond the axis.
    fn bar<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        axis: &Mapping,
        bar: Span,
        at: impl Fn(f64) -> Point,
        colour: RGBAColor,
    ) -> Result<(), PlotError> {
        let shown =
            |end: Option<f64>| end.filter(|end| axis.shows(*end) && (axis.scale == Scale::Linear || *end > 0.0));
        let lo = at(bar.lo.map_or(axis.from, |lo| axis.clamped(lo)));
        let hi = at(bar.hi.map_or(axis.to, |hi| axis.clamped(hi)));
        if lo == hi {
            return Ok(());
        }
        canvas.line(&[lo, hi], colour, THIN)?;
        self.remember(canvas, &[lo, hi]);
        let upright = lo.0 == hi.0;
        let outwards = if upright { [Towards::Down, Towards::Up] } else { [Towards::Left, Towards::Right] };
        for ((end, (x, y)), towards) in [(bar.lo, lo), (bar.hi, hi)].into_iter().zip(outwards) {
            if shown(end).is_none() {
                canvas.arrowhead((x, y), towards, 9.0, colour)?;
                continue;
            }
            let (dx, dy) = if upright { (5.0, 0.0) } else { (0.0, 5.0) };
            canvas.line(&[(x - dx, y - dy), (x + dx, y + dy)], colour, THIN)?;
            canvas.data.extend([Rect::around((x, y), 5.0); CAP]);
        }
        Ok(())
    }

    fn arrow<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, arrow: &EdgeArrow, i: usize) -> Result<(), PlotError> {
        let colour = arrow.look.colour(canvas.palette).to_rgba();
        let right = self.plot.right;
        if self.y.shows(arrow.value) {
            canvas.arrowhead((right + 1.0, self.y.pixel(arrow.value)), Towards::Left, 13.0, colour)?;
        }
        let x = right + ARROW + 4.0 + ARROW_STEP * (i % 12) as f64;
        let Some(interval) = arrow.interval else {
            if arrow.value < self.y.lo {
                canvas.arrowhead((right + 8.0, self.plot.bottom + 5.0), Towards::Down, 9.0, colour)?;
            }
            return Ok(());
        };
        let lo = interval.lo.map_or(self.y.from, |lo| self.y.clamped(lo));
        let hi = interval.hi.map_or(self.y.to, |hi| self.y.clamped(hi));
        canvas.line(&[(x, lo), (x, hi)], colour, CURVE)?;
        if self.y.shows(arrow.value) {
            canvas.disc((x, self.y.pixel(arrow.value)), 4.0, colour)?;
        }
        // What goes on beyond the edge ends in an arrow.
        if interval.lo.is_none_or(|lo| lo < self.y.lo) {
            canvas.arrowhead((x, self.plot.bottom + 5.0), Towards::Down, 9.0, colour)?;
        }
        if interval.hi.is_none_or(|hi| hi > self.y.hi) {
            canvas.arrowhead((x, self.plot.top - 5.0), Towards::Up, 9.0, colour)?;
        }
        Ok(())
    }

    fn labels<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        for reference in self.panel.references.iter().filter(|reference| !reference.label.is_empty()) {
            let text = wrapped(&reference.label, "\n", NOTE, 0.9 * self.plot.width(), 1).concat();
            let Some(area) = canvas.label(&text, NOTE, self.beside_line(reference), &self.plot, FADED)? else {
                continue;
            };
            // A thin line leads to a label that had to go farther away, where it crosses no other.
            let y = self.y.clamped(reference.value);
            let (near, far) = if y > area.bottom { (area.bottom, y) } else { (y, area.top) };
            if reference.direction == Direction::Horizontal && far - near > 0.8 * NOTE {
                let places = (1..10).map(|k| area.left + 0.1 * f64::from(k) * area.width());
                let line = |x: &f64| Rect::new(x - 2.0, near, x + 2.0, far);
                let crosses = |x: &f64| canvas.texts.iter().any(|t| t.area != area && t.area.overlaps(&line(x)));
                // Along a bar it would look like a part of it.
                let covered = |x: &f64| canvas.data.iter().filter(|data| data.overlaps(&line(x))).count();
                if let Some(x) = places.filter(|x| !crosses(x)).min_by_key(covered) {
                    canvas.line(&[(x, near), (x, far)], FADED.to_rgba(), 1.0)?;
                    self.remember(canvas, &[(x, near), (x, far)]);
                }
            }
        }
        for line in self.panel.lines.iter().filter(|line| !line.label.is_empty()) {
            // Never beside the line, where it could be another one's.
            let on_line = line.points.iter().map(|point| {
                let (x, y) = self.at(*point);
                ((x, y + 0.35 * NOTE), Align::Centre, 0)
            });
            canvas.label(&line.label, NOTE, on_line, &self.plot, INK)?;
        }
        for note in &self.panel.notes {
            let (x, y) = self.at((note.x, note.y));
            let text = wrapped(&note.text, "\n", NOTE, 0.9 * self.plot.width(), 1).concat();
            let sides = [(x + 12.0, Align::Left), (x - 12.0, Align::Right), (x, Align::Centre)];
            let places = (0..6).flat_map(|k| {
                let far = 12.0 + 1.2 * NOTE * k as f64;
                sides.into_iter().flat_map(move |(x, align)| {
                    [((x, y - far), align, PRICE * k), ((x, y + far + 0.7 * NOTE), align, PRICE * k)]
                })
            });
            let colour = note.look.map_or(INK, |look| look.colour(canvas.palette));
            canvas.label(&text, NOTE, places, &self.plot, colour)?;
        }
        Ok(())
    }

    fn beside_line(&self, reference: &Reference) -> Vec<(Point, Align, usize)> {
        let plot = &self.plot;
        let mut places = Vec::new();
        for row in 0..9 {
            let (away, price) = (1.15 * NOTE * row as f64, PRICE * row);
            match reference.direction {
                Direction::Horizontal => {
                    let y = self.y.clamped(reference.value);
                    let sides = [(plot.left + 8.0, Align::Left), (plot.right - 8.0, Align::Right)];
                    let middle = (2..9).map(|t| (plot.left + 0.1 * f64::from(t) * plot.width(), Align::Centre));
                    for (x, align) in sides.into_iter().chain(middle) {
                        places.push(((x, y - 0.35 * NOTE - away), align, price));
                        places.push(((x, y + 0.95 * NOTE + away), align, price));
                    }
                }
                Direction::Vertical => {
                    let x = self.x.clamped(reference.value);
                    let y = plot.top + NOTE + (plot.height() - 2.0 * NOTE) * row as f64 / 9.0;
                    places.push(((x + 9.0, y), Align::Left, row));
                    places.push(((x - 9.0, y), Align::Right, row));
                }
            }
        }
        places
    }
}
