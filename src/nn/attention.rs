//! Self- and cross-attention layers, plain or differential.

use super::{Extension, LayerContext, LayerState, Linear, Mixer, Norm, ParamStore, Place, RotaryEmbedding, Wanted};
use crate::arch::{AttentionForm, ModelShape, NormKind};
use crate::ops::Backend;
use crate::ops::attention::{AttentionOptions, Difference, attention, differential_attention};
use crate::ops::cached_attention::{KvCache, Positions, cached_attention, cached_differential_attention, take_step};
use crate::ops::linear::{Weight, linear, linear_of_norm};
use crate::ops::norm::Normed;
use crate::ops::rope::{Heads, RopeTables, split_heads};
use tch::{Kind, Tensor};

/// Differential attention between a layer's projections: λ and the norm of the difference.
#[derive(Debug)]
pub struct DifferentialHeads {
    lambda: Lambda,
    norm: Norm,
    /// λ0 = 0.8 − 0.6 exp(−0.3 i), i the layer.
    initial: f64,
}

impl DifferentialHeads {
    /// Parameters under `name`, of layer `layer`.
    pub fn new(params: &ParamStore, name: &str, layer: usize) -> Self {
        let vectors = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
        let vectors = vectors.map(|part| params.get(&format!("{name}.{part}")));
        let initial = 0.8 - 0.6 * (-0.3 * layer as f64).exp();
        let lambda = match vectors.iter().any(Tensor::requires_grad) {
            true => Lambda::Trained(vectors),
            false => Lambda::Fixed(lambda_of(&vectors, initial)),
        };
        Self { lambda, norm: Norm::new(params, &format!("{name}.subln"), NormKind::Rms), initial }
    }

    fn lambda(&self) -> Tensor {
        match &self.lambda {
            Lambda::Trained(vectors) => lambda_of(vectors, self.initial),
            Lambda::Fixed(lambda) => lambda.shallow_clone(),
        }
    }

    /// Heads [b, t, h, e] from queries, keys and values of that layout.
    pub fn run(&self, qkv: [&Tensor; 3], options: AttentionOptions, backend: Backend) -> Tensor {
        let [q, k, v] = qkv;
        differential_attention(q, k, v, self.difference(&self.lambda()), options, backend)
    }

    /// Heads [b, h, e] of queries of that layout over a cache.
    pub fn run_cached(
        &self,
        q: &Tensor,
        cache: &KvCache,
        positions: Positions,
        scale: f64,
        backend: Backend,
    ) -> Tensor {
        cached_differential_attention(q, cache, positions, scale, self.difference(&self.lambda()), backend)
    }

    fn difference<'a>(&'a self, lambda: &'a Tensor) -> Difference<'a> {
        Difference { lambda, gain: self.norm.gain(), scale: 1.0 - self.initial }
    }
}

/// The weight of the second map: of the vectors that are trained for it, or worked out once.
#[derive(Debug)]
enum Lambda {
    /// λ_q1, λ_k1, λ_q2, λ_k2.
    Trained([Tensor; 4]),
    Fixed(Tensor),
}

/// λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ0, one scalar for the layer.
fn lambda_of([q1, k1, q2, k2]: &[Tensor; 4], initial: f64) -> Tensor {
    q1.dot(k1).exp() - q2.dot(k2).exp() + initial
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

    /// Queries and, of a layer with its own, keys and values, [b, t, heads, e], rotated where there are tables.
    fn project(
        &self,
        x_btw: &Tensor,
        tables: Option<&RopeTables>,
        backend: Backend,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        let only = |projected: Tensor, count: i64, tables: Option<&RopeTables>| {
            let heads = Heads { queries: count, keys: 0, ..self.heads };
            split_heads(&projected, heads, tables, backend).pop().expect("queries")
        };
        let Heads { queries, keys, .. } = self.heads;
        match &self.projections {
            Projections::Own(OwnProjections::Joint(weight)) => {
                let packed = linear(x_btw, weight, backend);
                let [q, k, v] =
                    split_heads(&packed, self.heads, tables, backend).try_into().expect("queries, keys and values");
                (q, Some((k, v)))
            }
            Projections::Own(OwnProjections::Separate { q_proj, k_proj, v_proj }) => {
                let k = only(k_proj.forward(x_btw, backend), keys, tables);
                let v = only(v_proj.forward(x_btw, backend), keys, None);
                (only(q_proj.forward(x_btw, backend), queries, tables), Some((k, v)))
            }
            Projections::Borrowing { q_proj, .. } => (only(q_proj.forward(x_btw, backend), queries, tables), None),
        }
    }

    /// The layer whose keys and values are read.
    fn kv_layer(&self) -> usize {
        match self.projections {
            Projections::Own(_) => self.layer,
            Projections::Borrowing { layer, .. } => layer,
        }
    }

    /// Heads [b, t, h, e].
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, backend: Backend) -> Tensor {
        match &self.differential {
            None => attention(q, k, v, self.options, backend),
            Some(differential) => differential.run([q, k, v], self.options, backend),
        }
    }

    /// Joins the heads [b, t, h, e], publishes them where readers want them, and projects them.
    fn finish(&self, heads: &Tensor, context: &mut LayerContext) -> Tensor {
        let (batch, time, ..) = heads.size4().expect("heads are [b, t, h, e]");
        let heads = heads.reshape([batch, time, -1]);
        if self.publishes.heads {
            context.memories.insert(self.layer, heads.shallow_clone());
        }
        self.proj.forward(&heads, context.backend)
    }

    /// Heads for the next tokens of prompts of which `start` have been seen.
    fn heads_of_prompt(&self, x_btw: &Tensor, start: i64, run: &mut Extension) -> Tensor {
        let (backend, time) = (run.context.backend, x_btw.size()[1]);
        let tables = self.rope.as_ref().and(run.rope).map(|(cos, sin)| {
            let part = |table: &Tensor| table.narrow(0, start, time);
            (part(cos), part(sin))
        });
        let (mut q, own) = self.project(x_btw, tables.as_ref(), backend);
        if run.wanted == Wanted::Last {
            q = q.narrow(1, time - 1, 1);
        }
        let cache = run.cache(self.kv_layer());
        let end = start + time;
        let [k, v] = match (own, self.options.window) {
            (None, _) => cache.read(0, end),
            (Some((k, v)), None) => {
                cache.store(&k, &v, start);
                if start == 0 { [k, v] } else { cache.read(0, end) }
            }
            (Some((k, v)), Some(window)) => {
                let seen = (window as i64 - 1).min(start);
                let [before_k, before_v] = cache.read(start - seen, start);
                // Joined before the new positions take the slots of old ones, of which these may be views.
                let all = [Tensor::cat(&[&before_k, &k], 1), Tensor::cat(&[&before_v, &v], 1)];
                cache.store(&k, &v, start);
                all
            }
        };
        self.attend(&q, &k, &v, backend)
    }

    /// Heads for one token of each sequence.
    fn heads_of_tokens(&self, x_b1w: &Normed, positions: Positions, run: &mut Extension) -> Tensor {
        let backend = run.context.backend;
        let packed = self.packed(x_b1w, backend).squeeze_dim(1);
        let tables = self.rope.as_ref().and(run.rope);
        let cache = run.cache(self.kv_layer());
        let keys = if let Projections::Own(_) = self.projections { self.heads.keys } else { 0 };
        let q = take_step(&packed, Heads { keys, ..self.heads }, tables, positions, cache, backend);
        let heads = match &self.differential {
            None => cached_attention(&q, cache, positions, self.options.scale, backend),
            Some(differential) => differential.run_cached(&q, cache, positions, self.options.scale, backend),
        };
        heads.unsqueeze(1)
    }

    /// Everything that is projected, side by side: queries and, of a layer with its own, keys and values.
    fn packed(&self, x: &Normed, backend: Backend) -> Tensor {
        match &self.projections {
            Projections::Own(OwnProjections::Joint(weight)) => linear_of_norm(x, weight, backend),
            Projections::Own(OwnProjections::Separate { q_proj, k_proj, v_proj }) => {
                let x = &x.tensor();
                Tensor::cat(&[q_proj, k_proj, v_proj].map(|proj| proj.forward(x, backend)), -1)
            }
            Projections::Borrowing { q_proj, .. } => q_proj.forward_norm(x, backend),
        }
    }
}

impl Mixer for Attention {
    fn forward(&self, x_btw: &Tensor, context: &mut LayerContext) -> Tensor {
        let tables = self.rope.as_ref().map(|rope| rope.tables(x_btw.size()[1], x_btw.device()));
        let (q, own) = self.project(x_btw, tables.as_ref(), context.backend);
        let (k, v) = own.unwrap_or_else(|| {
            let (k, v) = &context.key_values[&self.kv_layer()];
            (k.shallow_clone(), v.shallow_clone())
        });
        let heads = self.attend(&q, &k, &v, context.backend);
        if self.publishes.key_values {
            context.key_values.insert(self.layer, (k, v));
        }
        self.finish(&heads, context)
    }

    fn empty_state(&self, sizes: [i64; 2], kind: Kind) -> LayerState {
        let [batch, capacity] = sizes;
        match self.projections {
            Projections::Own(_) => {
                let slots = self.options.window.map_or(capacity, |window| capacity.min(window as i64));
                let size = [batch, self.heads.keys, slots, self.heads.width];
                LayerState::KeyValues(KvCache::empty(size, (kind, self.proj.device())))
            }
            Projections::Borrowing { .. } => LayerState::Nothing,
        }
    }

    fn extend(&self, x_btw: &Normed, run: &mut Extension) -> Tensor {
        let heads = match run.place {
            Place::Prompt { start } => self.heads_of_prompt(&x_btw.tensor(), start, run),
            Place::Token(positions) => self.heads_of_tokens(x_btw, positions, run),
        };
        self.finish(&heads, &mut run.context)
    }

    fn rotations(&self, capacity: i64) -> Option<RopeTables> {
        self.rope.as_ref().map(|rope| rope.tables(capacity, self.proj.device()))
    }
}
