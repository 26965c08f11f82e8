//! How the residuals of a fit are distributed: whether a criterion that takes them for normal is the right one.

/// The median of |z| of a normal variable is this share of its standard deviation.
const NORMAL_MEDIAN: f64 = 0.674_489_750_196_081_7;

/// Residuals in the measure of the objective: of the logarithm of the loss, or of the loss for plain least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their standard deviation if they were normal, from their median absolute deviation: outliers do not move it.
    pub robust_sd: f64,
    /// Their standard deviation.
    pub sd: f64,
    /// Fourth central moment over the squared second: 3 of normal ones, large where a few lie far out; NaN where all
    /// are equal.
    pub kurtosis: f64,
    /// Share of the points within Huber's threshold, of a criterion that has one.
    pub inside: Option<f64>,
}

impl Spread {
    /// Of these residuals, with Huber's threshold or infinity.
    pub(super) fn of(residuals: &[f64], delta: f64) -> Self {
        let n = residuals.len() as f64;
        let mean = residuals.iter().sum::<f64>() / n;
        let moment = |power: i32| residuals.iter().map(|r| (r - mean).powi(power)).sum::<f64>() / n;
        let middle = median(residuals.to_vec());
        let variance = moment(2);
        Self {
            robust_sd: median(residuals.iter().map(|r| (r - middle).abs()).collect()) / NORMAL_MEDIAN,
            sd: variance.sqrt(),
            kurtosis: moment(4) / (variance * variance),
            inside: delta.is_finite().then(|| share_within(residuals, delta)),
        }
    }
}

/// Share of values that are no larger than `delta` either way.
pub(super) fn share_within(values: &[f64], delta: f64) -> f64 {
    values.iter().filter(|value| value.abs() <= delta).count() as f64 / values.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_five_known_residuals() {
        let spread = Spread::of(&[-2.0, -1.0, 0.0, 1.0, 2.0], 1.0);
        // Variance (4 + 1 + 0 + 1 + 4)/5, fourth moment (16 + 1 + 0 + 1 + 16)/5, median absolute deviation 1.
        assert!((spread.sd - 2f64.sqrt()).abs() < 1e-15);
        assert!((spread.kurtosis - 6.8 / 4.0).abs() < 1e-14);
        assert!((spread.robust_sd - 1.482_602_218_505_602).abs() < 1e-14);
        assert_eq!(spread.inside, Some(0.6));
        assert_eq!(Spread::of(&[1.0, 3.0], f64::INFINITY).inside, None);
    }
}
