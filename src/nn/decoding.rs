//! Token by token: what layers keep of sequences, prompts in parts, and one more token for each sequence.
//!
//! A prompt's layers above the last one that keeps anything are needed at its last position only: for a
//! decoder-hybrid-decoder that is the whole cross-decoder (arXiv 2507.06607, §2).

use super::{DecoderLm, LayerContext};
use crate::arch::cost::PROMPT_PART_TOKENS;
use crate::ops::cached_attention::{KvCache, Positions};
use crate::ops::mamba::MambaState;
use crate::ops::rope::RopeTables;
use tch::{Kind, Tensor};

/// What one layer keeps; the first axis is the sequence.
#[derive(Debug)]
pub enum LayerState {
    /// Cross-attention and gated memory units.
    Nothing,
    /// Keys (rotated, where the layer rotates) and values.
    KeyValues(KvCache),
    Mamba(MambaState),
}

impl LayerState {
    /// The part of some sequences, in the same memory.
    fn rows(&self, first: i64, count: i64) -> Self {
        let part = |t: &Tensor| t.narrow(0, first, count);
        match self {
            Self::Nothing => Self::Nothing,
            Self::KeyValues(cache) => Self::KeyValues(cache.rows(first, count)),
            Self::Mamba(MambaState { conv_bkd, ssm_bdn }) => {
                Self::Mamba(MambaState { conv_bkd: part(conv_bkd), ssm_bdn: part(ssm_bdn) })
            }
        }
    }

    /// Bytes of its memory.
    fn bytes(&self) -> u64 {
        let of = |t: &Tensor| t.numel() as u64 * t.kind().elt_size_in_bytes() as u64;
        match self {
            Self::Nothing => 0,
            Self::KeyValues(KvCache { k_bkse, v_bkse, .. }) => of(k_bkse) + of(v_bkse),
            Self::Mamba(MambaState { conv_bkd, ssm_bdn }) => of(conv_bkd) + of(ssm_bdn),
        }
    }
}

/// Room for a number of sequences of at most `capacity` tokens, and how far each is.
#[derive(Debug)]
pub struct DecodeState {
    layers: Vec<LayerState>,
    /// Tokens of each sequence so far, [b].
    positions: Tensor,
    /// The most of them, as the host counts.
    longest: i64,
    capacity: i64,
    /// Of all positions.
    rope: Option<RopeTables>,
}

impl DecodeState {
    /// Bytes of all that is kept of sequences.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(LayerState::bytes).sum()
    }

    /// Counts a step that is about to be taken.
    ///
    /// # Panics
    /// When the longest sequence is at the capacity.
    pub fn count_step(&mut self) {
        assert!(self.longest < self.capacity, "the state is full: {} tokens", self.capacity);
        self.longest += 1;
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        let zero = |t: &Tensor| {
            let _ = t.shallow_clone().zero_();
        };
        for layer in &self.layers {
            // Keys and values past a sequence's end are never read.
            if let LayerState::Mamba(MambaState { conv_bkd, ssm_bdn }) = layer {
                zero(conv_bkd);
                zero(ssm_bdn);
            }
        }
        zero(&self.positions);
        self.longest = 0;
    }
}

/// Where the tokens stand that layers are given.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The next tokens of prompts of which `start` have been seen.
    Prompt { start: i64 },
    /// One token of each sequence.
    Token(Positions<'a>),
}

/// Which outputs of a layer are wanted of a part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// [b, 1, w].
    Last,
}

/// Tokens on their way through the layers.
#[derive(Debug)]
pub struct Extension<'a> {
    pub place: Place<'a>,
    /// Of the layer that runs.
    pub wanted: Wanted,
    /// Of the sequences that are extended, by layer.
    pub states: &'a mut [LayerState],
    pub rope: Option<&'a RopeTables>,
    /// Memories that layers have published for these tokens.
    pub context: LayerContext,
}

