//! Shapes and text on a plotters backend, in pixels of the finished figure.
//!
//! Everything is drawn at [`SCALE`] times the size, since backends take whole pixels: the SVG gets a larger view box,
//! the PNG is averaged down, which also smooths its edges. The canvas remembers where texts and data stand, so that
//! labels find a free place.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBAColor, RGBColor, ShapeStyle, TextStyle};

use super::PlotError;
use super::geometry::{Point, Rect};
use super::style::{Palette, WHITE};
use super::text::{SIZE_PER_EM, font, width};

pub(super) const SCALE: f64 = 3.0;

/// Where a text stands relative to its position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// Which way an arrowhead points.
#[derive(Clone, Copy, Debug)]
pub(super) enum Towards {
    Left,
    Right,
    Up,
    Down,
}

/// A text that was drawn.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    #[cfg(test)]
    pub text: String,
    pub area: Rect,
}

/// A backend with what differs between them, and the memory of what was drawn.
pub(super) struct Canvas<'a, B: DrawingBackend> {
    backend: &'a mut B,
    /// Distance from a text's position (anchored at its top) to its baseline, in units of plotters' size.
    baseline: f64,
    /// Whether the backend lengthens the outer corner of two pieces of a line without a limit.
    sharp: bool,
    pub palette: Palette,
    pub texts: Vec<Placed>,
    /// Places of data, which labels avoid.
    pub data: Vec<Rect>,
}

/// Whether a line turns by more than a right angle at the middle one of three points.
fn is_acute([a, b, c]: [(i32, i32); 3]) -> bool {
    let product = |p: i32, q: i32| i64::from(p) * i64::from(q);
    product(b.0 - a.0, c.0 - b.0) + product(b.1 - a.1, c.1 - b.1) < 0
}

/// The area of a text with its baseline at `position`.
pub(super) fn area(text: &str, (x, y): Point, em: f64, align: Align) -> Rect {
    let width = width(text, em);
    let left = match align {
        Align::Left => x,
        Align::Centre => x - width / 2.0,
        Align::Right => x - width,
    };
    Rect::new(left, y - 0.78 * em, left + width, y + 0.22 * em)
}

impl<'a, B: DrawingBackend> Canvas<'a, B> {
    pub(super) fn new(backend: &'a mut B, baseline: f64, palette: Palette) -> Self {
        Self { backend, baseline, sharp: false, palette, texts: Vec::new(), data: Vec::new() }
    }

    /// The same on a backend that draws each corner of a line as a spike, however long.
    pub(super) fn with_sharp_corners(self) -> Self {
        Self { sharp: true, ..self }
    }

    pub(super) fn blank(&mut self, size: (u32, u32)) -> Result<(), PlotError> {
        let page = Rect::new(0.0, 0.0, f64::from(size.0), f64::from(size.1));
        self.polygon(&page.corners(), WHITE.to_rgba())
    }

    fn at((x, y): Point) -> (i32, i32) {
        ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
    }

    fn stroke(colour: RGBAColor, width: f64) -> ShapeStyle {
        colour.stroke_width((width * SCALE).round().max(1.0) as u32)
    }

    pub(super) fn line(&mut self, points: &[Point], colour: RGBAColor, width: f64) -> Result<(), PlotError> {
        let mut points: Vec<(i32, i32)> = points.iter().copied().map(Self::at).collect();
        points.dedup();
        if points.len() < 2 {
            return Ok(());
        }
        let style = Self::stroke(colour, width);
        // Beyond a right angle a line begins anew, with a round corner.
        let mut rest = &points[..];
        while let Some(corner) =
            (1..rest.len() - 1).find(|i| self.sharp && is_acute([rest[i - 1], rest[*i], rest[i + 1]]))
        {
            self.backend.draw_path(rest[..=corner].to_vec(), &style).map_err(PlotError::drawing)?;
            self.backend
                .draw_circle(rest[corner], style.stroke_width / 2, &colour, true)
                .map_err(PlotError::drawing)?;
            rest = &rest[corner..];
        }
        self.backend.draw_path(rest.to_vec(), &style).map_err(PlotError::drawing)
    }

