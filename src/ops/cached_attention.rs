//! Attention of one query of each sequence over a cache of keys and values [b, k, s, e], plain and differential. A query
//! at position p sees slots 0 to p: of a window's ring that is every slot as soon as it is full.

use super::Backend;
use super::attention::{Difference, combine_maps};
use tch::{Kind, Tensor};

/// A cache and where its queries stand.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'a> {
    pub k_bkse: &'a Tensor,
    pub v_bkse: &'a Tensor,
    /// [b].
    pub positions: &'a Tensor,
    /// Above every position.
    pub bound: i64,
    /// Multiplies the products of queries and keys.
    pub scale: f64,
}

/// softmax(q kᵀ scale) v over the slots that each query sees, [b, h, e].
pub fn cached_attention(q_bhe: &Tensor, cached: Cached, _backend: Backend) -> Tensor {
    let maps = Maps::of(q_bhe, cached);
    maps.times(&q_bhe.size(), cached.v_bkse)
}

/// Differential attention over the cache; see [`super::attention::differential_attention`].
pub fn cached_differential_attention(
    q_bhe: &Tensor,
    cached: Cached,
    difference: Difference,
    backend: Backend,
) -> Tensor {
    let halves = |t: &Tensor| [0, 1].map(|first| t.slice(1, first, None, 2));
    let [queries, keys, values] = [q_bhe, cached.k_bkse, cached.v_bkse].map(halves);
    // The order in which the maps are stacked.
    let parts = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(map, half)| {
        let cached = Cached { k_bkse: &keys[map], v_bkse: &values[half], ..cached };
        cached_attention(&queries[map], cached, backend)
    });
    let maps = Tensor::cat(&parts, 1).unsqueeze(1);
    combine_maps(&maps, difference, backend).squeeze_dim(1)
}

/// Softmax weights [b, k, g, s].
struct Maps(Tensor);

impl Maps {
    fn of(q_bhe: &Tensor, cached: Cached) -> Self {
        let (batch, heads, slots, width) = cached.k_bkse.size4().expect("keys are [b, k, s, e]");
        let seen = slots.min(cached.bound);
        let q = q_bhe.reshape([batch, heads, -1, width]);
        let scores = (q.matmul(&cached.k_bkse.narrow(2, 0, seen).transpose(2, 3)) * cached.scale).to_kind(Kind::Float);
        let slot = Tensor::arange(seen, (Kind::Int64, q.device()));
        let hidden = slot.unsqueeze(0).gt_tensor(&cached.positions.unsqueeze(1)).view([batch, 1, 1, seen]);
        Self(scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float))
    }

    fn times(&self, size: &[i64], v_bkse: &Tensor) -> Tensor {
        let seen = self.0.size()[3];
        self.0.to_kind(v_bkse.kind()).matmul(&v_bkse.narrow(2, 0, seen)).reshape(size)
    }
}
