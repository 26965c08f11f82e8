//! Rectangles and clipping, in pixels of the finished page; y grows downwards.

pub(super) type Point = (f64, f64);

/// A rectangle with its sides parallel to those of the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub(super) fn new(left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self { left, top, right, bottom }
    }

    pub(super) fn around((x, y): Point, radius: f64) -> Self {
        Self::new(x - radius, y - radius, x + radius, y + radius)
    }

    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// Whether the two share more than a border.
    pub(super) fn overlaps(&self, other: &Rect) -> bool {
        let apart = 0.01;
        self.left < other.right - apart
            && other.left < self.right - apart
            && self.top < other.bottom - apart
            && other.top < self.bottom - apart
    }

    pub(super) fn contains(&self, other: &Rect) -> bool {
        other.left >= self.left && other.right <= self.right && other.top >= self.top && other.bottom <= self.bottom
    }

    pub(super) fn corners(&self) -> [Point; 4] {
        [(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]
    }
}

/// The part of a segment inside of a rectangle.
fn clip_segment(a: Point, b: Point, rect: &Rect) -> Option<(Point, Point)> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    // Each side as "distance inside at a" and "its change towards b".
    let sides = [(a.0 - rect.left, dx), (rect.right - a.0, -dx), (a.1 - rect.top, dy), (rect.bottom - a.1, -dy)];
    for (inside, change) in sides {
        if change == 0.0 {
            if inside < 0.0 {
                return None;
            }
        } else if change > 0.0 {
            enter = enter.max(-inside / change);
        } else {
            leave = leave.min(-inside / change);
        }
    }
    let at = |t: f64| (a.0 + t * dx, a.1 + t * dy);
    (enter <= leave).then(|| (at(enter), at(leave)))
}

/// The visible runs of a polyline; a point that is no number ends a run.
pub(super) fn clip(points: &[Point], rect: &Rect) -> Vec<Vec<Point>> {
    let mut runs: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = clip_segment(pair[0], pair[1], rect) else { continue };
        match runs.last_mut() {
            Some(run) if run.last() == Some(&from) => run.push(to),
            _ => runs.push(vec![from, to]),
        }
    }
    runs.retain(|run| run.iter().all(|(x, y)| x.is_finite() && y.is_finite()));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polyline_is_cut_at_the_border() {
        let rect = Rect::new(0.0, 0.0, 10.0, 10.0);
        let runs = clip(&[(-5.0, 5.0), (5.0, 5.0), (5.0, 25.0), (20.0, 25.0), (8.0, 9.0), (9.0, 9.0)], &rect);
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0], [(0.0, 5.0), (5.0, 5.0), (5.0, 10.0)]);
        assert_eq!(runs[1].last(), Some(&(9.0, 9.0)));
        assert!(clip(&[(f64::NAN, 1.0), (2.0, 2.0)], &rect).is_empty());
    }
}
