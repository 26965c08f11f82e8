//! What a panel with two axes shows, and the ranges that show all of it.

use super::PlotError;
use super::axis::{Axis, Scale};
use super::style::{Look, Stroke};

/// Ends of a bar in units of its axis; an absent end is open and reaches to the edge of the panel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Lower end.
    pub lo: Option<f64>,
    /// Upper end.
    pub hi: Option<f64>,
}

impl Span {
    /// A bar with both ends.
    pub fn new(lo: f64, hi: f64) -> Self {
        Self { lo: Some(lo), hi: Some(hi) }
    }
}

/// A point with the bars that stand for its uncertainty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DataPoint {
    /// In units of the x axis.
    pub x: f64,
    /// In units of the y axis.
    pub y: f64,
    /// Horizontal bar.
    pub x_bar: Option<Span>,
    /// Vertical bar.
    pub y_bar: Option<Span>,
}

impl DataPoint {
    /// A point without bars.
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, ..Self::default() }
    }

    /// A point with a vertical bar.
    pub fn with_bar(x: f64, y: f64, bar: Span) -> Self {
        Self { x, y, x_bar: None, y_bar: Some(bar) }
    }
}

/// Markers of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointSet {
    /// The series, for errors.
    pub name: String,
    /// Its look.
    pub look: Look,
    /// In any order, unless they are joined.
    pub points: Vec<DataPoint>,
    /// How the points are joined by a line, if they are.
    pub joined: Option<Stroke>,
    /// Outlines instead of filled markers.
    pub hollow: bool,
}

/// A polyline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The look of its series.
    pub look: Look,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// Dashes.
    pub stroke: Stroke,
    /// For many lines in one panel.
    pub thin: bool,
    /// A word on the line itself, such as the loss of a line of equal loss; may be empty.
    pub label: String,
}

/// A translucent area between two curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band {
    /// The look of its series.
    pub look: Look,
    /// x, lower and upper end, by rising x. An end that the axis cannot show, such as an infinite one, is its edge.
    pub samples: Vec<(f64, f64, f64)>,
}

/// Which axis a reference line stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// At a value of y.
    #[default]
    Horizontal,
    /// At a value of x.
    Vertical,
}

/// A dotted line across the panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    /// Where on its axis.
    pub value: f64,
    /// What it is; may be empty.
    pub label: String,
    /// Horizontal or vertical.
    pub direction: Direction,
}

/// An arrow beside the right edge at the value that a curve tends to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EdgeArrow {
    /// The look of the curve.
    pub look: Look,
    /// In units of the y axis.
    pub value: f64,
    /// Its interval, drawn as a bar beside it.
    pub interval: Option<Span>,
}

/// A star at a place that stands out, such as a minimum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark {
    /// The look of its series.
    pub look: Look,
    /// In units of the x axis.
    pub x: f64,
    /// In units of the y axis.
    pub y: f64,
}

/// A few words beside a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Note {
    /// In units of the x axis.
    pub x: f64,
    /// In units of the y axis.
    pub y: f64,
    /// The words.
    pub text: String,
    /// The look of the series that it is said of, whose colour it takes.
    pub look: Option<Look>,
}

/// A panel with two axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct XyPanel {
    /// Heading.
    pub title: Option<String>,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis; its label stands above it.
    pub y: Axis,
    /// Drawn first.
    pub bands: Vec<Band>,
    /// Across the panel.
    pub references: Vec<Reference>,
    /// Curves.
    pub lines: Vec<Line>,
    /// Measurements.
    pub points: Vec<PointSet>,
    /// Asymptotes.
    pub arrows: Vec<EdgeArrow>,
    /// Stars.
    pub marks: Vec<Mark>,
    /// Values of x marked on the axis.
    pub rug: Vec<(Look, f64)>,
    /// Words.
    pub notes: Vec<Note>,
    /// Pixels by which neighbouring series are moved apart, so that bars at the same x do not cover each other.
    pub dodge: f64,
    /// Stands below the panel before it, about a third as high, on the same x axis: residuals.
    pub share_x_with_above: bool,
}