impl Extension<'_> {
    /// The cache of a layer with keys and values.
    ///
    /// # Panics
    /// When the layer keeps something else: its mixer made the state.
    pub fn cache(&self, layer: usize) -> &KvCache {
        match &self.states[layer] {
            LayerState::KeyValues(cache) => cache,
            other => panic!("layer {layer} keeps {other:?}"),
        }
    }
}

impl DecoderLm {
    /// Room for `batch` sequences of at most `capacity` tokens.
    pub fn decode_state(&self, batch: i64, capacity: i64) -> DecodeState {
        let device = self.device();
        let layers = self
            .blocks
            .iter()
            .map(|block| block.mixer.empty_state([batch, capacity], self.options.precision.kind()))
            .collect();
        DecodeState {
            layers,
            positions: Tensor::zeros([batch], (Kind::Int64, device)),
            longest: 0,
            capacity,
            rope: self.blocks.iter().find_map(|block| block.mixer.rotations(capacity)),
        }
    }

    /// Logits [b, v] after prompts of one length, ids [b, t], which begin the rows `first`.. of a state.
    ///
    /// # Panics
    /// When the prompts are empty or longer than the state's capacity.
    pub fn prefill(&self, ids_bt: &Tensor, state: &mut DecodeState, first: i64) -> Tensor {
        self.prefill_in_parts(ids_bt, state, first, PROMPT_PART_TOKENS as i64)
    }

    /// As [`Self::prefill`], with at most `part_tokens` tokens at once.
    pub fn prefill_in_parts(&self, ids_bt: &Tensor, state: &mut DecodeState, first: i64, part_tokens: i64) -> Tensor {
        let (batch, time) = ids_bt.size2().expect("ids are [b, t]");
        assert!((1..=state.capacity).contains(&time), "{time} tokens for a capacity of {}", state.capacity);
        let mut rows: Vec<LayerState> = state.layers.iter().map(|layer| layer.rows(first, batch)).collect();
        let step = (part_tokens / batch).max(1);
        let mut logits = None;
        for start in (0..time).step_by(step as usize) {
            let count = step.min(time - start);
            let mut run = Extension {
                place: Place::Prompt { start },
                wanted: Wanted::All,
                states: &mut rows,
                rope: state.rope.as_ref(),
                context: LayerContext::new(self.options.backend),
            };
            logits = tch::no_grad(|| self.extend(&ids_bt.narrow(1, start, count), &mut run, start + count == time));
        }
        let _ = state.positions.narrow(0, first, batch).fill_(time);
        state.longest = state.longest.max(time);
        logits.expect("the last part gives logits")
    }

    /// Logits [b, v] after one more token of every sequence, ids [b].
    ///
    /// # Panics
    /// When the longest sequence is at the state's capacity.
    pub fn step(&self, ids_b: &Tensor, state: &mut DecodeState) -> Tensor {
        state.count_step();
        let bound = state.longest;
        tch::no_grad(|| self.step_below(ids_b, state, bound))
    }

    /// As [`Self::step`], with the same work whatever the lengths, so that it can be recorded; the host's count is left to
    /// [`DecodeState::count_step`].
    pub fn step_anywhere(&self, ids_b: &Tensor, state: &mut DecodeState) -> Tensor {
        self.step_below(ids_b, state, state.capacity)
    }

    fn step_below(&self, ids_b: &Tensor, state: &mut DecodeState, bound: i64) -> Tensor {
        let DecodeState { layers, positions, rope, .. } = state;
        let mut run = Extension {
            place: Place::Token(Positions { at: positions, bound }),
            wanted: Wanted::All,
            states: layers,
            rope: rope.as_ref(),
            context: LayerContext::new(self.options.backend),
        };
        let logits = self.extend(&ids_b.unsqueeze(1), &mut run, true).expect("a token gives logits");
        let _ = positions.g_add_scalar_(1);
        logits
    }
}
