//! From logits to a token: greedy, or drawn at a temperature from the likeliest tokens.

use crate::ops::argmax::argmax;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the fewest likeliest tokens that have this share of the probability together, in (0, 1].
    pub top_p: f64,
    /// Only so many of the likeliest tokens.
    pub top_k: Option<u64>,
    /// Of the numbers that tokens are drawn with.
    pub seed: u64,
}

/// An option of [`Sampling`] that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{option} is {value}; expected {expected}")]
pub struct SamplingError {
    pub option: &'static str,
    pub value: String,
    pub expected: &'static str,
}

impl Sampling {
    /// The likeliest token each time.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: None, seed: 0 };

    /// Says which option makes no sense.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let refuse = |option, value: String, expected| Err(SamplingError { option, value, expected });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", self.temperature.to_string(), "0 (the likeliest token) or more");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top-p", self.top_p.to_string(), "more than 0, at most 1");
        }
        if self.top_k == Some(0) {
            return refuse("top-k", "0".to_owned(), "at least 1");
        }
        Ok(())
    }

    fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// Chooses a token for each of a batch's sequences, step after step, with work of a fixed shape that can be recorded.
#[derive(Debug)]
pub struct Sampler {
    options: Sampling,
    /// Numbers in [0, 1) for every step and sequence, [steps, b]; none where nothing is drawn.
    draws: Option<Tensor>,
}

impl Sampler {
    /// For `batch` sequences and `steps` choices at most. Each sequence has numbers of its own, whatever the others do.
    pub fn new(options: Sampling, batch: usize, steps: usize, device: Device) -> Self {
        let draws = (!options.is_greedy()).then(|| {
            let of_sequence = |row: usize| {
                let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
                rng.set_stream(row as u64);
                (0..steps).map(|_| rng.random::<f32>()).collect::<Vec<_>>()
            };
            let rows: Vec<f32> = (0..batch).flat_map(of_sequence).collect();
            Tensor::from_slice(&rows).view([batch as i64, steps as i64]).transpose(0, 1).contiguous().to_device(device)
        });
        Self { options, draws }
    }

    /// Tokens [b] from logits [b, v] for the choice number `step`, a tensor [1].
    pub fn choose(&self, logits: &Tensor, step: &Tensor) -> Tensor {
        let Some(draws) = &self.draws else { return argmax(logits) };
        let vocab = logits.size()[1];
        let kept = self.options.top_k.map_or(vocab, |k| vocab.min(i64::try_from(k).unwrap_or(i64::MAX)));
        let (best, tokens) = (logits.to_kind(Kind::Float) / self.options.temperature).topk(kept, -1, true, true);
        let shares = best.softmax(-1, Kind::Float);
        let sums = shares.cumsum(-1, Kind::Float);
        // A token counts while those before it have less than top_p; the first one always does.
        let counted = (&sums - &shares).lt(self.options.top_p).to_kind(Kind::Float) * &shares;
        let sums = counted.cumsum(-1, Kind::Float);
        let total = sums.narrow(1, kept - 1, 1);
        let point = draws.index_select(0, step).transpose(0, 1) * &total;
        // The first token whose sum is above the point; rounding may leave none, then the last that counts.
        let last = counted.gt(0.0).sum_dim_intlist([1i64].as_slice(), true, Kind::Int64) - 1;
        let place = sums.le_tensor(&point).sum_dim_intlist([1i64].as_slice(), true, Kind::Int64).minimum(&last);
        tokens.gather(1, &place, false).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(options: Sampling, draws: usize) -> Vec<f64> {
        let logits = Tensor::from_slice(&[0.4f64, 0.1, 0.3, 0.2]).log().view([1, 4]);
        let sampler = Sampler::new(options, 1, draws, Device::Cpu);
        let mut counts = [0u32; 4];
        for step in 0..draws {
            let token = sampler.choose(&logits, &Tensor::from_slice(&[step as i64])).int64_value(&[0]);
            counts[token as usize] += 1;
        }
        counts.iter().map(|&count| f64::from(count) / draws as f64).collect()
    }

    fn near(got: &[f64], want: [f64; 4]) {
        // Four standard errors of 4,000 draws.
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 0.032), "{got:?} for {want:?}");
    }

    #[test]
    fn tokens_come_as_often_as_they_should() {
        let all = Sampling { temperature: 1.0, seed: 5, ..Sampling::GREEDY };
        near(&shares(all, 4000), [0.4, 0.1, 0.3, 0.2]);
        // Squares of the shares over their sum.
        near(&shares(Sampling { temperature: 0.5, ..all }, 4000), [0.16, 0.01, 0.09, 0.04].map(|s| s / 0.3));
        near(&shares(Sampling { top_k: Some(2), ..all }, 4000), [4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        // 0.4 and 0.3 have 0.7 together: the third is needed for more.
        near(&shares(Sampling { top_p: 0.69, ..all }, 4000), [4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        near(&shares(Sampling { top_p: 0.75, ..all }, 4000), [4.0 / 9.0, 0.0, 3.0 / 9.0, 2.0 / 9.0]);
        assert_eq!(shares(Sampling { top_p: 1e-9, ..all }, 50), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(shares(Sampling::GREEDY, 3)[0], 1.0);
    }

    #[test]
    fn a_sequence_draws_alike_in_any_batch() {
        let options = Sampling { temperature: 1.0, seed: 9, ..Sampling::GREEDY };
        let of = |batch: usize| Sampler::new(options, batch, 7, Device::Cpu).draws.expect("numbers");
        assert!(of(1).equal(&of(3).narrow(1, 0, 1)));
        assert!(!of(3).narrow(1, 0, 1).equal(&of(3).narrow(1, 1, 1)));
    }

    #[test]
    fn senseless_options_are_named() {
        let of = |sampling: Sampling| sampling.validate().map_err(|e| e.option);
        assert_eq!(of(Sampling::GREEDY), Ok(()));
        assert_eq!(of(Sampling { temperature: -1.0, ..Sampling::GREEDY }), Err("temperature"));
        assert_eq!(of(Sampling { temperature: f64::NAN, ..Sampling::GREEDY }), Err("temperature"));
        assert_eq!(of(Sampling { top_p: 0.0, ..Sampling::GREEDY }), Err("top-p"));
        assert_eq!(of(Sampling { top_k: Some(0), ..Sampling::GREEDY }), Err("top-k"));
    }
}
