//! The whole model: embedding, blocks on a residual stream, readout.

use super::attention::{AttentionPublishes, AttentionSpec};
use super::{
    Attention, Extension, GatedMemoryUnit, LayerContext, LayerState, Mamba, Mixer, Norm, ParamStore, Place, Precision,
    RopeTable, RotaryEmbedding, SwiGlu, Wanted,
};
use crate::arch::{MemorySource, MixerSpec, ModelConfig, Published};
use crate::ops::Backend;
use crate::ops::attention::AttentionOptions;
use crate::ops::boundary::boundary;
use crate::ops::embedding::embedding;
use crate::ops::linear::Weight;
use crate::ops::norm::{NormScales, Normed};
use crate::ops::readout::{logits, mean_loss, token_losses};
use crate::scaling::ModelScaling;
use std::sync::Arc;
use tch::{Device, Tensor};

/// How a model computes.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions {
    pub backend: Backend,
    pub precision: Precision,
    pub rope_table: RopeTable,
}

/// Somebody who wants to know how far a backward pass is.
pub trait BackwardWatch: Send + Sync {
    /// The pass has left block `block`: gradients of its parameters, and of those of later blocks, are complete.
    fn left(&self, block: usize);
}

/// What a forward pass shows of its inside.
#[derive(Debug)]
pub struct Trace {
    /// Residual stream after each block, [b, t, w].
    pub blocks: Vec<Tensor>,
    pub context: LayerContext,
}

#[derive(Debug)]
pub(super) struct Block {
    layer: usize,
    norm_1: Norm,
    pub(super) mixer: Box<dyn Mixer>,
    norm_2: Norm,
    mlp: SwiGlu,
    publishes_mlp: bool,
}

/// A decoder language model.
#[derive(Debug)]
pub struct DecoderLm {
    embedding: Weight,
    pub(super) blocks: Vec<Block>,
    final_norm: Norm,
    readout: Weight,
    logit_scale: f64,
    residual_scale: f64,
    pub(super) options: ForwardOptions,
}

impl DecoderLm {
    /// The model that `model` describes over the parameters of `params`.
    pub fn new(model: &ModelConfig, scaling: &ModelScaling, params: &ParamStore, options: ForwardOptions) -> Self {
        let blocks = (0..model.layers.len()).map(|layer| Block::new(model, scaling, params, options, layer)).collect();
        let table = "transformer.wte".to_owned();
        Self {
            blocks,
            final_norm: Norm::new(params, "transformer.ln_f", model.shape.norm),
            readout: params.weight(&[if model.shape.tie_embeddings { table.clone() } else { "lm_head".to_owned() }]),
            embedding: params.weight(&[table]),
            logit_scale: scaling.logit_scale(),
            residual_scale: scaling.residual_scale(),
            options,
        }
    }

    /// Logits [b, t, v] (fp32; rounded to bf16 first under that precision) of token ids [b, t].
    pub fn forward(&self, ids_bt: &Tensor) -> Tensor {
        self.logits(&self.hidden(ids_bt, |_| {}).0)
    }

    /// As [`Self::forward`], with what happens inside.
    pub fn forward_traced(&self, ids_bt: &Tensor) -> (Tensor, Trace) {
        let mut blocks = Vec::new();
        let (hidden, context) = self.hidden(ids_bt, |x| blocks.push(x.shallow_clone()));
        (self.logits(&hidden), Trace { blocks, context })
    }

    /// Cross-entropy of every position, nats, [b, t]; not for backward passes.
    pub fn token_losses(&self, ids_bt: &Tensor, targets_bt: &Tensor) -> Tensor {
        token_losses(&self.hidden(ids_bt, |_| {}).0, &self.readout, targets_bt, self.options.backend)
    }

    /// Mean cross-entropy in nats per token, times `share`, the part of a batch that these rows are. A backward pass must
    /// start at this scalar.
    pub fn loss(&self, ids_bt: &Tensor, targets_bt: &Tensor, share: f64) -> Tensor {
        self.watched_loss(ids_bt, targets_bt, share, None)
    }

    /// As [`Self::loss`]; `watch` is told of the blocks that the backward pass leaves.
    pub fn watched_loss(
        &self,
        ids_bt: &Tensor,
        targets_bt: &Tensor,
        share: f64,
        watch: Option<&Arc<dyn BackwardWatch>>,
    ) -> Tensor {
        let hidden = self.watched_hidden(ids_bt, |_| {}, watch).0;
        mean_loss(&hidden, &self.readout, targets_bt, share, self.options.backend)
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        logits(hidden, &self.readout, self.options.backend)
    }

    /// What the readout reads, [b, t, w]: the normed residual stream after the last block.
    fn hidden(&self, ids_bt: &Tensor, after_block: impl FnMut(&Tensor)) -> (Tensor, LayerContext) {
        self.watched_hidden(ids_bt, after_block, None)
    }

