//! The legend below all panels: as many columns as fit, and smaller type where there are many entries.

use std::collections::BTreeSet;

use plotters::prelude::DrawingBackend;
use plotters::style::Color;

use super::PlotError;
use super::canvas::{Align, Canvas};
use super::marker::marker;
use super::style::{CURVE, INK, LABEL, Look, MARKER, SMALLEST, Stroke};
use super::text::{fitted, width, wrapped};

/// What stands before an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// The marker of the look.
    pub marker: bool,
    /// An outlined marker.
    pub hollow: bool,
    /// A piece of line.
    pub line: Option<Stroke>,
    /// A piece of a band.
    pub band: bool,
}

impl Key {
    /// A marker.
    pub const MARKER: Self = Self { marker: true, hollow: false, line: None, band: false };

    /// A piece of line.
    pub const fn line(stroke: Stroke) -> Self {
        Self { marker: false, hollow: false, line: Some(stroke), band: false }
    }

    /// A marker on a piece of line.
    pub const fn both(stroke: Stroke) -> Self {
        Self { marker: true, hollow: false, line: Some(stroke), band: false }
    }
}

/// An entry of a legend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LegendEntry {
    /// The series; cut where there is no room for all of it.
    pub name: String,
    /// Numbers, such as the parameters of its law; broken after commas, not cut.
    pub detail: String,
    /// The look of the series.
    pub look: Look,
    /// What stands before the text.
    pub key: Key,
}

impl LegendEntry {
    /// An entry without numbers.
    pub fn new(name: impl Into<String>, look: Look, key: Key) -> Self {
        Self { name: name.into(), detail: String::new(), look, key }
    }

    /// On one line if there is room, else the name and its numbers below.
    fn lines(&self, em: f64, room: f64) -> Vec<String> {
        if self.detail.is_empty() {
            return vec![fitted(&self.name, em, room)];
        }
        let whole = format!("{}: {}", self.name, self.detail);
        if width(&whole, em) <= room {
            return vec![whole];
        }
        let mut lines = vec![fitted(&format!("{}:", self.name), em, room)];
        lines.extend(wrapped(&self.detail, ", ", em, room - INDENT, 4));
        lines
    }
}

const BETWEEN: f64 = 26.0;
const INDENT: f64 = 14.0;
/// Rows of a legend before its type gets smaller.
const FEW: usize = 6;

/// A legend that knows its lines.
pub(super) struct Legend {
    entries: Vec<(Vec<String>, Look, Key)>,
    /// Width of each column, with its keys.
    columns: Vec<f64>,
    em: f64,
    /// Width of a key with the gap behind it.
    key: f64,
}

impl Legend {
    pub(super) fn new(entries: &[LegendEntry], room: f64) -> Self {
        let large = Self::at(entries, LABEL, room, room);
        if large.rows() <= FEW {
            return large;
        }
        let small = Self::at(entries, SMALLEST, room, room);
        if small.rows() <= 2 * FEW {
            return small;
        }
        // Long names give way to a second column as long as they can be told apart.
        let cut = Self::at(entries, SMALLEST, room, (room - BETWEEN) / 2.0);
        let texts: BTreeSet<&Vec<String>> = cut.entries.iter().map(|(lines, ..)| lines).collect();
        if texts.len() == entries.len() { cut } else { small }
    }

    /// The legend with as many columns as its texts, none wider than `most`, allow at that size.
    fn at(entries: &[LegendEntry], em: f64, room: f64, most: f64) -> Self {
        // A pattern of dashes is only seen in a long piece of line.
        let own = entries.iter().any(|entry| entry.key.line == Some(Stroke::Own));
        let key = if own { 60.0 } else { 44.0 };
        let all: Vec<_> = entries.iter().map(|entry| (entry.lines(em, most - key), entry.look, entry.key)).collect();
        let widest = |lines: &[String]| lines.iter().map(|line| width(line, em)).fold(0.0, f64::max);
        let widths: Vec<f64> = all.iter().map(|(lines, ..)| key + widest(lines)).collect();
        let columns = |count: usize| -> Vec<f64> {
            let rows = widths.len().div_ceil(count);
            widths.chunks(rows.max(1)).map(|column| column.iter().copied().fold(0.0, f64::max)).collect()
        };
        let fits =
            |columns: &Vec<f64>| columns.iter().sum::<f64>() + BETWEEN * (columns.len() - 1) as f64 <= room + 0.5;
        let best = (1..=entries.len().min(6)).rev().map(columns).find(fits);
        Self { entries: all, columns: best.unwrap_or_else(|| vec![room]), em, key }
    }

