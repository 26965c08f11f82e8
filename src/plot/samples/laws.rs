//! Figures of laws of several inputs.

use super::{logarithmic, noise};
use crate::plot::figures::*;
use crate::plot::*;

pub(super) fn isoflop(width: Width) -> Chart {
    let budgets = (0..6).map(|i| {
        let compute = 1e17 * 10f64.powf(0.6 * f64::from(i));
        let best = 0.2 * compute.powf(0.46);
        let at = |n: f64| 1.9 + 35.0 * compute.powf(-0.075) + 0.05 * (n / best).ln().powi(2);
        let sizes = logarithmic(best / 5.0, best * 5.0, 7);
        let points =
            sizes.iter().enumerate().map(|(k, n)| DataPoint::new(*n, at(*n) + 0.008 * noise(k + 11 * i as usize)));
        Budget {
            name: format!(
                "{} FLOPs",
                axis::labels(&[compute * 1.0001], Scale::Log)[0].chars().take(12).collect::<String>()
            ),
            points: points.collect(),
            parabola: logarithmic(best / 6.0, best * 6.0, 80).into_iter().map(|n| (n, at(n))).collect(),
            minimum: Some((best, at(best))),
        }
    });
    let budgets: Vec<Budget> = budgets.collect();
    let xs: Vec<f64> = (0..6).map(|i| 1e17 * 10f64.powf(0.6 * f64::from(i))).collect();
    let valley = Valley {
        x_label: "training compute (FLOPs)".to_owned(),
        optima: xs
            .iter()
            .map(|x| DataPoint::with_bar(*x, 0.2 * x.powf(0.46), Span::new(0.17 * x.powf(0.46), 0.24 * x.powf(0.46))))
            .collect(),
        law: logarithmic(5e16, 1e21, 50).into_iter().map(|x| (x, 0.2 * x.powf(0.46))).collect(),
        band: logarithmic(5e16, 1e21, 50).into_iter().map(|x| (x, 0.17 * x.powf(0.46), 0.235 * x.powf(0.46))).collect(),
        legend: "N ∝ compute^0.46 [0.43, 0.49]".to_owned(),
    };
    let (size_label, loss_label) = ("parameters N".to_owned(), "loss (nats per token)".to_owned());
    Isoflop { title: "Equal compute".to_owned(), size_label, loss_label, budgets, valley: Some(valley), width }.chart()
}

pub(super) fn allocation(width: Width) -> Chart {
    let names = ["Transformer++", "SambaY"];
    let panel = |y_label: &str, factor: f64, exponent: f64| AllocationPanel {
        y_label: y_label.to_owned(),
        series: (0..2)
            .map(|s| {
                let y = |x: f64| factor * (1.0 + 0.3 * s as f64) * x.powf(exponent + 0.01 * s as f64);
                LawSeries {
                    name: names[s].to_owned(),
                    points: logarithmic(1e17, 1e20, 5)
                        .into_iter()
                        .enumerate()
                        .map(|(i, x)| DataPoint::new(x, y(x) * (1.0 + 0.06 * noise(i + s))))
                        .collect(),
                    law: logarithmic(5e16, 1e21, 60).into_iter().map(|x| (x, y(x))).collect(),
                    band: logarithmic(5e16, 1e21, 60).into_iter().map(|x| (x, 0.85 * y(x), 1.2 * y(x))).collect(),
                    data: None,
                }
            })
            .collect(),
    };
    let exponent = |group: &str, label: &str, a: f64| ForestRow {
        label: label.to_owned(),
        group: Some(group.to_owned()),
        estimate: a,
        lo: Some(a - 0.03),
        hi: Some(a + 0.04),
        text: format!("{a:.2} [{:.2}, {:.2}]", a - 0.03, a + 0.04),
        look: Look(0),
    };
    let exponents = ForestPanel {
        title: None,
        x: Axis::linear("exponent"),
        rows: vec![
            exponent("a: N ∝ compute^a", names[0], 0.46),
            exponent("a: N ∝ compute^a", names[1], 0.47),
            exponent("b: D ∝ compute^b", names[0], 0.54),
            exponent("b: D ∝ compute^b", names[1], 0.53),
        ],
        reference: Some((0.5, "equal growth".to_owned())),
    };
    Allocation {
        title: "Compute-optimal allocation".to_owned(),
        compute_label: "training compute (FLOPs)".to_owned(),
        panels: vec![panel("best parameters N", 0.2, 0.46), panel("best tokens D", 0.8, 0.53)],
        exponents: Some(exponents),
        width,
    }
    .chart()
}