impl XyPanel {
    pub(super) fn is_empty(&self) -> bool {
        let points = self.points.iter().map(|set| set.points.len()).sum::<usize>();
        let lines = self.lines.iter().filter(|line| line.points.len() > 1).count();
        points + lines + self.bands.len() + self.marks.len() == 0
    }

    /// Whether everything has a place on the axes.
    pub(super) fn check(&self) -> Result<(), PlotError> {
        for set in &self.points {
            let bad = set.points.iter().find(|point| !(self.x.takes(point.x) && self.y.takes(point.y)));
            if let Some(&DataPoint { x, y, .. }) = bad {
                return Err(PlotError::BadPoint { series: set.name.clone(), x, y });
            }
        }
        for axis in [&self.x, &self.y] {
            if let Some((lo, hi)) = axis.range.filter(|(lo, hi)| !(axis.takes(*lo) && axis.takes(*hi) && lo < hi)) {
                return Err(PlotError::BadRange { axis: axis.label.clone(), lo, hi });
            }
        }
        for reference in &self.references {
            let axis = if reference.direction == Direction::Horizontal { &self.y } else { &self.x };
            if !axis.takes(reference.value) {
                return Err(PlotError::BadValue { what: reference.label.clone(), value: reference.value });
            }
        }
        Ok(())
    }

    pub(super) fn x_range(&self) -> (f64, f64) {
        if let Some(range) = self.x.range {
            return range;
        }
        let mut extent = Extent::new(&self.x);
        for point in self.points.iter().flat_map(|set| &set.points) {
            extent.core(point.x);
            extent.bar(point.x_bar);
        }
        self.marks.iter().for_each(|mark| extent.core(mark.x));
        self.references.iter().filter(|r| r.direction == Direction::Vertical).for_each(|r| extent.core(r.value));
        // Curves go up to the edge, points keep away from it.
        let mut whole = extent.padded(0.06);
        for x in self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)) {
            whole.core(x);
        }
        for x in self.bands.iter().flat_map(|band| band.samples.iter().map(|sample| sample.0)) {
            whole.core(x);
        }
        whole.range(0.0)
    }

    pub(super) fn y_range(&self, (x_lo, x_hi): (f64, f64)) -> (f64, f64) {
        if let Some(range) = self.y.range {
            return range;
        }
        let shown = |x: f64| x >= x_lo && x <= x_hi;
        let mut extent = Extent::new(&self.y);
        for point in self.points.iter().flat_map(|set| &set.points).filter(|point| shown(point.x)) {
            extent.core(point.y);
            extent.bar(point.y_bar);
        }
        self.marks.iter().for_each(|mark| extent.core(mark.y));
        self.references.iter().filter(|r| r.direction == Direction::Horizontal).for_each(|r| extent.core(r.value));
        for (_, y) in self.lines.iter().flat_map(|line| &line.points).filter(|point| shown(point.0)) {
            extent.core(*y);
        }
        for (_, lo, hi) in self.bands.iter().flat_map(|band| &band.samples).filter(|sample| shown(sample.0)) {
            extent.bar(Some(Span::new(*lo, *hi)));
        }
        self.arrows.iter().for_each(|arrow| extent.reach(arrow.value));
        extent.range(0.06)
    }
}

/// The values on an axis so far, on its scale.
struct Extent<'a> {
    axis: &'a Axis,
    lo: f64,
    hi: f64,
    /// Ends of bars and bands, which may not crowd out the rest.
    bars: (f64, f64),
    /// Values that are shown if that costs little.
    wanted: Vec<f64>,
}

impl<'a> Extent<'a> {
    fn new(axis: &'a Axis) -> Self {
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        Self { axis, lo: nothing.0, hi: nothing.1, bars: nothing, wanted: Vec::new() }
    }

    fn scaled(&self, value: f64) -> Option<f64> {
        let log = self.axis.scale == Scale::Log;
        self.axis.takes(value).then(|| if log { value.ln() } else { value })
    }

    fn core(&mut self, value: f64) {
        if let Some(value) = self.scaled(value) {
            (self.lo, self.hi) = (self.lo.min(value), self.hi.max(value));
        }
    }

