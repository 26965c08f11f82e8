//! Logarithmic axes: from values to pixels, and ticks that do not collide.

/// A logarithmic axis over `lo..hi` that maps to the pixels `from..to` (either may be the larger).
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub lo: f64,
    pub hi: f64,
    pub from: f64,
    pub to: f64,
}

impl Axis {
    pub(super) fn pixel(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value / self.lo).ln() / (self.hi / self.lo).ln()
    }

    /// The densest set of round values whose neighbours are at least `gap` pixels apart.
    pub(super) fn ticks(&self, gap: f64) -> Vec<f64> {
        let sets = self.linear_sets().into_iter().chain(self.decade_sets());
        let fits = |ticks: &Vec<f64>| {
            ticks.len() >= 2 && ticks.windows(2).all(|pair| (self.pixel(pair[1]) - self.pixel(pair[0])).abs() >= gap)
        };
        // Equal counts happen between families; the first, linear one reads better.
        sets.filter(fits).reduce(|best, next| if next.len() > best.len() { next } else { best }).unwrap_or_default()
    }

    /// Steps of 1, 2 and 5 times a power of ten, for axes of less than about a decade.
    fn linear_sets(&self) -> Vec<Vec<f64>> {
        if self.hi / self.lo > 12.0 {
            return Vec::new();
        }
        let magnitude = (self.hi - self.lo).log10().floor() as i32;
        let steps = (magnitude - 2..=magnitude).rev().flat_map(|e| [5.0, 2.0, 1.0].map(|m| (m, e)));
        steps
            .map(|(mantissa, exponent)| {
                let step = mantissa * 10f64.powi(exponent);
                let (first, last) = ((self.lo / step).ceil() as i64, (self.hi / step).floor() as i64);
                (first.max(1)..=last).map(|k| k as f64 * step).collect()
            })
            .collect()
    }

    /// 1-2-5 per decade, every decade, every second, third, fifth and tenth decade.
    fn decade_sets(&self) -> Vec<Vec<f64>> {
        let (first, last) = (self.lo.log10().floor() as i32, self.hi.log10().ceil() as i32);
        let inside = |value: &f64| *value >= self.lo * (1.0 - 1e-9) && *value <= self.hi * (1.0 + 1e-9);
        let mut sets = vec![
            (first..=last).flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e))).filter(inside).collect::<Vec<_>>(),
        ];
        for every in [1, 2, 3, 5, 10] {
            sets.push((first..=last).filter(|e| e % every == 0).map(|e| 10f64.powi(e)).filter(inside).collect());
        }
        sets
    }
}

/// Labels of the ticks of one axis: plain where all are short, powers of ten otherwise.
pub(super) fn labels(ticks: &[f64]) -> Vec<String> {
    if ticks.iter().all(|tick| (1e-3..1e5).contains(tick)) {
        let decimals = (0..=6)
            .find(|d| ticks.iter().all(|tick| (tick * 10f64.powi(*d) - (tick * 10f64.powi(*d)).round()).abs() < 1e-6))
            .unwrap_or(6) as usize;
        let alike = ticks.iter().copied().fold(0.0, f64::max) / ticks.iter().copied().fold(f64::MAX, f64::min) < 100.0;
        return ticks.iter().map(|t| if alike { format!("{t:.decimals$}") } else { format!("{t}") }).collect();
    }
    ticks.iter().map(|tick| power_of_ten(*tick)).collect()
}

fn power_of_ten(value: f64) -> String {
    let exponent = (value.log10() + 1e-9).floor() as i32;
    let mantissa = value / 10f64.powi(exponent);
    let digits: String = exponent
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            // U+2070 and U+2074..U+2079 stand in order.
            other => char::from_u32(0x2070 + other.to_digit(10).unwrap_or(0)).unwrap_or(other),
        })
        .collect();
    if (mantissa - 1.0).abs() < 1e-6 {
        format!("10{digits}")
    } else {
        format!("{:.3}", mantissa).trim_end_matches('0').trim_end_matches('.').to_owned() + "×10" + &digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_apart() {
        for (lo, hi) in [(1.79, 2.7), (1.8, 1.83), (0.5, 7.0), (9e18, 2e22), (80.0, 900.0), (1e3, 1e21), (1e-9, 2e-9)] {
            let axis = Axis { lo, hi, from: 0.0, to: 500.0 };
            let ticks = axis.ticks(40.0);
            assert!((2..=12).contains(&ticks.len()), "{lo}..{hi}: {ticks:?}");
            assert!(ticks.windows(2).all(|pair| axis.pixel(pair[1]) - axis.pixel(pair[0]) >= 40.0), "{ticks:?}");
            let labels = labels(&ticks);
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
        }
        assert_eq!(labels(&[1e18, 2e19, 1e-7]), ["10¹⁸", "2×10¹⁹", "10⁻⁷"]);
        assert_eq!(labels(&[1.8, 2.0, 2.2]), ["1.8", "2.0", "2.2"]);
        assert_eq!(labels(&[1.0, 10.0, 1000.0]), ["1", "10", "1000"]);
    }
}
