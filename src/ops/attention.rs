//! Causal attention with grouped key-value heads: full, in a sliding window, and differential (arXiv 2410.05258).
//!
//! Layout [b, t, h, e]; query head j uses key-value head ⌊j / g⌋, g = h / k. With fewer queries than keys the queries
//! are the last positions. A window counts the keys that a query sees, its own included.

use super::Backend;
use super::cuda::{Sources, arguments, ceil, kernel_sources, run, serves, sum_rows};
use super::norm::{NormWeights, norm};
use crate::bridge::aten::{CudaAttention, cuda_attention, is_deterministic};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use tch::{Device, Kind, Tensor};

const SOURCES: Sources = kernel_sources!("differential");

/// Scale and mask of one attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Multiplies the products of queries and keys.
    pub scale: f64,
    /// `None` for full causal attention.
    pub window: Option<usize>,
}

/// softmax(q kᵀ scale + mask) v, [b, t, h, e].
pub fn attention(
    q_bthe: &Tensor,
    k_bske: &Tensor,
    v_bske: &Tensor,
    options: AttentionOptions,
    backend: Backend,
) -> Tensor {
    let group = q_bthe.size()[2] / k_bske.size()[2];
    let shape = AttentionShape {
        device: q_bthe.device(),
        kind: q_bthe.kind(),
        head_dim: q_bthe.size()[3],
        queries: q_bthe.size()[1],
        keys: k_bske.size()[1],
        window: options.window.map(|w| w as i64),
    };
    match shape.kernel(backend) {
        AttentionKernel::Cuda(kernel) => {
            cuda_attention(kernel, q_bthe, k_bske, v_bske, options.scale).unwrap_or_else(|error| panic!("{error}"))
        }
        AttentionKernel::Dense => attention_ref(q_bthe, k_bske, v_bske, options),
        AttentionKernel::Whole => {
            let [q, k, v] = heads_first(q_bthe, k_bske, v_bske, group);
            sdpa(&q, &k, &v, None, options.scale).transpose(1, 2)
        }
        AttentionKernel::Blocks { window } => {
            let [q, k, v] = heads_first(q_bthe, k_bske, v_bske, group);
            windowed(&q, &k, &v, window, options.scale).transpose(1, 2)
        }
    }
}

/// All that the choice of a kernel depends on.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub device: Device,
    pub kind: Kind,
    pub head_dim: i64,
    pub queries: i64,
    pub keys: i64,
    pub window: Option<i64>,
}

/// What computes an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernel {
    /// One of LibTorch's for bf16 on CUDA.
    Cuda(CudaAttention),
    /// LibTorch's scaled_dot_product_attention over whole rows.
    Whole,
    /// The same over blocks of queries with the keys in their windows.
    Blocks { window: i64 },
    /// Every score and a dense mask.
    Dense,
}

impl AttentionShape {
    /// Always the same one for a shape. cuDNN's is the fastest where it applies; its backward pass adds in no fixed order,
    /// so that deterministic runs take another.
    pub fn kernel(self, backend: Backend) -> AttentionKernel {
        let Self { device, kind, head_dim, queries, keys, window } = self;
        let window = window.filter(|&w| w < keys);
        if backend == Backend::Reference {
            return AttentionKernel::Dense;
        }
        let on_cuda = matches!(device, Device::Cuda(_)) && kind == Kind::BFloat16;
        if on_cuda && head_dim % 8 == 0 && head_dim <= 256 {
            let whole = window.is_none() && queries == keys;
            let cudnn = whole && head_dim <= 128 && queries >= CUDNN_TIME && !is_deterministic();
            return AttentionKernel::Cuda(if cudnn { CudaAttention::Cudnn } else { CudaAttention::Flash { window } });
        }
        if queries != keys {
            return AttentionKernel::Dense;
        }
        window.map_or(AttentionKernel::Whole, |window| AttentionKernel::Blocks { window })
    }
}

impl AttentionKernel {
    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda(CudaAttention::Cudnn) => "cudnn",
            Self::Cuda(CudaAttention::Flash { .. }) => "flash",
            Self::Whole => "sdpa",
            Self::Blocks { .. } => "sdpa in blocks",
            Self::Dense => "dense",
        }
    }
}

/// Shortest row for which cuDNN's attention is taken.
const CUDNN_TIME: i64 = 1024;

/// The same with every score and a dense mask, softmax in fp32.
pub fn attention_ref(q_bthe: &Tensor, k_bske: &Tensor, v_bske: &Tensor, options: AttentionOptions) -> Tensor {
    let group = q_bthe.size()[2] / k_bske.size()[2];
    let [q, k, v] = heads_first(q_bthe, k_bske, v_bske, group);
    let (queries, keys) = (q.size()[2], k.size()[2]);
    let at = (Kind::Int64, q.device());
    let position_q = Tensor::arange(queries, at).unsqueeze(1) + (keys - queries);
    let position_k = Tensor::arange(keys, at).unsqueeze(0);
    let mut hidden = position_k.gt_tensor(&position_q);
    if let Some(window) = options.window {
        hidden = hidden.logical_or(&position_k.le_tensor(&(&position_q - window as i64)));
    }
    let scores = (q.matmul(&k.transpose(2, 3)) * options.scale).to_kind(Kind::Float);
    let weights = scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float);
    weights.to_kind(v.kind()).matmul(&v).transpose(1, 2)
}

