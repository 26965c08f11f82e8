//! Attention of one query of each sequence over a cache of keys and values, plain and differential.
//!
//! A cache is [b, k, s, e]. Position p lies in slot p mod s: all positions have a slot of their own where s is the capacity;
//! in a window's ring a new one takes that of the position which has just left the window. A query at position p
//! therefore sees slots 0 to p, of a full ring every slot.

use super::Backend;
use super::attention::{Difference, combine_maps};
use super::cuda::{Sources, arguments, ceil, kernel_sources, run_early, serves};
use super::rope::{Heads, RopeTables, split_heads};
use crate::bridge::nvrtc::{KernelSource, Shape};
use tch::{Device, Kind, Tensor};

const STORE: Sources = kernel_sources!("cache_store");

/// Keys and values, each [b, k, s, e].
#[derive(Debug)]
pub struct KvCache {
    pub k_bkse: Tensor,
    pub v_bkse: Tensor,
    /// Zero between calls, [b, k]: where a kernel's blocks count themselves.
    done: Tensor,
}

impl KvCache {
    /// Room for `slots` positions: [batch, key-value heads, slots, width of a head].
    pub fn empty([batch, heads, slots, width]: [i64; 4], (kind, device): (Kind, Device)) -> Self {
        let zeros = || Tensor::zeros([batch, heads, slots, width], (kind, device));
        let done = Tensor::zeros([batch, heads], (Kind::Int, device));
        Self { k_bkse: zeros(), v_bkse: zeros(), done }
    }

    /// The part of some sequences, in the same memory.
    pub fn rows(&self, first: i64, count: i64) -> Self {
        let part = |t: &Tensor| t.narrow(0, first, count);
        Self { k_bkse: part(&self.k_bkse), v_bkse: part(&self.v_bkse), done: part(&self.done) }
    }

    fn slots(&self) -> i64 {
        self.k_bkse.size()[2]
    }

    /// Stores positions `start`.. of keys and values [b, t, k, e]; of more than there are slots, the last ones.
    pub fn store(&self, k_btke: &Tensor, v_btke: &Tensor, start: i64) {
        let (slots, time) = (self.slots(), k_btke.size()[1]);
        let mut from = (time - slots).max(0);
        while from < time {
            let slot = (start + from) % slots;
            let count = (slots - slot).min(time - from);
            for (cache, new) in [(&self.k_bkse, k_btke), (&self.v_bkse, v_btke)] {
                cache.narrow(2, slot, count).copy_(&new.narrow(1, from, count).transpose(1, 2));
            }
            from += count;
        }
    }

    /// Positions `from`..`to`, which it holds, in order, [b, t, k, e]: views where they lie side by side.
    pub fn read(&self, from: i64, to: i64) -> [Tensor; 2] {
        let slots = self.slots();
        let first = from % slots;
        let before_wrap = (slots - first).min(to - from);
        [&self.k_bkse, &self.v_bkse].map(|cache| {
            let part = |slot: i64, count: i64| cache.narrow(2, slot, count).transpose(1, 2);
            match to - from - before_wrap {
                0 => part(first, before_wrap),
                after => Tensor::cat(&[part(first, before_wrap), part(0, after)], 1),
            }
        })
    }

    /// Stores one position [b, k, e] of each sequence.
    fn store_each(&self, k_bke: &Tensor, v_bke: &Tensor, positions_b: &Tensor) {
        let (batch, heads, slots, width) = self.k_bkse.size4().expect("a cache is [b, k, s, e]");
        let slot = positions_b.remainder(slots).view([batch, 1, 1, 1]).expand([batch, heads, 1, width], false);
        for (cache, new) in [(&self.k_bkse, k_bke), (&self.v_bkse, v_bke)] {
            let _ = cache.shallow_clone().scatter_(2, &slot, &new.unsqueeze(2));
        }
    }

    /// Elements between sequences, heads and slots.
    fn strides(&self) -> [i64; 3] {
        let stride = self.k_bkse.stride();
        assert!(stride == self.v_bkse.stride() && stride[3] == 1, "keys and values of a cache lie alike");
        [stride[0], stride[1], stride[2]]
    }
}

