//! The multi-power law of Luo et al.: every change of the rate moves the loss by a saturating power of what has been
//! learnt since.

use super::condensed::{Changes, Condenser};
use super::{CurveForm, Logged, fall_with_summed_rate};
use crate::analysis::forms::{Design, Shape, Term, TermValues, Terms};
use crate::analysis::solver::vector::{self, accumulate};
use multiversion::multiversion;
use std::cell::RefCell;

/// L(s) = L0 + A·S1(s)^-α + B·Σ_k (η_k - η_(k-1))·(1 - (1 + C·η_k^-γ·(S1(s) - S1(k-1)))^-β), over the changes of the
/// rate up to step s. As in the authors' code the sum takes in the warm-up, whose changes are positive: a run whose rate
/// stays at η after it tends to L0 + B·η, and L0 alone is nobody's asymptote.
///
/// B, C, β and γ move the loss in nearly the same ways, so that curves determine only some combinations of them.
#[derive(Debug)]
pub(super) struct MultiPower;

/// Rates are counted in shares of the highest, which makes `c` the C·η^-γ of that rate. α comes last because the first
/// term alone depends on it, and the sum is what takes time on a grid.
const SHAPES: &[Shape] = &[
    Shape { name: "c", range: (1e-3, 1e9), grid: (30.0, 3000.0, 4) },
    Shape { name: "beta", range: (1e-3, 20.0), grid: (0.15, 0.8, 4) },
    Shape { name: "gamma", range: (1e-3, 5.0), grid: (0.3, 1.2, 4) },
    Shape { name: "alpha", range: (1e-3, 5.0), grid: (0.1, 1.5, 10) },
];
impl Terms for MultiPower {
    fn name(&self) -> &'static str {
        "multi-power"
    }
    fn formula(&self) -> &'static str {
        "L = L0 + A S1^-alpha + B sum of (lr_k - lr_(k-1)) (1 - (1 + C lr_k^-gamma (S1 - S1_(k-1)))^-beta)"
    }
    fn source(&self) -> &'static str {
        "Luo et al. 2025, arXiv:2503.12811"
    }
    fn terms(&self) -> &'static [Term] {
        &[
            Term { name: "A", depends: &[3], direct: true },
            Term { name: "B", depends: &[0, 1, 2], direct: false },
            Term { name: "L0", depends: &[], direct: true },
        ]
    }
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }
    fn parameters(&self) -> &'static [&'static str] {
        &["L0", "A", "alpha", "B", "C", "beta", "gamma"]
    }

    fn natural(&self, c: &[f64], s: &[f64], reference: &[f64]) -> Vec<f64> {
        let log_peak = reference[0];
        let (b, scale) = (c[1] * (-log_peak).exp(), (s[0].ln() + s[2] * log_peak).exp());
        vec![c[2], c[0], s[3], b, scale, s[1], s[2]]
    }

    fn internal(&self, p: &[f64], reference: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let log_peak = reference[0];
        (vec![p[1], p[3] * log_peak.exp(), p[0]], vec![(p[4].ln() - p[6] * log_peak).exp(), p[5], p[6], p[2]])
    }
}

impl CurveForm for MultiPower {
    fn design(&self, runs: &[Logged], reference: &[f64]) -> Box<dyn Design> {
        Box::new(MultiPowerDesign {
            log_sums: runs.iter().flat_map(Logged::log_sums).collect(),
            points: runs.iter().flat_map(|run| points(run, reference[0].exp())).collect(),
        })
    }
}

/// The points of a run; rates in shares of `peak`.
fn points(run: &Logged, peak: f64) -> Vec<Point> {
    let mut condenser = Condenser::new(run.schedule, peak);
    let point = |step: &usize| Point { changes: condenser.up_to(*step), sum: run.schedule.summed(*step) };
    run.steps.iter().map(point).collect()
}

struct MultiPowerDesign {
    /// ln S1 at every point.
    log_sums: Vec<f64>,
    points: Vec<Point>,
}

/// The changes of the rate up to a point, and S1 there.
struct Point {
    changes: Changes,
    sum: f64,
}

/// Memory of one point's sum, one element for each change of the rate.
#[derive(Default)]
struct Scratch {
    /// a = c·(η/peak)^-γ·(what was learnt since)
    argument: Vec<f64>,
    /// ln(1 + a)
    log: Vec<f64>,
    /// p = (1 + a)^-β
    power: Vec<f64>,
    /// gap·p·l, gap·p·z and gap·p·z·h of the derivatives.
    products: [Vec<f64>; 3],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    fn fill(&mut self, Point { changes, sum }: &Point, [c, beta, gamma]: [f64; 3]) {
        let n = changes.gaps.len();
        for buffer in [&mut self.argument, &mut self.log, &mut self.power] {
            buffer.resize(n, 0.0);
        }
        vector::exp_scaled(-gamma, &changes.log_rates, &mut self.argument);
        for ((a, log), before) in self.argument.iter_mut().zip(&mut self.log).zip(&changes.before) {
            *a *= c * (sum - before);
            *log = 1.0 + *a;
        }
        vector::ln(&mut self.log);
        vector::exp_scaled(-beta, &self.log, &mut self.power);
    }
}

impl Design for MultiPowerDesign {
    fn points(&self) -> usize {
        self.log_sums.len()
    }

