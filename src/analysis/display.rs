//! Estimates as people read them. The standard error keeps two digits and decides how many the value gets.

use super::{ConfidenceInterval, Estimate};

/// `0.585 ± 0.033`; without a standard error, `0.0000 (no s.e.)`.
pub fn with_error(estimate: &Estimate) -> String {
    let (value, error) = value_and_error(estimate);
    match error {
        Some(error) => format!("{value} ± {error}"),
        None => format!("{value} (no s.e.)"),
    }
}

/// The two parts of [`with_error`].
pub fn value_and_error(estimate: &Estimate) -> (String, Option<String>) {
    let Some(se) = estimate.se else { return (significant(estimate.value, 4), None) };
    let size = estimate.value.abs();
    if se > 100.0 * size {
        return (significant(estimate.value, 2), Some(significant(se, 2)));
    }
    if se < 1e-6 * size {
        return (significant(estimate.value, 7), Some(significant(se, 1)));
    }
    // An error larger than the value must not round the value away.
    let digits_of = se.min(size);
    if !(1e-4..1e5).contains(&size.max(se)) {
        let exponent = size.log10().floor();
        let scale = 10f64.powf(exponent);
        let decimals = decimals_for(digits_of / scale);
        let part = |value: f64| format!("{:.decimals$}e{exponent}", value / scale);
        return (part(estimate.value), Some(part(se)));
    }
    let decimals = decimals_for(digits_of);
    (format!("{:.decimals$}", estimate.value), Some(format!("{se:.decimals$}")))
}

/// Decimals that show two significant digits of `se`; at most ten.
fn decimals_for(se: f64) -> usize {
    if se > 0.0 { (1.0 - se.log10().floor()).clamp(0.0, 10.0) as usize } else { 4 }
}

/// `value` with that many significant digits.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    if (-4..6).contains(&exponent) {
        let decimals = (digits - 1 - exponent).max(0) as usize;
        format!("{value:.decimals$}")
    } else {
        let decimals = (digits - 1).max(0) as usize;
        format!("{value:.decimals$e}")
    }
}

/// `0.428 to 0.715`, `< 1.49` or `> 0.2` when one end is open, `unbounded` when both are.
pub fn interval(interval: &ConfidenceInterval) -> String {
    match (interval.lo, interval.hi) {
        (Some(lo), Some(hi)) => format!("{} to {}", significant(lo, 4), significant(hi, 4)),
        (None, Some(hi)) => format!("< {}", significant(hi, 4)),
        (Some(lo), None) => format!("> {}", significant(lo, 4)),
        (None, None) => "unbounded".to_owned(),
    }
}

/// A column of values with their intervals, as `-0.035 (-0.121 to 0.051)`, or `0.312 (< 0.4091)` where an end is open.
/// All have the decimals that show two digits of half the usual width.
pub fn with_intervals<'a>(column: impl Iterator<Item = (f64, &'a ConfidenceInterval)> + Clone) -> Vec<String> {
    let width = |(_, interval): (f64, &ConfidenceInterval)| Some(interval.hi? - interval.lo?);
    let mut decimals: Vec<usize> = column.clone().filter_map(width).map(|width| decimals_for(0.5 * width)).collect();
    decimals.sort_unstable();
    let decimals = decimals.get(decimals.len() / 2).copied().unwrap_or(3);
    let text = |(value, ends): (f64, &ConfidenceInterval)| match (ends.lo, ends.hi) {
        (Some(lo), Some(hi)) => format!("{value:.decimals$} ({lo:.decimals$} to {hi:.decimals$})"),
        _ => format!("{value:.decimals$} ({})", interval(ends)),
    };
    column.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_decide_the_digits() {
        let text = |value, se| with_error(&Estimate { name: "C", value, se, interval: None });
        assert_eq!(text(0.58472, Some(0.0331)), "0.585 ± 0.033");
        assert_eq!(text(49.641, Some(0.968)), "49.64 ± 0.97");
        assert_eq!(text(239.9, Some(125.0)), "240 ± 125");
        assert_eq!(text(2.4e9, Some(1.25e8)), "2.40e9 ± 0.12e9");
        assert_eq!(text(3.1e8, Some(1.1e9)), "3.1e8 ± 11.0e8");
        assert_eq!(text(3.2e15, Some(1e32)), "3.2e15 ± 1.0e32");
        assert_eq!(text(1.3, Some(2e-17)), "1.300000 ± 2e-17");
        assert_eq!(text(0.0, None), "0 (no s.e.)");
        assert_eq!(interval(&ConfidenceInterval { lo: None, hi: Some(1.4914) }), "< 1.491");
    }

    #[test]
    fn the_usual_width_decides_the_digits_of_a_column() {
        let ends = |lo, hi| ConfidenceInterval { lo, hi };
        let column =
            |rows: &[(f64, ConfidenceInterval)]| with_intervals(rows.iter().map(|(value, ends)| (*value, ends)));
        let floors = [
            (-0.03481, ends(Some(-0.12141), Some(0.05082))),
            (-0.0571, ends(Some(-0.1512), Some(0.03592))),
            (-0.0224, ends(Some(-0.1466), Some(0.1018))),
            (0.3123, ends(None, Some(0.40912))),
        ];
        let texts =
            ["-0.035 (-0.121 to 0.051)", "-0.057 (-0.151 to 0.036)", "-0.022 (-0.147 to 0.102)", "0.312 (< 0.4091)"];
        assert_eq!(column(&floors), texts);
        assert_eq!(column(&[(210.4, ends(Some(96.2), Some(471.0)))]), ["210 (96 to 471)"]);
        assert_eq!(column(&[(1.54012, ends(Some(1.51703), Some(1.56318)))]), ["1.540 (1.517 to 1.563)"]);
    }
}