/// Where the tokens of a step stand.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// Of each sequence's token, [b].
    pub at: &'a Tensor,
    /// Above all of them.
    pub bound: i64,
}

/// Queries [b, h, e] of a step from its projection [b, (h + 2k) e]. Queries and keys are rotated when there are tables (of
/// all positions), and keys and values stored in `cache`; with queries alone (k = 0), nothing is.
pub fn take_step(
    packed: &Tensor,
    heads: Heads,
    tables: Option<&RopeTables>,
    positions: Positions,
    cache: &KvCache,
    backend: Backend,
) -> Tensor {
    let (batch, _) = packed.size2().expect("a step's projection is [b, d]");
    if serves(backend, packed) {
        let Heads { queries, keys, width } = heads;
        let q = Tensor::empty([batch, queries, width], (packed.kind(), packed.device()));
        let [sequence, head, slot] = cache.strides();
        let (cos, sin) = tables.map_or((None, None), |(cos, sin)| (Some(cos), Some(sin)));
        let shape = Shape::plane((ceil((queries + 2 * keys) * (width / 2), 128), batch), (128, 1));
        let arguments = arguments![
            packed,
            cos,
            sin,
            positions.at,
            &q,
            &cache.k_bkse,
            &cache.v_bkse,
            packed.stride()[0],
            sequence,
            head,
            slot,
            cache.slots() as i32,
            queries as i32,
            keys as i32,
            width as i32
        ];
        run_early(STORE.of(packed.kind()), "cache_store", packed.device(), shape, &arguments);
        return q;
    }
    // Sequences take the place of time, so that each has its own angles.
    let own = tables.map(|(cos, sin)| (cos.index_select(0, positions.at), sin.index_select(0, positions.at)));
    let mut parts =
        split_heads(&packed.unsqueeze(0), heads, own.as_ref(), backend).into_iter().map(|t| t.squeeze_dim(0));
    let q = parts.next().expect("queries");
    if let (Some(k), Some(v)) = (parts.next(), parts.next()) {
        cache.store_each(&k, &v, positions.at);
    }
    q
}

/// softmax(q kᵀ scale) v over the slots that each query sees, [b, h, e].
pub fn cached_attention(q_bhe: &Tensor, cache: &KvCache, positions: Positions, scale: f64, backend: Backend) -> Tensor {
    if let Some(source) = kernel_of(q_bhe, cache, 1, backend) {
        return on_cuda(source, q_bhe, cache, positions, scale, 1);
    }
    let view = |t: &Tensor| t.shallow_clone();
    Half { q: view(q_bhe), k: view(&cache.k_bkse) }.weights(positions, scale).times(&cache.v_bkse)
}

/// Differential attention over the cache; see [`super::attention::differential_attention`].
pub fn cached_differential_attention(
    q_bhe: &Tensor,
    cache: &KvCache,
    positions: Positions,
    scale: f64,
    difference: Difference,
    backend: Backend,
) -> Tensor {
    let maps = match kernel_of(q_bhe, cache, 2, backend) {
        Some(source) => on_cuda(source, q_bhe, cache, positions, scale, 2),
        None => {
            let every_other = |t: &Tensor, first: i64| t.slice(1, first, None, 2);
            let maps = [0, 1].map(|map| {
                let half = Half { q: every_other(q_bhe, map), k: every_other(&cache.k_bkse, map) };
                let weights = half.weights(positions, scale);
                [0, 1].map(|value| weights.times(&every_other(&cache.v_bkse, value)))
            });
            Tensor::cat(maps.as_flattened(), 1)
        }
    };
    combine_maps(&maps.unsqueeze(1), difference, backend).squeeze_dim(1)
}

/// Queries [b, h, e] and the keys [b, k, s, e] that they are compared with.
struct Half {
    q: Tensor,
    k: Tensor,
}

/// Softmax weights [b, k, g, s].
struct Weights(Tensor);

