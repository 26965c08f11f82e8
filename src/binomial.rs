//! Shares of successes and their intervals.

/// The normal quantile of a two-sided interval at 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's interval at 95 % of a share of successes among `trials` (E. B. Wilson 1927, JASA 22).
pub fn wilson(share: f64, trials: f64) -> (f64, f64) {
    let (centre, spread) =
        (share + Z * Z / (2.0 * trials), share * (1.0 - share) / trials + (Z / (2.0 * trials)).powi(2));
    let scale = 1.0 + Z * Z / trials;
    let half = Z * spread.max(0.0).sqrt();
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_published_one() {
        // Newcombe 1998, Statistics in Medicine 17: 81 of 263 give 0.2553 to 0.3662.
        let (low, high) = wilson(81.0 / 263.0, 263.0);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
    }

    #[test]
    fn none_and_all_have_intervals_of_some_width() {
        let (low, high) = wilson(0.0, 10.0);
        assert!((0.0..1e-12).contains(&low) && (high - 0.2775).abs() < 5e-5, "{low} {high}");
        let (low, high) = wilson(1.0, 10.0);
        assert!(high > 1.0 - 1e-12 && high <= 1.0 && (low - 0.7225).abs() < 5e-5, "{low} {high}");
    }
}
