//! A table of values as colours.

use plotters::prelude::DrawingBackend;
use plotters::style::Color;

use super::PlotError;
use super::axis::{Mapping, Scale, Ticks, Title, minus};
use super::canvas::{Align, Canvas};
use super::geometry::{Rect, clip};
use super::style::{FADED, GRID, INK, LABEL, SMALLEST, TICK, WHITE, lightness, ramp};
use super::text::{fitted, widest, width, wrapped};

/// Which cell is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Best {
    /// None.
    Unmarked,
    /// The one with the least value, such as a loss.
    #[default]
    Least,
    /// The one with the greatest value, such as an accuracy.
    Greatest,
}

/// A panel of coloured cells; low values are dark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMapPanel {
    /// Heading.
    pub title: Option<String>,
    /// What columns are.
    pub x_label: String,
    /// What rows are.
    pub y_label: String,
    /// A label for each column.
    pub columns: Vec<String>,
    /// A label for each row, the lowest row first.
    pub rows: Vec<String>,
    /// For each row its cells; what is absent or not finite is hatched.
    pub values: Vec<Vec<Option<f64>>>,
    /// What values are, with their unit.
    pub value_label: String,
    /// Decimals of the values in cells.
    pub decimals: usize,
    /// Values at the ends of the colours; values beyond have the colour of the end. Absent: the least and the greatest.
    pub range: Option<(f64, f64)>,
    /// The cell that is marked.
    pub best: Best,
}

const GAP: f64 = 9.0;
const BAR: f64 = 22.0;

impl HeatMapPanel {
    fn value(&self, row: usize, column: usize) -> Option<f64> {
        self.values[row][column].filter(|value| value.is_finite())
    }