impl Half {
    fn weights(&self, positions: Positions, scale: f64) -> Weights {
        let (batch, heads, slots, width) = self.k.size4().expect("keys are [b, k, s, e]");
        let seen = slots.min(positions.bound);
        let q = self.q.reshape([batch, heads, -1, width]);
        let scores = (q.matmul(&self.k.narrow(2, 0, seen).transpose(2, 3)) * scale).to_kind(Kind::Float);
        let slot = Tensor::arange(seen, (Kind::Int64, q.device()));
        let hidden = slot.unsqueeze(0).gt_tensor(&positions.at.unsqueeze(1)).view([batch, 1, 1, seen]);
        Weights(scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float))
    }
}

impl Weights {
    /// [b, h, e].
    fn times(&self, v_bkse: &Tensor) -> Tensor {
        let seen = self.0.size()[3];
        self.0.to_kind(v_bkse.kind()).matmul(&v_bkse.narrow(2, 0, seen)).flatten(1, 2)
    }
}

/// Kernels by width of a head and number of value heads that a query meets.
macro_rules! attention_source {
    ($width:literal, $values:literal) => {
        KernelSource {
            name: concat!("cached_attention_", $width, "_", $values),
            text: concat!(
                "#define WIDTH ",
                $width,
                "\n#define VALUES ",
                $values,
                "\n",
                include_str!("cuda/common.cuh"),
                include_str!("cuda/cached_attention.cu")
            ),
        }
    };
}

static ATTENTION: [[KernelSource; 2]; 2] =
    [[attention_source!(64, 1), attention_source!(64, 2)], [attention_source!(128, 1), attention_source!(128, 2)]];

/// As in the source: warps of a block, positions of a warp's turn, rows of queries, turns in flight.
const WARPS: i64 = 4;
const KEYS: i64 = 16;
const QUERIES: i64 = 16;
const STAGES: i64 = 3;
/// Processors of a large GPU, each of which has room for two blocks, or for one of differential attention.
const PROCESSORS: i64 = 132;

/// The kernel that serves these, if one does: bf16, heads of 64 or 128.
fn kernel_of(q_bhe: &Tensor, cache: &KvCache, values: usize, backend: Backend) -> Option<&'static KernelSource> {
    let width = match q_bhe.size()[2] {
        64 => 0,
        128 => 1,
        _ => return None,
    };
    let group = q_bhe.size()[1] / cache.k_bkse.size()[1];
    (serves(backend, q_bhe) && q_bhe.kind() == Kind::BFloat16 && group <= QUERIES)
        .then(|| &ATTENTION[width][values - 1])
}

/// [b, `values` h, e]: with two value heads to a query, the four maps of differential attention.
fn on_cuda(
    source: &'static KernelSource,
    q_bhe: &Tensor,
    cache: &KvCache,
    positions: Positions,
    scale: f64,
    values: i64,
) -> Tensor {
    let (batch, queries, width) = q_bhe.size3().expect("queries are [b, h, e]");
    let (keys, slots) = (cache.k_bkse.size()[1], cache.slots());
    // All blocks at once: a few more than there is room for would take as long again.
    let parts = (2 / values * PROCESSORS / (batch * keys)).clamp(1, ceil(slots, WARPS * KEYS));
    let device = q_bhe.device();
    let out = Tensor::empty([batch, values * queries, width], (q_bhe.kind(), device));
    let rows = if parts == 1 { 0 } else { batch * keys * parts * QUERIES };
    let partial = Tensor::empty([rows, values * width], (Kind::Float, device));
    let softmaxes = Tensor::empty([rows, 2], (Kind::Float, device));
    let [sequence, head, slot] = cache.strides();
    let shape = Shape {
        grid: (parts, keys, batch),
        block: (32 * WARPS, 1),
        shared: WARPS * STAGES * KEYS * width * 2 * (1 + values),
    };
    let arguments = arguments![
        q_bhe,
        &cache.k_bkse,
        &cache.v_bkse,
        positions.at,
        &out,
        &partial,
        &softmaxes,
        &cache.done,
        sequence,
        head,
        slot,
        slots as i32,
        queries as i32,
        (queries / keys) as i32,
        scale as f32
    ];
    run_early(source, "cached_attention", device, shape, &arguments);
    out
}
