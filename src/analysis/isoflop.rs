//! Compute-optimal sizes from runs at equal compute: the smallest loss of each budget, and power laws through them
//! (approach 2 of Hoffmann et al. 2022, arXiv:2203.15556), to be read beside a law of parameters and tokens fitted to
//! the same runs (approach 3), which also tells how far the shape of the grid alone moves the former.

use super::forms::{Input, Inputs};
use super::interval::t_quantile;
use super::solver::matrix::{Matrix, inverse_gram};
use super::{ConfidenceInterval, Law, Resamples, Sample};

/// An optimum nearer to an end of the grid than this share of its width is off centre.
const CENTRE: f64 = 0.25;
/// A method whose own optimum of a known law is off by more than this share is biased by the grid.
const BIASED: f64 = 0.05;
/// Sizes that differ by less than this share count as one knot of an interpolation: the slope between two knots that
/// are close is all noise.
const SAME_SIZE: f64 = 0.05;
/// An interpolation that dips below its lowest knot by more than this share of the rise to the higher neighbour follows
/// noise; a parabola dips by an eighth at most.
const DIP: f64 = 0.5;
/// Budgets that agree to this many digits are one.
const DIGITS: i32 = 3;

/// Runs of one compute budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Its training FLOPs.
    pub flops: f64,
    /// Positions of its runs.
    pub runs: Vec<usize>,
}

/// Runs by budget, in ascending order: where budgets are `given`, each run goes to the nearest one if it is within a
/// share of `tolerance`; otherwise runs belong together when their FLOPs agree to three digits.
pub fn budgets(flops: &[f64], given: &[f64], tolerance: f64) -> Vec<Budget> {
    let rounded = |value: f64| {
        let unit = 10f64.powi(value.log10().floor() as i32 + 1 - DIGITS);
        (value / unit).round() * unit
    };
    let of = |value: f64| {
        if given.is_empty() {
            return Some(rounded(value));
        }
        let far = |budget: &f64| (value / budget).ln().abs();
        let nearest = given.iter().copied().min_by(|a, b| far(a).total_cmp(&far(b)))?;
        (far(&nearest) <= tolerance.ln_1p()).then_some(nearest)
    };
    let mut out: Vec<Budget> = Vec::new();
    for (i, value) in flops.iter().enumerate() {
        let Some(flops) = of(*value) else { continue };
        match out.iter_mut().find(|budget| (budget.flops / flops - 1.0).abs() < 1e-9) {
            Some(budget) => budget.runs.push(i),
            None => out.push(Budget { flops, runs: vec![i] }),
        }
    }
    out.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    out
}

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
    /// What is wrong with it; it should not be used when it lies outside.
    pub flaws: Vec<Flaw>,
}

impl Minimum {
    /// 95 % interval of the parameters, from the standard error.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let half = t_quantile(self.freedom) * self.se?;
        Some((self.n * (-half).exp(), self.n * half.exp()))
    }

    /// Whether it was found among the sizes that were run.
    pub fn is_inside(&self) -> bool {
        !self.flaws.contains(&Flaw::Outside)
    }
}

/// The number of different values.
fn distinct(values: &[f64]) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    sorted.len()
}

fn ends(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(*v), hi.max(*v)))
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
    Ok(Minimum { n: at_u.exp(), loss: fitted(at), se: se.filter(|se| *se > 0.0), freedom, flaws: flaws(u, at_u) })
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
    Ok(Minimum { n: at.exp(), loss: lowest.exp(), se: None, freedom: 0.0, flaws: flaws(&x, at) })
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

/// y = coefficient·x^exponent, fitted to logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLog {
    /// The coefficient.
    pub coefficient: f64,
    /// The exponent.
    pub exponent: f64,
    /// Standard error of the exponent; `None` for two points.
    pub se: Option<f64>,
    /// 1 - SSE/SST of the logarithms.
    pub r2: f64,
    /// Points less two.
    pub freedom: f64,
    /// Variance of one ln y of weight one.
    variance: f64,
    /// Mean of ln x, sum of the weights, and weighted sum of squares of ln x about the mean.
    moments: (f64, f64, f64),
}