    fn bar(&mut self, bar: Option<Span>) {
        let ends = bar.into_iter().flat_map(|span| [span.lo, span.hi]).flatten();
        for end in ends.filter_map(|end| self.scaled(end)).collect::<Vec<_>>() {
            self.bars = (self.bars.0.min(end), self.bars.1.max(end));
        }
    }

    fn reach(&mut self, value: f64) {
        self.wanted.extend(self.scaled(value));
    }

    /// With the ends of bars, and with room of a share of the whole on both sides.
    fn padded(mut self, share: f64) -> Self {
        if self.lo > self.hi {
            (self.lo, self.hi) = self.bars;
        }
        let span = self.hi - self.lo;
        // Bars may add as much as is there to each side, wanted values half of it; alone, they may all they need.
        let limit = if span > 0.0 { span } else { f64::INFINITY };
        let core = (self.lo, self.hi);
        self.lo = self.lo.min(self.bars.0.max(core.0 - limit));
        self.hi = self.hi.max(self.bars.1.min(core.1 + limit));
        for value in std::mem::take(&mut self.wanted) {
            if value >= core.0 - 0.5 * limit && value <= core.1 + 0.5 * limit {
                (self.lo, self.hi) = (self.lo.min(value), self.hi.max(value));
            }
        }
        let pad = share * (self.hi - self.lo);
        if pad.is_finite() {
            (self.lo, self.hi) = (self.lo - pad, self.hi + pad);
        }
        self
    }

    fn range(self, share: f64) -> (f64, f64) {
        let log = self.axis.scale == Scale::Log;
        let padded = self.padded(share);
        let (mut lo, mut hi) = (padded.lo, padded.hi);
        if !(lo.is_finite() && hi.is_finite()) {
            (lo, hi) = (0.0, 1.0);
        }
        let least = if log { 1e-6 } else { (1e-6 * lo.abs().max(hi.abs())).max(1e-300) };
        if hi - lo < least {
            let room = match (log, lo == 0.0) {
                (true, _) => 0.05,
                (false, true) => 1.0,
                (false, false) => 0.05 * lo.abs(),
            };
            (lo, hi) = (lo - room, hi + room);
        }
        if log { (lo.exp(), hi.exp()) } else { (lo, hi) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(ys: &[f64], scale: Scale) -> XyPanel {
        let points = ys.iter().enumerate().map(|(i, y)| DataPoint::new(i as f64 + 1.0, *y)).collect();
        let axis = Axis { scale, ..Axis::default() };
        XyPanel { points: vec![PointSet { points, ..PointSet::default() }], y: axis, ..XyPanel::default() }
    }

    #[test]
    fn ranges_show_everything_with_some_room() {
        let all = |panel: &XyPanel| panel.y_range(panel.x_range());
        let (lo, hi) = all(&panel(&[1.8272, 1.8279], Scale::Log));
        assert!(lo < 1.8272 && hi > 1.8279 && hi - lo < 9e-4, "{lo} {hi}");
        let (lo, hi) = all(&panel(&[0.0], Scale::Linear));
        assert_eq!((lo, hi), (-1.0, 1.0));
        let mut wild = panel(&[1.0, 2.0], Scale::Linear);
        wild.points[0].points[0].y_bar = Some(Span::new(-1e9, 1e9));
        wild.arrows =
            vec![EdgeArrow { value: 0.7, ..EdgeArrow::default() }, EdgeArrow { value: -50.0, ..EdgeArrow::default() }];
        let (lo, hi) = all(&wild);
        assert!((-0.3..0.0).contains(&lo) && (3.0..3.3).contains(&hi), "{lo} {hi}");
    }

    #[test]
    fn what_has_no_place_is_an_error() {
        assert!(matches!(panel(&[-1.0], Scale::Log).check(), Err(PlotError::BadPoint { y: -1.0, .. })));
        assert!(panel(&[-1.0], Scale::Linear).check().is_ok());
        let mut empty = panel(&[1.0], Scale::Linear);
        empty.x.range = Some((2.0, 2.0));
        assert!(matches!(empty.check(), Err(PlotError::BadRange { .. })));
    }
}
