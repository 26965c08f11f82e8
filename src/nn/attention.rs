//! Self- and cross-attention layers, plain or differential.

use super::layers::rotate;
use super::{LayerContext, Linear, Mixer, ParamStore, RmsNorm, RotaryEmbedding};
use crate::arch::{AttentionForm, ModelShape};
use crate::ops::Backend;
use crate::ops::attention::{AttentionOptions, attention, differential_attention};
use tch::Tensor;

/// Differential attention between a layer's projections: λ and the norm of the difference.
#[derive(Debug)]
pub struct DifferentialHeads {
    q1: Tensor,
    k1: Tensor,
    q2: Tensor,
    k2: Tensor,
    norm: RmsNorm,
    /// λ0 = 0.8 − 0.6 exp(−0.3 i), i the layer.
    initial: f64,
}

impl DifferentialHeads {
    /// Parameters under `name`, of layer `layer`.
    pub fn new(params: &ParamStore, name: &str, layer: usize) -> Self {
        let get = |part: &str| params.get(&format!("{name}.{part}"));
        Self {
            q1: get("lambda_q1"),
            k1: get("lambda_k1"),
            q2: get("lambda_q2"),
            k2: get("lambda_k2"),
            norm: RmsNorm::new(params, &format!("{name}.subln")),
            initial: 0.8 - 0.6 * (-0.3 * layer as f64).exp(),
        }
    }

    /// λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ0, one scalar for the layer.
    fn lambda(&self) -> Tensor {
        self.q1.dot(&self.k1).exp() - self.q2.dot(&self.k2).exp() + self.initial
    }

    /// Heads [b, t, h, e] from queries, keys and values of that layout.
    pub fn run(&self, qkv: [&Tensor; 3], options: AttentionOptions, backend: Backend) -> Tensor {
        let [q, k, v] = qkv;
        let pairs = differential_attention(q, k, v, &self.lambda(), options, backend);
        (self.norm.forward(&pairs) * (1.0 - self.initial)).to_kind(q.kind()).reshape(q.size())
    }
}

/// Where keys and values come from.
#[derive(Debug)]
enum KeyValues {
    Own {
        k_proj: Linear,
        v_proj: Linear,
    },
    /// Of the layer with this index.
    Borrowed(usize),
}

/// What an attention layer leaves for later ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionPublishes {
    pub key_values: bool,
    /// Concatenated heads, as memory.
    pub heads: bool,
}

/// One attention layer.
#[derive(Debug)]
pub struct Attention {
    layer: usize,
    q_proj: Linear,
    key_values: KeyValues,
    differential: Option<DifferentialHeads>,
    proj: Linear,
    rope: Option<RotaryEmbedding>,
    head_dim: i64,
    options: AttentionOptions,
    publishes: AttentionPublishes,
}

/// What kind of attention a layer has; borrowed keys have no window.
#[derive(Debug)]
pub struct AttentionSpec {
    pub layer: usize,
    /// Layer whose keys and values are read; `None` for its own.
    pub kv_layer: Option<usize>,
    pub form: AttentionForm,
    pub rope: Option<RotaryEmbedding>,
    pub options: AttentionOptions,
    pub publishes: AttentionPublishes,
}

impl Attention {
    /// The layer with parameters under `name`.
    pub fn new(params: &ParamStore, name: &str, shape: &ModelShape, spec: AttentionSpec) -> Self {
        let linear = |part: &str| Linear::new(params, &format!("{name}.{part}"));
        Self {
            layer: spec.layer,
            q_proj: linear("q_proj"),
            key_values: match spec.kv_layer {
                None => KeyValues::Own { k_proj: linear("k_proj"), v_proj: linear("v_proj") },
                Some(layer) => KeyValues::Borrowed(layer),
            },
            differential: match spec.form {
                AttentionForm::Softmax => None,
                AttentionForm::Differential => Some(DifferentialHeads::new(params, &format!("{name}.da"), spec.layer)),
            },
            proj: linear("proj"),
            rope: spec.rope,
            head_dim: shape.head_dim as i64,
            options: spec.options,
            publishes: spec.publishes,
        }
    }

    /// [b, t, heads · e] → [b, t, heads, e], rotated where this layer rotates.
    fn heads(&self, projected: &Tensor, tables: Option<&(Tensor, Tensor)>) -> Tensor {
        let (batch, time, width) = projected.size3().expect("a projection is [b, t, d]");
        let heads = projected.view([batch, time, width / self.head_dim, self.head_dim]);
        tables.map_or(heads.shallow_clone(), |(cos, sin)| rotate(&heads, cos, sin))
    }
}

impl Mixer for Attention {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        let (batch, time, _) = x_btw.size3().expect("x is [b, t, w]");
        let tables = self.rope.as_ref().map(|rope| rope.tables(time, x_btw.device()));
        let q = self.heads(&self.q_proj.forward(x_btw), tables.as_ref());
        let (k, v) = match &self.key_values {
            KeyValues::Own { k_proj, v_proj } => {
                (self.heads(&k_proj.forward(x_btw), tables.as_ref()), self.heads(&v_proj.forward(x_btw), None))
            }
            KeyValues::Borrowed(layer) => {
                let (k, v) = &context.key_values[layer];
                (k.shallow_clone(), v.shallow_clone())
            }
        };
        let out = match &self.differential {
            None => attention(&q, &k, &v, self.options, context.backend),
            Some(differential) => differential.run([&q, &k, &v], self.options, context.backend),
        };
        let heads = out.reshape([batch, time, -1]);
        if self.publishes.key_values {
            context.key_values.insert(self.layer, (k, v));
        }
        if self.publishes.heads {
            context.memories.insert(self.layer, heads.shallow_clone());
        }
        self.proj.forward(&heads)
    }
}
