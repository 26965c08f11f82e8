//! Markers, told apart without colour.

use plotters::prelude::DrawingBackend;
use plotters::style::Color;

use super::PlotError;
use super::canvas::Canvas;
use super::geometry::{Point, Rect};
use super::style::{COLOURS, Look, WHITE};

/// The marker of a look, with a white rim that parts it from what it covers.
pub(super) fn marker<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    look: Look,
    centre: Point,
    radius: f64,
    hollow: bool,
) -> Result<(), PlotError> {
    let colour = look.colour(canvas.palette).to_rgba();
    // From the second round of colours on, the filling changes, too.
    let hollow = hollow != (look.0 / COLOURS.len() % 2 == 1);
    let solid = look.shape() < 6;
    if solid || hollow {
        // A cross has no inside; a ring around it does as well.
        let outline = if solid { look.shape() } else { 0 };
        let outer = if solid { radius } else { 1.3 * radius };
        shape(canvas, outline, centre, outer + 1.6, WHITE.to_rgba())?;
        shape(canvas, outline, centre, outer, colour)?;
        if hollow {
            shape(canvas, outline, centre, outer - 2.4, WHITE.to_rgba())?;
        }
    }
    if !solid {
        shape(canvas, look.shape(), centre, if hollow { 0.75 * radius } else { radius }, colour)?;
    }
    canvas.data.push(Rect::around(centre, radius + 2.0));
    Ok(())
}

fn shape<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    shape: usize,
    (x, y): Point,
    r: f64,
    colour: plotters::style::RGBAColor,
) -> Result<(), PlotError> {
    let quarter = std::f64::consts::FRAC_PI_2;
    match shape {
        0 => canvas.disc((x, y), r, colour),
        1 => canvas.polygon(&corners((x, y), 4, quarter / 2.0, 1.25 * r), colour),
        2 => canvas.polygon(&corners((x, y), 3, -quarter, 1.4 * r), colour),
        3 => canvas.polygon(&corners((x, y), 4, 0.0, 1.35 * r), colour),
        4 => canvas.polygon(&corners((x, y), 3, quarter, 1.4 * r), colour),
        5 => canvas.polygon(&corners((x, y), 6, 0.0, 1.15 * r), colour),
        6 => {
            canvas.line(&[(x - r, y - r), (x + r, y + r)], colour, 2.8)?;
            canvas.line(&[(x - r, y + r), (x + r, y - r)], colour, 2.8)
        }
        _ => {
            canvas.line(&[(x - 1.2 * r, y), (x + 1.2 * r, y)], colour, 2.8)?;
            canvas.line(&[(x, y - 1.2 * r), (x, y + 1.2 * r)], colour, 2.8)
        }
    }
}

fn corners((x, y): Point, count: usize, start: f64, radius: f64) -> Vec<Point> {
    let angle = |k: usize| start + std::f64::consts::TAU * k as f64 / count as f64;
    (0..count).map(|k| (x + radius * angle(k).cos(), y + radius * angle(k).sin())).collect()
}

/// A star, for what stands out among points: a minimum, a best cell.
pub(super) fn star<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    (x, y): Point,
    radius: f64,
    colour: plotters::style::RGBColor,
) -> Result<(), PlotError> {
    let ring = |radius: f64| -> Vec<Point> {
        let at = |k: usize| -std::f64::consts::FRAC_PI_2 + std::f64::consts::PI * k as f64 / 5.0;
        let reach = |k: usize| if k.is_multiple_of(2) { radius } else { 0.45 * radius };
        (0..10).map(|k| (x + reach(k) * at(k).cos(), y + reach(k) * at(k).sin())).collect()
    };
    canvas.polygon(&ring(radius + 3.5), WHITE.to_rgba())?;
    canvas.polygon(&ring(radius), colour.to_rgba())?;
    canvas.data.push(Rect::around((x, y), radius));
    Ok(())
}
