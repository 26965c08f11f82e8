//! Figures as SVG and PNG. Scaling figures show measured losses, fitted laws and the true floor on logarithmic axes; flame
//! charts show where the time of a step goes.
//!
//! A legend never shows a fitted C without its standard error.

mod axis;
mod canvas;
mod draw;
mod flame;
mod page;

use plotters::prelude::DrawingBackend;

use crate::analysis::{Estimate, Fit, Law};
use canvas::Canvas;

pub use flame::{FlameChart, FlamePart};

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

impl page::Page for Figure {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        draw::draw(self, canvas)
    }
}

impl Figure {
    /// The figure as an SVG document whose text stays text.
    pub fn svg(&self) -> Result<String, PlotError> {
        page::svg(self)
    }

    /// The figure as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        page::png(self)
    }
}
