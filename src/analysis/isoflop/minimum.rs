//! The smallest loss of one budget.

use super::distinct;
use crate::analysis::ends;
use crate::analysis::interval::t_quantile;
use crate::analysis::solver::matrix::{Matrix, inverse_gram};

/// An optimum nearer to an end of the grid than this share of its width is off centre.
const CENTRE: f64 = 0.25;
/// Sizes that differ by less than this share count as one knot of an interpolation: the slope between two knots that
/// are close is all noise.
const SAME_SIZE: f64 = 0.05;
/// An interpolation that dips below its lowest knot by more than this share of the rise to the higher neighbour follows
/// noise; a parabola dips by an eighth at most.
const DIP: f64 = 0.5;

/// How the smallest loss of a budget is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The lowest point of a parabola in ln N, fitted to the losses by least squares.
    Parabola,
    /// The lowest point of the Akima interpolation of ln L by ln N (Porian et al. 2024, arXiv:2406.19146).
    Akima,
}

impl Method {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Parabola, Self::Akima];

    /// The spelling used on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parabola => "parabola",
            Self::Akima => "akima",
        }
    }

    /// The smallest loss of these runs of one budget: parameters, losses, and how much each counts. Runs of one size
    /// count as their mean in an interpolation.
    pub fn minimum(self, n: &[f64], losses: &[f64], weight: &[f64]) -> Result<Minimum, Flaw> {
        let u: Vec<f64> = n.iter().map(|n| n.ln()).collect();
        match self {
            Self::Parabola => parabola(&u, losses, weight),
            Self::Akima => akima(&u, losses, weight),
        }
    }
}

/// What is wrong with a minimum, or with the points it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Fewer than three different sizes.
    TooFew,
    /// Three sizes: a curve through all of them, with nothing left to judge it by.
    Three,
    /// The losses do not curve upwards.
    NoMinimum,
    /// The interpolation dips far below the losses, because noise moves neighbours against each other.
    Overshoot,
    /// The lowest point lies outside the sizes that were run, or on their edge.
    Outside,
    /// The lowest point lies far from the middle of the sizes that were run, which biases a parabola.
    OffCentre,
    /// On the losses of the law fitted to all runs, without noise, the method misses the law's own optimum by more than
    /// 5 % with these sizes (Czech et al. 2026, arXiv:2603.22339).
    Biased,
}

impl Flaw {
    /// The spelling used in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooFew => "few",
            Self::Three => "three",
            Self::NoMinimum => "no-minimum",
            Self::Overshoot => "overshoot",
            Self::Outside => "outside",
            Self::OffCentre => "off-centre",
            Self::Biased => "biased",
        }
    }
}

/// The smallest loss of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimum {
    /// Parameters.
    pub n: f64,
    /// Loss.
    pub loss: f64,
    /// Standard error of ln N from the residuals, where there are any.
    pub se: Option<f64>,
    /// Degrees of freedom of the standard error.
    pub freedom: f64,
    /// Of a parabola, how much the loss rises per square of ln(N/n).
    pub curvature: Option<f64>,
    /// What is wrong with it; it should not be used when it lies outside.
    pub flaws: Vec<Flaw>,
}

impl Minimum {
    /// 95 % interval of the parameters, from the standard error.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let half = t_quantile(self.freedom) * self.se?;
        Some((self.n * (-half).exp(), self.n * half.exp()))
    }

    /// The parabola at another size.
    pub fn parabola(&self, n: f64) -> Option<f64> {
        Some(self.loss + self.curvature? * (n / self.n).ln().powi(2))
    }

    /// Whether it was found among the sizes that were run.
    pub fn is_inside(&self) -> bool {
        !self.flaws.contains(&Flaw::Outside)
    }
}

fn flaws(u: &[f64], at: f64) -> Vec<Flaw> {
    let (lo, hi) = ends(u);
    let place = (at - lo) / (hi - lo);
    let mut out = Vec::new();
    if distinct(u) == 3 {
        out.push(Flaw::Three);
    }
    if place <= 0.0 || place >= 1.0 {
        out.push(Flaw::Outside);
    } else if !(CENTRE..=1.0 - CENTRE).contains(&place) {
        out.push(Flaw::OffCentre);
    }
    out
}

