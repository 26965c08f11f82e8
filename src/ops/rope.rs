//! Rotary positions over all channels of a head, halves paired: [a cos − b sin | a sin + b cos], in fp32.

use super::Backend;
use super::cuda::{Sources, arguments, ceil, dense, even, kernel_sources, row_stride, run, serves};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use tch::{Kind, Tensor};

const SOURCES: Sources = kernel_sources!("rope");

/// Cosines and sines of positions, each [t, e/2], fp32.
pub type RopeTables = (Tensor, Tensor);

/// Rotates x [b, t, h, e]; the result has the dtype of x.
pub fn rotate(x: &Tensor, tables: &RopeTables) -> Tensor {
    let halves = x.to_kind(Kind::Float).chunk(2, -1);
    let (a, b) = (&halves[0], &halves[1]);
    let (cos, sin) = (tables.0.unsqueeze(1), tables.1.unsqueeze(1));
    Tensor::cat(&[a * &cos - b * &sin, a * &sin + b * &cos], -1).to_kind(x.kind())
}

/// How many heads of each sort a projection holds, side by side: queries, keys, values.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub queries: i64,
    /// As many values; 0 where there are queries only.
    pub keys: i64,
    /// Channels of a head.
    pub width: i64,
}

/// Queries [b, t, h, e], and keys and values [b, t, k, e] where there are any, of a projection [b, t, (h + 2k) e];
/// queries and keys are rotated when there are tables.
pub fn split_heads(packed: &Tensor, heads: Heads, tables: Option<&RopeTables>, backend: Backend) -> Vec<Tensor> {
    let (batch, time, _) = packed.size3().expect("a projection is [b, t, d]");
    if serves(backend, packed) {
        let (cos, sin) = tables.map_or((None, None), |(cos, sin)| (Some(cos), Some(sin)));
        return apply(SplitOnCuda { heads, size: [batch, time] }, &[Some(packed), cos, sin]);
    }
    let counts: &[i64] = if heads.keys > 0 { &[heads.queries, heads.keys, heads.keys] } else { &[heads.queries] };
    let widths: Vec<i64> = counts.iter().map(|count| count * heads.width).collect();
    let parts = packed.split_with_sizes(&widths, -1);
    parts
        .into_iter()
        .zip(counts)
        .enumerate()
        .map(|(part, (tensor, &count))| {
            let heads = tensor.view([batch, time, count, heads.width]);
            match tables {
                Some(tables) if part < 2 => rotate(&heads, tables),
                _ => heads,
            }
        })
        .collect()
}

struct SplitOnCuda {
    heads: Heads,
    /// Rows and time.
    size: [i64; 2],
}

impl SplitOnCuda {
    fn launch(&self, name: &'static str, like: &Tensor, arguments: &[crate::bridge::nvrtc::Argument]) {
        let Heads { queries, keys, width } = self.heads;
        let items = self.size[0] * self.size[1] * ceil(queries + 2 * keys, 4) * ceil(width / 2, 8);
        run(SOURCES.of(like.kind()), name, like.device(), Shape::line(ceil(items, 256), 256), arguments);
    }
}

impl CustomFunction for SplitOnCuda {
    const NAME: &'static str = "split heads and rotate";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [packed, cos, sin] = inputs else { unreachable!("three inputs") };
        let packed = &even(packed);
        let Heads { queries, keys, width } = self.heads;
        let [batch, time] = self.size;
        let heads = |count: i64| Tensor::empty([batch, time, count, width], (packed.kind(), packed.device()));
        let mut outputs = vec![heads(queries)];
        if keys > 0 {
            outputs.extend([heads(keys), heads(keys)]);
        }
        let arguments = arguments![
            packed,
            cos,
            sin,
            &outputs[0],
            outputs.get(1),
            outputs.get(2),
            row_stride(packed),
            batch * time,
            time as i32,
            queries as i32,
            keys as i32,
            width as i32
        ];
        self.launch("rope_split_forward", packed, &arguments);
        Forward { outputs, saved: vec![cos.shallow_clone(), sin.shallow_clone()], constant_outputs: 0 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(some) = grads.iter().flatten().next() else { return vec![None, None, None] };
        let Heads { queries, keys, width } = self.heads;
        let [batch, time] = self.size;
        let total = (queries + 2 * keys) * width;
        let dpacked = Tensor::empty([batch, time, total], (some.kind(), some.device()));
        let parts: Vec<Option<Tensor>> = grads.iter().map(|grad| grad.as_ref().map(dense)).collect();
        let part = |index: usize| parts.get(index).and_then(Option::as_ref);
        let arguments = arguments![
            part(0),
            part(1),
            part(2),
            &saved[0],
            &saved[1],
            &dpacked,
            queries * width,
            keys * width,
            keys * width,
            total,
            batch * time,
            time as i32,
            queries as i32,
            keys as i32,
            width as i32
        ];
        self.launch("rope_split_backward", &dpacked, &arguments);
        vec![Some(dpacked), None, None]
    }
}