    /// Takes the tokens [b, t] through the layers on top of what `run` has of their sequences. With `logits_wanted`, logits
    /// [b, v] after the last of them; layers above the last one with a state see that token alone, or none.
    pub(super) fn extend<'a>(&'a self, ids_bt: &Tensor, run: &mut Extension, logits_wanted: bool) -> Option<Tensor> {
        let ForwardOptions { backend, precision, .. } = self.options;
        let kind = precision.kind();
        let time = ids_bt.size()[1];
        let keeps = |state: &LayerState| !matches!(state, LayerState::Nothing);
        let last_kept = run.states.iter().rposition(keeps).unwrap_or(0);
        let inner = NormScales { branch: self.residual_scale, output: 1.0 };
        let last_only = |t: &Tensor| t.narrow(1, t.size()[1] - 1, 1);
        let mut x = embedding(&self.embedding, ids_bt, backend);
        let one_token = matches!(run.place, Place::Token(_));
        let step = |norm: &'a Norm, x: &Tensor, branch: Option<&Tensor>| {
            if one_token {
                return norm.add_for_product(x, branch, inner, kind, backend);
            }
            let (x, n) = norm.add(x, branch, inner, kind, backend);
            (x, Normed::Made(n))
        };
        let mut n = step(&self.blocks.first()?.norm_1, &x, None).1;
        for (layer, block) in self.blocks.iter().enumerate() {
            run.wanted = if layer == last_kept { Wanted::Last } else { Wanted::All };
            let mixed = block.mixer.extend(&n, run);
            if layer == last_kept {
                if !logits_wanted {
                    return None;
                }
                x = last_only(&x);
                run.context.memories.values_mut().for_each(|memory| *memory = last_only(memory));
                if let Place::Prompt { start } = &mut run.place {
                    *start += time - 1;
                }
            }
            (x, n) = step(&block.norm_2, &x, Some(&mixed));
            let (out, up) = block.mlp.forward_norm(&n, block.publishes_mlp, backend);
            if let Some(up) = up {
                run.context.memories.insert(block.layer, up);
            }
            match self.blocks.get(layer + 1) {
                Some(next) => (x, n) = step(&next.norm_1, &x, Some(&out)),
                None => {
                    let scales = NormScales { output: self.logit_scale, ..inner };
                    let n = self.final_norm.add(&x, Some(&out), scales, kind, backend).1;
                    return Some(self.logits(&n).squeeze_dim(1));
                }
            }
        }
        None
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.readout.master().device()
    }

    fn watched_hidden(
        &self,
        ids_bt: &Tensor,
        mut after_block: impl FnMut(&Tensor),
        watch: Option<&Arc<dyn BackwardWatch>>,
    ) -> (Tensor, LayerContext) {
        let ForwardOptions { backend, precision, .. } = self.options;
        let kind = precision.kind();
        let mut context = LayerContext::new(backend);
        let inner = NormScales { branch: self.residual_scale, output: 1.0 };
        let last = NormScales { output: self.logit_scale, ..inner };
        let norms = self.blocks.iter().skip(1).map(|block| (&block.norm_1, inner));
        let norms = norms.chain(std::iter::once((&self.final_norm, last)));
        let x = embedding(&self.embedding, ids_bt, backend);
        let (mut x, mut n) = match self.blocks.first() {
            Some(block) => block.norm_1.add(&x, None, inner, kind, backend),
            None => self.final_norm.add(&x, None, last, kind, backend),
        };
        for (block, (next_norm, scales)) in self.blocks.iter().zip(norms) {
            if let Some(watch) = watch {
                let (watch, layer) = (watch.clone(), block.layer);
                (x, n) = boundary(&x, &n, move || watch.left(layer));
            }
            let mixed = block.mixer.forward(&n, &mut context);
            (x, n) = block.norm_2.add(&x, Some(&mixed), inner, kind, backend);
            let (out, up) = block.mlp.forward(&n, block.publishes_mlp, backend);
            if let Some(up) = up {
                context.memories.insert(block.layer, up);
            }
            (x, n) = next_norm.add(&x, Some(&out), scales, kind, backend);
            after_block(&x);
        }
        (n, context)
    }
}

impl Block {
    fn new(
        model: &ModelConfig,
        scaling: &ModelScaling,
        params: &ParamStore,
        options: ForwardOptions,
        layer: usize,
    ) -> Self {
        let shape = &model.shape;
        let spec = &model.layers[layer];
        let block = format!("transformer.h.{layer}");
        let name = format!("{block}.attn");
        let publishes = |state: Published| spec.publishes.contains(&state);
        let rotary = |wanted: bool| wanted.then(|| RotaryEmbedding::new(shape, options.rope_table));
        let attention = |kv_layer, window, form, rope| {
            let spec = AttentionSpec {
                layer,
                kv_layer,
                form,
                rope: rotary(rope),
                options: AttentionOptions { scale: scaling.attention_scale(shape.head_dim), window },
                publishes: AttentionPublishes {
                    key_values: publishes(Published::KeyValues),
                    heads: publishes(Published::Memory(MemorySource::AttentionHeads)),
                },
            };
            Attention::new(params, &name, shape, spec)
        };
        let mixer: Box<dyn Mixer> = match spec.mixer {
            MixerSpec::Attention { window, rope, form } => Box::new(attention(None, window, form, rope)),
            MixerSpec::CrossAttention { kv_layer, rope, form } => Box::new(attention(Some(kv_layer), None, form, rope)),
            MixerSpec::Mamba => {
                Box::new(Mamba::new(params, &name, layer, publishes(Published::Memory(MemorySource::Scan))))
            }
            MixerSpec::GatedMemoryUnit { memory_layer, .. } => {
                Box::new(GatedMemoryUnit::new(params, &name, memory_layer))
            }
        };
        Self {
            layer,
            norm_1: Norm::new(params, &format!("{block}.norm_1"), shape.norm),
            mixer,
            norm_2: Norm::new(params, &format!("{block}.norm_2"), shape.norm),
            mlp: SwiGlu::new(params, &format!("{block}.mlp")),
            publishes_mlp: publishes(Published::Memory(MemorySource::MlpUp)),
        }
    }
}
