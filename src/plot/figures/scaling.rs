//! Loss against compute, tokens or parameters, with fitted curves and the values they tend to.

use super::super::PlotError;
use super::super::axis::{Axis, significant};
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Palette, Stroke, Width};
use super::super::xy::{Band, DataPoint, Direction, EdgeArrow, PointSet, Reference, Span, XyPanel};
use super::{extremes, fitted_lines, interpolated, standard_errors};

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

/// The value that a curve tends to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// In units of y.
    pub value: f64,
    /// Its interval, if there is one; an end of it may be open.
    pub interval: Option<Span>,
}

/// A fitted curve and what to print beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// x and y by rising x, on both sides as far beyond the data as the curve is to be drawn.
    pub samples: Vec<(f64, f64)>,
    /// x, lower and upper end of the curve's confidence band, by rising x; may be empty.
    pub band: Vec<(f64, f64, f64)>,
    /// Drawn as an arrow beside the right edge.
    pub floor: Option<Floor>,
    /// Its parameters; may be empty.
    pub legend: String,
}

/// Points of one kind, with the curve fitted to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in any order.
    pub points: Vec<SeriesPoint>,
    /// Its curve.
    pub curve: Option<Curve>,
}

/// The exactly known irreducible loss.
#[derive(Clone, Debug, PartialEq)]
pub struct FloorLine {
    /// Nats per token; positive.
    pub loss: f64,
    /// What to write on the line; the value is added.
    pub label: String,
}

/// A scaling figure: loss on logarithmic axes.
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
    /// Whether a second panel shows measured minus fitted loss.
    pub residuals: bool,
    /// Width on paper.
    pub width: Width,
}

impl Figure {
    /// The figure in colour as an SVG document whose text stays text.
    pub fn svg(&self) -> Result<String, PlotError> {
        self.chart().svg()
    }

    /// The figure in colour as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        self.chart().png()
    }

    /// The figure as an SVG document in a palette.
    pub fn svg_in(&self, palette: Palette) -> Result<String, PlotError> {
        self.chart().svg_in(palette)
    }

    /// The figure as a PNG file in a palette.
    pub fn png_in(&self, palette: Palette) -> Result<Vec<u8>, PlotError> {
        self.chart().png_in(palette)
    }

    /// The figure as a chart, to which more can be added.
    pub fn chart(&self) -> Chart {
        let mut main = XyPanel { x: Axis::log(&self.x_label), y: Axis::log(&self.y_label), ..XyPanel::default() };
        let mut legend = Vec::new();
        for (i, series) in self.series.iter().enumerate() {
            let look = Look(i);
            main.points.push(PointSet {
                name: series.name.clone(),
                look,
                points: series.points.iter().map(measured).collect(),
                ..PointSet::default()
            });
            let curve = series.curve.as_ref();
            if let (Some(curve), Some((first, last))) = (curve, extremes(series.points.iter().map(|point| point.x))) {
                main.bands.push(Band { look, samples: curve.band.clone() });
                main.lines.extend(fitted_lines(look, &curve.samples, first, last));
                let arrow = |floor: Floor| EdgeArrow { look, value: floor.value, interval: floor.interval };
                main.arrows.extend(curve.floor.map(arrow));
            }
            let key = Key {
                band: curve.is_some_and(|curve| !curve.band.is_empty()),
                ..if curve.is_some() { Key::both(Stroke::Solid) } else { Key::MARKER }
            };
            let detail = curve.map_or(String::new(), |curve| curve.legend.clone());
            legend.push(LegendEntry { name: series.name.clone(), detail, look, key });
        }
        main.bands.retain(|band| !band.samples.is_empty());
        main.references.extend(self.floor.iter().map(|floor| Reference {
            value: floor.loss,
            label: format!("{} {}", floor.label, significant(floor.loss, 5)),
            direction: Direction::Horizontal,
        }));
        let range = main.y_range(main.x_range());
        let caption_note = self.note(&mut main.arrows, range);
        let mut panels = vec![main.into()];
        panels.extend(self.residuals().map(Into::into));
        Chart { title: self.title.clone(), width: self.width, panels, columns: 1, legend, caption_note }
    }

    /// Measured minus fitted loss, where there is a curve.
    fn residuals(&self) -> Option<XyPanel> {
        let mut panel = XyPanel {
            x: Axis::log(&self.x_label),
            y: Axis::linear(format!("measured − fitted {}", self.y_label)),
            references: vec![Reference { value: 0.0, ..Reference::default() }],
            share_x_with_above: true,
            dodge: 5.0,
            ..XyPanel::default()
        };
        for (i, series) in self.series.iter().enumerate() {
            let Some(curve) = series.curve.as_ref().filter(|_| self.residuals) else { continue };
            let residual = |point: &SeriesPoint| {
                let y = point.y - interpolated(&curve.samples, point.x)?;
                let y_bar = point.y_se.map(|se| Span::new(y - se, y + se));
                Some(DataPoint { x: point.x, y, x_bar: None, y_bar })
            };
            let points = series.points.iter().filter_map(residual).collect();
            panel.points.push(PointSet { name: series.name.clone(), look: Look(i), points, ..PointSet::default() });
        }
        (!panel.is_empty()).then_some(panel)
    }

    /// What dashes, areas and arrows mean, if there are any. Where the axis shows nothing of any floor, there are no
    /// arrows.
    fn note(&self, arrows: &mut Vec<EdgeArrow>, (lo, hi): (f64, f64)) -> Option<String> {
        let curves = || self.series.iter().filter_map(|series| series.curve.as_ref());
        let mut parts = Vec::new();
        if curves().next().is_some() {
            parts.push("Dashed: beyond the data.");
        }
        if curves().any(|curve| !curve.band.is_empty()) {
            parts.push("Shaded: 95 % confidence band.");
        }
        let inside = |value: f64| (lo..=hi).contains(&value);
        let reaches = |arrow: &EdgeArrow| arrow.interval.is_some_and(|interval| interval.hi.is_none_or(|end| end > lo));
        if !arrows.is_empty() && !arrows.iter().any(|arrow| inside(arrow.value) || reaches(arrow)) {
            arrows.clear();
            parts.push("All fitted C are below the axis.");
        }
        if !arrows.is_empty() {
            parts.push("Arrow at the right edge: fitted C.");
        }
        if arrows.iter().any(|arrow| arrow.interval.is_some()) {
            parts.push("Bar beside it: its 95 % interval.");
        }
        if arrows.iter().any(|arrow| arrow.interval.is_some_and(|interval| interval.lo.is_none_or(|end| end < lo))) {
            parts.push("Pointing down: it goes on below the axis.");
        }
        if arrows.iter().any(|arrow| arrow.value < lo) {
            parts.push("Without a dot, C is below the axis, too.");
        }
        let errors = standard_errors(curves().map(|curve| &*curve.legend)).trim_start();
        parts.extend((!errors.is_empty()).then_some(errors));
        (!parts.is_empty()).then(|| parts.join(" "))
    }
}

