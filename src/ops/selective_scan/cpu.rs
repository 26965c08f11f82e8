//! The scan's CPU kernel: blocks of [`LANES`] channels, each with its 16 states in vector registers, in parallel over
//! batch and channel blocks. Written over fixed-size arrays so that the compiler vectorises; compiled once for AVX-512,
//! once for AVX2 and once for any x86-64, chosen at run time.
//!
//! Gradients of B and C sum over channels: every block writes its own partial sums and they are added in a fixed order,
//! so results do not depend on the number of threads.

#![expect(clippy::needless_range_loop, reason = "loops over lanes of several vectors at once read best by index")]

use crate::ops::lanes::{LANES, Lanes, exp2, load, log1p_exp, mul_add, scatter, sigmoid, splat, sum};
use multiversion::multiversion;
use rayon::prelude::*;

/// States of a channel.
pub(super) const STATES: usize = 16;
/// Time steps between saved states.
const CHUNK: usize = 32;

/// Sizes and inputs; layouts as in the module above.
pub(super) struct Arguments<'a> {
    pub batch: usize,
    pub time: usize,
    pub channels: usize,
    pub x: &'a [f32],
    pub delta: &'a [f32],
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub c: &'a [f32],
    pub skip: Option<&'a [f32]>,
    pub gate: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub softplus: bool,
}

/// Where gradients go; every element is written.
pub(super) struct Gradients<'a> {
    pub x: &'a mut [f32],
    pub delta: &'a mut [f32],
    pub a: &'a mut [f32],
    pub b: &'a mut [f32],
    pub c: &'a mut [f32],
    pub skip: Option<&'a mut [f32]>,
    pub gate: Option<&'a mut [f32]>,
    pub bias: Option<&'a mut [f32]>,
}

type State = [Lanes; STATES];

impl Arguments<'_> {
    fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    fn chunks(&self) -> usize {
        self.time.div_ceil(CHUNK)
    }

    /// Values of all saved states: one for each batch row, channel block and chunk.
    pub(super) fn boundary_values(&self) -> usize {
        self.batch * self.blocks() * self.chunks() * STATES * LANES
    }

    fn block(&self, index: usize) -> Block<'_> {
        let row = index / self.blocks();
        let first = index % self.blocks() * LANES;
        let lanes = LANES.min(self.channels - first);
        let optional = |t: Option<&[f32]>, default: f32| t.map_or(splat(default), |t| load(&t[first..], lanes));
        let mut a = [splat(0.0); STATES];
        let mut a_log2 = [splat(0.0); STATES];
        for n in 0..STATES {
            for lane in 0..lanes {
                a[n][lane] = self.a[(first + lane) * STATES + n];
                a_log2[n][lane] = a[n][lane] * std::f32::consts::LOG2_E;
            }
        }
        Block {
            arguments: self,
            row,
            first,
            lanes,
            a,
            a_log2,
            skip: optional(self.skip, 0.0),
            bias: optional(self.bias, 0.0),
        }
    }
}

/// One row and up to [`LANES`] channels.
struct Block<'a> {
    arguments: &'a Arguments<'a>,
    row: usize,
    first: usize,
    lanes: usize,
    a: State,
    /// A log2 e: exp(Δ A) = 2^(Δ A log2 e).
    a_log2: State,
    skip: Lanes,
    bias: Lanes,
}

impl Block<'_> {
    #[inline(always)]
    fn channels_at(&self, tensor: &[f32], t: usize) -> Lanes {
        let start = (self.row * self.arguments.time + t) * self.arguments.channels + self.first;
        load(&tensor[start..], self.lanes)
    }

    #[inline(always)]
    fn states_at<'b>(&self, tensor: &'b [f32], t: usize) -> &'b [f32; STATES] {
        let start = (self.row * self.arguments.time + t) * STATES;
        tensor[start..start + STATES].try_into().expect("16 states")
    }

    /// Step size, and its derivative in what it was computed from.
    #[inline(always)]
    fn step_size(&self, t: usize) -> (Lanes, Lanes) {
        let raw = self.channels_at(self.arguments.delta, t);
        let mut out = (splat(0.0), splat(1.0));
        for lane in 0..LANES {
            out.0[lane] = raw[lane] + self.bias[lane];
        }
        if self.arguments.softplus {
            out.1 = sigmoid(&out.0);
            out.0 = log1p_exp(&out.0);
        }
        out
    }

    /// exp(Δ A) of state n.
    #[inline(always)]
    fn decay(&self, n: usize, delta: &Lanes) -> Lanes {
        let mut exponent = splat(0.0);
        for lane in 0..LANES {
            exponent[lane] = delta[lane] * self.a_log2[n][lane];
        }
        exp2(&exponent)
    }
}