    /// A polyline in dashes and gaps of these lengths in turn; without lengths, unbroken.
    pub(super) fn dashed(
        &mut self,
        points: &[Point],
        colour: RGBAColor,
        width: f64,
        lengths: &[f64],
    ) -> Result<(), PlotError> {
        let period: f64 = lengths.iter().sum();
        if period <= 0.0 {
            return self.line(points, colour, width);
        }
        let drawn = |travelled: f64| {
            let mut rest = travelled % period;
            let place = lengths.iter().position(|length| {
                rest -= length;
                rest < 0.0
            });
            place.is_none_or(|place| place % 2 == 0)
        };
        let mut dash = Vec::new();
        let mut travelled = 0.0;
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            // Short pieces, so that a dash may end anywhere.
            let length = (x1 - x0).hypot(y1 - y0);
            let pieces = length.ceil().max(1.0);
            for i in 0..pieces as usize {
                let t = i as f64 / pieces;
                if drawn(travelled) {
                    dash.push((x0 + (x1 - x0) * t, y0 + (y1 - y0) * t));
                } else {
                    self.line(&dash, colour, width)?;
                    dash.clear();
                }
                travelled += length / pieces;
            }
        }
        self.line(&dash, colour, width)
    }

    pub(super) fn polygon(&mut self, points: &[Point], colour: RGBAColor) -> Result<(), PlotError> {
        let points: Vec<(i32, i32)> = points.iter().copied().map(Self::at).collect();
        self.backend.fill_polygon(points, &colour).map_err(PlotError::drawing)
    }

    pub(super) fn outline(&mut self, rect: &Rect, colour: RGBAColor, width: f64) -> Result<(), PlotError> {
        let [a, b, c, d] = rect.corners();
        self.line(&[a, b, c, d, a], colour, width)
    }

    pub(super) fn disc(&mut self, centre: Point, radius: f64, colour: RGBAColor) -> Result<(), PlotError> {
        let radius = (radius * SCALE).round() as u32;
        self.backend.draw_circle(Self::at(centre), radius, &colour, true).map_err(PlotError::drawing)
    }

    /// A triangle whose tip is at `tip`.
    pub(super) fn arrowhead(
        &mut self,
        (x, y): Point,
        towards: Towards,
        size: f64,
        colour: RGBAColor,
    ) -> Result<(), PlotError> {
        let (dx, dy) = match towards {
            Towards::Left => (1.0, 0.0),
            Towards::Right => (-1.0, 0.0),
            Towards::Up => (0.0, 1.0),
            Towards::Down => (0.0, -1.0),
        };
        let (base_x, base_y, half) = (x + size * dx, y + size * dy, 0.5 * size);
        self.polygon(
            &[(x, y), (base_x - half * dy, base_y - half * dx), (base_x + half * dy, base_y + half * dx)],
            colour,
        )
    }

    /// `text` with its baseline at `position`.
    pub(super) fn text(
        &mut self,
        text: &str,
        (x, y): Point,
        em: f64,
        align: Align,
        colour: RGBColor,
    ) -> Result<(), PlotError> {
        if text.is_empty() {
            return Ok(());
        }
        self.texts.push(Placed {
            #[cfg(test)]
            text: text.to_owned(),
            area: area(text, (x, y), em, align),
        });
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = TextStyle::from(font(em)).color(&colour).pos(Pos::new(horizontal, VPos::Top));
        let top = y - self.baseline * em * SIZE_PER_EM;
        self.backend.draw_text(text, &style, Self::at((x, top))).map_err(PlotError::drawing)
    }

    /// A label at the best of several places inside `bounds`: one that covers no text, and little data at a small price.
    /// It gets a pale ground where it covers some. Returns its area; without a place that is free of text, nothing is
    /// drawn.
    pub(super) fn label(
        &mut self,
        text: &str,
        em: f64,
        places: impl IntoIterator<Item = (Point, Align, usize)>,
        bounds: &Rect,
        colour: RGBColor,
    ) -> Result<Option<Rect>, PlotError> {
        let mut best: Option<(usize, usize, Point, Align)> = None;
        for (position, align, price) in places {
            let mut taken = area(text, position, em, align);
            (taken.left, taken.right) = (taken.left - 4.0, taken.right + 4.0);
            if !bounds.contains(&taken) || self.texts.iter().any(|placed| placed.area.overlaps(&taken)) {
                continue;
            }
            let covered = self.data.iter().filter(|data| data.overlaps(&taken)).count();
            if best.is_none_or(|(least, ..)| covered + price < least) {
                best = Some((covered + price, covered, position, align));
            }
        }
        let Some((_, covered, position, align)) = best else { return Ok(None) };
        let ground = area(text, position, em, align);
        if covered > 0 {
            self.polygon(&ground.corners(), WHITE.mix(0.7))?;
        }
        self.text(text, position, em, align, colour)?;
        Ok(Some(ground))
    }
}
