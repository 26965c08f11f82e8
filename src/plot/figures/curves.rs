//! Loss in the course of training, for many runs.

use super::super::axis::{Axis, Scale};
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{Line, XyPanel};

/// The course of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCurve {
    /// Its name in the legend; runs of one name share an entry, such as seeds of one configuration.
    pub name: String,
    /// Step or tokens, and loss, by rising x.
    pub points: Vec<(f64, f64)>,
}

/// Losses of many runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossCurves {
    /// Heading; may be empty.
    pub title: String,
    /// Step or tokens.
    pub x: Axis,
    /// Loss; a range keeps the first steps from taking up most of the height.
    pub y: Axis,
    /// Runs.
    pub runs: Vec<RunCurve>,
    /// Width on paper.
    pub width: Width,
}

/// Points of a line at most; a figure has fewer pixels.
pub(super) const MOST: usize = 1000;

impl LossCurves {
    /// The chart: thin lines that keep the extremes of what they leave out.
    pub fn chart(&self) -> Chart {
        let mut panel = XyPanel { x: self.x.clone(), y: self.y.clone(), ..XyPanel::default() };
        let mut legend: Vec<LegendEntry> = Vec::new();
        for run in &self.runs {
            let known = legend.iter().position(|entry| entry.name == run.name);
            let look = Look(known.unwrap_or(legend.len()));
            if known.is_none() {
                legend.push(LegendEntry::new(&run.name, look, Key::line(Stroke::Own)));
            }
            let usable = |point: &&(f64, f64)| self.x.takes(point.0) && self.y.takes(point.1);
            let points: Vec<(f64, f64)> = run.points.iter().filter(usable).copied().collect();
            let points = decimated(&points, self.x.scale, MOST);
            panel.lines.push(Line { look, points, stroke: Stroke::Own, thin: true, ..Line::default() });
        }
        Chart::single(&self.title, self.width, panel, legend, None)
    }
}

/// At most `most` of the points: the lowest and the highest in each of equally wide pieces of the axis.
pub(super) fn decimated(points: &[(f64, f64)], scale: Scale, most: usize) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() <= most {
        return points.to_vec();
    }
    let place = |x: f64| if scale == Scale::Log { x.ln() } else { x };
    let (from, width) = (place(first.0), place(last.0) - place(first.0));
    // Two are kept for the ends.
    let pieces = (most - 2) / 2;
    let piece = |x: f64| if width > 0.0 { ((place(x) - from) / width * pieces as f64) as usize } else { 0 };
    let mut out = vec![*first];
    for run in points.chunk_by(|a, b| piece(a.0).min(pieces - 1) == piece(b.0).min(pieces - 1)) {
        let lowest = run.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let highest = run.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let mut kept: Vec<usize> = lowest.into_iter().chain(highest).collect();
        kept.sort_unstable();
        kept.dedup();
        out.extend(kept.into_iter().map(|i| run[i]));
    }
    out.push(*last);
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_keep_their_extremes() {
        let mut points: Vec<(f64, f64)> = (1..=50_000).map(|i| (f64::from(i), 3.0 + 1.0 / f64::from(i))).collect();
        points[33_333].1 = 9.0;
        points[44_444].1 = 1.0;
        for scale in [Scale::Linear, Scale::Log] {
            let few = decimated(&points, scale, MOST);
            assert!(few.len() <= MOST && few.len() > 300, "{}", few.len());
            assert!(few.contains(&points[33_333]) && few.contains(&points[44_444]));
            assert!(few.first() == points.first() && few.last() == points.last());
            assert!(few.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        assert_eq!(decimated(&points[..900], Scale::Linear, MOST).len(), 900);
    }
}
