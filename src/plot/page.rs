//! From shapes on a canvas to files.

use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::prelude::DrawingBackend;

use super::PlotError;
use super::canvas::{Canvas, SCALE};
use super::style::Palette;
use super::text::load_font;

/// Something that fills a page.
pub(super) trait Page {
    /// Pixels. The font is loaded by then.
    fn size(&self) -> (u32, u32);

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError>;
}

/// plotters' SVG has baselines 0.76 em below a text's position, and an em is size/1.24.
const SVG_BASELINE: f64 = 0.76 / 1.24;

/// An SVG document whose text stays text.
pub(super) fn svg(page: &impl Page, palette: Palette) -> Result<String, PlotError> {
    load_font()?;
    let size = page.size();
    let scaled = (size.0 * SCALE as u32, size.1 * SCALE as u32);
    let mut text = String::new();
    {
        let mut backend = SVGBackend::with_string(&mut text, scaled);
        page.draw(&mut Canvas::new(&mut backend, SVG_BASELINE, palette))?;
        backend.present().map_err(PlotError::drawing)?;
    }
    let old = format!("<svg width=\"{}\" height=\"{}\" ", scaled.0, scaled.1);
    let new = format!("<svg width=\"{}\" height=\"{}\" role=\"img\" ", size.0, size.1);
    Ok(text.replacen(&old, &new, 1))
}

/// A PNG file.
pub(super) fn png(page: &impl Page, palette: Palette) -> Result<Vec<u8>, PlotError> {
    load_font()?;
    let factor = SCALE as usize;
    let size = page.size();
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut large = vec![255; width * factor * height * factor * 3];
    {
        let size = ((width * factor) as u32, (height * factor) as u32);
        let mut backend = BitMapBackend::with_buffer(&mut large, size);
        page.draw(&mut Canvas::new(&mut backend, 0.5, palette).with_sharp_corners())?;
        backend.present().map_err(PlotError::drawing)?;
    }
    let mut small = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let mut sum = 0;
                for dy in 0..factor {
                    let row = (y * factor + dy) * width * factor;
                    sum += (0..factor).map(|dx| u32::from(large[(row + x * factor + dx) * 3 + channel])).sum::<u32>();
                }
                small.push((sum / (factor * factor) as u32) as u8);
            }
        }
    }
    let mut out = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut out, &small, size.0, size.1, image::ColorType::Rgb8, image::ImageFormat::Png)
        .map_err(PlotError::drawing)?;
    Ok(out.into_inner())
}

/// The texts of a page and where they stand.
#[cfg(test)]
pub(super) fn texts(page: &impl Page) -> Result<Vec<super::canvas::Placed>, PlotError> {
    load_font()?;
    let mut document = String::new();
    let mut backend = SVGBackend::with_string(&mut document, page.size());
    let mut canvas = Canvas::new(&mut backend, SVG_BASELINE, Palette::Colour);
    page.draw(&mut canvas)?;
    Ok(canvas.texts)
}