impl LogLog {
    /// 95 % interval of the exponent, by Student's t.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let half = t_quantile(self.freedom) * self.se?;
        Some((self.exponent - half, self.exponent + half))
    }

    /// y at `x`.
    pub fn value(&self, x: f64) -> f64 {
        self.coefficient * x.powf(self.exponent)
    }

    /// 95 % interval of the law at `x`, by Student's t on logarithms.
    pub fn interval_at(&self, x: f64) -> Option<(f64, f64)> {
        self.se?;
        let (mean, total, squares) = self.moments;
        let variance = self.variance * (1.0 / total + (x.ln() - mean).powi(2) / squares);
        let half = t_quantile(self.freedom) * variance.sqrt();
        Some((self.value(x) * (-half).exp(), self.value(x) * half.exp()))
    }
}

/// Weighted least squares on logarithms. The weights are relative: those of standard errors of ln y are their inverse
/// squares. `None` with fewer than two different x.
pub fn loglog_fit(x: &[f64], y: &[f64], weights: &[f64]) -> Option<LogLog> {
    let (u, v): (Vec<f64>, Vec<f64>) = x.iter().zip(y).map(|(x, y)| (x.ln(), y.ln())).unzip();
    let total: f64 = weights.iter().sum();
    let mean = |values: &[f64]| values.iter().zip(weights).map(|(v, w)| w * v).sum::<f64>() / total;
    let (mu, mv) = (mean(&u), mean(&v));
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| {
        a.iter().zip(b).zip(weights).map(|((a, b), w)| w * (a - ma) * (b - mb)).sum::<f64>()
    };
    let squares = product(&u, mu, &u, mu);
    if distinct(&u) < 2 || squares <= 0.0 || !total.is_finite() {
        return None;
    }
    let exponent = product(&u, mu, &v, mv) / squares;
    let residual: f64 =
        u.iter().zip(&v).zip(weights).map(|((u, v), w)| w * (v - mv - exponent * (u - mu)).powi(2)).sum();
    let freedom = x.len() as f64 - 2.0;
    let variance = if freedom > 0.0 { residual / freedom } else { f64::NAN };
    Some(LogLog {
        coefficient: (mv - exponent * mu).exp(),
        exponent,
        se: (freedom > 0.0).then(|| (variance / squares).sqrt()),
        r2: 1.0 - residual / product(&v, mv, &v, mv),
        freedom,
        variance,
        moments: (mu, total, squares),
    })
}

/// The sizes that spend a budget best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allocation {
    /// Parameters.
    pub n: f64,
    /// Training tokens.
    pub d: f64,
    /// The loss there.
    pub loss: f64,
}

/// The smallest loss of a Chinchilla law for `flops` = `per`·N·D: N = G·(flops/per)^a with a = β/(α+β) and
/// G = (αA/βB)^(1/(α+β)) (Hoffmann et al. 2022, equation 4). `None` for other laws, and without an interior optimum.
pub fn allocation(law: &Law, flops: f64, per: f64) -> Option<Allocation> {
    let get = |name: &str| law.parameter(name);
    let (alpha, a) = (get("alpha")?, get("A")?);
    let (beta, b) = (get("beta").unwrap_or(alpha), get("B")?);
    if law.form.inputs() != [Input::Parameters, Input::Tokens] || law.form.terms().len() > 3 {
        return None;
    }
    let share = optimal_exponent(law)?;
    let product = flops / per;
    let scale = ((alpha * a).ln() - (beta * b).ln()) / (alpha + beta);
    let n = (scale + share * product.ln()).exp();
    let d = product / n;
    (n.is_finite() && d.is_finite() && n > 0.0 && d > 0.0).then(|| Allocation { n, d, loss: law.loss(&[n, d]) })
}

/// a of N_opt ∝ C^a in a Chinchilla law: β/(α+β).
pub fn optimal_exponent(law: &Law) -> Option<f64> {
    let alpha = law.parameter("alpha")?;
    let beta = law.parameter("beta").unwrap_or(alpha);
    Some(beta / (alpha + beta))
}

/// [`Allocation`] with its 95 % intervals, from the refits of a bootstrap.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocationIntervals {
    /// Of the parameters.
    pub n: ConfidenceInterval,
    /// Of the tokens.
    pub d: ConfidenceInterval,
    /// Of the loss.
    pub loss: ConfidenceInterval,
}

