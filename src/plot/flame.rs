//! Flame charts: what takes how long, wider the longer, parts below their whole; below them the largest parts in words.

use plotters::prelude::DrawingBackend;
use plotters::style::{Color, RGBColor};

use super::PlotError;
use super::canvas::{Align, Canvas};
use super::page::{self, Page};
use super::style::{COLOURS, FADED, GRID, INK, Palette, tint};
use super::text;

/// Something that takes time, and what it consists of. Parts may leave some of it unexplained.
#[derive(Clone, Debug, PartialEq)]
pub struct FlamePart {
    /// What it is.
    pub name: String,
    /// How long it takes.
    pub seconds: f64,
    /// Its parts, in the order in which they are drawn.
    pub parts: Vec<FlamePart>,
}

/// A whole with its parts, and theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct FlameChart {
    /// Heading.
    pub title: String,
    /// What was measured and how, in one line.
    pub note: String,
    /// What is divided.
    pub whole: FlamePart,
}

// For screens, at a size of its own: there is much to read in one.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 24.0;
const NOTE_EM: f64 = 14.0;
const TITLE_EM: f64 = 22.0;
const BAR: f64 = 44.0;
const GAP: f64 = 2.0;
const TOP: f64 = 100.0;
const ROW: f64 = 24.0;
/// Parts of parts that are listed in words, in two columns.
const LISTED: usize = 16;

impl FlameChart {
    /// The chart as an SVG document whose text stays text.
    pub fn svg(&self) -> Result<String, PlotError> {
        page::svg(self, Palette::Colour)
    }

    /// The chart as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        page::png(self, Palette::Colour)
    }

    /// Parts of parts, the longest first, with the place of the part that they belong to.
    fn largest(&self) -> Vec<(usize, &FlamePart)> {
        let parts = self.whole.parts.iter().enumerate();
        let mut all: Vec<(usize, &FlamePart)> =
            parts.flat_map(|(place, part)| part.parts.iter().map(move |inner| (place, inner))).collect();
        all.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        all.truncate(LISTED);
        all
    }
}

/// Seconds in the unit that suits them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

impl Page for FlameChart {
    fn size(&self) -> (u32, u32) {
        let lines = self.largest().len().div_ceil(2);
        (WIDTH as u32, (TOP + 3.0 * (BAR + GAP) + 40.0 + ROW * lines as f64 + MARGIN) as u32)
    }

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        if !(self.whole.seconds > 0.0 && self.whole.seconds.is_finite()) {
            return Err(PlotError::NoPoints);
        }
        canvas.blank(self.size())?;
        let room = WIDTH - 2.0 * MARGIN;
        let title = text::fitted(&self.title, TITLE_EM, room);
        canvas.text(&title, (WIDTH / 2.0, MARGIN + 20.0), TITLE_EM, Align::Centre, INK)?;
        let note = text::fitted(&self.note, NOTE_EM, room);
        canvas.text(&note, (WIDTH / 2.0, MARGIN + 48.0), NOTE_EM, Align::Centre, FADED)?;

        let scale = room / self.whole.seconds;
        bar(canvas, &self.whole, (MARGIN, 0), scale, GRID)?;
        let mut x = MARGIN;
        for (place, part) in self.whole.parts.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            bar(canvas, part, (x, 1), scale, tint(colour, 0.45))?;
            let mut inner_x = x;
            for (index, inner) in part.parts.iter().enumerate() {
                bar(canvas, inner, (inner_x, 2), scale, tint(colour, if index % 2 == 0 { 0.3 } else { 0.18 }))?;
                inner_x += inner.seconds * scale;
            }
            x += part.seconds * scale;
        }

        let top = TOP + 3.0 * (BAR + GAP) + 40.0;
        let listed = self.largest();
        let lines = listed.len().div_ceil(2);
        for (index, (place, part)) in listed.iter().enumerate() {
            let (column, line) = (index / lines, index % lines);
            let left = MARGIN + column as f64 * room / 2.0;
            let y = top + ROW * line as f64;
            let colour = tint(COLOURS[place % COLOURS.len()], 0.45);
            let square = [(left, y - 12.0), (left + 14.0, y - 12.0), (left + 14.0, y + 2.0), (left, y + 2.0)];
            canvas.polygon(&square, colour.to_rgba())?;
            let right = left + room / 2.0 - 40.0;
            let value = format!("{}  {:.1} %", duration(part.seconds), 100.0 * part.seconds / self.whole.seconds);
            let name = format!("{}: {}", self.whole.parts[*place].name, part.name);
            let limit = right - left - 24.0 - text::width(&value, NOTE_EM) - 12.0;
            canvas.text(&text::fitted(&name, NOTE_EM, limit), (left + 22.0, y), NOTE_EM, Align::Left, INK)?;
            canvas.text(&value, (right, y), NOTE_EM, Align::Right, INK)?;
        }
        Ok(())
    }
}

/// A part as a bar from `x` on in a level, its name in it where there is room.
fn bar<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    part: &FlamePart,
    (x, level): (f64, usize),
    scale: f64,
    colour: RGBColor,
) -> Result<(), PlotError> {
    let width = part.seconds * scale;
    let (top, right) = (TOP + level as f64 * (BAR + GAP), x + (width - 1.0).max(0.0));
    canvas.polygon(&[(x, top), (right, top), (right, top + BAR), (x, top + BAR)], colour.to_rgba())?;
    // A name of which less than this would be left says nothing.
    const SHORTEST: f64 = 40.0;
    let room = width - 10.0;
    if room < SHORTEST {
        return Ok(());
    }
    let centre = x + width / 2.0;
    let name = text::fitted(&part.name, NOTE_EM, room);
    canvas.text(&name, (centre, top + 19.0), NOTE_EM, Align::Centre, INK)?;
    let value = duration(part.seconds);
    if text::width(&value, NOTE_EM) <= room {
        canvas.text(&value, (centre, top + 36.0), NOTE_EM, Align::Centre, INK)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, seconds: f64, parts: Vec<FlamePart>) -> FlamePart {
        FlamePart { name: name.to_owned(), seconds, parts }
    }

    fn chart(seconds: f64) -> FlameChart {
        let inner = (0..30).map(|i| part(&format!("operation {i}"), seconds / 40.0, Vec::new())).collect();
        let parts = vec![part("forward", 0.8 * seconds, inner), part("optimizer", 0.1 * seconds, Vec::new())];
        FlameChart { title: "A step".to_owned(), note: "two steps".to_owned(), whole: part("step", seconds, parts) }
    }

    #[test]
    fn the_largest_parts_are_listed_in_words() {
        let svg = chart(0.02).svg().unwrap();
        assert_eq!(svg.matches("forward: operation").count(), LISTED);
        assert!(svg.contains("20.00 ms") && svg.contains("500.0 µs"));
    }

    #[test]
    fn a_png_is_one() {
        assert_eq!(&chart(3.0).png().unwrap()[1..4], b"PNG");
    }

    #[test]
    fn nothing_is_no_chart() {
        assert!(matches!(chart(0.0).svg(), Err(PlotError::NoPoints)));
    }
}