/// y, the last state and the states at chunk starts.
pub(super) fn forward(arguments: &Arguments, y: &mut [f32], last_state: &mut [f32], boundaries: &mut [f32]) {
    let per_block = arguments.chunks() * STATES * LANES;
    let results: Vec<(Vec<Lanes>, State)> = boundaries
        .par_chunks_mut(per_block)
        .enumerate()
        .map(|(index, boundaries)| {
            let block = arguments.block(index);
            let mut y = vec![splat(0.0); arguments.time];
            let last = forward_block(&block, &mut y, boundaries);
            (y, last)
        })
        .collect();
    let mut parts = Vec::with_capacity(results.len());
    for (index, (part, last)) in results.into_iter().enumerate() {
        let block = arguments.block(index);
        for lane in 0..block.lanes {
            let channel = (block.row * arguments.channels + block.first + lane) * STATES;
            for n in 0..STATES {
                last_state[channel + n] = last[n][lane];
            }
        }
        parts.push(part);
    }
    scatter(y, arguments.time, arguments.channels, &parts);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward_block(block: &Block, y: &mut [Lanes], boundaries: &mut [f32]) -> State {
    let arguments = block.arguments;
    let mut h = [splat(0.0); STATES];
    for t in 0..arguments.time {
        if t % CHUNK == 0 {
            let saved = &mut boundaries[t / CHUNK * STATES * LANES..][..STATES * LANES];
            for n in 0..STATES {
                saved[n * LANES..(n + 1) * LANES].copy_from_slice(&h[n]);
            }
        }
        let x = block.channels_at(arguments.x, t);
        let (delta, _) = block.step_size(t);
        let mut drive = splat(0.0);
        for lane in 0..LANES {
            drive[lane] = delta[lane] * x[lane];
        }
        let b = block.states_at(arguments.b, t);
        let c = block.states_at(arguments.c, t);
        let mut out = splat(0.0);
        for lane in 0..LANES {
            out[lane] = block.skip[lane] * x[lane];
        }
        for n in 0..STATES {
            let decay = block.decay(n, &delta);
            for lane in 0..LANES {
                h[n][lane] = mul_add(decay[lane], h[n][lane], drive[lane] * b[n]);
                out[lane] = mul_add(h[n][lane], c[n], out[lane]);
            }
        }
        if let Some(gate) = arguments.gate {
            let z = block.channels_at(gate, t);
            let s = sigmoid(&z);
            for lane in 0..LANES {
                out[lane] *= z[lane] * s[lane];
            }
        }
        y[t] = out;
    }
    h
}

/// What one block gives back.
struct BlockGradients {
    x: Vec<Lanes>,
    delta: Vec<Lanes>,
    gate: Vec<Lanes>,
    /// Sums over this block's channels, [t, n].
    b: Vec<[f32; STATES]>,
    c: Vec<[f32; STATES]>,
    a: State,
    skip: Lanes,
    bias: Lanes,
}

/// All gradients, from that of y.
pub(super) fn backward(arguments: &Arguments, dy: &[f32], boundaries: &[f32], out: Gradients) {
    let (blocks, time, channels) = (arguments.blocks(), arguments.time, arguments.channels);
    let per_block = arguments.chunks() * STATES * LANES;
    let parts: Vec<BlockGradients> = boundaries
        .par_chunks(per_block)
        .enumerate()
        .map(|(index, boundaries)| {
            let mut gradients = BlockGradients {
                x: vec![splat(0.0); time],
                delta: vec![splat(0.0); time],
                gate: vec![splat(0.0); if arguments.gate.is_some() { time } else { 0 }],
                b: vec![[0.0; STATES]; time],
                c: vec![[0.0; STATES]; time],
                a: [splat(0.0); STATES],
                skip: splat(0.0),
                bias: splat(0.0),
            };
            backward_block(&arguments.block(index), dy, boundaries, &mut gradients);
            gradients
        })
        .collect();

    // Sums over rows (A, D, bias) and over channel blocks (B, C), in index order.
    out.a.fill(0.0);
    let mut skip = vec![0.0; channels];
    let mut bias = vec![0.0; channels];
    for (index, part) in parts.iter().enumerate() {
        let block = arguments.block(index);
        for lane in 0..block.lanes {
            let channel = block.first + lane;
            skip[channel] += part.skip[lane];
            bias[channel] += part.bias[lane];
            for n in 0..STATES {
                out.a[channel * STATES + n] += part.a[n][lane];
            }
        }
    }
    if let Some(out) = out.skip {
        out.copy_from_slice(&skip);
    }
    if let Some(out) = out.bias {
        out.copy_from_slice(&bias);
    }
    let sum_blocks = |out: &mut [f32], of: fn(&BlockGradients) -> &[[f32; STATES]]| {
        out.par_chunks_mut(time * STATES).enumerate().for_each(|(row, out)| {
            out.fill(0.0);
            for part in &parts[row * blocks..(row + 1) * blocks] {
                for (out, value) in out.iter_mut().zip(of(part).as_flattened()) {
                    *out += value;
                }
            }
        });
    };
    sum_blocks(out.b, |part| &part.b);
    sum_blocks(out.c, |part| &part.c);
    let mut x_parts = Vec::with_capacity(parts.len());
    let mut delta_parts = Vec::with_capacity(parts.len());
    let mut gate_parts = Vec::with_capacity(parts.len());
    for part in parts {
        x_parts.push(part.x);
        delta_parts.push(part.delta);
        gate_parts.push(part.gate);
    }
    scatter(out.x, time, channels, &x_parts);
    scatter(out.delta, time, channels, &delta_parts);
    if let Some(out) = out.gate {
        scatter(out, time, channels, &gate_parts);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward_block(block: &Block, dy: &[f32], boundaries: &[f32], out: &mut BlockGradients) {
    let arguments = block.arguments;
    // States before each step of a chunk, and after its last.
    let mut history = vec![[splat(0.0); STATES]; CHUNK + 1];
    let mut decays = vec![[splat(0.0); STATES]; CHUNK];
    let mut dh = [splat(0.0); STATES];
    for chunk in (0..arguments.chunks()).rev() {
        let start = chunk * CHUNK;
        let end = (start + CHUNK).min(arguments.time);
        let saved = &boundaries[chunk * STATES * LANES..][..STATES * LANES];
        for n in 0..STATES {
            history[0][n].copy_from_slice(&saved[n * LANES..(n + 1) * LANES]);
        }
        for t in start..end {
            let x = block.channels_at(arguments.x, t);
            let (delta, _) = block.step_size(t);
            let mut drive = splat(0.0);
            for lane in 0..LANES {
                drive[lane] = delta[lane] * x[lane];
            }
            let b = block.states_at(arguments.b, t);
            let (before, after) = history.split_at_mut(t - start + 1);
            let (before, after, decays) = (&before[t - start], &mut after[0], &mut decays[t - start]);
            for n in 0..STATES {
                decays[n] = block.decay(n, &delta);
                for lane in 0..LANES {
                    after[n][lane] = mul_add(decays[n][lane], before[n][lane], drive[lane] * b[n]);
                }
            }
        }
        for t in (start..end).rev() {
            let at = t - start;
            step_back(block, t, dy, [&history[at], &history[at + 1], &decays[at]], &mut dh, out);
        }
    }
}

/// One step of the reversed recurrence, from the states before and after it and its decays: `dh` is the gradient that reaches h_t from later steps.
#[inline(always)]
fn step_back(
    block: &Block,
    t: usize,
    dy: &[f32],
    [before, after, decays]: [&State; 3],
    dh: &mut State,
    out: &mut BlockGradients,
) {
    let arguments = block.arguments;
    let x = block.channels_at(arguments.x, t);
    let (delta, delta_slope) = block.step_size(t);
    let b = block.states_at(arguments.b, t);
    let c = block.states_at(arguments.c, t);
    let mut dy = block.channels_at(dy, t);
    if let Some(gate) = arguments.gate {
        let z = block.channels_at(gate, t);
        let s = sigmoid(&z);
        let mut ungated = splat(0.0);
        for lane in 0..LANES {
            ungated[lane] = block.skip[lane] * x[lane];
        }
        for n in 0..STATES {
            for lane in 0..LANES {
                ungated[lane] = mul_add(after[n][lane], c[n], ungated[lane]);
            }
        }
        let mut dz = splat(0.0);
        for lane in 0..LANES {
            dz[lane] = dy[lane] * ungated[lane] * s[lane] * (1.0 + z[lane] * (1.0 - s[lane]));
            dy[lane] *= z[lane] * s[lane];
        }
        out.gate[t] = dz;
    }
    let mut ddelta = splat(0.0);
    let mut ddrive = splat(0.0);
    let mut drive = splat(0.0);
    for lane in 0..LANES {
        drive[lane] = delta[lane] * x[lane];
        out.skip[lane] = mul_add(dy[lane], x[lane], out.skip[lane]);
    }
    for n in 0..STATES {
        let a = &block.a[n];
        let decay = &decays[n];
        let mut to_c = splat(0.0);
        let mut to_b = splat(0.0);
        for lane in 0..LANES {
            to_c[lane] = dy[lane] * after[n][lane];
            let g = mul_add(dy[lane], c[n], dh[n][lane]);
            to_b[lane] = g * drive[lane];
            ddrive[lane] = mul_add(g, b[n], ddrive[lane]);
            // Gradient of the exponent Δ A.
            let carried = g * decay[lane];
            let dexponent = carried * before[n][lane];
            ddelta[lane] = mul_add(dexponent, a[lane], ddelta[lane]);
            out.a[n][lane] = mul_add(dexponent, delta[lane], out.a[n][lane]);
            dh[n][lane] = carried;
        }
        out.c[t][n] = sum(&to_c);
        out.b[t][n] = sum(&to_b);
    }
    for lane in 0..LANES {
        out.x[t][lane] = mul_add(ddrive[lane], delta[lane], dy[lane] * block.skip[lane]);
        let d = mul_add(ddrive[lane], x[lane], ddelta[lane]) * delta_slope[lane];
        out.delta[t][lane] = d;
        out.bias[lane] += d;
    }
}
