//! [`OverlappedSum`]: gradients of several ranks, added up while the backward pass goes on.

use super::ranks::Ranks;
use crate::bridge::BridgeError;
use crate::nn::{BackwardWatch, ParamStore};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// Elements that are worth an operation of their own: 16 MiB.
const BUCKET: i64 = 4 << 20;

/// Adds up the gradients of ranks: those of a few blocks at a time, as soon as the backward pass has left them. All ranks
/// pass the same blocks in the same order.
#[derive(Debug)]
pub struct OverlappedSum {
    ranks: Arc<Ranks>,
    /// Where the matrices of each block begin.
    blocks: Vec<i64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    grads: Tensor,
    /// Elements from here on are on their way.
    begun: i64,
    error: Option<BridgeError>,
}

impl OverlappedSum {
    /// Of the gradients of an arena.
    ///
    /// # Panics
    /// When the parameters are not in an arena.
    pub fn new(ranks: Arc<Ranks>, params: &ParamStore) -> Arc<Self> {
        let grads = params.arena().expect("parameters in training are in an arena").grads.shallow_clone();
        let begun = grads.numel() as i64;
        let state = Mutex::new(State { grads, begun, error: None });
        Arc::new(Self { ranks, blocks: params.block_offsets(), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends the process; until then the value is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with the elements from `start` on that are not on their way yet.
    fn begin_from(&self, start: i64, state: &mut State) {
        let State { grads, begun, error } = state;
        if start < *begun && error.is_none() {
            *error = self.ranks.begin_sum(&grads.narrow(0, start, *begun - start)).err();
            *begun = start;
        }
    }

    /// Makes the GPU's stream wait for what has begun: the end of a pass, recorded with it.
    pub(super) fn join(&self) {
        if self.ranks.waits_on_device()
            && let Err(error) = self.ranks.wait()
        {
            self.state().error.get_or_insert(error);
        }
    }

    /// Adds up what is left, embeddings and vectors among it, and waits for all.
    pub(super) fn finish(&self) -> Result<(), BridgeError> {
        let mut state = self.state();
        // A replayed pass has done its part without being watched.
        state.begun = self.blocks.first().copied().unwrap_or(state.begun);
        self.begin_from(0, &mut state);
        state.begun = state.grads.numel() as i64;
        match state.error.take() {
            Some(error) => Err(error),
            None => self.ranks.wait(),
        }
    }
}

impl BackwardWatch for OverlappedSum {
    fn left(&self, block: usize) {
        let mut state = self.state();
        let start = self.blocks[block];
        if block == 0 || state.begun - start >= BUCKET {
            self.begin_from(start, &mut state);
        }
    }
}
