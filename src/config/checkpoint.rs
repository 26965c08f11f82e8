//! When a run saves itself: by the clock, or at equal distances of training.

use crate::units;
use std::fmt;
use std::str::FromStr;

/// `exec.checkpoint.every`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SaveEvery {
    /// Seconds of the clock.
    Seconds(f64),
    /// Optimiser steps.
    Steps(u64),
    /// Tokens trained on; a run is saved at the first step that reaches a multiple of them.
    Tokens(u64),
}

impl SaveEvery {
    /// Whether a run is to be saved after its step number `step`, counted from one, of `batch_tokens` each. Never where it
    /// goes by the clock.
    pub fn is_due(self, step: u64, batch_tokens: u64) -> bool {
        match self {
            Self::Seconds(_) => false,
            Self::Steps(every) => step.is_multiple_of(every),
            Self::Tokens(every) => step * batch_tokens / every > (step - 1) * batch_tokens / every,
        }
    }

    /// Checkpoints that a run of `steps` makes, its last one included; `None` where the clock decides.
    pub fn count(self, steps: u64, batch_tokens: u64) -> Option<u64> {
        let due = match self {
            Self::Seconds(_) => return None,
            Self::Steps(every) => steps / every,
            Self::Tokens(every) => steps.min(steps * batch_tokens / every),
        };
        Some(due + u64::from(!self.is_due(steps, batch_tokens)))
    }
}

impl FromStr for SaveEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counted = |unit: &str| {
            let number = units::parse_quantity(text.trim().strip_suffix(unit)?)?;
            (number >= 1.0 && number.fract() == 0.0 && number < 2f64.powi(63)).then_some(number as u64)
        };
        let written = counted("tokens").map(Self::Tokens).or_else(|| counted("steps").map(Self::Steps));
        written
            .or_else(|| units::seconds(text).map(Self::Seconds))
            .ok_or_else(|| format!("'{text}' is none of a time such as 15 min or 30 s, 4M tokens, 500 steps"))
    }
}

impl fmt::Display for SaveEvery {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_is_written() {
        let known = [
            ("15 min", SaveEvery::Seconds(900.0)),
            ("0.3 s", SaveEvery::Seconds(0.3)),
            ("4M tokens", SaveEvery::Tokens(4_000_000)),
            ("2^20 tokens", SaveEvery::Tokens(1 << 20)),
            ("500 steps", SaveEvery::Steps(500)),
        ];
        for (text, every) in known {
            assert_eq!(text.parse(), Ok(every));
            assert_eq!(every.to_string().parse(), Ok(every), "{every}");
        }
        for text in ["", "4M", "0 steps", "0.5 tokens", "-1 steps", "ten steps", "steps", "4 weeks"] {
            assert!(text.parse::<SaveEvery>().is_err(), "{text}");
        }
    }

    #[test]
    fn checkpoints_are_evenly_spaced() {
        let due = |every: SaveEvery| (1..=10).filter(|step| every.is_due(*step, 100)).collect::<Vec<u64>>();
        assert_eq!(due(SaveEvery::Steps(4)), [4, 8]);
        assert_eq!(due(SaveEvery::Tokens(250)), [3, 5, 8, 10]);
        assert_eq!(due(SaveEvery::Tokens(30)), (1..=10).collect::<Vec<u64>>());
        assert_eq!(due(SaveEvery::Seconds(1.0)), Vec::<u64>::new());
        assert_eq!(SaveEvery::Steps(4).count(10, 100), Some(3));
        assert_eq!(SaveEvery::Tokens(250).count(10, 100), Some(4));
        assert_eq!(SaveEvery::Tokens(300).count(10, 100), Some(4));
        assert_eq!(SaveEvery::Tokens(30).count(10, 100), Some(10));
        assert_eq!(SaveEvery::Seconds(1.0).count(10, 100), None);
    }
}