    fn term(&self, term: usize, shapes: &[f64], derivatives: bool, out: &mut TermValues) {
        if term == 0 {
            return fall_with_summed_rate(&self.log_sums, shapes[3], derivatives, out);
        }
        let [c, beta, gamma] = [shapes[0], shapes[1], shapes[2]];
        SCRATCH.with_borrow_mut(|scratch| {
            for (i, point) in self.points.iter().enumerate() {
                scratch.fill(point, [c, beta, gamma]);
                let gaps = &point.changes.gaps;
                out.value[i] = vector::sum(gaps) - vector::dot(gaps, &scratch.power);
                if derivatives {
                    slopes(&point.changes, [c, beta], scratch).store(i, out);
                }
            }
        });
    }
}

/// Derivatives of one point's sum by c, β and γ.
struct Slopes {
    first: [f64; 3],
    /// cc, βc, ββ, γc, γβ, γγ
    second: [f64; 6],
}

impl Slopes {
    fn store(&self, i: usize, out: &mut TermValues) {
        out.first.iter_mut().zip(self.first).for_each(|(column, value)| column[i] = value);
        out.second.iter_mut().zip(self.second).for_each(|(column, value)| column[i] = value);
    }
}

/// With a the saturation's argument, l = ln(1 + a), z = a/(1 + a) = ∂l/∂ln c and λ = ln(η/peak): ∂l/∂γ = -z·λ and
/// ∂z/∂ln c = z·(1 - z), from which all else follows.
fn slopes(changes: &Changes, [c, beta]: [f64; 2], scratch: &mut Scratch) -> Slopes {
    let [l, ll, z, zl, zr, zlr, zh, zhr, zhrr] = sums(changes, beta, scratch);
    // By ln c first.
    let (by_log, by_log_twice) = (beta * z, beta * zh);
    Slopes {
        first: [by_log / c, l, -beta * zr],
        second: [
            (by_log_twice - by_log) / (c * c),
            (z - beta * zl) / c,
            -ll,
            -beta * zhr / c,
            beta * zlr - zr,
            beta * zhrr,
        ],
    }
}

/// Sums over the changes up to a point of gap·(1 + a)^-β times l, l², z, z·l, z·λ, z·l·λ and, with h = 1 - (1 + β)·z,
/// z·h, z·h·λ, z·h·λ².
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sums(changes: &Changes, beta: f64, scratch: &mut Scratch) -> [f64; 9] {
    let n = changes.gaps.len();
    let (gaps, r) = (&changes.gaps[..n], &changes.log_rates[..n]);
    let (argument, l, power) = (&scratch.argument[..n], &scratch.log[..n], &scratch.power[..n]);
    let [pl, pz, pzh] = scratch.products.each_mut().map(|products| {
        products.resize(n, 0.0);
        &mut products[..n]
    });
    for k in 0..n {
        let (p, z) = (gaps[k] * power[k], argument[k] / (1.0 + argument[k]));
        pl[k] = p * l[k];
        pz[k] = p * z;
        pzh[k] = pz[k] * (1.0 - (1.0 + beta) * z);
    }
    let (pl, pz, pzh) = (&*pl, &*pz, &*pzh);
    [
        vector::sum(pl),
        vector::dot(pl, l),
        vector::sum(pz),
        vector::dot(pz, l),
        vector::dot(pz, r),
        accumulate([pz, l, r], |[p, l, r]| p * l * r),
        vector::sum(pzh),
        vector::dot(pzh, r),
        accumulate([pzh, r], |[p, r]| p * r * r),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Schedule;
    use super::*;

    fn design() -> Box<dyn Design> {
        let rates = (0..60).map(|t: i32| if t < 10 { 1e-4 * f64::from(t) } else { 1e-3 * 0.95f64.powi(t - 9) });
        let schedule = Schedule::new(rates.collect()).unwrap();
        MultiPower.design(&[Logged { schedule: &schedule, steps: &[9, 20, 59] }], &[schedule.peak().ln()])
    }

    #[test]
    fn derivatives_are_those_of_the_sum() {
        let design = design();
        let shapes = [300.0, 0.6, 0.7, 0.5];
        let values = |shapes: &[f64; 4]| {
            let mut out = TermValues::new(3, 3);
            design.term(1, shapes, true, &mut out);
            out
        };
        let here = values(&shapes);
        for q in 0..3 {
            let h = 1e-5 * shapes[q];
            let moved = |by: f64| {
                let mut moved = shapes;
                moved[q] += by;
                values(&moved)
            };
            let (up, down) = (moved(h), moved(-h));
            for i in 0..3 {
                let near = |what: &str, got: f64, a: f64, b: f64| {
                    let want = (a - b) / (2.0 * h);
                    assert!((got - want).abs() <= 1e-7 * want.abs() + 1e-12, "{what} {q} {i}: {got} {want}");
                };
                near("first", here.first[q][i], up.value[i], down.value[i]);
                for r in 0..=q {
                    near("second", here.second[q * (q + 1) / 2 + r][i], up.first[r][i], down.first[r][i]);
                }
            }
        }
    }

    #[test]
    fn parameters_survive_the_change_of_scale() {
        let p = [3.0, 0.5, 0.4, 400.0, 2.0, 0.6, 0.7];
        let reference = [3e-4f64.ln()];
        let (c, s) = MultiPower.internal(&p, &reference);
        for (got, want) in MultiPower.natural(&c, &s, &reference).iter().zip(p) {
            assert!((got / want - 1.0).abs() < 1e-14);
        }
    }
}
