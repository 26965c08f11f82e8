//! Variable projection: for a fixed exponent b the law is linear in (A, C), so the sum of squares is minimised over b
//! alone. The search is global within its bounds: a grid over all of b, then every local minimum refined.
//!
//! x enters as ln(x/x_min), which makes a fit independent of the unit of x and keeps every term in (0, 1].

/// Bounds of the exponent. Below the lower one the law is straight in ln x to within any measurable loss; at the upper
/// one doubling x divides the reducible loss by a thousand.
pub(super) const EXPONENT: (f64, f64) = (1e-4, 10.0);
const GRID: usize = 240;

/// What is held fixed while the rest is optimised.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// Nothing.
    Nothing,
    /// C.
    Floor(f64),
    /// ln A, in the caller's unit of x.
    LogAmplitude(f64),
}

/// The best (A, C) for one b.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solution {
    pub b: f64,
    /// A·x_min^(-b): the reducible loss at the smallest x.
    pub a: f64,
    pub c: f64,
    pub sse: f64,
    /// dSSE/db along the profile.
    slope: f64,
}

/// Points prepared for fitting. With `floor` false, C is held at 0.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// ln(x/x_min)
    pub l: Vec<f64>,
    pub y: Vec<f64>,
    /// ln x_min
    pub l_ref: f64,
    pub floor: bool,
}

impl Problem {
    pub(super) fn new(points: &[super::ScalingPoint], floor: bool) -> Self {
        let l_ref = points.iter().map(|p| p.x.ln()).fold(f64::INFINITY, f64::min);
        Self {
            l: points.iter().map(|p| p.x.ln() - l_ref).collect(),
            y: points.iter().map(|p| p.y).collect(),
            l_ref,
            floor,
        }
    }

    /// The problem without point `i`; x keeps its reference.
    pub(super) fn without(&self, i: usize) -> Self {
        let mut out = self.clone();
        out.l.remove(i);
        out.y.remove(i);
        out
    }

    /// Sum of squares about the mean.
    pub(super) fn sst(&self) -> f64 {
        let mean = self.y.iter().sum::<f64>() / self.y.len() as f64;
        self.y.iter().map(|y| (y - mean).powi(2)).sum()
    }

    /// The best (A ≥ 0, C ≥ 0) for the exponent `b`.
    pub(super) fn solve(&self, b: f64, held: Held) -> Solution {
        let n = self.y.len() as f64;
        let e: Vec<f64> = self.l.iter().map(|l| (-b * l).exp()).collect();
        let mean_y = self.y.iter().sum::<f64>() / n;
        let amplitude_at = |c: f64| {
            let ee: f64 = e.iter().map(|e| e * e).sum();
            let ey: f64 = e.iter().zip(&self.y).map(|(e, y)| e * (y - c)).sum();
            (ey / ee).max(0.0)
        };
        let (a, c) = match held {
            Held::Floor(c) => (amplitude_at(c), c),
            Held::LogAmplitude(log_a) => {
                let a = (log_a - b * self.l_ref).exp();
                let rest = self.y.iter().zip(&e).map(|(y, e)| y - a * e).sum::<f64>() / n;
                (a, if self.floor { rest.max(0.0) } else { 0.0 })
            }
            Held::Nothing if !self.floor => (amplitude_at(0.0), 0.0),
            Held::Nothing => {
                let mean_e = e.iter().sum::<f64>() / n;
                let see: f64 = e.iter().map(|e| (e - mean_e).powi(2)).sum();
                let sey: f64 = e.iter().zip(&self.y).map(|(e, y)| (e - mean_e) * (y - mean_y)).sum();
                let a = sey / see;
                let c = mean_y - a * mean_e;
                // A non-negative least-squares problem in two unknowns: drop whichever turned negative.
                match (a > 0.0, c >= 0.0) {
                    (true, true) => (a, c),
                    (false, _) => (0.0, mean_y),
                    (true, false) => (amplitude_at(0.0), 0.0),
                }
            }
        };
        // By the envelope theorem only the explicit dependence on b counts.
        let shift = if matches!(held, Held::LogAmplitude(_)) { self.l_ref } else { 0.0 };
        let (mut sse, mut slope) = (0.0, 0.0);
        for ((l, e), y) in self.l.iter().zip(&e).zip(&self.y) {
            let reducible = a * e;
            let residual = y - c - reducible;
            sse += residual * residual;
            slope += 2.0 * residual * (l + shift) * reducible;
        }
        Solution { b, a, c, sse, slope }
    }

    /// The global optimum over b within [`EXPONENT`].
    pub(super) fn minimise(&self, held: Held) -> Solution {
        let (lo, hi) = EXPONENT;
        let grid: Vec<Solution> =
            (0..GRID).map(|i| self.solve(lo * (hi / lo).powf(i as f64 / (GRID - 1) as f64), held)).collect();
        let better = |x: Solution, y: Solution| if y.sse < x.sse { y } else { x };
        let mut best = grid.iter().copied().reduce(better).unwrap_or_else(|| self.solve(lo, held));
        for i in 0..GRID {
            let (left, right) = (grid[i.saturating_sub(1)], grid[(i + 1).min(GRID - 1)]);
            if grid[i].sse <= left.sse && grid[i].sse <= right.sse {
                best = better(best, self.refine(left, right, held));
            }
        }
        best
    }

    /// Bisects for slope zero between two exponents; the slope, unlike the sum of squares, keeps all its digits there.
    fn refine(&self, left: Solution, right: Solution, held: Held) -> Solution {
        let (mut left, mut right) = (left, right);
        loop {
            let b = 0.5 * (left.b + right.b);
            if b <= left.b || b >= right.b {
                return if left.sse < right.sse { left } else { right };
            }
            let middle = self.solve(b, held);
            if middle.slope > 0.0 { right = middle } else { left = middle }
        }
    }
}