/// What differential attention does beside attention.
#[derive(Clone, Copy, Debug)]
pub struct Difference<'a> {
    /// Weight of the second map, a scalar.
    pub lambda: &'a Tensor,
    /// Gain of the norm over the two heads of a pair, [2e].
    pub gain: &'a Tensor,
    /// Multiplies the norm.
    pub scale: f64,
}

/// The differential attention of one layer, heads in place: O = attention(q₁, k₁, [v₁ v₂]) − λ attention(q₂, k₂, [v₁ v₂]),
/// even heads against odd ones, 2e wide for each pair; then its norm, divided among the pair's heads. [b, t, h, e].
pub fn differential_attention(
    q_bthe: &Tensor,
    k_bske: &Tensor,
    v_bske: &Tensor,
    difference: Difference,
    options: AttentionOptions,
    backend: Backend,
) -> Tensor {
    let every_other = |t: &Tensor, first: i64| t.slice(2, first, None, 2);
    let [q1, k1, v1] = [q_bthe, k_bske, v_bske].map(|t| every_other(t, 0));
    let [q2, k2, v2] = [q_bthe, k_bske, v_bske].map(|t| every_other(t, 1));
    // Four attentions as one call over four times the heads.
    let q = Tensor::cat(&[&q1, &q1, &q2, &q2], 2);
    let k = Tensor::cat(&[&k1, &k1, &k2, &k2], 2);
    let v = Tensor::cat(&[&v1, &v2, &v1, &v2], 2);
    combine_maps(&attention(&q, &k, &v, options, backend), difference, backend)
}

/// Of the maps (q₁, k₁, v₁), (q₁, k₁, v₂), (q₂, k₂, v₁) and (q₂, k₂, v₂) of all pairs, side by side as heads
/// [b, t, 4p, e], the normed difference [b, t, 2p, e].
pub(super) fn combine_maps(maps: &Tensor, difference: Difference, backend: Backend) -> Tensor {
    let Difference { lambda, gain, scale } = difference;
    let (batch, time, heads, width) = maps.size4().expect("maps are [b, t, 4p, e]");
    if serves(backend, maps) && width <= 256 {
        let lambda = lambda.reshape([1]);
        return apply(DifferenceOnCuda { scale }, &[Some(maps), Some(&lambda), Some(gain)]).pop().expect("one output");
    }
    let pairs = heads / 4;
    let part = |i: i64| maps.narrow(2, i * pairs, pairs);
    let first = Tensor::cat(&[part(0), part(1)], -1);
    let second = Tensor::cat(&[part(2), part(3)], -1);
    let difference = first - second * lambda.to_kind(maps.kind());
    (norm(&difference, NormWeights { gain, bias: None }) * scale).to_kind(maps.kind()).reshape([
        batch,
        time,
        2 * pairs,
        width,
    ])
}

/// Maps [b, t, 4p, e], stacked as above, to heads [b, t, 2p, e].
struct DifferenceOnCuda {
    scale: f64,
}

/// Blocks of the backward pass at most: each leaves one row of partial sums.
const PARTS: i64 = 1056;

/// Sizes of four stacked maps.
struct MapSizes {
    rows: i64,
    pairs: i64,
    width: i64,
}

impl MapSizes {
    fn of(maps: &Tensor) -> Self {
        let (batch, time, heads, width) = maps.size4().expect("maps are [b, t, h, e]");
        Self { rows: batch * time, pairs: heads / 4, width }
    }

    fn blocks(&self) -> i64 {
        let threads = match self.width {
            0..=32 => 8,
            33..=64 => 16,
            _ => 32,
        };
        ceil(self.rows * self.pairs, 128 / threads)
    }

    fn parts(&self, maps: &Tensor) -> [Tensor; 4] {
        [0, 1, 2, 3].map(|i| maps.narrow(2, i * self.pairs, self.pairs))
    }
}

