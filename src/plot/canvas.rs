//! Shapes and text on a plotters backend, in pixels of the finished figure.
//!
//! Everything is drawn at [`SCALE`] times the size, since backends take whole pixels: the SVG gets a larger view box,
//! the PNG is averaged down, which also smooths its edges.

use std::sync::OnceLock;

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, RGBAColor, RGBColor, ShapeStyle, TextStyle, register_font,
};

use super::PlotError;

pub(super) const SCALE: f64 = 3.0;
/// The SVG's font list; in the PNG the embedded subset of the first is used under the same name.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
static FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
/// plotters divides a size by this to get the em of its SVG text.
const SIZE_PER_EM: f64 = 1.24;

/// Where a text stands relative to its position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// Makes the embedded font known to plotters.
pub(super) fn load_font() -> Result<(), PlotError> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    let loaded = *LOADED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok());
    if loaded { Ok(()) } else { Err(PlotError::Font) }
}

fn font(em: f64) -> FontDesc<'static> {
    FontDesc::new(FontFamily::Name(FAMILY), em * SIZE_PER_EM * SCALE, FontStyle::Normal)
}

/// Width of `text` in pixels at `em` pixels per em.
pub(super) fn width(text: &str, em: f64) -> f64 {
    font(em).box_size(text).map_or(0.0, |(width, _)| f64::from(width) / SCALE)
}

/// `text` cut so that it is at most `limit` pixels wide.
pub(super) fn fitted(text: &str, em: f64, limit: f64) -> String {
    if width(text, em) <= limit {
        return text.to_owned();
    }
    let mut chars: Vec<char> = text.chars().collect();
    while !chars.is_empty() {
        chars.pop();
        let cut = chars.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&cut, em) <= limit {
            return cut;
        }
    }
    String::new()
}

/// A backend with the two things that differ between them.
pub(super) struct Canvas<'a, B: DrawingBackend> {
    pub backend: &'a mut B,
    /// Distance from a text's position (anchored at its top) to its baseline, in units of plotters' size.
    pub baseline: f64,
}

impl<B: DrawingBackend> Canvas<'_, B> {
    fn at((x, y): (f64, f64)) -> (i32, i32) {
        ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
    }

    fn stroke(colour: RGBAColor, width: f64) -> ShapeStyle {
        colour.stroke_width((width * SCALE).round().max(1.0) as u32)
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: RGBAColor, width: f64) -> Result<(), PlotError> {
        let points: Vec<(i32, i32)> = points.iter().copied().map(Self::at).collect();
        self.backend.draw_path(points, &Self::stroke(colour, width)).map_err(PlotError::drawing)
    }

    /// A polyline in dashes of `on` pixels with gaps of `off`.
    pub(super) fn dashed(
        &mut self,
        points: &[(f64, f64)],
        colour: RGBAColor,
        width: f64,
        (on, off): (f64, f64),
    ) -> Result<(), PlotError> {
        let mut dash = Vec::new();
        let mut travelled = 0.0;
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            // Short pieces, so that a dash may end anywhere.
            let length = (x1 - x0).hypot(y1 - y0);
            let pieces = length.ceil().max(1.0);
            for i in 0..pieces as usize {
                let t = i as f64 / pieces;
                if travelled % (on + off) < on {
                    dash.push((x0 + (x1 - x0) * t, y0 + (y1 - y0) * t));
                } else if dash.len() > 1 {
                    self.line(&dash, colour, width)?;
                    dash.clear();
                }
                travelled += length / pieces;
            }
        }
        if dash.len() > 1 { self.line(&dash, colour, width) } else { Ok(()) }
    }

    pub(super) fn polygon(&mut self, points: &[(f64, f64)], colour: RGBAColor) -> Result<(), PlotError> {
        let points: Vec<(i32, i32)> = points.iter().copied().map(Self::at).collect();
        self.backend.fill_polygon(points, &colour).map_err(PlotError::drawing)
    }

    pub(super) fn disc(&mut self, centre: (f64, f64), radius: f64, colour: RGBAColor) -> Result<(), PlotError> {
        let radius = (radius * SCALE).round() as u32;
        self.backend.draw_circle(Self::at(centre), radius, &colour, true).map_err(PlotError::drawing)
    }

    /// `text` with its baseline at `position`.
    pub(super) fn text(
        &mut self,
        text: &str,
        (x, y): (f64, f64),
        em: f64,
        align: Align,
        colour: RGBColor,
    ) -> Result<(), PlotError> {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = TextStyle::from(font(em)).color(&colour).pos(Pos::new(horizontal, VPos::Top));
        let top = y - self.baseline * em * SIZE_PER_EM;
        self.backend.draw_text(text, &style, Self::at((x, top))).map_err(PlotError::drawing)
    }
}

/// Marker shapes, told apart without colour.
pub(super) fn marker<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    shape: usize,
    (x, y): (f64, f64),
    r: f64,
    colour: RGBAColor,
) -> Result<(), PlotError> {
    let turned = |corners: usize, start: f64, radius: f64| -> Vec<(f64, f64)> {
        (0..corners)
            .map(|k| {
                let angle = start + std::f64::consts::TAU * k as f64 / corners as f64;
                (x + radius * angle.cos(), y + radius * angle.sin())
            })
            .collect()
    };
    let quarter = std::f64::consts::FRAC_PI_2;
    match shape % 6 {
        0 => canvas.disc((x, y), r, colour),
        1 => canvas.polygon(&turned(4, quarter / 2.0, 1.3 * r), colour),
        2 => canvas.polygon(&turned(3, -quarter, 1.4 * r), colour),
        3 => canvas.polygon(&turned(4, 0.0, 1.4 * r), colour),
        4 => canvas.polygon(&turned(3, quarter, 1.4 * r), colour),
        _ => {
            canvas.line(&[(x - r, y - r), (x + r, y + r)], colour, 3.0)?;
            canvas.line(&[(x - r, y + r), (x + r, y - r)], colour, 3.0)
        }
    }
}
