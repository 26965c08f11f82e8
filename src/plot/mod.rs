//! Scaling figures: measured losses, fitted laws and the true floor on logarithmic axes, as SVG and PNG.
//!
//! A legend never shows a fitted C without its standard error.

mod axis;
mod canvas;
mod draw;

use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::prelude::DrawingBackend;

use crate::analysis::{Estimate, Fit, Law};
use canvas::{Canvas, SCALE};

/// Size of a figure, pixels.
pub const SIZE: (u32, u32) = (1200, 800);

/// One measured point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesPoint {
    /// Scale; positive.
    pub x: f64,
    /// Loss; positive.
    pub y: f64,
    /// Standard error of the loss, drawn as a bar of one standard error to each side.
    pub y_se: Option<f64>,
}

/// A law to draw and the numbers to print beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedCurve {
    /// The law.
    pub law: Law,
    /// Its parameters, for the legend.
    pub estimates: Vec<Estimate>,
}

impl From<&Fit> for FittedCurve {
    fn from(fit: &Fit) -> Self {
        Self { law: fit.law, estimates: fit.estimates.clone() }
    }
}

/// Points of one kind, with the law fitted to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in any order.
    pub points: Vec<SeriesPoint>,
    /// Its law.
    pub curve: Option<FittedCurve>,
}

/// The exactly known irreducible loss.
#[derive(Clone, Debug, PartialEq)]
pub struct FloorLine {
    /// Nats per token; positive.
    pub loss: f64,
    /// What to write on the line; the value is added.
    pub label: String,
}

/// A scaling figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Heading; may be empty.
    pub title: String,
    /// What x is, with its unit.
    pub x_label: String,
    /// What y is, with its unit.
    pub y_label: String,
    /// The series, in the order of the legend.
    pub series: Vec<Series>,
    /// The true floor, if it is known.
    pub floor: Option<FloorLine>,
}

/// A figure could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("a figure needs at least one point")]
    NoPoints,
    /// A point does not fit on logarithmic axes.
    #[error("series '{series}' has a point ({x}, {y}); both have to be positive and finite")]
    BadPoint {
        /// The series.
        series: String,
        /// x of the point.
        x: f64,
        /// y of the point.
        y: f64,
    },
    /// The embedded font is unusable.
    #[error("the embedded font cannot be read")]
    Font,
    /// The drawing library refused.
    #[error("cannot draw the figure: {0}")]
    Drawing(String),
}

impl PlotError {
    fn drawing(error: impl std::fmt::Display) -> Self {
        Self::Drawing(error.to_string())
    }
}

impl Figure {
    /// The figure as an SVG document whose text stays text.
    pub fn svg(&self) -> Result<String, PlotError> {
        let scaled = (SIZE.0 * SCALE as u32, SIZE.1 * SCALE as u32);
        let mut text = String::new();
        {
            let mut backend = SVGBackend::with_string(&mut text, scaled);
            // 0.76 em below its position, and an em is size/1.24.
            draw::draw(self, &mut Canvas { backend: &mut backend, baseline: 0.76 / 1.24 })?;
            backend.present().map_err(PlotError::drawing)?;
        }
        let old = format!("<svg width=\"{}\" height=\"{}\" ", scaled.0, scaled.1);
        let new = format!("<svg width=\"{}\" height=\"{}\" role=\"img\" ", SIZE.0, SIZE.1);
        Ok(text.replacen(&old, &new, 1))
    }

    /// The figure as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        let factor = SCALE as usize;
        let (width, height) = (SIZE.0 as usize, SIZE.1 as usize);
        let mut large = vec![255; width * factor * height * factor * 3];
        {
            let size = ((width * factor) as u32, (height * factor) as u32);
            let mut backend = BitMapBackend::with_buffer(&mut large, size);
            draw::draw(self, &mut Canvas { backend: &mut backend, baseline: 0.5 })?;
            backend.present().map_err(PlotError::drawing)?;
        }
        let mut small = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let mut sum = 0;
                    for dy in 0..factor {
                        let row = (y * factor + dy) * width * factor;
                        sum +=
                            (0..factor).map(|dx| u32::from(large[(row + x * factor + dx) * 3 + channel])).sum::<u32>();
                    }
                    small.push((sum / (factor * factor) as u32) as u8);
                }
            }
        }
        let mut out = std::io::Cursor::new(Vec::new());
        image::write_buffer_with_format(
            &mut out,
            &small,
            SIZE.0,
            SIZE.1,
            image::ColorType::Rgb8,
            image::ImageFormat::Png,
        )
        .map_err(PlotError::drawing)?;
        Ok(out.into_inner())
    }
}
