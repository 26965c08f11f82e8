//! Compute-optimal sizes from runs at equal compute: the smallest loss of each budget, and power laws through them
//! (approach 2 of Hoffmann et al. 2022, arXiv:2203.15556), to be read beside a law of parameters and tokens fitted to
//! the same runs (approach 3), which also tells how far the shape of the grid alone moves the former.

mod log_log;
mod minimum;

pub use log_log::{LogLog, loglog_fit};
pub use minimum::{Flaw, Method, Minimum};

use super::forms::{Form, Input, Inputs};
use super::{ConfidenceInterval, Law, Resamples, Sample};

/// A method whose own optimum of a known law is off by more than this share is biased by the grid.
const BIASED: f64 = 0.05;
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

/// The number of different values.
fn distinct(values: &[f64]) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    sorted.len()
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

/// Whether laws of a form have an [`allocation`]: E + A/N^α + B/D^β, the exponents tied or not.
pub fn allocates(form: &dyn Form) -> bool {
    let has = |name: &&str| form.parameters().contains(name);
    form.inputs() == [Input::Parameters, Input::Tokens]
        && form.terms().len() <= 3
        && ["A", "B", "alpha"].iter().all(has)
}

/// The smallest loss of a Chinchilla law for `flops` = `per`·N·D: N = G·(flops/per)^a with a = β/(α+β) and
/// G = (αA/βB)^(1/(α+β)) (Hoffmann et al. 2022, equation 4). `None` for other laws, and without an interior optimum.
pub fn allocation(law: &Law, flops: f64, per: f64) -> Option<Allocation> {
    if !allocates(law.form) {
        return None;
    }
    let get = |name: &str| law.parameter(name);
    let (alpha, a) = (get("alpha")?, get("A")?);
    let (beta, b) = (get("beta").unwrap_or(alpha), get("B")?);
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

/// The intervals of [`allocation`] over the refits that have one.
pub fn allocation_intervals(resamples: &Resamples, flops: f64, per: f64) -> AllocationIntervals {
    let of = |part: fn(Allocation) -> f64| resamples.interval_of(|law| allocation(law, flops, per).map(part));
    AllocationIntervals { n: of(|a| a.n), d: of(|a| a.d), loss: of(|a| a.loss) }
}

/// Where the method puts the optimum of a known law with these sizes, as a share of where it is, less one: what the
/// grid alone does to it, as far as the law is right. `None` when the method finds no minimum.
pub fn bias(method: Method, law: &Law, n: &[f64], flops: f64, per: f64) -> Option<f64> {
    let truth = allocation(law, flops, per)?;
    let d = n.iter().map(|n| flops / per / n).collect();
    let losses = law.losses(&Inputs { columns: vec![n.to_vec(), d] });
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

    fn chinchilla() -> Law {
        Law { form: forms::chinchilla(), parameters: vec![482.0, 2085.0, 1.82, 0.348, 0.366] }
    }

    fn rows(text: &str) -> Vec<Vec<String>> {
        text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn number(row: &[String], at: usize) -> f64 {
        row[at].parse().unwrap()
    }

    /// The exponents that Porian et al. released with their optimal pairs, 15 configurations (tests/data/fits).
    #[test]
    fn released_exponents_of_porian() {
        let pairs = rows(include_str!("../../../tests/data/fits/porian_optimal.csv"));
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/data/fits/porian_reference.json")).unwrap();
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
        let points = rows(include_str!("../../../tests/data/fits/porian_isoflop.csv"));
        let pairs = rows(include_str!("../../../tests/data/fits/porian_optimal.csv"));
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
        let inputs = Inputs { columns: vec![n.clone(), d.clone()] };
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
