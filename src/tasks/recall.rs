//! Recalls in the synthetic corpus: the loss of recalled values by how far back they stand, beside the true floor.
//!
//! One recall is one observation: its values are known together or not at all, so they are no independent evidence.

use crate::binomial;
use crate::data::{Distances, RowTarget};
use std::ops::Range;

/// One recall in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Recall {
    /// How far back its values stand, in tokens.
    pub distances: Distances,
    /// Position of its key in the row.
    pub key: usize,
    /// True -ln p of the key, nats; that of each value is 0.
    pub key_floor: f64,
    /// Positions of its values; fewer than usual where the row is cut.
    pub values: Range<usize>,
}

/// The recalls among the targets of one row, in order; one that is cut before its first value is left out.
pub fn recalls(targets: &[RowTarget]) -> Vec<Recall> {
    let mut found: Vec<Recall> = Vec::new();
    for target in targets {
        match (target.kind, target.recall) {
            ("reference_key", Some(distances)) => found.push(Recall {
                distances,
                key: target.position,
                key_floor: target.nats,
                values: target.position + 1..target.position + 1,
            }),
            ("reference_value", Some(_)) => {
                if let Some(recall) = found.last_mut() {
                    recall.values.end = target.position + 1;
                }
            }
            _ => {}
        }
    }
    found.retain(|recall| !recall.values.is_empty());
    found
}

/// Recalls of one range of distances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecallRow {
    /// The smallest distance, in tokens.
    pub from: usize,
    /// Distances lie below this.
    pub below: usize,
    /// Recalls.
    pub n: u64,
    /// Mean loss of a recalled value, nats, whose floor is 0; a mean over recalls.
    pub value: f64,
    /// `value` less 1.96 standard errors between recalls; `None` with fewer than two.
    pub low: Option<f64>,
    /// `value` and 1.96 standard errors.
    pub high: Option<f64>,
    /// Share of recalls of which every value was the most likely token.
    pub exact: f64,
    /// Wilson's interval of `exact` at 95 %.
    pub exact_interval: (f64, f64),
    /// Mean loss of the keys, nats.
    pub key_loss: f64,
    /// Mean of their true -ln p, nats.
    pub key_floor: f64,
}

/// Sums of the recalls of one range.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: u64,
    loss: f64,
    squares: f64,
    exact: u64,
    key_loss: f64,
    key_floor: f64,
}

/// Collects recalls by the distance of the latest mention, in ranges from a power of two to the next.
#[derive(Clone, Debug, Default)]
pub struct RecallTally {
    bins: Vec<Sums>,
}

impl RecallTally {
    /// Takes in a recall of a row. `losses` are the model's -ln p of all targets of the row and `hits` whether each was
    /// its most likely token; entry i belongs to position i + 1. Positions without an entry are not counted, for an
    /// evaluation of fewer positions than the row has.
    pub fn add(&mut self, recall: &Recall, losses: &[f32], hits: &[bool]) {
        if recall.values.end > losses.len() + 1 {
            return;
        }
        let values = recall.values.start - 1..recall.values.end - 1;
        let count = values.len() as f64;
        let loss = losses[values.clone()].iter().map(|&loss| f64::from(loss)).sum::<f64>() / count;
        let bin = recall.distances.mention.max(1).ilog2() as usize;
        if self.bins.len() <= bin {
            self.bins.resize(bin + 1, Sums::default());
        }
        let sums = &mut self.bins[bin];
        sums.n += 1;
        sums.loss += loss;
        sums.squares += loss * loss;
        sums.exact += u64::from(hits[values].iter().all(|&hit| hit));
        sums.key_loss += f64::from(losses[recall.key - 1]);
        sums.key_floor += recall.key_floor;
    }

    /// The ranges that hold a recall, nearest first.
    pub fn rows(&self) -> Vec<RecallRow> {
        let filled = self.bins.iter().enumerate().filter(|(_, sums)| sums.n > 0);
        filled.map(|(bin, sums)| sums.row(1 << bin)).collect()
    }
}

impl Sums {
    fn row(&self, from: usize) -> RecallRow {
        let n = self.n as f64;
        let value = self.loss / n;
        let half = (self.n > 1).then(|| {
            let variance = (self.squares - n * value * value).max(0.0) / (n - 1.0);
            1.96 * (variance / n).sqrt()
        });
        let exact = self.exact as f64 / n;
        RecallRow {
            from,
            below: 2 * from,
            n: self.n,
            value,
            low: half.map(|half| value - half),
            high: half.map(|half| value + half),
            exact,
            exact_interval: binomial::wilson(exact, n),
            key_loss: self.key_loss / n,
            key_floor: self.key_floor / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{SyntheticSpec, TargetReader};

    /// Keys are 3 to 10, values 11 to 26: a definition of key 3, and of key 4; recalls of 3, of 3 again, and of 4.
    const ROW: [u32; 29] =
        [0, 1, 3, 11, 12, 1, 4, 13, 14, 40, 40, 2, 3, 11, 12, 41, 2, 3, 11, 12, 42, 43, 44, 2, 4, 13, 14, 2, 4];

    fn targets() -> Vec<RowTarget> {
        let spec = SyntheticSpec { vocab_size: 64, value_tokens: 2, ..SyntheticSpec::default() };
        TargetReader::new(&spec).unwrap().targets(&ROW).unwrap()
    }

    #[test]
    fn recalls_have_their_distances_and_a_cut_one_is_left_out() {
        let recalls = recalls(&targets());
        let seen: Vec<_> =
            recalls.iter().map(|r| (r.key, r.values.clone(), r.distances.mention, r.distances.definition)).collect();
        assert_eq!(seen, [(12, 13..15, 10, 10), (17, 18..20, 5, 15), (24, 25..27, 18, 18)]);
        assert!(recalls.iter().all(|recall| (recall.key_floor - 2f64.ln()).abs() < 1e-12));
    }

    #[test]
    fn a_tally_bins_by_distance() {
        let recalls = recalls(&targets());
        let mut losses = vec![0.0f32; ROW.len() - 1];
        let mut hits = vec![true; ROW.len() - 1];
        // Of the second recall, 5 tokens from its last mention: position 19 costs 3 nats and is missed, the key 1 nat.
        (losses[18], hits[18], losses[16]) = (3.0, false, 1.0);
        let mut tally = RecallTally::default();
        recalls.iter().for_each(|recall| tally.add(recall, &losses, &hits));
        recalls.iter().take(1).for_each(|recall| tally.add(recall, &vec![2.0; ROW.len() - 1], &hits));
        let rows = tally.rows();
        let seen: Vec<_> = rows.iter().map(|row| (row.from, row.below, row.n, row.value, row.exact)).collect();
        assert_eq!(seen, [(4, 8, 1, 1.5, 0.0), (8, 16, 2, 1.0, 1.0), (16, 32, 1, 0.0, 1.0)]);
        assert_eq!((rows[0].key_loss, rows[0].low), (1.0, None));
        // Losses 0 and 2: the standard error of their mean is 1.
        assert_eq!((rows[1].low, rows[1].high), (Some(1.0 - 1.96), Some(1.0 + 1.96)));
        let mut short = RecallTally::default();
        recalls.iter().for_each(|recall| short.add(recall, &losses[..19], &hits[..19]));
        assert_eq!(short.rows().iter().map(|row| row.n).sum::<u64>(), 2, "positions that were not evaluated");
    }
}