    fn cells(&self) -> impl Iterator<Item = (usize, usize, Option<f64>)> + '_ {
        let columns = self.columns.len();
        (0..self.rows.len()).flat_map(move |row| (0..columns).map(move |column| (row, column, self.value(row, column))))
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.values.iter().flatten().flatten().any(|value| value.is_finite())
    }

    pub(super) fn check(&self) -> Result<(), PlotError> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        if self.values.len() != rows || self.values.iter().any(|row| row.len() != columns) {
            return Err(PlotError::BadTable { rows, columns });
        }
        match self.range {
            Some((lo, hi)) if !(lo.is_finite() && hi.is_finite() && lo < hi) => {
                Err(PlotError::BadRange { axis: self.value_label.clone(), lo, hi })
            }
            _ => Ok(()),
        }
    }

    fn range(&self) -> (f64, f64) {
        let values = || self.cells().filter_map(|cell| cell.2);
        let (lo, hi) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let room = if hi > lo { 0.0 } else { (0.01 * lo.abs()).max(1e-9) };
        self.range.unwrap_or((lo - room, hi + room))
    }

    fn best(&self) -> Option<(usize, usize)> {
        let sign = match self.best {
            Best::Unmarked => return None,
            Best::Least => 1.0,
            Best::Greatest => -1.0,
        };
        let known = self.cells().filter_map(|(row, column, value)| Some((row, column, sign * value?)));
        known.min_by(|a, b| a.2.total_cmp(&b.2)).map(|(row, column, _)| (row, column))
    }

    fn scale(&self, top: f64, bottom: f64) -> Mapping {
        let (lo, hi) = self.range();
        Mapping { scale: Scale::Linear, lo, hi, from: bottom, to: top }
    }

    fn bar_ticks(&self, map: &Mapping) -> Vec<(f64, String)> {
        let apart = |pair: &[(f64, String)]| (map.pixel(pair[1].0) - map.pixel(pair[0].0)).abs() > 1.9 * TICK;
        map.ticks(&Ticks::Auto, |set| set.windows(2).all(apart))
    }

    fn title_lines(&self, width: f64) -> Vec<String> {
        self.title.as_deref().map_or(Vec::new(), |title| wrapped(title, " ", LABEL, width, 2))
    }

    /// Whether the labels of rows and values share a line.
    fn side_by_side(&self, room: f64) -> bool {
        width(&self.y_label, LABEL) + width(&self.value_label, LABEL) + 2.0 * LABEL <= room
    }

    fn above(&self, width: f64) -> f64 {
        let labels = if self.side_by_side(width) { 1 } else { 2 };
        (self.title_lines(width).len() + labels) as f64 * 1.3 * LABEL + GAP
    }

    fn below(&self, width: f64) -> f64 {
        1.3 * TICK + Title(&self.x_label).height(width) + 6.0
    }

    /// Height that suits a cell of that width.
    pub(super) fn height(&self, width: f64) -> f64 {
        let cell = (0.5 * width / self.columns.len().max(1) as f64).clamp(34.0, 58.0);
        self.above(width) + (cell * self.rows.len() as f64).max(170.0) + self.below(width)
    }

    pub(super) fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, cell: &Rect) -> Result<(), PlotError> {
        let mut y = cell.top - 0.3 * LABEL;
        for line in self.title_lines(cell.width()) {
            y += 1.3 * LABEL;
            canvas.text(&line, (cell.left, y), LABEL, Align::Left, INK)?;
        }
        y += 1.3 * LABEL;
        canvas.text(&fitted(&self.y_label, LABEL, cell.width()), (cell.left, y), LABEL, Align::Left, INK)?;
        y += if self.side_by_side(cell.width()) { 0.0 } else { 1.3 * LABEL };
        canvas.text(&fitted(&self.value_label, LABEL, cell.width()), (cell.right, y), LABEL, Align::Right, INK)?;

        let (top, bottom) = (cell.top + self.above(cell.width()), cell.bottom - self.below(cell.width()));
        let scale = self.scale(top, bottom);
        let ticks = self.bar_ticks(&scale);
        let labels = widest(ticks.iter().map(|(_, label)| label.as_str()), TICK);
        let names = widest(self.rows.iter().map(String::as_str), TICK).min(0.35 * cell.width());
        let table = Rect::new(cell.left + names + GAP, top, cell.right - labels - GAP - BAR - 2.0 * GAP, bottom);
        self.table(canvas, &table)?;
        self.names(canvas, cell, &table)?;

        let bar = Rect::new(table.right + 2.0 * GAP, top, table.right + 2.0 * GAP + BAR, bottom);
        let slices = bar.height().ceil() as usize;
        for i in 0..slices {
            let (high, low) = (i as f64 / slices as f64, (i + 1) as f64 / slices as f64);
            let (from, to) = (bar.top + high * bar.height(), bar.top + low * bar.height());
            let colour = ramp(1.0 - (high + low) / 2.0, canvas.palette).to_rgba();
            canvas.polygon(&Rect::new(bar.left, from, bar.right, to).corners(), colour)?;
        }
        canvas.outline(&bar, INK.to_rgba(), 1.0)?;
        for (value, label) in ticks {
            let y = scale.pixel(value);
            canvas.line(&[(bar.right, y), (bar.right + 5.0, y)], INK.to_rgba(), 1.2)?;
            let y = (y + 0.35 * TICK).clamp(bar.top + 0.7 * TICK, bar.bottom + 0.1 * TICK);
            canvas.text(&label, (bar.right + GAP, y), TICK, Align::Left, INK)?;
        }
        Ok(())
    }

    fn cell(&self, table: &Rect, row: usize, column: usize) -> Rect {
        let (width, height) = (table.width() / self.columns.len() as f64, table.height() / self.rows.len() as f64);
        let (left, bottom) = (table.left + column as f64 * width, table.bottom - row as f64 * height);
        Rect::new(left, bottom - height, left + width, bottom)
    }

    fn table<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, table: &Rect) -> Result<(), PlotError> {
        let (lo, hi) = self.range();
        let words = |value: f64| minus(format!("{value:.*}", self.decimals));
        let texts: Vec<String> = self.cells().filter_map(|cell| cell.2).map(words).collect();
        let one = self.cell(table, 0, 0);
        let room =
            |em: f64| widest(texts.iter().map(String::as_str), em) < one.width() - 8.0 && one.height() > 1.25 * em;
        let em = [TICK, SMALLEST].into_iter().find(|em| room(*em));
        for (row, column, value) in self.cells() {
            let cell = self.cell(table, row, column);
            let Some(value) = value else {
                hatch(canvas, &cell)?;
                continue;
            };
            let colour = ramp((value - lo) / (hi - lo), canvas.palette);
            canvas.polygon(&cell.corners(), colour.to_rgba())?;
            if let Some(em) = em {
                let ink = if lightness(colour) < 58.0 { WHITE } else { INK };
                let place = ((cell.left + cell.right) / 2.0, (cell.top + cell.bottom) / 2.0 + 0.36 * em);
                canvas.text(&words(value), place, em, Align::Centre, ink)?;
            }
        }
        canvas.outline(table, INK.to_rgba(), 1.0)?;
        if let Some((row, column)) = self.best() {
            // Black around white shows on every ground.
            let cell = self.cell(table, row, column);
            let inner = |by: f64| Rect::new(cell.left + by, cell.top + by, cell.right - by, cell.bottom - by);
            canvas.outline(&inner(1.0), INK.to_rgba(), 4.0)?;
            canvas.outline(&inner(4.0), WHITE.to_rgba(), 2.4)?;
        }
        Ok(())
    }

    /// Labels of columns and rows, as many as there is room for.
    fn names<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, cell: &Rect, table: &Rect) -> Result<(), PlotError> {
        let one = self.cell(table, 0, 0);
        let needed = widest(self.columns.iter().map(String::as_str), TICK) + 0.6 * TICK;
        let every = (needed / one.width()).ceil().max(1.0) as usize;
        let limit = 0.9 * table.width();
        for (column, name) in self.columns.iter().enumerate().step_by(every) {
            let name = fitted(name, TICK, limit);
            let half = width(&name, TICK) / 2.0;
            let middle = table.left + (column as f64 + 0.5) * one.width();
            let x = middle.clamp(cell.left + half, (cell.right - half).max(cell.left + half));
            canvas.text(&name, (x, table.bottom + GAP + 0.8 * TICK), TICK, Align::Centre, INK)?;
        }
        let every = (1.25 * TICK / one.height()).ceil().max(1.0) as usize;
        for (row, name) in self.rows.iter().enumerate().step_by(every) {
            let y = table.bottom - (row as f64 + 0.5) * one.height() + 0.36 * TICK;
            let name = fitted(name, TICK, table.left - GAP - cell.left + 1.0);
            canvas.text(&name, (table.left - GAP, y), TICK, Align::Right, INK)?;
        }
        Title(&self.x_label).draw(canvas, cell, (table.left + table.right) / 2.0)
    }
}

/// A cell without a value.
fn hatch<B: DrawingBackend>(canvas: &mut Canvas<B>, cell: &Rect) -> Result<(), PlotError> {
    canvas.polygon(&cell.corners(), WHITE.to_rgba())?;
    let mut x = cell.left - cell.height();
    while x < cell.right {
        for run in clip(&[(x, cell.bottom), (x + cell.height(), cell.top)], cell) {
            canvas.line(&run, FADED.mix(0.35), 1.0)?;
        }
        x += 9.0;
    }
    canvas.outline(cell, GRID.to_rgba(), 1.0)
}
