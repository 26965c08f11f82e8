//! Fits against published numbers, known laws, and changes of unit.

use std::path::Path;

use lossfloor::analysis::{
    Columns, Fit, FitError, FitOptions, FitStatus, Form, IntervalMethod, ScalingPoint, Table, fit,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/published_scaling.csv");

/// A published fit: series, refit A, b, C, se(C), R², profile interval of C, leave-one-out range of C, and the legend's
/// A, b, C. Refit by SciPy `curve_fit` on the same points; the legends are those of figures 2 and 7 of arXiv:2507.06607.
type Published = (&'static str, [f64; 5], [f64; 2], [f64; 2], Option<[f64; 3]>);

#[rustfmt::skip]
const PUBLISHED: [Published; 14] = [
    ("tokens tied: Samba+YOCO muP++", [1.269, 0.4074, 1.8269, 0.0073, 0.999909], [1.799, 1.847], [1.819, 1.836], Some([1.27, 0.41, 1.83])),
    ("tokens tied: SambaY muP++", [1.175, 0.3771, 1.8174, 0.0208, 0.999461], [1.701, 1.864], [1.811, 1.826], Some([1.17, 0.38, 1.82])),
    ("tokens tied: Transformer++ SP", [1.610, 0.4424, 1.8604, 0.0238, 0.998974], [1.701, 1.911], [0.976, 1.882], Some([1.61, 0.44, 1.86])),
    ("tokens tied: Transformer++ muP++", [1.281, 0.3725, 1.8211, 0.0079, 0.999939], [1.792, 1.843], [1.814, 1.849], Some([1.28, 0.37, 1.82])),
    ("tokens tied: Transformer++ muP++ (batch scaling)", [1.155, 0.3569, 1.8283, 0.0180, 0.999699], [1.741, 1.871], [1.817, 1.832], Some([1.16, 0.36, 1.83])),
    ("tokens tied: Transformer++ muP++ (normal init)", [2.081, 0.4550, 1.8408, 0.0216, 0.999393], [1.731, 1.890], [1.805, 1.875], Some([2.08, 0.45, 1.84])),
    ("tokens untied: Transformer++ muP++", [1.299, 0.4013, 1.8271, 0.0244, 0.999117], [1.667, 1.878], [1.819, 1.842], Some([1.30, 0.40, 1.83])),
    ("tokens untied: Transformer++ muP++ (LR scaling + indep WD)", [1.027, 0.3487, 1.8229, 0.0336, 0.998834], [1.472, 1.887], [1.305, 1.848], Some([1.03, 0.35, 1.82])),
    ("tokens untied: Transformer++ muP++ (WSD)", [1.535, 0.4715, 1.8551, 0.0126, 0.999518], [1.796, 1.885], [1.850, 1.862], Some([1.53, 0.47, 1.86])),
    ("flops: Samba+YOCO muP++", [40.57, 0.0702, 0.6069, 0.0298, 0.999997], [0.467, 0.725], [0.587, 0.644], Some([40.57, 0.07, 0.61])),
    ("flops: SambaY muP++", [39.79, 0.0694, 0.5847, 0.0331, 0.999996], [0.428, 0.715], [0.558, 0.648], Some([39.79, 0.07, 0.58])),
    // The reference lets the profile go below zero (-0.037); here C stops at 0 and the end is open.
    ("flops: Transformer++ SP", [239.9, 0.1153, 1.1113, 0.1310, 0.999668], [f64::NEG_INFINITY, 1.491], [0.252, 1.279], Some([239.90, 0.12, 1.11])),
    ("flops: Transformer++ muP", [54.54, 0.0763, 0.6428, 0.0755, 0.999974], [0.232, 0.912], [0.498, 0.698], None),
    ("flops: Transformer++ muP++", [49.64, 0.0745, 0.6416, 0.0120, 0.999999], [0.588, 0.691], [0.622, 0.671], Some([49.64, 0.07, 0.64])),
];

fn series(name: &str) -> Vec<ScalingPoint> {
    let (x, unit) = if name.starts_with("flops") { ("flops", 1.0) } else { ("tokens", 1e9) };
    let columns = Columns { inputs: vec![x.into()], y: "loss".into(), y_se: None, group: Some("series".into()) };
    let table = Table::read(Path::new(DATA), &columns).unwrap();
    let points: Vec<ScalingPoint> = table
        .rows
        .iter()
        .filter(|row| row.group.as_deref() == Some(name))
        .map(|row| ScalingPoint { x: row.inputs[0] / unit, y: row.y })
        .collect();
    assert!(!points.is_empty(), "{name}");
    points
}

fn values(fit: &Fit) -> Vec<f64> {
    fit.estimates.iter().map(|estimate| estimate.value).collect()
}

#[test]
fn published_fits_reproduce_to_the_printed_digits() {
    for (name, [a, b, c, se, r2], profile, leave_one_out, legend) in PUBLISHED {
        let fit = fit(&series(name), &FitOptions::new(Form::PowerFloor)).unwrap();
        assert_eq!(fit.status, FitStatus::Converged, "{name}");
        let got = values(&fit);
        let floor = fit.estimate("C").unwrap();
        // Half a unit of the last printed digit, and a hair for the reference's own stopping rule.
        let near = |what: &str, got: f64, want: f64, tolerance: f64| {
            assert!((got - want).abs() <= tolerance, "{name}: {what} is {got}, published {want}");
        };
        near("A", got[0] / a, 1.0, 5.5e-4);
        near("b", got[1], b, 5.5e-5);
        near("C", got[2], c, 5.5e-5);
        near("se(C)", floor.se.unwrap(), se, 5.5e-5);
        near("R2", fit.r2, r2, 5.5e-7);
        let interval = floor.interval.unwrap();
        near("profile low", interval.lo.unwrap_or(f64::NEG_INFINITY).max(-1.0), profile[0].max(-1.0), 5.5e-4);
        near("profile high", interval.hi.unwrap(), profile[1], 5.5e-4);
        let (lo, hi) = fit.leave_one_out_floor.unwrap();
        near("leave-one-out low", lo, leave_one_out[0], 5.5e-4);
        near("leave-one-out high", hi, leave_one_out[1], 5.5e-4);
        if let Some(legend) = legend {
            near("legend A", got[0], legend[0], 0.0051);
            near("legend b", got[1], legend[1], 0.0051);
            near("legend C", got[2], legend[2], 0.0051);
        }
    }
}

/// The published numbers (17.92, 1.10, 1.96; R² .792) are where a local optimiser stopped. The optimum lies elsewhere,
/// and what has to be said is that the data do not determine C.
#[test]
fn a_series_with_a_diverged_point_is_called_undetermined() {
    let points = series("tokens tied: Transformer++ muP");
    let all = fit(&points, &FitOptions::new(Form::PowerFloor)).unwrap();
    let sse = |a: f64, b: f64, c: f64| points.iter().map(|p| (p.y - a * p.x.powf(-b) - c).powi(2)).sum::<f64>();
    assert!(all.objective < sse(17.92, 1.1018, 1.9589));
    assert!((all.objective - sse(99.76, 1.4985, 1.9716)).abs() < 1e-6);
    assert!((0.79..0.80).contains(&all.r2), "{}", all.r2);
    assert_eq!(all.estimate("C").unwrap().interval.unwrap().lo, None);
    let without = fit(&points[..5], &FitOptions::new(Form::PowerFloor)).unwrap();
    assert!((without.estimate("C").unwrap().value - 1.736).abs() < 5e-4);
}

fn law(a: f64, b: f64, c: f64, xs: &[f64]) -> Vec<ScalingPoint> {
    xs.iter().map(|&x| ScalingPoint { x, y: a * x.powf(-b) + c }).collect()
}

#[test]
fn exact_data_give_back_their_law() {
    let xs: Vec<f64> = (0..6).map(|i| 1e17 * 10f64.powf(0.7 * f64::from(i))).collect();
    for (a, b, c) in [(40.0, 0.07, 0.6), (300.0, 0.12, 1.1), (6e4, 0.3, 1.9), (1e8, 0.5, 0.01)] {
        let fit = fit(&law(a, b, c, &xs), &FitOptions::new(Form::PowerFloor)).unwrap();
        let got = values(&fit);
        for (got, want) in got.iter().zip([a, b, c]) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} for {want} in {:?}", (a, b, c));
        }
    }
    let fit = fit(&law(40.0, 0.07, 0.0, &xs), &FitOptions::new(Form::Power)).unwrap();
    assert!((values(&fit)[0] / 40.0 - 1.0).abs() < 1e-9 && (values(&fit)[1] / 0.07 - 1.0).abs() < 1e-9);
    assert_eq!(fit.estimate("C"), None);
}