/// The intervals of [`allocation`] over refits.
pub fn allocation_intervals(resamples: &Resamples, flops: f64, per: f64) -> AllocationIntervals {
    let of = |part: fn(Allocation) -> f64| resamples.of(|law| allocation(law, flops, per).map_or(f64::NAN, part)).1;
    AllocationIntervals { n: of(|a| a.n), d: of(|a| a.d), loss: of(|a| a.loss) }
}

/// Where the method puts the optimum of a known law with these sizes, as a share of where it is, less one: what the
/// grid alone does to it, as far as the law is right. `None` when the method finds no minimum.
pub fn bias(method: Method, law: &Law, n: &[f64], flops: f64, per: f64) -> Option<f64> {
    let truth = allocation(law, flops, per)?;
    let d = n.iter().map(|n| flops / per / n).collect();
    let losses = law.losses(&Inputs { columns: vec![n.to_vec(), d], curves: Vec::new() });
    let found = method.minimum(n, &losses, &vec![1.0; n.len()]).ok()?;
    Some(found.n / truth.n - 1.0)
}

/// The optimum of one budget by one method.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// The budget.
    pub budget: Budget,
    /// The method.
    pub method: Method,
    /// The minimum, or why there is none.
    pub minimum: Result<Minimum, Flaw>,
    /// What the grid alone does to it: see [`bias`].
    pub bias: Option<f64>,
}

impl Optimum {
    /// The minimum if it lies among the sizes that were run.
    pub fn usable(&self) -> Option<&Minimum> {
        self.minimum.as_ref().ok().filter(|minimum| minimum.is_inside())
    }

    /// Everything that is wrong with it.
    pub fn flaws(&self) -> Vec<Flaw> {
        let mut out = match &self.minimum {
            Ok(minimum) => minimum.flaws.clone(),
            Err(flaw) => vec![*flaw],
        };
        if self.bias.is_some_and(|bias| bias.abs() > BIASED) {
            out.push(Flaw::Biased);
        }
        out
    }
}

/// The optimum of each budget, of runs whose inputs are parameters and tokens. A law of the same runs, if there is one,
/// tells what the grid does.
pub fn optima(sample: &Sample, budgets: &[Budget], method: Method, law: Option<&Law>, per: f64) -> Vec<Optimum> {
    let of_budget = |budget: &Budget| {
        let pick = |values: &[f64]| budget.runs.iter().map(|i| values[*i]).collect::<Vec<f64>>();
        let n = pick(&sample.inputs.columns[0]);
        Optimum {
            minimum: method.minimum(&n, &pick(&sample.y), &pick(&sample.weight)),
            bias: law.and_then(|law| bias(method, law, &n, budget.flops, per)),
            budget: budget.clone(),
            method,
        }
    };
    budgets.iter().map(of_budget).collect()
}

/// What a power law of optima is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Parameters, N = G·C^a.
    Parameters,
    /// Tokens, D = H·C^b.
    Tokens,
}

/// The power law through the optima that lie among the sizes run, each weighted by its standard error if `by_error` and
/// all have one. `None` with fewer than two.
pub fn power_law(optima: &[Optimum], size: Size, by_error: bool, per: f64) -> Option<LogLog> {
    let usable: Vec<(f64, &Minimum)> = optima.iter().filter_map(|o| Some((o.budget.flops, o.usable()?))).collect();
    let flops: Vec<f64> = usable.iter().map(|(flops, _)| *flops).collect();
    let y = usable.iter().map(|(flops, minimum)| match size {
        Size::Parameters => minimum.n,
        Size::Tokens => flops / per / minimum.n,
    });
    let errors: Option<Vec<f64>> = usable.iter().map(|(_, minimum)| minimum.se.map(|se| se.powi(-2))).collect();
    let weights = errors.filter(|_| by_error).unwrap_or_else(|| vec![1.0; flops.len()]);
    loglog_fit(&flops, &y.collect::<Vec<_>>(), &weights)
}

