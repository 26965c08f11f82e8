//! The layout of a figure: title, axes, curves, points, and a legend below that covers nothing.

use plotters::prelude::DrawingBackend;
use plotters::style::{Color, RGBAColor, RGBColor};

use super::axis::{self, Axis};
use super::canvas::{self, Align, Canvas, load_font, marker};
use super::{Figure, PlotError, SIZE, Series};
use crate::analysis::display;

/// Okabe and Ito's palette without yellow, which is too faint on white.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
const GRID: RGBColor = RGBColor(225, 225, 225);
pub(super) const FADED: RGBColor = RGBColor(90, 90, 90);
pub(super) const NOTE_EM: f64 = 14.0;
pub(super) const TITLE_EM: f64 = 22.0;
const LABEL_EM: f64 = 17.0;
const TICK_EM: f64 = 16.0;
pub(super) const MARGIN: f64 = 24.0;
const RIGHT: f64 = SIZE.0 as f64 - MARGIN;
const BOTTOM: f64 = SIZE.1 as f64 - MARGIN;

/// Share of the data's logarithmic range in x by which curves go on beyond the data.
const BEYOND: f64 = 0.3;

pub(super) fn draw<B: DrawingBackend>(figure: &Figure, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
    load_font()?;
    check(figure)?;
    let page = [(0.0, 0.0), (SIZE.0 as f64, 0.0), (SIZE.0 as f64, SIZE.1 as f64), (0.0, SIZE.1 as f64)];
    canvas.polygon(&page, RGBColor(255, 255, 255).to_rgba())?;
    let legend = Legend::new(&figure.series);
    let title_height = if figure.title.is_empty() { 0.0 } else { 40.0 };
    let top = MARGIN + title_height + 26.0;
    let bottom = BOTTOM - legend.height() - 64.0;
    let (x_range, y_range) = ranges(figure);
    let vertical = Axis { lo: y_range.0, hi: y_range.1, from: bottom, to: top };
    let y_ticks = vertical.ticks(44.0);
    let y_labels = axis::labels(&y_ticks);
    let left = MARGIN + 14.0 + y_labels.iter().map(|text| canvas::width(text, TICK_EM)).fold(0.0, f64::max);
    let horizontal = Axis { lo: x_range.0, hi: x_range.1, from: left, to: RIGHT };

    if !figure.title.is_empty() {
        let title = canvas::fitted(&figure.title, TITLE_EM, RIGHT - MARGIN);
        canvas.text(&title, (SIZE.0 as f64 / 2.0, MARGIN + 20.0), TITLE_EM, Align::Centre, INK)?;
    }
    let y_label = canvas::fitted(&figure.y_label, LABEL_EM, 0.5 * (RIGHT - MARGIN));
    canvas.text(&y_label, (MARGIN, top - 14.0), LABEL_EM, Align::Left, INK)?;
    if let Some(key) = key_to_curves(figure, &vertical) {
        canvas.text(key, (RIGHT, top - 14.0), NOTE_EM, Align::Right, FADED)?;
    }
    for (tick, label) in y_ticks.iter().zip(&y_labels) {
        let y = vertical.pixel(*tick);
        canvas.line(&[(left, y), (RIGHT, y)], GRID.to_rgba(), 1.0)?;
        canvas.text(label, (left - 10.0, y + 0.35 * TICK_EM), TICK_EM, Align::Right, INK)?;
    }
    let x_ticks = horizontal.ticks(90.0);
    for (tick, label) in x_ticks.iter().zip(axis::labels(&x_ticks)) {
        let x = horizontal.pixel(*tick);
        canvas.line(&[(x, top), (x, bottom)], GRID.to_rgba(), 1.0)?;
        canvas.line(&[(x, bottom), (x, bottom + 6.0)], INK.to_rgba(), 1.0)?;
        // A label at the very edge is moved inwards rather than cut.
        let half = canvas::width(&label, TICK_EM) / 2.0;
        let x = x.clamp(MARGIN / 2.0 + half, SIZE.0 as f64 - 6.0 - half);
        canvas.text(&label, (x, bottom + 24.0), TICK_EM, Align::Centre, INK)?;
    }
    canvas.line(&[(left, top), (left, bottom), (RIGHT, bottom)], INK.to_rgba(), 1.2)?;
    let x_label = canvas::fitted(&figure.x_label, LABEL_EM, RIGHT - left);
    canvas.text(&x_label, ((left + RIGHT) / 2.0, bottom + 48.0), LABEL_EM, Align::Centre, INK)?;

    if let Some(floor) = &figure.floor {
        let y = vertical.pixel(floor.loss);
        canvas.dashed(&[(left, y), (RIGHT, y)], INK.to_rgba(), 1.6, (2.0, 5.0))?;
        let text = format!("{} {}", floor.label, display::significant(floor.loss, 5));
        let text = canvas::fitted(&text, LABEL_EM, 0.6 * (RIGHT - left));
        canvas.text(&text, (left + 10.0, y - 8.0), LABEL_EM, Align::Left, INK)?;
    }
    for (i, series) in figure.series.iter().enumerate() {
        draw_series(canvas, series, i, &horizontal, &vertical)?;
    }
    legend.draw(canvas, &figure.series, bottom + 64.0)
}