#[test]
fn an_optimum_at_zero_floor_is_a_bound_without_standard_errors() {
    let xs = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
    // Straight in ln x: any saturating law is worse than its limit b → 0, C → -∞, which C ≥ 0 forbids.
    let points: Vec<ScalingPoint> = xs.iter().map(|&x: &f64| ScalingPoint { x, y: 3.0 - 0.4 * x.ln() }).collect();
    let fit = fit(&points, &FitOptions::new(Form::PowerFloor)).unwrap();
    assert_eq!(fit.status, FitStatus::BoundHit);
    assert_eq!(fit.bounds, ["C = 0"]);
    let floor = fit.estimate("C").unwrap();
    assert_eq!((floor.value, floor.se, floor.interval.unwrap().lo), (0.0, None, None));
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let options = FitOptions::new(Form::PowerFloor);
    let three = law(2.0, 0.3, 1.0, &[1.0, 2.0, 4.0]);
    assert_eq!(
        fit(&three, &options),
        Err(FitError::TooFewPoints { form: "power+floor", parameters: 3, n: 3, distinct: 3 })
    );
    let repeats = law(2.0, 0.3, 1.0, &[1.0, 1.0, 4.0, 4.0, 4.0]);
    assert!(matches!(fit(&repeats, &options), Err(FitError::TooFewPoints { distinct: 2, .. })));
    let rising: Vec<ScalingPoint> = (1..6).map(|i| ScalingPoint { x: f64::from(i), y: f64::from(i) }).collect();
    assert_eq!(fit(&rising, &options), Err(FitError::NotDecreasing));
    let flat: Vec<ScalingPoint> = (1..6).map(|i| ScalingPoint { x: f64::from(i), y: 2.0 }).collect();
    assert_eq!(fit(&flat, &options), Err(FitError::NotDecreasing));
    let nan = [ScalingPoint { x: 1.0, y: f64::NAN }];
    assert!(matches!(fit(&nan, &options), Err(FitError::BadPoint { index: 0, .. })));
}

