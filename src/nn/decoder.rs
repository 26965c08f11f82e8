//! The whole model: embedding, blocks on a residual stream, readout.

use super::attention::{AttentionPublishes, AttentionSpec};
use super::layers::activation;
use super::{
    Attention, GatedMemoryUnit, LayerContext, Mamba, Mixer, Norm, ParamStore, Precision, RopeTable, RotaryEmbedding,
    SwiGlu,
};
use crate::arch::{MemorySource, MixerSpec, ModelConfig, Published};
use crate::ops::Backend;
use crate::ops::attention::AttentionOptions;
use crate::scaling::ModelScaling;
use tch::{Kind, Tensor};

/// How a model computes.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions {
    pub backend: Backend,
    pub precision: Precision,
    pub rope_table: RopeTable,
}

/// What a forward pass shows of its inside.
#[derive(Debug)]
pub struct Trace {
    /// Residual stream after each block, [b, t, w].
    pub blocks: Vec<Tensor>,
    pub context: LayerContext,
}

#[derive(Debug)]
struct Block {
    layer: usize,
    norm_1: Norm,
    mixer: Box<dyn Mixer>,
    norm_2: Norm,
    mlp: SwiGlu,
    publishes_mlp: bool,
}

/// A decoder language model.
#[derive(Debug)]
pub struct DecoderLm {
    embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    readout: Tensor,
    logit_scale: f64,
    residual_scale: f64,
    options: ForwardOptions,
}

impl DecoderLm {
    /// The model that `model` describes over the parameters of `params`.
    pub fn new(model: &ModelConfig, scaling: &ModelScaling, params: &ParamStore, options: ForwardOptions) -> Self {
        let blocks = (0..model.layers.len()).map(|layer| Block::new(model, scaling, params, options, layer)).collect();
        let embedding = params.get("transformer.wte.weight");
        Self {
            blocks,
            final_norm: Norm::new(params, "transformer.ln_f", model.shape.norm),
            readout: params.find("lm_head.weight").unwrap_or_else(|| embedding.shallow_clone()),
            embedding,
            logit_scale: scaling.logit_scale(),
            residual_scale: scaling.residual_scale(),
            options,
        }
    }

    /// Logits [b, t, v] (fp32; rounded to bf16 first under that precision) of token ids [b, t].
    pub fn forward(&self, ids_bt: &Tensor) -> Tensor {
        self.run(ids_bt, |_| {}).0
    }

    /// As [`Self::forward`], with what happens inside.
    pub fn forward_traced(&self, ids_bt: &Tensor) -> (Tensor, Trace) {
        let mut blocks = Vec::new();
        let (logits, context) = self.run(ids_bt, |x| blocks.push(x.shallow_clone()));
        (logits, Trace { blocks, context })
    }

    /// Cross-entropy of every position, nats, [b, t].
    pub fn token_losses(&self, ids_bt: &Tensor, targets_bt: &Tensor) -> Tensor {
        let logits = self.forward(ids_bt);
        let vocab = *logits.size().last().expect("logits are [b, t, v]");
        logits
            .view([-1, vocab])
            .cross_entropy_loss(&targets_bt.reshape([-1]), None::<&Tensor>, tch::Reduction::None, -100, 0.0)
            .view_as(targets_bt)
    }

    /// Mean cross-entropy, nats per token.
    pub fn loss(&self, ids_bt: &Tensor, targets_bt: &Tensor) -> Tensor {
        self.token_losses(ids_bt, targets_bt).mean(Kind::Float)
    }

    fn run(&self, ids_bt: &Tensor, mut after_block: impl FnMut(&Tensor)) -> (Tensor, LayerContext) {
        let precision = self.options.precision;
        let mut context = LayerContext::new(self.options.backend);
        let mut x = Tensor::embedding(&self.embedding, ids_bt, -1, false, false);
        for block in &self.blocks {
            let mixed = block.mixer.forward(&activation(block.norm_1.forward(&x), precision), &mut context);
            x = &x + self.branch(mixed);
            let (out, up) = block.mlp.forward(&activation(block.norm_2.forward(&x), precision));
            if block.publishes_mlp {
                context.memories.insert(block.layer, up);
            }
            x = &x + self.branch(out);
            after_block(&x);
        }
        let hidden = activation(self.final_norm.forward(&x) * self.logit_scale, precision);
        let logits = hidden.linear(&self.readout.to_kind(hidden.kind()), None::<&Tensor>);
        (logits.to_kind(Kind::Float), context)
    }

    fn branch(&self, out: Tensor) -> Tensor {
        if self.residual_scale == 1.0 { out } else { out * self.residual_scale }
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
