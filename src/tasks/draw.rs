//! Random choices that stay the same across versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of choices, of which each is a pure function of the key and of the choices before it.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of a key: what it is for, and three numbers.
    pub(super) fn new(purpose: [u8; 8], numbers: [u64; 3]) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&purpose);
        for (bytes, number) in key[8..].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform below `n`, with a bias under n / 2^64.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of `items`.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `count` different numbers below `n`, in the order drawn; `n` is at least `count`.
    pub(super) fn distinct(&mut self, count: usize, n: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let next = self.below(n);
            if !chosen.contains(&next) {
                chosen.push(next);
            }
        }
        chosen
    }

    /// A decimal number of `digits` digits whose first is `first` or more.
    pub(super) fn number(&mut self, first: u8, digits: usize) -> String {
        let leading = first + self.below(usize::from(10 - first)) as u8;
        let rest = (1..digits).map(|_| char::from(b'0' + self.below(10) as u8));
        std::iter::once(char::from(b'0' + leading)).chain(rest.collect::<String>().chars()).collect()
    }
}