fn gaussian(rng: &mut rand_chacha::ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Six points over four decades with σ = 0.002: 95 % nominal. With 400 draws the standard error of the coverage is
/// 1.1 %; the band is three of them.
#[test]
fn profile_and_wald_intervals_cover_the_true_floor() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(20_260_101);
    let xs: Vec<f64> = (0..6).map(|i| 1e15 * 10f64.powf(0.8 * f64::from(i))).collect();
    let truth = law(150.0, 0.12, 1.2, &xs);
    let draws = 400;
    let mut covered = [0; 2];
    let mut mean = 0.0;
    for _ in 0..draws {
        let noisy: Vec<ScalingPoint> =
            truth.iter().map(|p| ScalingPoint { x: p.x, y: p.y + 0.002 * gaussian(&mut rng) }).collect();
        for (count, interval) in covered.iter_mut().zip([IntervalMethod::Profile, IntervalMethod::Wald]) {
            let fit = fit(&noisy, &FitOptions { interval, ..FitOptions::new(Form::PowerFloor) }).unwrap();
            let floor = fit.estimate("C").unwrap();
            *count += i32::from(floor.interval.unwrap().contains(1.2));
            mean += floor.value / f64::from(2 * draws);
        }
    }
    assert!((mean - 1.2).abs() < 0.01, "mean C is {mean}");
    for (count, name) in covered.iter().zip(["profile", "Wald"]) {
        let share = f64::from(*count) / f64::from(draws);
        assert!((0.917..=0.983).contains(&share), "{name} intervals cover {share}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// FLOPs, PFLOPs or tokens in billions: b, C, their errors and the intervals stay; A moves by the power of the unit.
    #[test]
    fn a_fit_does_not_depend_on_the_unit_of_x(
        b in 0.05f64..0.6, c in 0.3f64..2.0, reducible in 0.2f64..2.0, exponent in -18i32..19, seed in 0u64..1000,
    ) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let points: Vec<ScalingPoint> = (0..7).map(|i| {
            let x = 10f64.powf(0.6 * f64::from(i));
            ScalingPoint { x, y: reducible * x.powf(-b) + c + 0.001 * gaussian(&mut rng) }
        }).collect();
        let unit = 10f64.powi(exponent);
        let scaled: Vec<ScalingPoint> = points.iter().map(|p| ScalingPoint { x: p.x * unit, y: p.y }).collect();
        let options = FitOptions::new(Form::PowerFloor);
        let (one, two) = (fit(&points, &options).unwrap(), fit(&scaled, &options).unwrap());
        let same = |x: f64, y: f64| (x - y).abs() <= 1e-6 * (1e-3 + x.abs());
        prop_assert_eq!(one.status, two.status);
        prop_assert!(same(one.objective.sqrt(), two.objective.sqrt()));
        for name in ["b", "C"] {
            let (one, two) = (one.estimate(name).unwrap(), two.estimate(name).unwrap());
            prop_assert!(same(one.value, two.value), "{} {} {}", name, one.value, two.value);
            prop_assert!(same(one.se.unwrap_or(0.0), two.se.unwrap_or(0.0)));
            let (one, two) = (one.interval.unwrap(), two.interval.unwrap());
            prop_assert!(same(one.lo.unwrap_or(0.0), two.lo.unwrap_or(0.0)));
            prop_assert!(same(one.hi.unwrap_or(0.0), two.hi.unwrap_or(0.0)));
        }
        let (b, a, scaled_a) = (values(&one)[1], values(&one)[0], values(&two)[0]);
        prop_assert!((scaled_a / (a * unit.powf(b)) - 1.0).abs() < 1e-5);
    }
}
