//! The learning rate of a run, step by step, and what laws of loss curves take from it.

use super::CurveError;

/// A learning rate for every step from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    rates: Vec<f64>,
    /// Rates summed up to and with each step.
    sums: Vec<f64>,
    /// The highest rate.
    peak: f64,
}

impl Schedule {
    /// From the rate of every step. None may be negative, and one has to be positive.
    pub fn new(rates: Vec<f64>) -> Result<Self, CurveError> {
        if let Some(step) = rates.iter().position(|rate| !(rate.is_finite() && *rate >= 0.0)) {
            return Err(CurveError::BadRate { step, rate: rates[step] });
        }
        let peak = rates.iter().copied().fold(0.0, f64::max);
        if peak <= 0.0 {
            return Err(CurveError::NoRate);
        }
        let mut total = 0.0;
        let add = |rate: &f64| {
            total += rate;
            total
        };
        let sums = rates.iter().map(add).collect();
        Ok(Self { rates, sums, peak })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.rates.len()
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The rate of a step.
    pub fn rate(&self, step: usize) -> f64 {
        self.rates[step]
    }

    /// The first step of the highest rate.
    pub fn first_peak(&self) -> usize {
        self.rates.iter().position(|rate| *rate == self.peak).expect("the highest rate is one of them")
    }

    /// S1: the rates summed up to and with `step`, warm-up included.
    pub fn summed(&self, step: usize) -> f64 {
        self.sums[step]
    }

    /// Where the rate changes: the step, the rate before and the rate from then on.
    pub(super) fn changes(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        self.rates
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] != pair[1])
            .map(|(k, pair)| (k + 1, pair[0], pair[1]))
    }

    /// S2 at each of `steps`, which ascend, with its first and second derivative by the decay λ: the momentum
    /// m_i = λ·m_(i-1) + (η_(i-1) - η_i) summed up to and with the step. It starts from nothing where the rate is
    /// highest, since the warm-up before it is no annealing.
    pub(super) fn annealed(&self, steps: &[usize], decay: f64) -> Vec<[f64; 3]> {
        let from = self.first_peak();
        let (mut momentum, mut sums) = ([0.0; 3], [0.0; 3]);
        let mut at = from;
        let mut out = Vec::with_capacity(steps.len());
        for &step in steps {
            while at < step {
                at += 1;
                let [m, first, second] = momentum;
                let drop = self.rates[at - 1] - self.rates[at];
                momentum = [decay * m + drop, m + decay * first, 2.0 * first + decay * second];
                sums.iter_mut().zip(momentum).for_each(|(sum, value)| *sum += value);
            }
            out.push(sums);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as Tissue et al. write it: over all earlier drops, each with λ to the power of its age.
    fn by_definition(rates: &[f64], from: usize, step: usize, decay: f64) -> f64 {
        let drop = |k: usize| rates[k - 1] - rates[k];
        let momentum = |i: usize| (from + 1..=i).map(|k| drop(k) * decay.powi((i - k) as i32)).sum::<f64>();
        (from + 1..=step).map(momentum).sum()
    }

    #[test]
    fn annealing_is_the_double_sum_and_knows_its_slopes() {
        let rates = vec![0.0, 0.5, 1.0, 1.0, 0.7, 0.7, 0.2, 0.4, 0.1];
        let schedule = Schedule::new(rates.clone()).unwrap();
        let steps = [1, 2, 4, 6, 8];
        let (decay, h) = (0.8, 1e-4);
        let (low, up) = (schedule.annealed(&steps, decay - h), schedule.annealed(&steps, decay + h));
        for (i, [value, first, second]) in schedule.annealed(&steps, decay).into_iter().enumerate() {
            assert!((value - by_definition(&rates, 2, steps[i], decay)).abs() < 1e-14);
            assert!((first - (up[i][0] - low[i][0]) / (2.0 * h)).abs() < 1e-6);
            assert!((second - (up[i][1] - low[i][1]) / (2.0 * h)).abs() < 1e-6);
        }
        assert_eq!(schedule.summed(4), 0.0 + 0.5 + 1.0 + 1.0 + 0.7);
        assert_eq!(schedule.changes().map(|(step, ..)| step).collect::<Vec<_>>(), [1, 2, 4, 6, 7, 8]);
    }

    #[test]
    fn rates_are_checked() {
        assert_eq!(Schedule::new(vec![0.1, -0.1]), Err(CurveError::BadRate { step: 1, rate: -0.1 }));
        assert_eq!(Schedule::new(vec![0.0]), Err(CurveError::NoRate));
    }
}