fn parabola(u: &[f64], y: &[f64], weight: &[f64]) -> Result<Minimum, Flaw> {
    if distinct(u) < 3 {
        return Err(Flaw::TooFew);
    }
    // Centred and scaled, so that the three columns are of one size.
    let (lo, hi) = ends(u);
    let (middle, half) = (0.5 * (lo + hi), 0.5 * (hi - lo));
    let v: Vec<f64> = u.iter().map(|u| (u - middle) / half).collect();
    let power = |k: i32| v.iter().zip(weight).map(|(v, w)| w.sqrt() * v.powi(k)).collect::<Vec<f64>>();
    let columns = vec![power(0), power(1), power(2)];
    let target: Vec<f64> = y.iter().zip(weight).map(|(y, w)| w.sqrt() * y).collect();
    let covariance = inverse_gram(columns.clone()).ok_or(Flaw::TooFew)?;
    let dot = |a: &[f64]| a.iter().zip(&target).map(|(a, b)| a * b).sum::<f64>();
    let moments: Vec<f64> = columns.iter().map(|column| dot(column)).collect();
    let c: Vec<f64> = (0..3).map(|i| (0..3).map(|j| covariance.at(i, j) * moments[j]).sum()).collect();
    if c[2] <= 0.0 || c[2].is_nan() {
        return Err(Flaw::NoMinimum);
    }
    let at = -0.5 * c[1] / c[2];
    let fitted = |v: f64| c[0] + v * (c[1] + v * c[2]);
    let squares: f64 = v.iter().zip(y).zip(weight).map(|((v, y), w)| w * (y - fitted(*v)).powi(2)).sum();
    let freedom = y.len() as f64 - 3.0;
    // d(at)/dc₁ = -1/(2c₂), d(at)/dc₂ = -at/c₂.
    let slopes = [-0.5 / c[2], -at / c[2]];
    let quadratic = |m: &Matrix| -> f64 {
        (0..2).map(|i| (0..2).map(|j| slopes[i] * m.at(i + 1, j + 1) * slopes[j]).sum::<f64>()).sum()
    };
    let se = (freedom > 0.0).then(|| half * (squares / freedom * quadratic(&covariance)).sqrt());
    let at_u = middle + half * at;
    Ok(Minimum {
        n: at_u.exp(),
        loss: fitted(at),
        se: se.filter(|se| *se > 0.0),
        freedom,
        curvature: Some(c[2] / (half * half)),
        flaws: flaws(u, at_u),
    })
}

fn akima(u: &[f64], y: &[f64], weight: &[f64]) -> Result<Minimum, Flaw> {
    let mut order: Vec<usize> = (0..u.len()).collect();
    order.sort_by(|a, b| u[*a].total_cmp(&u[*b]));
    // For each knot its smallest u, and weighted sums of u, of the loss, and of nothing.
    let mut knots: Vec<(f64, [f64; 3])> = Vec::new();
    for i in order {
        let more = [weight[i] * u[i], weight[i] * y[i], weight[i]];
        match knots.last_mut().filter(|(first, _)| u[i] - first < SAME_SIZE.ln_1p()) {
            Some((_, sums)) => sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
            None => knots.push((u[i], more)),
        }
    }
    if knots.len() < 3 {
        return Err(Flaw::TooFew);
    }
    let (x, z): (Vec<f64>, Vec<f64>) = knots.into_iter().map(|(_, [u, y, w])| (u / w, (y / w).ln())).unzip();
    let (at, lowest) = Akima::new(&x, &z).lowest();
    let knot = (0..z.len()).min_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap_or(0);
    let neighbours = &z[knot.saturating_sub(1)..(knot + 2).min(z.len())];
    if z[knot] - lowest > DIP * (ends(neighbours).1 - z[knot]) {
        return Err(Flaw::Overshoot);
    }
    let (n, loss) = (at.exp(), lowest.exp());
    Ok(Minimum { n, loss, se: None, freedom: 0.0, curvature: None, flaws: flaws(&x, at) })
}

/// Akima's interpolation: cubics between neighbours whose slopes at the knots weigh the slopes on either side by how
/// little those beyond them change (Akima 1970, J. ACM 17, 589).
struct Akima<'a> {
    x: &'a [f64],
    z: &'a [f64],
    slope: Vec<f64>,
}

