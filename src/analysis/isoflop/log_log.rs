//! Power laws fitted to logarithms.

use super::distinct;
use crate::analysis::interval::t_quantile;

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