/// The law of Besiroglu et al. (arXiv:2404.10102) at sizes and tokens as of Hoffmann et al.
pub(super) fn surface(width: Width) -> Chart {
    let law = |n: f64, d: f64| 1.82 + 482.0 * n.powf(-0.348) + 2085.4 * d.powf(-0.366);
    let sizes = [("57M to 150M", 9.2e7), ("150M to 390M", 2.4e8), ("390M to 1.0B", 6.2e8), ("1.0B to 2.6B", 1.6e9)];
    let levels = sizes.iter().enumerate().map(|(k, (name, n))| SurfaceLevel {
        name: format!("N {name}"),
        points: (0..14)
            .map(|i| {
                let n = n * 1.5f64.powf(noise(i + 5 * k));
                let d = 20.0 * n * 6f64.powf(noise(i + 31 * k));
                let residual = 0.01 * noise(7 * i + k);
                SurfacePoint { n, d, loss: law(n, d) + residual, residual: Some(residual) }
            })
            .collect(),
        curve: logarithmic(2.0 * n, 200.0 * n, 60).into_iter().map(|d| (d, law(*n, d))).collect(),
    });
    let contour = |loss: f64| {
        let d = |n: f64| (2085.4 / (loss - 1.82 - 482.0 * n.powf(-0.348))).powf(1.0 / 0.366);
        let points = logarithmic(4e7, 4e9, 60).into_iter().map(|n| (n, d(n)));
        Contour { label: format!("{loss:.1}"), points: points.filter(|(_, d)| (2e8..2e12).contains(d)).collect() }
    };
    Surface {
        title: "A law of parameters and tokens".to_owned(),
        n_label: "parameters N".to_owned(),
        d_label: "training tokens D".to_owned(),
        loss_label: "loss (nats per token)".to_owned(),
        levels: levels.collect(),
        contours: (0..5).map(|k| contour(2.2 + 0.3 * f64::from(k))).collect(),
        best: logarithmic(5e7, 4e9, 20).into_iter().map(|n| (n, 0.9 * n.powf(1.03) * 12.0)).collect(),
        width,
    }
    .chart()
}

/// Three schedules; the law was fitted to the first two.
pub(super) fn curve_fits(width: Width) -> Chart {
    let total = 24_000.0;
    let warm = |t: f64, after: f64| if t < 2000.0 { 3e-4 * t / 2000.0 } else { after };
    let cosine = |t: f64| warm(t, 1.65e-4 + 1.35e-4 * (std::f64::consts::PI * (t - 2000.0) / 22_000.0).cos());
    let decay = |t: f64| warm(t, if t < 18_000.0 { 3e-4 } else { 3e-4 * 0.1f64.powf((t - 18_000.0) / 6000.0) });
    let schedules: [(&str, &dyn Fn(f64) -> f64); 3] =
        [("cosine", &cosine), ("constant", &|t| warm(t, 3e-4)), ("warm-up, stable, decay", &decay)];
    let runs = schedules.iter().enumerate().map(|(s, (name, rate))| {
        let steps: Vec<f64> = (0..=240).map(|k| total * f64::from(k) / 240.0).collect();
        let rates: Vec<(f64, f64)> = steps.iter().map(|t| (*t, rate(*t))).collect();
        let mut sum = 0.0;
        let sums = rates.iter().map(|(_, rate)| {
            sum += 100.0 * rate;
            sum
        });
        let loss = |(sum, (_, rate)): (f64, &(f64, f64))| 3.0 + 0.5 * sum.powf(-0.5) - 0.4 * 900.0 * (3e-4 - rate);
        let law: Vec<(f64, f64)> =
            steps.iter().copied().zip(sums.zip(&rates).map(loss)).filter(|(t, _)| *t >= 2000.0).collect();
        let residuals: Vec<(f64, f64)> = law.iter().enumerate().map(|(i, (t, _))| (*t, 0.008 * noise(i + s))).collect();
        CurveFitRun {
            name: (*name).to_owned(),
            detail: format!("{:.2} %", 0.13 + 0.05 * s as f64),
            measured: law.iter().zip(&residuals).map(|((t, y), (_, e))| (*t, y + e)).collect(),
            law,
            residuals,
            rates,
            fitted: s < 2,
        }
    });
    CurveFits {
        title: "Loss curves".to_owned(),
        y_label: "loss (nats per token)".to_owned(),
        runs: runs.collect(),
        width,
    }
    .chart()
}