fn measured(point: &SeriesPoint) -> DataPoint {
    let bar = |se: f64| Span { lo: Some(point.y - se).filter(|lo| *lo > 0.0), hi: Some(point.y + se) };
    DataPoint { x: point.x, y: point.y, x_bar: None, y_bar: point.y_se.map(bar) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let law = |x: f64| 49.64 * x.powf(-0.0745) + 0.6416;
        let xs = [9.1e18, 1.04e20, 5.8e20, 2.2e21, 6.65e21];
        let points = xs.map(|x| SeriesPoint { x, y: law(x) + 1e-3, y_se: Some(2e-3) }).to_vec();
        let samples = (0..200).map(|i| 5e18 * 1.05f64.powi(i)).map(|x| (x, law(x))).collect();
        let floor = Some(Floor { value: 0.6416, interval: Some(Span { lo: None, hi: Some(0.7) }) });
        let curve = Some(Curve { samples, band: Vec::new(), floor, legend: "C = 0.642 ± 0.012".to_owned() });
        Figure {
            title: "Loss <nats>".to_owned(),
            x_label: "FLOPs".to_owned(),
            y_label: "loss".to_owned(),
            series: vec![Series { name: "A & B".to_owned(), points, curve }],
            floor: Some(FloorLine { loss: 1.7, label: "true floor".to_owned() }),
            residuals: true,
            width: Width::Full,
        }
    }

    #[test]
    fn words_and_numbers_are_in_the_document() {
        let svg = figure().svg().unwrap();
        assert!(svg.starts_with("<svg width=\"1400\" height=\""));
        for text in ["Loss &lt;nats&gt;", "A &amp; B: C = 0.642 ± 0.012", "true floor 1.7000", "measured − fitted"] {
            assert!(svg.contains(text), "{text}");
        }
        let narrow = Figure { width: Width::Column, residuals: false, ..figure() }.svg().unwrap();
        assert!(narrow.starts_with("<svg width=\"680\" height=\"") && !narrow.contains("measured"));
        assert_eq!(&figure().png_in(Palette::Grey).unwrap()[1..4], b"PNG");
    }

    #[test]
    fn residuals_are_what_the_curve_leaves() {
        let panel = figure().residuals().unwrap();
        assert!(panel.points[0].points.iter().all(|point| (point.y - 1e-3).abs() < 2e-6), "{:?}", panel.points);
    }

    #[test]
    fn bad_points_and_none_are_errors() {
        assert!(matches!(Figure::default().svg(), Err(PlotError::NoPoints)));
        let mut bad = figure();
        bad.series[0].points[0].y = -1.0;
        assert!(matches!(bad.svg(), Err(PlotError::BadPoint { series, .. }) if series == "A & B"));
        let mut bad = figure();
        bad.floor = Some(FloorLine { loss: f64::NAN, label: String::new() });
        assert!(matches!(bad.svg(), Err(PlotError::BadValue { .. })));
    }
}