impl CustomFunction for DifferenceOnCuda {
    const NAME: &'static str = "differential combine";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [maps, lambda, gain] = inputs else { unreachable!("three inputs") };
        let maps = maps.contiguous();
        let size = MapSizes::of(&maps);
        let (batch, time, _, width) = maps.size4().expect("maps are [b, t, h, e]");
        let out = Tensor::empty([batch, time, 2 * size.pairs, width], (maps.kind(), maps.device()));
        let [a, b, c, d] = &size.parts(&maps);
        let arguments = arguments![
            a,
            b,
            c,
            d,
            lambda,
            gain,
            &out,
            4 * size.pairs * width,
            width,
            size.rows,
            size.pairs as i32,
            width as i32,
            self.scale as f32
        ];
        run(SOURCES.of(maps.kind()), "da_forward", maps.device(), Shape::line(size.blocks(), 128), &arguments);
        Forward {
            outputs: vec![out],
            saved: vec![maps, lambda.shallow_clone(), gain.shallow_clone()],
            constant_outputs: 0,
        }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(dout) = &grads[0] else { return vec![None, None, None] };
        let [maps, lambda, gain] = saved else { unreachable!("three saved tensors") };
        let (dout, dmaps) = (dout.contiguous(), maps.empty_like());
        let size = MapSizes::of(maps);
        let ([a, b, c, d], [da, db, dc, dd]) = (&size.parts(maps), &size.parts(&dmaps));
        let blocks = size.blocks().min(PARTS);
        let parts = Tensor::empty([blocks, 2 * size.width + 1], (Kind::Float, maps.device()));
        let (row, head) = (4 * size.pairs * size.width, size.width);
        let arguments = arguments![
            &dout,
            a,
            b,
            c,
            d,
            lambda,
            gain,
            da,
            db,
            dc,
            dd,
            &parts,
            row,
            head,
            row,
            head,
            size.rows,
            size.pairs as i32,
            size.width as i32,
            self.scale as f32
        ];
        run(SOURCES.of(maps.kind()), "da_backward", maps.device(), Shape::line(blocks, 128), &arguments);
        let (dgain, dlambda) = (gain.empty_like(), lambda.empty_like());
        sum_rows(SOURCES.of(dmaps.kind()), &parts, &dgain, Some(&dlambda), 2 * size.width);
        vec![Some(dmaps), Some(dlambda), Some(dgain)]
    }
}

/// [b, t, h, e] → [b, h, t, e], key-value heads repeated for their group.
fn heads_first(q: &Tensor, k: &Tensor, v: &Tensor, group: i64) -> [Tensor; 3] {
    let repeat = |t: &Tensor| {
        let t = t.transpose(1, 2);
        if group == 1 {
            return t;
        }
        let (b, k, s, e) = t.size4().expect("keys are [b, s, k, e]");
        t.unsqueeze(2).expand([b, k, group, s, e], false).reshape([b, k * group, s, e])
    };
    [q.transpose(1, 2), repeat(k), repeat(v)]
}

/// LibTorch's fused attention, causal unless a mask is given; [b, h, t, e].
fn sdpa(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scale: f64) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, mask.is_none(), scale, false)
}

/// Attention in a window without any mask as long as the row: queries in blocks of `window`, each against its own block
/// and the one before.
fn windowed(q_bhte: &Tensor, k_bhte: &Tensor, v_bhte: &Tensor, window: i64, scale: f64) -> Tensor {
    let (batch, heads, time, width) = q_bhte.size4().expect("queries are [b, h, t, e]");
    let blocks = (time + window - 1) / window;
    let padding = blocks * window - time;
    let pad = |t: &Tensor| if padding > 0 { t.constant_pad_nd([0, 0, 0, padding]) } else { t.shallow_clone() };
    let [q, k, v] = [q_bhte, k_bhte, v_bhte].map(pad);

    let block = |t: &Tensor, from: i64, count: i64| t.narrow(2, from * window, count * window);
    let first = sdpa(&block(&q, 0, 1), &block(&k, 0, 1), &block(&v, 0, 1), None, scale);

    // Blocks 1.. as rows of a batch; their keys are the block before and their own.
    let later = blocks - 1;
    let as_rows = |t: &Tensor, length: i64| t.permute([0, 2, 1, 3, 4]).reshape([batch * later, heads, length, width]);
    let queries = as_rows(&block(&q, 1, later).reshape([batch, heads, later, window, width]), window);
    let pairs = |t: &Tensor| {
        let before = block(t, 0, later).reshape([batch, heads, later, window, width]);
        let own = block(t, 1, later).reshape([batch, heads, later, window, width]);
        as_rows(&Tensor::cat(&[before, own], 3), 2 * window)
    };
    // Query i of a block stands at window + i among its 2 x window keys and sees the last `window` up to itself.
    let at = (Kind::Int64, q.device());
    let i = Tensor::arange(window, at).unsqueeze(1);
    let j = Tensor::arange(2 * window, at).unsqueeze(0);
    let seen = j.gt_tensor(&i).logical_and(&j.le_tensor(&(i + window)));
    let mask =
        Tensor::zeros([window, 2 * window], (q.kind(), q.device())).masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
    let rest = sdpa(&queries, &pairs(&k), &pairs(&v), Some(&mask), scale)
        .reshape([batch, later, heads, window, width])
        .permute([0, 2, 1, 3, 4])
        .reshape([batch, heads, later * window, width]);
    Tensor::cat(&[first, rest], 2).narrow(2, 0, time)
}
