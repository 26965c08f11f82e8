//! What decoding keeps, moves and needs.

use super::super::{LayerSpec, MAMBA_D_CONV, MAMBA_D_STATE, MAMBA_EXPAND, MixerSpec, ModelConfig};
use super::{ParamCount, attention_values};

const FP32_BYTES: u64 = 4;

/// Bytes of one token's keys and values in one layer.
fn key_value_bytes(model: &ModelConfig, element: u64) -> u64 {
    2 * model.shape.kv_width() as u64 * element
}

/// Bytes of a sequence's convolution tails and scan states in one layer.
fn state_bytes(model: &ModelConfig, element: u64) -> u64 {
    let inner = (MAMBA_EXPAND * model.shape.d_model) as u64;
    inner * ((MAMBA_D_CONV as u64 - 1) * element + MAMBA_D_STATE as u64 * FP32_BYTES)
}

/// Bytes that decoding keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeCache {
    /// Grows with every token of context: keys and values of full attention.
    pub bytes_per_token: u64,
    /// Does not grow: windows, convolution tails, state-space states.
    pub bytes_per_sequence: u64,
    /// Keys and values that one decoding step reads at full context, in layers.
    pub full_kv_reads: u64,
}

impl DecodeCache {
    /// Cache of `model` with activations of `element` bytes; scan states are fp32. Cross-attention and gated memory units
    /// keep nothing of their own.
    pub fn of(model: &ModelConfig, element: u64) -> Self {
        let kv_token = key_value_bytes(model, element);
        let mut cache = Self::default();
        for layer in &model.layers {
            match layer.mixer {
                MixerSpec::Attention { window: None, .. } => {
                    cache.bytes_per_token += kv_token;
                    cache.full_kv_reads += 1;
                }
                MixerSpec::Attention { window: Some(window), .. } => {
                    cache.bytes_per_sequence += (window as u64 - 1) * kv_token;
                }
                MixerSpec::CrossAttention { .. } => cache.full_kv_reads += 1,
                MixerSpec::Mamba => cache.bytes_per_sequence += state_bytes(model, element),
                MixerSpec::GatedMemoryUnit { .. } => {}
            }
        }
        cache
    }
}

/// What a step of decoding moves through memory at least: every weight and everything kept of the sequences, once for
/// each layer that reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeTraffic {
    /// Bytes of weights; rows of the embedding do not count.
    pub weights: f64,
    /// Bytes of keys and values of each token of context and sequence.
    pub per_context_token: f64,
    /// Layers' windows and the bytes of each key in one.
    windows: Vec<(f64, f64)>,
    /// Bytes of scan states and convolution tails of a sequence, read and written.
    pub states: f64,
}

impl DecodeTraffic {
    /// Of `model` with weights and caches of `element` bytes; scan states are fp32.
    pub fn of(model: &ModelConfig, element: u64) -> Self {
        let shape = &model.shape;
        let count = ParamCount::of(model);
        let readout = (shape.vocab_size * shape.d_model) as f64;
        let key = key_value_bytes(model, element) as f64;
        let mut traffic = Self {
            weights: (count.matrix as f64 + readout) * element as f64 + count.vector as f64 * FP32_BYTES as f64,
            per_context_token: 0.0,
            windows: Vec::new(),
            states: 0.0,
        };
        for layer in &model.layers {
            match layer.mixer {
                MixerSpec::Attention { window: None, .. } | MixerSpec::CrossAttention { .. } => {
                    traffic.per_context_token += key;
                }
                MixerSpec::Attention { window: Some(window), .. } => traffic.windows.push((window as f64, key)),
                MixerSpec::Mamba => traffic.states += 2.0 * state_bytes(model, element) as f64,
                MixerSpec::GatedMemoryUnit { .. } => {}
            }
        }
        traffic
    }

    /// Bytes of a step of `batch` sequences with `context` tokens each.
    pub fn of_step(&self, batch: f64, context: f64) -> f64 {
        let windows: f64 = self.windows.iter().map(|(window, key)| window.min(context) * key).sum();
        self.weights + batch * (self.per_context_token * context + windows + self.states)
    }
}

/// Tokens of prompts that go through the layers at once, over all sequences: what bounds the memory of their activations.
pub const PROMPT_PART_TOKENS: usize = 1 << 12;

/// Where a process that decodes keeps memory, in bytes: the most at any time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMemory {
    /// All parameters.
    pub weights: f64,
    /// What is kept of sequences at their full length.
    pub caches: f64,
    /// While a prompt is read: activations of the part that goes through the layers, and workspaces.
    pub activations: f64,
}

