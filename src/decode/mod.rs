//! Text from a model: prompts are read, and tokens follow one by one for a batch of sequences. On a GPU a whole step, from
//! the last tokens to the next ones, is recorded once and replayed.

mod answer;
mod sampling;
mod text;

pub use answer::{AnswerError, scores};
pub use sampling::{Sampler, Sampling, SamplingError};
pub use text::GrowingText;

use crate::bridge::{BridgeError, CudaGraph};
use crate::nn::{DecodeState, DecoderLm};
use tch::{Device, Kind, Tensor};

/// Steps before a step's work is recorded: LibTorch chooses algorithms and takes memory in the first ones.
const WARM_UP: usize = 2;

/// A batch of sequences that a model continues.
pub struct Generator {
    lm: DecoderLm,
    state: DecodeState,
    sampler: Sampler,
    /// What is read and written at fixed places.
    slots: Slots,
    /// Tokens chosen for each sequence.
    chosen: usize,
    graph: Option<CudaGraph>,
    recording: bool,
}

/// Tensors that keep their place.
struct Slots {
    /// The last token of each sequence, [b].
    tokens: Tensor,
    /// All that were chosen, [steps, b].
    history: Tensor,
    /// How many, [1].
    count: Tensor,
}

impl Slots {
    /// Writes down the choice made from logits [b, v].
    fn choose(&mut self, sampler: &Sampler, logits: &Tensor) {
        let next = sampler.choose(logits, &self.count);
        self.tokens.copy_(&next);
        let _ = self.history.index_copy_(0, &self.count, &next.unsqueeze(0));
        let _ = self.count.g_add_scalar_(1);
    }
}

impl Generator {
    /// For `batch` sequences of at most `capacity` tokens, prompts included.
    pub fn new(lm: DecoderLm, batch: usize, capacity: usize, sampling: Sampling) -> Self {
        let device = lm.device();
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Int64, device));
        let (rows, steps) = (batch as i64, capacity as i64);
        Self {
            state: lm.decode_state(rows, steps),
            sampler: Sampler::new(sampling, batch, capacity, device),
            slots: Slots { tokens: zeros(&[rows]), history: zeros(&[steps, rows]), count: zeros(&[1]) },
            lm,
            chosen: 0,
            graph: None,
            recording: matches!(device, Device::Cuda(_)),
        }
    }

    /// Launches work one by one, on a GPU too.
    pub fn without_recording(mut self) -> Self {
        self.recording = false;
        self
    }

    /// Sequences at once.
    pub fn sequences(&self) -> usize {
        self.slots.tokens.size()[0] as usize
    }

    /// Reads a prompt for every sequence and chooses a first token for each; what was there before is forgotten.
    ///
    /// # Panics
    /// When there are not as many prompts as sequences, or one is empty or does not fit.
    pub fn read(&mut self, prompts: &[Vec<i64>]) {
        assert_eq!(prompts.len(), self.sequences(), "a prompt for each sequence");
        self.state.clear();
        self.chosen = 0;
        tch::no_grad(|| {
            let _ = self.slots.count.zero_();
        });
        let device = self.lm.device();
        let mut logits = Vec::new();
        // Neighbours of one length go through the model together.
        let mut first = 0;
        for group in prompts.chunk_by(|a, b| a.len() == b.len()) {
            let ids = Tensor::from_slice(&group.concat()).view([group.len() as i64, -1]).to_device(device);
            logits.push(self.lm.prefill(&ids, &mut self.state, first));
            first += group.len() as i64;
        }
        tch::no_grad(|| self.slots.choose(&self.sampler, &Tensor::cat(&logits, 0)));
        self.chosen = 1;
    }

    /// Takes one more step: every sequence gets another token. Does not wait for a GPU.
    ///
    /// # Panics
    /// When a sequence is at its capacity.
    pub fn step(&mut self) -> Result<(), BridgeError> {
        if !self.recording {
            let logits = self.lm.step(&self.slots.tokens, &mut self.state);
            tch::no_grad(|| self.slots.choose(&self.sampler, &logits));
        } else if let Some(graph) = &mut self.graph {
            self.state.count_step();
            graph.replay()?;
        } else {
            self.first_steps()?;
        }
        self.chosen += 1;
        Ok(())
    }

    /// A step as it will be recorded; after the first ones it is.
    fn first_steps(&mut self) -> Result<(), BridgeError> {
        let Self { lm, state, sampler, slots, .. } = self;
        state.count_step();
        let mut body = || {
            tch::no_grad(|| {
                let logits = lm.step_anywhere(&slots.tokens, state);
                slots.choose(sampler, &logits);
            });
        };
        if self.chosen <= WARM_UP {
            body();
        } else {
            let mut graph = CudaGraph::capture(None, body)?;
            graph.replay()?;
            self.graph = Some(graph);
        }
        Ok(())
    }

    /// The choices `from`.. of each sequence; waits for a GPU.
    pub fn tokens_since(&self, from: usize) -> Vec<Vec<i64>> {
        let count = self.chosen.saturating_sub(from) as i64;
        let part = self.slots.history.narrow(0, from as i64, count).transpose(0, 1).contiguous().to_device(Device::Cpu);
        Vec::<Vec<i64>>::try_from(part).expect("rows of tokens")
    }
}