/// What dashes and arrows mean, if there are any.
fn key_to_curves(figure: &Figure, vertical: &Axis) -> Option<&'static str> {
    let mut curves = figure.series.iter().filter_map(|series| series.curve.as_ref()).peekable();
    curves.peek()?;
    let shown = curves.any(|curve| curve.law.floor().is_some_and(|c| shows(vertical, c)));
    Some(if shown { "dashed: beyond the data; arrow at the right: fitted C" } else { "dashed: beyond the data" })
}

fn shows(vertical: &Axis, loss: f64) -> bool {
    (vertical.lo..=vertical.hi).contains(&loss)
}

fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

fn check(figure: &Figure) -> Result<(), PlotError> {
    if figure.series.iter().all(|series| series.points.is_empty()) {
        return Err(PlotError::NoPoints);
    }
    for series in &figure.series {
        for point in &series.points {
            if !(point.x > 0.0 && point.y > 0.0 && point.x.is_finite() && point.y.is_finite()) {
                return Err(PlotError::BadPoint { series: series.name.clone(), x: point.x, y: point.y });
            }
        }
    }
    Ok(())
}

/// The ranges of x and y that show everything.
fn ranges(figure: &Figure) -> ((f64, f64), (f64, f64)) {
    let points = || figure.series.iter().flat_map(|series| &series.points);
    let x_lo = points().map(|p| p.x).fold(f64::INFINITY, f64::min);
    let mut x_hi = points().map(|p| p.x).fold(0.0, f64::max);
    if x_hi <= x_lo {
        x_hi = x_lo * 1.0001;
    }
    let curves = figure.series.iter().any(|series| series.curve.is_some());
    let span = (x_hi / x_lo).ln();
    let x = ((x_lo.ln() - 0.06 * span).exp(), (x_hi.ln() + if curves { BEYOND } else { 0.06 } * span).exp());
    let below = |p: &super::SeriesPoint| p.y_se.map_or(p.y, |se| (p.y - se).max(0.5 * p.y));
    let mut lo = points().map(below).fold(f64::INFINITY, f64::min);
    let mut hi = points().map(|p| p.y + p.y_se.unwrap_or(0.0)).fold(0.0, f64::max);
    for curve in figure.series.iter().filter_map(|series| series.curve.as_ref()) {
        lo = lo.min(curve.law.loss(x.1));
    }
    if let Some(floor) = &figure.floor {
        (lo, hi) = (lo.min(floor.loss), hi.max(floor.loss));
    }
    // Asymptotes are shown as far as they cost at most a third of the height.
    let reach = lo * (lo / hi).powf(0.5);
    let asymptotes = figure.series.iter().filter_map(|series| series.curve.as_ref()?.law.floor());
    lo = asymptotes.filter(|c| *c >= reach).fold(lo, f64::min);
    if hi / lo < 1.001 {
        (lo, hi) = (lo / 1.001, hi * 1.001);
    }
    let pad = (hi / lo).powf(0.05);
    (x, (lo / pad, hi * pad))
}

