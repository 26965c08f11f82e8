//! Figures as SVG and PNG, from pure data: points, sampled curves, intervals and words. Nothing is fitted here.
//!
//! A [`Chart`] is a grid of panels with one legend below; [`figures`] has a builder for each figure of a study of scaling
//! laws. Flame charts show where the time of a step goes. All have one style, at two widths of paper.

mod axis;
mod canvas;
mod chart;
pub mod figures;
mod flame;
mod forest;
mod geometry;
mod heatmap;
mod legend;
mod marker;
mod page;
#[cfg(test)]
mod samples;
mod style;
#[cfg(test)]
mod tests;
mod text;
mod xy;
mod xy_draw;

pub use axis::{Axis, Scale, Ticks};
pub use chart::{Chart, Panel};
pub use figures::{Curve, Figure, Floor, FloorLine, Series, SeriesPoint};
pub use flame::{FlameChart, FlamePart};
pub use forest::{ForestPanel, ForestRow};
pub use heatmap::{Best, HeatMapPanel};
pub use legend::{Key, LegendEntry};
pub use style::{Look, Palette, Stroke, Width};
pub use xy::{Band, DataPoint, Direction, EdgeArrow, Line, Mark, Note, PointSet, Reference, Span, XyPanel};

/// A figure could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("a figure needs at least one point")]
    NoPoints,
    /// A point has no place on its axes.
    #[error("series '{series}' has a point ({x}, {y}); both have to be finite, and positive on a logarithmic axis")]
    BadPoint {
        /// The series.
        series: String,
        /// x of the point.
        x: f64,
        /// y of the point.
        y: f64,
    },
    /// A number has no place on its axis.
    #[error("'{what}' is {value}; it has to be finite, and positive on a logarithmic axis")]
    BadValue {
        /// What it is.
        what: String,
        /// The number.
        value: f64,
    },
    /// The given range of an axis is none.
    #[error("the axis '{axis}' cannot go from {lo} to {hi}")]
    BadRange {
        /// Label of the axis.
        axis: String,
        /// First value.
        lo: f64,
        /// Last value.
        hi: f64,
    },
    /// The values of a heat map do not fill its rows and columns.
    #[error("a heat map of {rows} rows and {columns} columns needs as many values")]
    BadTable {
        /// Named rows.
        rows: usize,
        /// Named columns.
        columns: usize,
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
