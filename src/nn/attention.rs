//! Self- and cross-attention layers, plain or differential.

use super::{LayerContext, Linear, Mixer, Norm, ParamStore, RotaryEmbedding};
use crate::arch::{AttentionForm, ModelShape, NormKind};
use crate::ops::Backend;
use crate::ops::attention::{AttentionOptions, Difference, attention, differential_attention};
use crate::ops::linear::{Weight, linear};
use crate::ops::rope::{Heads, RopeTables, split_heads};
use tch::Tensor;

/// Differential attention between a layer's projections: λ and the norm of the difference.
#[derive(Debug)]
pub struct DifferentialHeads {
    q1: Tensor,
    k1: Tensor,
    q2: Tensor,
    k2: Tensor,
    norm: Norm,
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
            norm: Norm::new(params, &format!("{name}.subln"), NormKind::Rms),
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
        let difference = Difference { lambda: &self.lambda(), gain: self.norm.gain(), scale: 1.0 - self.initial };
        differential_attention(q, k, v, difference, options, backend)
    }
}

/// Projections of a layer with keys and values of its own.
#[derive(Debug)]
enum OwnProjections {
    /// Without biases: one product for all three.
    Joint(Weight),
    Separate {
        q_proj: Linear,
        k_proj: Linear,
        v_proj: Linear,
    },
}

/// Where queries, keys and values come from.
#[derive(Debug)]
enum Projections {
    Own(OwnProjections),
    /// Keys and values of the layer with this index.
    Borrowing {
        q_proj: Linear,
        layer: usize,
    },
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
    projections: Projections,
    differential: Option<DifferentialHeads>,
    proj: Linear,
    rope: Option<RotaryEmbedding>,
    heads: Heads,
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
        let biased = params.find(&format!("{name}.q_proj.bias")).is_some();
        let projections = match spec.kv_layer {
            Some(layer) => Projections::Borrowing { q_proj: linear("q_proj"), layer },
            None if biased => Projections::Own(OwnProjections::Separate {
                q_proj: linear("q_proj"),
                k_proj: linear("k_proj"),
                v_proj: linear("v_proj"),
            }),
            None => {
                let names = ["q_proj", "k_proj", "v_proj"].map(|part| format!("{name}.{part}"));
                Projections::Own(OwnProjections::Joint(params.weight(&names)))
            }
        };
        let [queries, keys, width] = [shape.n_heads, shape.n_kv_heads, shape.head_dim].map(|n| n as i64);
        Self {
            layer: spec.layer,
            projections,
            differential: match spec.form {
                AttentionForm::Softmax => None,
                AttentionForm::Differential => Some(DifferentialHeads::new(params, &format!("{name}.da"), spec.layer)),
            },
            proj: linear("proj"),
            rope: spec.rope,
            heads: Heads { queries, keys, width },
            options: spec.options,
            publishes: spec.publishes,
        }
    }

    /// Queries, keys and values [b, t, heads, e], rotated where this layer rotates.
    fn project(&self, x_btw: &Tensor, context: &LayerContext) -> [Tensor; 3] {
        let backend = context.backend;
        let tables = self.rope.as_ref().map(|rope| rope.tables(x_btw.size()[1], x_btw.device()));
        let only = |projected: Tensor, count: i64, tables: Option<&RopeTables>| {
            let heads = Heads { queries: count, keys: 0, ..self.heads };
            split_heads(&projected, heads, tables, backend).pop().expect("queries")
        };
        let (tables, Heads { queries, keys, .. }) = (tables.as_ref(), self.heads);
        match &self.projections {
            Projections::Own(OwnProjections::Joint(weight)) => {
                let packed = linear(x_btw, weight, backend);
                split_heads(&packed, self.heads, tables, backend).try_into().expect("queries, keys and values")
            }
            Projections::Own(OwnProjections::Separate { q_proj, k_proj, v_proj }) => [
                only(q_proj.forward(x_btw, backend), queries, tables),
                only(k_proj.forward(x_btw, backend), keys, tables),
                only(v_proj.forward(x_btw, backend), keys, None),
            ],
            Projections::Borrowing { q_proj, layer } => {
                let (k, v) = &context.key_values[layer];
                [only(q_proj.forward(x_btw, backend), queries, tables), k.shallow_clone(), v.shallow_clone()]
            }
        }
    }
}

impl Mixer for Attention {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        let (batch, time, _) = x_btw.size3().expect("x is [b, t, w]");
        let [q, k, v] = self.project(x_btw, context);
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
        self.proj.forward(&heads, context.backend)
    }
}