/// The exponent that the method would find for these grids if `law` were true and nothing noisy, less the law's own.
pub fn exponent_bias(optima: &[Optimum], law: &Law) -> Option<f64> {
    let of_law = optima.iter().filter(|o| o.usable().is_some()).filter_map(|o| Some((o.budget.flops, 1.0 + o.bias?)));
    let (flops, share): (Vec<f64>, Vec<f64>) = of_law.unzip();
    optimal_exponent(law)?;
    // The optima found are the true ones times these shares, so that the exponents add.
    loglog_fit(&flops, &share, &vec![1.0; flops.len()]).map(|fit| fit.exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    fn rows(text: &str) -> Vec<Vec<String>> {
        text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn number(row: &[String], at: usize) -> f64 {
        row[at].parse().unwrap()
    }

    /// The exponents that Porian et al. released with their optimal pairs, 15 configurations (tests/data/fits).
    #[test]
    fn released_exponents_of_porian() {
        let pairs = rows(include_str!("../../tests/data/fits/porian_optimal.csv"));
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/fits/porian_reference.json")).unwrap();
        let configurations = reference.as_array().unwrap();
        assert_eq!(configurations.len(), 15);
        for expected in configurations {
            let name = expected["config"].as_str().unwrap();
            let of: Vec<&Vec<String>> = pairs.iter().filter(|row| row[0] == name && !row[2].is_empty()).collect();
            let column = |at: usize| of.iter().map(|row| number(row, at)).collect::<Vec<f64>>();
            let weights = |at: usize| column(at).iter().map(|std| std.powi(-2)).collect::<Vec<f64>>();
            let n = loglog_fit(&column(1), &column(2), &weights(5)).unwrap();
            let t = loglog_fit(&column(1), &column(3), &weights(6)).unwrap();
            let plain = loglog_fit(&column(1), &column(2), &vec![1.0; of.len()]).unwrap();
            for (got, key) in [
                (n.exponent, "n_exponent_weighted"),
                (t.exponent, "t_exponent_weighted"),
                (plain.exponent, "n_exponent_unweighted"),
            ] {
                let want = expected[key].as_f64().unwrap();
                assert!((got - want).abs() < 5e-5, "{name} {key}: {got} instead of {want}");
            }
            let coefficient = expected["n_coef_weighted"].as_f64().unwrap();
            assert!((n.coefficient / coefficient - 1.0).abs() < 2e-3, "{name}: {}", n.coefficient);
            assert!(n.interval().is_some_and(|(lo, hi)| lo < n.exponent && n.exponent < hi));
        }
    }

    /// Their pairs are medians over noisy losses, on a grid of 25 steps between sizes; the interpolation without noise
    /// agrees with them within the spread that they state.
    #[test]
    fn interpolated_minima_are_those_of_porian() {
        let points = rows(include_str!("../../tests/data/fits/porian_isoflop.csv"));
        let pairs = rows(include_str!("../../tests/data/fits/porian_optimal.csv"));
        let mut compared = 0;
        for pair in pairs.iter().filter(|row| !row[2].is_empty()) {
            let of: Vec<&Vec<String>> = points.iter().filter(|row| row[0] == pair[0] && row[1] == pair[1]).collect();
            let column = |at: usize| of.iter().map(|row| number(row, at)).collect::<Vec<f64>>();
            let found = Method::Akima.minimum(&column(2), &column(4), &vec![1.0; of.len()]).unwrap();
            let off = (found.n / number(pair, 2)).ln().abs() / number(pair, 5);
            assert!(off < 3.0, "{} {}: {} instead of {}", pair[0], pair[1], found.n, pair[2]);
            assert!((found.loss / number(pair, 4) - 1.0).abs() < 5e-3);
            compared += 1;
        }
        assert!(compared > 100, "{compared}");
    }

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

    fn chinchilla() -> Law {
        Law { form: forms::chinchilla(), parameters: vec![482.0, 2085.0, 1.82, 0.348, 0.366] }
    }

    #[test]
    fn the_allocation_is_where_the_loss_is_smallest() {
        let law = chinchilla();
        for flops in [1e18, 1e21, 3.8e25] {
            let best = allocation(&law, flops, 6.0).unwrap();
            assert!((6.0 * best.n * best.d / flops - 1.0).abs() < 1e-12);
            for factor in [0.99, 1.01] {
                let other = law.loss(&[best.n * factor, best.d / factor]);
                assert!(other > best.loss, "{flops:e}: {other} at {factor} of {best:?}");
            }
        }
        let growth = allocation(&law, 1e22, 6.0).unwrap().n / allocation(&law, 1e20, 6.0).unwrap().n;
        assert!((growth.log10() / 2.0 - 0.366 / 0.714).abs() < 1e-12);
        assert_eq!(allocation(&Law { form: forms::power_floor(), parameters: vec![1.0, 0.1, 1.0] }, 1e20, 6.0), None);
    }

    /// A grid of `points` sizes over `width` e-folds of N to either side of `shift` e-folds from the optimum.
    fn grid(law: &Law, flops: f64, points: usize, width: f64, shift: f64) -> Vec<f64> {
        let best = allocation(law, flops, 6.0).unwrap().n;
        let place = |i: usize| shift + width * (2.0 * i as f64 / (points - 1) as f64 - 1.0);
        (0..points).map(|i| best * place(i).exp()).collect()
    }

    /// To lowest order in the width w of a dense symmetric grid the parabola is off by (α - β)·w²/10 in ln N: the cubic
    /// term of the loss has the slope 3w²/5 there.
    #[test]
    fn a_parabola_is_biased_by_a_wide_or_lopsided_grid() {
        let law = Law { form: forms::chinchilla(), parameters: vec![406.4, 410.7, 1.69, 0.34, 0.28] };
        let of = |width: f64, shift: f64| {
            let n = grid(&law, 1e20, 201, width, shift);
            bias(Method::Parabola, &law, &n, 1e20, 6.0).unwrap()
        };
        let narrow = of(0.3, 0.0);
        assert!((narrow / (0.06 * 0.09 / 10.0) - 1.0).abs() < 0.05, "{narrow}");
        assert!(of(3.0, 0.0).abs() > 50.0 * narrow.abs());
        assert!(of(1.5, -1.5).abs() > 5.0 * of(1.5, 0.0).abs());
        // An interpolation through dense points is not.
        let n = grid(&law, 1e20, 201, 3.0, 0.8);
        assert!(bias(Method::Akima, &law, &n, 1e20, 6.0).unwrap().abs() < 1e-3);
    }

    #[test]
    fn exponents_and_flaws_of_a_known_law() {
        let law = chinchilla();
        let (mut n, mut d, mut flops) = (Vec::new(), Vec::new(), Vec::new());
        for (budget, shift) in [(1e18, 0.0), (1e19, 0.0), (1e20, 0.0), (1e21, 0.8), (1e22, 3.0)] {
            for size in grid(&law, budget, 7, 1.2, shift) {
                n.push(size);
                d.push(budget / 6.0 / size);
                flops.push(budget * 1.0004);
            }
        }
        let inputs = Inputs { columns: vec![n.clone(), d.clone()], curves: Vec::new() };
        let sample = Sample::new(vec![n, d], law.losses(&inputs));
        let found = budgets(&flops, &[], 0.0);
        assert_eq!(found.iter().map(|b| b.runs.len()).collect::<Vec<_>>(), [7; 5]);
        for method in Method::ALL {
            let optima = optima(&sample, &found, method, Some(&law), 6.0);
            assert_eq!(optima[0].flaws(), []);
            assert!(optima[3].flaws().contains(&Flaw::OffCentre));
            assert!(optima[4].usable().is_none());
            let fit = power_law(&optima, Size::Parameters, false, 6.0).unwrap();
            let share = optimal_exponent(&law).unwrap();
            assert!((fit.exponent - share).abs() < 0.01, "{} {}", method.name(), fit.exponent);
            let bias = exponent_bias(&optima, &law).unwrap();
            assert!((fit.exponent - bias - share).abs() < 2e-4, "{} {bias}", method.name());
            let tokens = power_law(&optima, Size::Tokens, false, 6.0).unwrap();
            assert!((fit.exponent + tokens.exponent - 1.0).abs() < 1e-9);
        }
        let given = budgets(&flops, &[1e18, 1e20], 0.01);
        assert_eq!(given.iter().map(|b| (b.flops, b.runs.len())).collect::<Vec<_>>(), [(1e18, 7), (1e20, 7)]);
    }
}
