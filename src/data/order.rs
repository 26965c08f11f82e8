//! The order of training rows: a keyed permutation of `0..n` that is computed per element, so that any rank can find
//! any row and a resumed run goes on exactly where it stopped, without a list in memory.
//!
//! A balanced Feistel network permutes the next power of four; elements outside `0..n` are walked along their cycle
//! until they fall inside (Black and Rogaway 2002), which takes fewer than four steps on average.

use super::hash::absorb;

const ROUNDS: u64 = 6;

/// Element `index` of the permutation of `0..n` that `key` selects.
pub(super) fn permuted(index: u64, n: u64, key: u64) -> u64 {
    debug_assert!(index < n);
    let bits = u64::BITS - (n - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (absorb(key ^ round, right) & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

/// The block that global row `row` reads: epoch `row / blocks`, each epoch in an order of its own.
pub(super) fn block_of_row(row: u64, blocks: u64, seed: u64) -> u64 {
    permuted(row % blocks, blocks, absorb(seed, row / blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_a_permutation_of_its_own() {
        for n in [1, 2, 3, 5, 64, 65, 1000, 4097] {
            let epoch = |e: u64| (0..n).map(|r| block_of_row(e * n + r, n, 7)).collect::<Vec<_>>();
            let mut sorted = epoch(0);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>(), "n = {n}");
            if n >= 64 {
                assert_ne!(epoch(0), epoch(1));
                assert_ne!(epoch(0), (0..n).map(|r| block_of_row(r, n, 8)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        let n = 10_000u64;
        let steps: f64 =
            (1..n).map(|r| block_of_row(r, n, 3).abs_diff(block_of_row(r - 1, n, 3)) as f64).sum::<f64>() / n as f64;
        // Two independent uniform positions lie n/3 apart on average.
        assert!((steps / n as f64 - 1.0 / 3.0).abs() < 0.02, "{steps}");
    }
}