fn draw_series<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    series: &Series,
    i: usize,
    horizontal: &Axis,
    vertical: &Axis,
) -> Result<(), PlotError> {
    let ink = colour(i).to_rgba();
    if let Some(curve) = &series.curve {
        let first = series.points.iter().map(|p| p.x).fold(f64::INFINITY, f64::min);
        let last = series.points.iter().map(|p| p.x).fold(0.0, f64::max);
        let path = |from: f64, to: f64| -> Vec<(f64, f64)> {
            let steps = 160;
            (0..=steps)
                .map(|k| from * (to / from).powf(k as f64 / steps as f64))
                .map(|x| (horizontal.pixel(x), vertical.pixel(curve.law.loss(x))))
                .collect()
        };
        canvas.line(&path(first, last), ink, 2.0)?;
        canvas.dashed(&path(last, horizontal.hi), ink, 1.6, (9.0, 6.0))?;
        if let Some(c) = curve.law.floor().filter(|c| shows(vertical, *c)) {
            let (edge, y) = (horizontal.to, vertical.pixel(c));
            let faint: RGBAColor = colour(i).mix(0.55);
            canvas.line(&[(edge - 46.0, y), (edge - 12.0, y)], faint, 1.4)?;
            canvas.polygon(&[(edge, y - 6.0), (edge - 12.0, y), (edge, y + 6.0)], faint)?;
        }
    }
    for point in &series.points {
        let (x, y) = (horizontal.pixel(point.x), vertical.pixel(point.y));
        if let Some(se) = point.y_se {
            let (high, low) = (vertical.pixel(point.y + se), vertical.pixel((point.y - se).max(vertical.lo)));
            canvas.line(&[(x, high), (x, low)], ink, 1.4)?;
            for end in [high, low] {
                canvas.line(&[(x - 5.0, end), (x + 5.0, end)], ink, 1.4)?;
            }
        }
        marker(canvas, i, (x, y), 6.0, ink)?;
    }
    Ok(())
}

/// The legend: one entry per series, in as many columns as fit.
struct Legend {
    texts: Vec<String>,
    columns: usize,
    em: f64,
}

const KEY_WIDTH: f64 = 34.0;

impl Legend {
    fn new(series: &[Series]) -> Self {
        // Many entries are printed smaller if that gets them into two columns.
        let sizes: &[f64] = if series.len() > 6 { &[14.0, 13.0, 12.0, 11.0] } else { &[16.0] };
        let legends = || sizes.iter().map(|em| Self::at(series, *em));
        legends().find(|legend| legend.columns > 1).unwrap_or_else(|| Self::at(series, sizes[0]))
    }

    fn at(series: &[Series], em: f64) -> Self {
        let room = RIGHT - MARGIN - KEY_WIDTH;
        let texts: Vec<String> = series.iter().map(|series| legend_text(series, em, room)).collect();
        let widest = texts.iter().map(|text| canvas::width(text, em)).fold(0.0, f64::max) + KEY_WIDTH + 24.0;
        let columns = (((RIGHT - MARGIN + 24.0) / widest).floor() as usize).clamp(1, 4).min(texts.len().max(1));
        Self { texts, columns, em }
    }

    fn rows(&self) -> usize {
        self.texts.len().div_ceil(self.columns)
    }

    fn line_height(&self) -> f64 {
        1.5 * self.em
    }

    fn height(&self) -> f64 {
        self.rows() as f64 * self.line_height()
    }

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, series: &[Series], top: f64) -> Result<(), PlotError> {
        let column_width = (RIGHT - MARGIN) / self.columns as f64;
        for (i, text) in self.texts.iter().enumerate() {
            let x = MARGIN + (i / self.rows()) as f64 * column_width;
            let y = top + ((i % self.rows()) as f64 + 0.75) * self.line_height();
            let middle = y - 0.36 * self.em;
            if series[i].curve.is_some() {
                canvas.line(&[(x, middle), (x + 26.0, middle)], colour(i).to_rgba(), 2.0)?;
            }
            marker(canvas, i, (x + 13.0, middle), 5.0, colour(i).to_rgba())?;
            canvas.text(text, (x + KEY_WIDTH, y), self.em, Align::Left, INK)?;
        }
        Ok(())
    }
}

/// `name: A, b, C ± se`; the name gives way when it is too long, never the numbers.
fn legend_text(series: &Series, em: f64, room: f64) -> String {
    let numbers = series.curve.as_ref().map_or(String::new(), |curve| {
        let parts = curve.estimates.iter().map(|estimate| match estimate.name {
            "C" => format!("C = {}", display::with_error(estimate)),
            name => format!("{name} = {}", display::significant(estimate.value, 3)),
        });
        format!(": {}", parts.collect::<Vec<_>>().join(", "))
    });
    canvas::fitted(&series.name, em, room - canvas::width(&numbers, em)) + &numbers
}