impl DecodeMemory {
    /// Of `model` with weights and activations of `element` bytes, for `batch` sequences of `capacity` tokens with prompts of
    /// `prompt` tokens each. An estimate of what the fused kernels allocate; the residual stream is fp32.
    pub fn of(model: &ModelConfig, element: u64, batch: usize, capacity: usize, prompt: usize) -> Self {
        // What LibTorch gives cuBLAS on Hopper.
        const WORKSPACE: f64 = (32 << 20) as f64;
        let shape = &model.shape;
        let cache = DecodeCache::of(model, element);
        let kept = cache.bytes_per_sequence + cache.bytes_per_token * capacity as u64;
        let angles = 4.0 * (shape.head_dim * capacity) as f64;
        let [width, mlp, inner] = [shape.d_model, shape.d_mlp, MAMBA_EXPAND * shape.d_model].map(|n| n as f64);
        let layer = |layer: &LayerSpec| {
            let mixer = match layer.mixer {
                MixerSpec::Attention { form, .. } => attention_values(model, form, 2.0),
                MixerSpec::CrossAttention { form, .. } => attention_values(model, form, 0.0),
                // in_proj's output, what is convolved, step sizes, what is scanned.
                MixerSpec::Mamba => 5.0 * inner,
                MixerSpec::GatedMemoryUnit { d_memory, .. } => 2.0 * d_memory as f64,
            };
            // Gates, ups and their product.
            mixer.max(3.0 * mlp)
        };
        let largest = model.layers.iter().map(layer).fold(0.0, f64::max);
        let memory = |layer: &LayerSpec| match layer.mixer {
            MixerSpec::GatedMemoryUnit { d_memory, .. } => d_memory as f64,
            _ => 0.0,
        };
        let memory = model.layers.iter().map(memory).fold(0.0, f64::max);
        // The stream before and after a branch, its norm and the branch.
        let stream = 2.0 * FP32_BYTES as f64 * width + 2.0 * element as f64 * width;
        let tokens = (batch * prompt.min((PROMPT_PART_TOKENS / batch).max(1))) as f64;
        Self {
            weights: (ParamCount::of(model).total() * element) as f64,
            caches: (batch as u64 * kept) as f64 + angles,
            activations: tokens * (stream + element as f64 * (largest + memory)) + WORKSPACE,
        }
    }

    /// The sum.
    pub fn total(&self) -> f64 {
        self.weights + self.caches + self.activations
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{ModelShape, lookup};
    use super::*;

    #[test]
    fn a_step_reads_the_weights_and_the_context_of_each_reader() {
        let of = |name: &str| {
            let architecture = lookup(name).expect("known");
            let model = ModelConfig::new(architecture, ModelShape::published(architecture, 16)).expect("valid");
            DecodeTraffic::of(&model, 2)
        };
        // Sixteen layers of 4 key-value heads of 128, in bf16; a hybrid has one full layer and three that read it.
        assert_eq!(of("transformer").per_context_token, 16.0 * 2.0 * 512.0 * 2.0);
        let sambay = of("sambay");
        assert_eq!(sambay.per_context_token, 4.0 * 2.0 * 512.0 * 2.0);
        // Four windows of 128 of it; five scans of twice 1984 channels, states of 16 fp32 and tails of 3 bf16, both ways.
        let width = ModelShape::published(lookup("sambay").expect("known"), 16).d_model as f64;
        let states = 5.0 * 2.0 * 2.0 * width * (16.0 * 4.0 + 3.0 * 2.0);
        let own = 4.0 * 128.0 * 2048.0 + states;
        let step = sambay.of_step(3.0, 1000.0) - sambay.weights;
        assert!((step - 3.0 * (4.0 * 2048.0 * 1000.0 + own)).abs() < 1.0, "{step}");
    }

    #[test]
    fn decode_cache_grows_with_one_layer_in_a_hybrid() {
        let sambay = lookup("sambay").expect("known");
        let model = ModelConfig::new(sambay, ModelShape::published(sambay, 16)).expect("valid");
        let cache = DecodeCache::of(&model, 2);
        assert_eq!(cache.bytes_per_token, 2 * 4 * 128 * 2);
        assert_eq!(cache.full_kv_reads, 4);
    }

    #[test]
    fn a_prompt_needs_memory_for_one_part_of_it() {
        let sambay = lookup("sambay").expect("known");
        let model = ModelConfig::new(sambay, ModelShape::published(sambay, 16)).expect("valid");
        let of = |batch, prompt| DecodeMemory::of(&model, 2, batch, 32_768, prompt);
        assert_eq!(of(1, 4096).activations, of(1, 32_000).activations);
        assert_eq!(of(16, 2000).activations, of(16, 256).activations);
        assert!(of(1, 100).activations < of(1, 4096).activations / 4.0);
        // Two streams, a norm and a branch, gates and ups and their product, one memory.
        let width = model.shape.d_model as f64;
        let per_token = 8.0 * width + 2.0 * (2.0 + 3.0 * 4.0 + 2.0) * width;
        assert_eq!(of(1, 4096).activations, 4096.0 * per_token + (32 << 20) as f64);
    }
}
