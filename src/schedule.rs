//! Learning rate over a run, as a multiple of its peak: a pure function of the iteration.
//!
//! Iterations are counted from 0: warm-up is n/n_w, so the first rate is 0; what follows runs from n_w to the last
//! iteration n_max (the rules of the SambaY reference code, arXiv 2507.06607).

use serde::{Deserialize, Serialize};

/// Shape after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleShape {
    /// Straight down to 0.
    #[default]
    Linear,
    /// Half a cosine down to 0.
    Cosine,
    /// Constant for five sevenths, then straight down to 0.
    Wsd,
}

/// A schedule of `total` iterations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    pub shape: ScheduleShape,
    pub warmup: u64,
    pub total: u64,
    /// Iterations of one optimiser step: step k uses the rate of iteration (k + 1) G − 1.
    pub iterations_per_step: u64,
}

impl LrSchedule {
    /// Multiplier at an iteration.
    pub fn at_iteration(&self, n: u64) -> f64 {
        if n < self.warmup {
            return n as f64 / self.warmup as f64;
        }
        let after = n - self.warmup;
        let span = self.total.saturating_sub(self.warmup).max(1);
        let falling = |done: u64, length: u64| (1.0 - done as f64 / length.max(1) as f64).max(0.0);
        match self.shape {
            ScheduleShape::Linear => falling(after, span),
            ScheduleShape::Cosine => {
                let progress = (after as f64 / span as f64).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleShape::Wsd => {
                let constant = 5 * span / 7;
                if after < constant { 1.0 } else { falling(after - constant, span - constant) }
            }
        }
    }

    /// Multiplier of optimiser step `step`, from 0.
    pub fn at_step(&self, step: u64) -> f64 {
        self.at_iteration((step + 1) * self.iterations_per_step - 1)
    }

    /// Optimiser steps; a trailing incomplete accumulation is dropped.
    pub fn steps(&self) -> u64 {
        self.total / self.iterations_per_step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: ScheduleShape) -> LrSchedule {
        LrSchedule { shape, warmup: 5, total: 20, iterations_per_step: 1 }
    }

    #[test]
    fn shapes_meet_their_corners() {
        let linear = schedule(ScheduleShape::Linear);
        assert_eq!(linear.at_step(0), 0.0);
        assert_eq!(linear.at_step(5), 1.0);
        assert!((linear.at_step(19) - 1.0 / 15.0).abs() < 1e-12);
        let cosine = schedule(ScheduleShape::Cosine);
        assert_eq!(cosine.at_step(5), 1.0);
        assert!(cosine.at_iteration(20).abs() < 1e-12);
        let wsd = schedule(ScheduleShape::Wsd);
        assert_eq!(wsd.at_step(14), 1.0);
        assert_eq!(wsd.at_step(15), 1.0);
        assert!((wsd.at_step(16) - 0.8).abs() < 1e-12);
    }

    #[test]
    fn accumulation_uses_the_rate_of_its_last_iteration() {
        let accumulated = LrSchedule { iterations_per_step: 4, ..schedule(ScheduleShape::Linear) };
        assert_eq!(accumulated.at_step(0), accumulated.at_iteration(3));
        assert_eq!(accumulated.steps(), 5);
    }
}