    fn per_column(&self) -> usize {
        self.entries.len().div_ceil(self.columns.len().max(1)).max(1)
    }

    /// Lines of the longest column.
    fn rows(&self) -> usize {
        let lines =
            self.entries.chunks(self.per_column()).map(|column| column.iter().map(|(lines, ..)| lines.len()).sum());
        lines.max().unwrap_or(0)
    }

    fn line_height(&self) -> f64 {
        1.42 * self.em
    }

    pub(super) fn height(&self) -> f64 {
        self.rows() as f64 * self.line_height()
    }

    pub(super) fn draw<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        mut left: f64,
        top: f64,
    ) -> Result<(), PlotError> {
        for (column, width) in self.entries.chunks(self.per_column()).zip(&self.columns) {
            let mut y = top;
            for (lines, look, key) in column {
                let middle = y + 0.5 * self.line_height();
                draw_key(canvas, *look, *key, (left, middle), self.key - 9.0)?;
                for (i, line) in lines.iter().enumerate() {
                    let indent = if i == 0 { 0.0 } else { INDENT };
                    let place = (left + self.key + indent, y + 0.5 * self.line_height() + 0.36 * self.em);
                    canvas.text(line, place, self.em, Align::Left, INK)?;
                    y += self.line_height();
                }
            }
            left += width + BETWEEN;
        }
        Ok(())
    }
}

fn draw_key<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    look: Look,
    key: Key,
    (x, y): (f64, f64),
    length: f64,
) -> Result<(), PlotError> {
    let colour = look.colour(canvas.palette);
    let right = x + length;
    if key.band {
        canvas.polygon(&[(x, y - 8.0), (right, y - 8.0), (right, y + 8.0), (x, y + 8.0)], colour.mix(0.16))?;
    }
    if let Some(stroke) = key.line {
        canvas.dashed(&[(x, y), (right, y)], colour.to_rgba(), CURVE, look.dashes(stroke))?;
    }
    if key.marker {
        marker(canvas, look, ((x + right) / 2.0, y), 0.9 * MARKER, key.hollow)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::text::load_font;

    fn entries(count: usize, name: &str) -> Vec<LegendEntry> {
        (0..count).map(|i| LegendEntry::new(format!("{i} {name}"), Look(i), Key::MARKER)).collect()
    }

    #[test]
    fn many_entries_get_smaller_type_and_more_columns() {
        load_font().unwrap();
        let long = Legend::new(&entries(24, "architecture with a rather long name"), 652.0);
        assert!(long.em < LABEL && long.columns.len() == 2, "{} {:?}", long.em, long.columns);
        assert!(long.entries.iter().all(|(lines, ..)| lines[0].ends_with('…')));
        // Names that would be the same when cut are kept whole.
        let alike: Vec<_> = (0..24)
            .map(|i| LegendEntry::new(format!("a long name of a run with {i} layers"), Look(i), Key::MARKER))
            .collect();
        assert_eq!(Legend::new(&alike, 652.0).columns.len(), 1);
        let short = Legend::new(&entries(24, "run"), 1372.0);
        assert!(short.em == LABEL && short.columns.len() == 6 && short.rows() == 4);
    }

    #[test]
    fn numbers_are_kept_and_names_cut() {
        load_font().unwrap();
        let entry = LegendEntry {
            name: "a name that goes on and on for much longer than there is room".to_owned(),
            detail: "A = 49.64, b = 0.0745, C = 0.642 ± 0.012".to_owned(),
            ..LegendEntry::default()
        };
        let lines = entry.lines(LABEL, 480.0);
        assert!(lines[0].ends_with('…') && lines[1..].join(" ") == entry.detail, "{lines:?}");
        assert!(lines.iter().all(|line| width(line, LABEL) <= 480.0));
        // What tells series apart is not cut for numbers that fit on a line of their own.
        let entry = LegendEntry { name: "Transformer++ SP with weight decay".to_owned(), ..entry };
        assert_eq!(entry.lines(LABEL, 480.0)[0], "Transformer++ SP with weight decay:");
    }
}