impl<'a> Akima<'a> {
    /// Through at least two points in ascending order.
    fn new(x: &'a [f64], z: &'a [f64]) -> Self {
        let n = x.len();
        // Slopes between neighbours, with two more at either end that continue them on a parabola.
        let mut m = vec![0.0; n + 3];
        for i in 0..n - 1 {
            m[i + 2] = (z[i + 1] - z[i]) / (x[i + 1] - x[i]);
        }
        if n == 2 {
            m[3] = m[2];
        }
        m[1] = 2.0 * m[2] - m[3];
        m[0] = 2.0 * m[1] - m[2];
        m[n + 1] = 2.0 * m[n] - m[n - 1];
        m[n + 2] = 2.0 * m[n + 1] - m[n];
        let change = |i: usize| (m[i + 1] - m[i]).abs();
        let largest = (0..n).map(|i| change(i) + change(i + 2)).fold(0.0, f64::max);
        let slope = (0..n).map(|i| {
            let (before, after) = (change(i), change(i + 2));
            // Equal slopes on both sides leave the weights undefined; then both count the same.
            if before + after > 1e-9 * largest {
                (after * m[i + 1] + before * m[i + 2]) / (before + after)
            } else {
                0.5 * (m[i + 1] + m[i + 2])
            }
        });
        Self { x, z, slope: slope.collect() }
    }

    /// The lowest point between the first and the last knot, and the value there.
    fn lowest(&self) -> (f64, f64) {
        let mut best = (self.x[0], self.z[0]);
        let mut consider = |at: f64, value: f64| {
            if value < best.1 {
                best = (at, value);
            }
        };
        for i in 0..self.x.len() - 1 {
            let h = self.x[i + 1] - self.x[i];
            let m = (self.z[i + 1] - self.z[i]) / h;
            let (a, b) = (self.slope[i], self.slope[i + 1]);
            let (c, d) = ((3.0 * m - 2.0 * a - b) / h, (a + b - 2.0 * m) / (h * h));
            let value = |t: f64| self.z[i] + t * (a + t * (c + t * d));
            consider(self.x[i + 1], self.z[i + 1]);
            // Where a + 2ct + 3dt² vanishes; of the two roots as quotients none loses digits when d is small.
            let discriminant = c * c - 3.0 * a * d;
            if discriminant >= 0.0 {
                let q = -(c + c.signum() * discriminant.sqrt());
                for t in [q / (3.0 * d), a / q] {
                    if t > 0.0 && t < h {
                        consider(self.x[i] + t, value(t));
                    }
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of Akima's own example (J. ACM 17, 597): flat where neighbours are level, no overshoot before the
    /// rise, and where the slopes change from 0.5, 4.5 to 35, 10 the slope is (25·4.5 + 4·35)/29.
    #[test]
    fn akima_follows_its_knots_without_overshoot() {
        let x: Vec<f64> = (0..11).map(f64::from).collect();
        let z = [10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.5, 15.0, 50.0, 60.0, 85.0];
        let akima = Akima::new(&x, &z);
        assert_eq!(akima.slope[..6], [0.0; 6]);
        assert!((akima.slope[7] - 252.5 / 29.0).abs() < 1e-12);
        let (at, value) = akima.lowest();
        assert!(value == 10.0 && at <= 5.0);
    }

    /// Pairs of neighbours that noise makes steep, on both sides of a gap.
    #[test]
    fn an_interpolation_of_noisy_neighbours_gives_no_minimum() {
        let minimum = |n: [f64; 4], losses: [f64; 4]| Method::Akima.minimum(&n, &losses, &[1.0; 4]);
        let (n, noisy) = ([1.0e8, 1.07e8, 8.0e8, 8.6e8], [2.6, 2.5, 2.5, 2.6]);
        assert_eq!(minimum(n, noisy), Err(Flaw::Overshoot));
        assert!(minimum(n, [2.52, 2.5, 2.5, 2.52]).is_err());
        assert!(minimum([1.0e8, 3.0e8, 8.0e8, 24.0e8], noisy).is_ok());
        // Closer still they count as one, and two knots have no minimum between them.
        assert_eq!(minimum([1.0e8, 1.01e8, 8.0e8, 8.1e8], noisy), Err(Flaw::TooFew));
    }
}
