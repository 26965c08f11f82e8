//! The scan's CPU kernel: blocks of [`LANES`] channels, chunks of [`CHUNK`] steps, and within a chunk one state after
//! the other, so that what the inner loop over time needs fits the vector registers. Written over fixed-size arrays so
//! that the compiler vectorises; compiled once for AVX-512, once for AVX2 and once for any x86-64, chosen at run time.
//!
//! Gradients of B and C sum over channels: every group of [`GROUP`] blocks writes its own partial sums and they are added
//! in a fixed order, so results do not depend on the number of threads.

#![expect(clippy::needless_range_loop, reason = "loops over lanes of several vectors at once read best by index")]

use crate::ops::lanes::{
    Columns, EXP2_LIMIT, LANES, Lanes, exp2_of_product, load, mul_add, sigmoid, softplus, splat, split_columns, sum,
};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

/// States of a channel.
pub(super) const STATES: usize = 16;
/// Time steps between saved states.
const CHUNK: usize = 32;
/// Blocks of channels that one task of the backward pass handles.
const GROUP: usize = 4;

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
    /// States before the first step, [b, d, n].
    pub initial: Option<&'a [f32]>,
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
/// One vector for each step of a chunk.
type Steps = [Lanes; CHUNK];

impl Arguments<'_> {
    fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    fn chunks(&self) -> usize {
        self.time.div_ceil(CHUNK)
    }

    /// First step of a chunk and the number of its steps.
    fn chunk(&self, index: usize) -> (usize, usize) {
        let start = index * CHUNK;
        (start, CHUNK.min(self.time - start))
    }

    /// Values of the states that one block of one row saves.
    fn boundary_values_of_block(&self) -> usize {
        self.chunks() * STATES * LANES
    }

    /// Values of all saved states: one for each batch row, channel block and chunk.
    pub(super) fn boundary_values(&self) -> usize {
        self.batch * self.blocks() * self.boundary_values_of_block()
    }

    /// Block number `index`, counted over the blocks of all rows.
    fn block(&self, index: usize) -> Block<'_> {
        let row = index / self.blocks();
        let first = index % self.blocks() * LANES;
        let lanes = LANES.min(self.channels - first);
        let optional = |t: Option<&[f32]>, default: f32| t.map_or(splat(default), |t| load(&t[first..], lanes));
        let mut a = [splat(0.0); STATES];
        let mut rate = [splat(0.0); STATES];
        let mut fastest = splat(0.0);
        for n in 0..STATES {
            for lane in 0..lanes {
                a[n][lane] = self.a[(first + lane) * STATES + n];
                rate[n][lane] = a[n][lane] * std::f32::consts::LOG2_E;
                fastest[lane] = rate[n][lane].abs().max(fastest[lane]);
            }
        }
        Block {
            arguments: self,
            row,
            first,
            lanes,
            a,
            rate,
            fastest,
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
    /// A log2 e: exp(Δ A) = 2^(Δ rate).
    rate: State,
    /// The largest |rate|.
    fastest: Lanes,
    skip: Lanes,
    bias: Lanes,
}

impl Block<'_> {
    #[inline(always)]
    fn channels_at(&self, tensor: &[f32], t: usize) -> Lanes {
        let start = (self.row * self.arguments.time + t) * self.arguments.channels + self.first;
        load(&tensor[start..], self.lanes)
    }

    /// The states' values of `steps` steps from `start` on.
    #[inline(always)]
    fn states_at<'b>(&self, tensor: &'b [f32], (start, steps): (usize, usize)) -> &'b [[f32; STATES]] {
        let first = (self.row * self.arguments.time + start) * STATES;
        tensor[first..first + steps * STATES].as_chunks().0
    }

    /// Step size, and its derivative in what it was computed from.
    #[inline(always)]
    fn step_size(&self, t: usize) -> (Lanes, Lanes) {
        let mut raw = self.channels_at(self.arguments.delta, t);
        for lane in 0..LANES {
            raw[lane] += self.bias[lane];
        }
        if self.arguments.softplus { softplus(&raw) } else { (raw, splat(1.0)) }
    }

    /// States before the first step.
    fn initial_state(&self) -> State {
        let mut h = [splat(0.0); STATES];
        if let Some(initial) = self.arguments.initial {
            let first = (self.row * self.arguments.channels + self.first) * STATES;
            for (lane, states) in initial[first..first + self.lanes * STATES].chunks_exact(STATES).enumerate() {
                for n in 0..STATES {
                    h[n][lane] = states[n];
                }
            }
        }
        h
    }

    /// What the states need in the chunk of `steps` steps from `start` on.
    #[inline(always)]
    fn chunk<'c>(&'c self, (start, steps): (usize, usize), delta: &'c Steps, drive: &'c Steps) -> Chunk<'c> {
        Chunk {
            b: self.states_at(self.arguments.b, (start, steps)),
            c: self.states_at(self.arguments.c, (start, steps)),
            delta,
            drive,
            normal: self.decays_are_normal(&delta[..steps]),
        }
    }

    /// Whether no decay 2^(Δ rate) of these steps can leave the range of fp32; false where one isn't a number.
    #[inline(always)]
    fn decays_are_normal(&self, delta: &[Lanes]) -> bool {
        let mut largest = splat(0.0);
        for delta in delta {
            for lane in 0..LANES {
                // Unlike f32::max, this keeps a NaN.
                let delta = delta[lane].abs();
                largest[lane] = if delta <= largest[lane] { largest[lane] } else { delta };
            }
        }
        (0..LANES).all(|lane| largest[lane] * self.fastest[lane] <= EXP2_LIMIT)
    }
}

/// y, the last state and the states at chunk starts.
pub(super) fn forward(arguments: &Arguments, y: &mut [f32], last_state: &mut [f32], boundaries: &mut [f32]) {
    let y = split_columns(y, arguments.time, arguments.channels);
    let last_states =
        last_state.chunks_exact_mut(arguments.channels * STATES).flat_map(|row| row.chunks_mut(LANES * STATES));
    let boundaries = boundaries.chunks_exact_mut(arguments.boundary_values_of_block());
    let tasks: Vec<_> = y.into_iter().zip(last_states).zip(boundaries).collect();
    tasks.into_par_iter().enumerate().for_each(|(index, ((mut y, last_state), boundaries))| {
        let last = forward_block(&arguments.block(index), &mut y, boundaries);
        for (lane, channel) in last_state.chunks_exact_mut(STATES).enumerate() {
            for n in 0..STATES {
                channel[n] = last[n][lane];
            }
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward_block(block: &Block, y: &mut Columns, boundaries: &mut [f32]) -> State {
    let arguments = block.arguments;
    let mut h = block.initial_state();
    let [mut delta, mut drive, mut out]: [Steps; 3] = [[splat(0.0); CHUNK]; 3];
    for (chunk, saved) in boundaries.chunks_exact_mut(STATES * LANES).enumerate() {
        let (start, steps) = arguments.chunk(chunk);
        for (saved, h) in saved.chunks_exact_mut(LANES).zip(&h) {
            saved.copy_from_slice(&h[..]);
        }
        for i in 0..steps {
            let x = block.channels_at(arguments.x, start + i);
            delta[i] = block.step_size(start + i).0;
            for lane in 0..LANES {
                drive[i][lane] = delta[i][lane] * x[lane];
                out[i][lane] = block.skip[lane] * x[lane];
            }
        }
        let inputs = block.chunk((start, steps), &delta, &drive);
        for n in 0..STATES {
            if target_cfg_f!(target_feature = "avx512f") {
                inputs.forward_state::<LANES>(n, &block.rate[n], &mut h[n], &mut out);
            } else {
                inputs.forward_state::<8>(n, &block.rate[n], &mut h[n], &mut out);
            }
        }
        for i in 0..steps {
            if let Some(gate) = arguments.gate {
                let z = block.channels_at(gate, start + i);
                let s = sigmoid(&z);
                for lane in 0..LANES {
                    out[i][lane] *= z[lane] * s[lane];
                }
            }
            y.store(start + i, &out[i]);
        }
    }
    h
}

/// What the states of a block need in a chunk.
struct Chunk<'a> {
    b: &'a [[f32; STATES]],
    c: &'a [[f32; STATES]],
    delta: &'a Steps,
    drive: &'a Steps,
    /// Whether decays need no clamp.
    normal: bool,
}

/// `W` lanes from `first` on.
#[inline(always)]
fn part<const W: usize>(lanes: &Lanes, first: usize) -> [f32; W] {
    lanes[first..first + W].try_into().expect("W lanes")
}

#[inline(always)]
fn part_mut<const W: usize>(lanes: &mut Lanes, first: usize) -> &mut [f32; W] {
    (&mut lanes[first..first + W]).try_into().expect("W lanes")
}

/// 2^(delta rate).
#[inline(always)]
fn decay<const NORMAL: bool>(delta: f32, rate: f32) -> f32 {
    if NORMAL {
        exp2_of_product(delta, rate)
    } else {
        exp2_of_product((delta * rate).clamp(-EXP2_LIMIT, EXP2_LIMIT), 1.0)
    }
}

impl Chunk<'_> {
    /// Takes state n from `h` over the chunk, `W` lanes at a time, and adds what it gives to `out`.
    #[inline(always)]
    fn forward_state<const W: usize>(&self, n: usize, rate: &Lanes, h: &mut Lanes, out: &mut Steps) {
        for first in (0..LANES).step_by(W) {
            let (rate, h) = (part::<W>(rate, first), part_mut::<W>(h, first));
            if self.normal {
                self.forward_lanes::<W, true>(n, first, rate, h, out);
            } else {
                self.forward_lanes::<W, false>(n, first, rate, h, out);
            }
        }
    }

    #[inline(always)]
    fn forward_lanes<const W: usize, const NORMAL: bool>(
        &self,
        n: usize,
        first: usize,
        rate: [f32; W],
        last: &mut [f32; W],
        out: &mut Steps,
    ) {
        let mut h = *last;
        for i in 0..self.steps() {
            let (delta, drive) = (part::<W>(&self.delta[i], first), part::<W>(&self.drive[i], first));
            let (b, c) = (self.b[i][n], self.c[i][n]);
            let out = part_mut::<W>(&mut out[i], first);
            for lane in 0..W {
                h[lane] = mul_add(decay::<NORMAL>(delta[lane], rate[lane]), h[lane], drive[lane] * b);
                out[lane] = mul_add(h[lane], c, out[lane]);
            }
        }
        *last = h;
    }

    /// In a form that shows that no index below it is out of bounds.
    #[inline(always)]
    fn steps(&self) -> usize {
        self.b.len().min(self.c.len()).min(CHUNK)
    }
}

/// What a task of the backward pass returns besides what it writes in place.
struct GroupGradients {
    /// Sums over the group's channels, [t, n].
    b: Vec<[f32; STATES]>,
    c: Vec<[f32; STATES]>,
    blocks: Vec<BlockGradients>,
}

/// Sums over a block's steps.
struct BlockGradients {
    a: State,
    skip: Lanes,
    bias: Lanes,
}

/// All gradients, from that of y.
pub(super) fn backward(arguments: &Arguments, dy: &[f32], boundaries: &[f32], out: Gradients) {
    let (blocks, time, channels) = (arguments.blocks(), arguments.time, arguments.channels);
    let mut groups = Vec::new();
    {
        let mut x = split_columns(out.x, time, channels).into_iter();
        let mut delta = split_columns(out.delta, time, channels).into_iter();
        let mut gate = out.gate.map(|gate| split_columns(gate, time, channels).into_iter());
        let mut boundaries = boundaries.chunks_exact(arguments.boundary_values_of_block());
        for row in 0..arguments.batch {
            for first in (0..blocks).step_by(GROUP) {
                let group = first..blocks.min(first + GROUP);
                let members: Vec<Member> = group
                    .map(|index| Member {
                        block: arguments.block(row * blocks + index),
                        boundaries: boundaries.next().expect("one chunk for each block"),
                        x: x.next().expect("one block of columns for each block"),
                        delta: delta.next().expect("one block of columns for each block"),
                        gate: gate.as_mut().map(|gate| gate.next().expect("one block of columns for each block")),
                    })
                    .collect();
                groups.push(members);
            }
        }
    }
    let per_row = blocks.div_ceil(GROUP);
    let parts: Vec<GroupGradients> = groups.into_par_iter().map(|members| backward_group(members, dy)).collect();

    // Sums over rows (A, D, bias) and over groups (B, C), in index order.
    out.a.fill(0.0);
    let mut skip = vec![0.0; channels];
    let mut bias = vec![0.0; channels];
    for row in parts.chunks_exact(per_row) {
        for (index, part) in row.iter().flat_map(|group| &group.blocks).enumerate() {
            for lane in 0..LANES.min(channels - index * LANES) {
                let channel = index * LANES + lane;
                skip[channel] += part.skip[lane];
                bias[channel] += part.bias[lane];
                for n in 0..STATES {
                    out.a[channel * STATES + n] += part.a[n][lane];
                }
            }
        }
    }
    if let Some(out) = out.skip {
        out.copy_from_slice(&skip);
    }
    if let Some(out) = out.bias {
        out.copy_from_slice(&bias);
    }
    let sum_groups = |out: &mut [f32], of: fn(&GroupGradients) -> &[[f32; STATES]]| {
        out.par_chunks_exact_mut(time * STATES).zip(parts.par_chunks_exact(per_row)).for_each(|(out, parts)| {
            out.copy_from_slice(of(&parts[0]).as_flattened());
            for part in &parts[1..] {
                for (out, value) in out.iter_mut().zip(of(part).as_flattened()) {
                    *out += value;
                }
            }
        });
    };
    sum_groups(out.b, |part| &part.b);
    sum_groups(out.c, |part| &part.c);
}

/// A block with its saved states and the places of its gradients.
struct Member<'a> {
    block: Block<'a>,
    boundaries: &'a [f32],
    x: Columns<'a>,
    delta: Columns<'a>,
    gate: Option<Columns<'a>>,
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward_group(mut members: Vec<Member>, dy: &[f32]) -> GroupGradients {
    let arguments = members[0].block.arguments;
    let mut out = GroupGradients {
        b: vec![[0.0; STATES]; arguments.time],
        c: vec![[0.0; STATES]; arguments.time],
        blocks: members
            .iter()
            .map(|_| BlockGradients { a: [splat(0.0); STATES], skip: splat(0.0), bias: splat(0.0) })
            .collect(),
    };
    // Gradients that reach a chunk's last states from later chunks, one for each block.
    let mut carried = vec![[splat(0.0); STATES]; members.len()];
    // What the lanes of all blocks add to the gradients of B and C.
    let mut to_b = vec![[splat(0.0); CHUNK]; STATES];
    let mut to_c = vec![[splat(0.0); CHUNK]; STATES];
    let [mut x, mut delta, mut slope, mut drive]: [Steps; 4] = [[splat(0.0); CHUNK]; 4];
    let [mut y_slope, mut z_slope]: [Steps; 2] = [[splat(0.0); CHUNK]; 2];
    let [mut ungated, mut ddelta, mut ddrive]: [Steps; 3] = [[splat(0.0); CHUNK]; 3];
    let mut history = History { states: [splat(0.0); CHUNK + 1], decays: [splat(0.0); CHUNK] };
    for chunk in (0..arguments.chunks()).rev() {
        let (start, steps) = arguments.chunk(chunk);
        to_b.fill([splat(0.0); CHUNK]);
        to_c.fill([splat(0.0); CHUNK]);
        for ((member, out), dh) in members.iter_mut().zip(&mut out.blocks).zip(&mut carried) {
            let block = &member.block;
            ddelta.fill(splat(0.0));
            ddrive.fill(splat(0.0));
            for i in 0..steps {
                x[i] = block.channels_at(arguments.x, start + i);
                (delta[i], slope[i]) = block.step_size(start + i);
                y_slope[i] = block.channels_at(dy, start + i);
                if let Some(gate) = arguments.gate {
                    let z = block.channels_at(gate, start + i);
                    let s = sigmoid(&z);
                    for lane in 0..LANES {
                        z_slope[i][lane] = y_slope[i][lane] * s[lane] * (1.0 + z[lane] * (1.0 - s[lane]));
                        y_slope[i][lane] *= z[lane] * s[lane];
                    }
                }
                for lane in 0..LANES {
                    drive[i][lane] = delta[i][lane] * x[i][lane];
                    ungated[i][lane] = block.skip[lane] * x[i][lane];
                    out.skip[lane] = mul_add(y_slope[i][lane], x[i][lane], out.skip[lane]);
                }
            }
            let inputs = block.chunk((start, steps), &delta, &drive);
            let saved = &member.boundaries[chunk * STATES * LANES..][..STATES * LANES];
            for n in 0..STATES {
                let state = StateBack {
                    n,
                    a: &block.a[n],
                    rate: &block.rate[n],
                    before: saved[n * LANES..][..LANES].try_into().expect("one value for each lane"),
                    dy: &y_slope,
                };
                let sums = StateSums {
                    ungated: &mut ungated,
                    to_b: &mut to_b[n],
                    to_c: &mut to_c[n],
                    ddelta: &mut ddelta,
                    ddrive: &mut ddrive,
                    a: &mut out.a[n],
                    dh: &mut dh[n],
                };
                if target_cfg_f!(target_feature = "avx512f") {
                    inputs.backward_state::<LANES>(state, &mut history, sums);
                } else {
                    inputs.backward_state::<8>(state, &mut history, sums);
                }
            }
            for i in 0..steps {
                let mut dx = splat(0.0);
                for lane in 0..LANES {
                    dx[lane] = mul_add(ddrive[i][lane], delta[i][lane], y_slope[i][lane] * block.skip[lane]);
                    ddelta[i][lane] = mul_add(ddrive[i][lane], x[i][lane], ddelta[i][lane]) * slope[i][lane];
                    out.bias[lane] += ddelta[i][lane];
                    z_slope[i][lane] *= ungated[i][lane];
                }
                member.x.store(start + i, &dx);
                member.delta.store(start + i, &ddelta[i]);
                if let Some(gate) = &mut member.gate {
                    gate.store(start + i, &z_slope[i]);
                }
            }
        }
        for i in 0..steps {
            for n in 0..STATES {
                out.b[start + i][n] = sum(&to_b[n][i]);
                out.c[start + i][n] = sum(&to_c[n][i]);
            }
        }
    }
    out
}

/// What the backward pass of state n reads besides [`Chunk`].
#[derive(Clone, Copy)]
struct StateBack<'a> {
    n: usize,
    a: &'a Lanes,
    rate: &'a Lanes,
    /// The state before the chunk.
    before: &'a [f32; LANES],
    /// Gradient of y before the gate.
    dy: &'a Steps,
}

/// One state before each step of a chunk and after the last, and its decays.
struct History {
    states: [Lanes; CHUNK + 1],
    decays: Steps,
}

/// What it adds to.
struct StateSums<'a> {
    ungated: &'a mut Steps,
    to_b: &'a mut Steps,
    to_c: &'a mut Steps,
    ddelta: &'a mut Steps,
    ddrive: &'a mut Steps,
    a: &'a mut Lanes,
    /// Gradient of the state after the chunk, then of that before it.
    dh: &'a mut Lanes,
}

impl Chunk<'_> {
    #[inline(always)]
    fn backward_state<const W: usize>(&self, state: StateBack, history: &mut History, mut sums: StateSums) {
        for first in (0..LANES).step_by(W) {
            if self.normal {
                self.backward_lanes::<W, true>(first, state, history, &mut sums);
            } else {
                self.backward_lanes::<W, false>(first, state, history, &mut sums);
            }
        }
    }

    #[inline(always)]
    fn backward_lanes<const W: usize, const NORMAL: bool>(
        &self,
        first: usize,
        state: StateBack,
        history: &mut History,
        sums: &mut StateSums,
    ) {
        let n = state.n;
        let History { states, decays } = history;
        let mut h: [f32; W] = state.before[first..first + W].try_into().expect("W lanes");
        let rate = part::<W>(state.rate, first);
        *part_mut::<W>(&mut states[0], first) = h;
        for i in 0..self.steps() {
            let (delta, drive) = (part::<W>(&self.delta[i], first), part::<W>(&self.drive[i], first));
            let (b, c) = (self.b[i][n], self.c[i][n]);
            let ungated = part_mut::<W>(&mut sums.ungated[i], first);
            let decays = part_mut::<W>(&mut decays[i], first);
            for lane in 0..W {
                decays[lane] = decay::<NORMAL>(delta[lane], rate[lane]);
                h[lane] = mul_add(decays[lane], h[lane], drive[lane] * b);
                ungated[lane] = mul_add(h[lane], c, ungated[lane]);
            }
            *part_mut::<W>(&mut states[i + 1], first) = h;
        }
        let (mut da, mut dh) = (part::<W>(sums.a, first), part::<W>(sums.dh, first));
        let a = part::<W>(state.a, first);
        for i in (0..self.steps()).rev() {
            let (delta, drive, dy) =
                (part::<W>(&self.delta[i], first), part::<W>(&self.drive[i], first), part::<W>(&state.dy[i], first));
            let (b, c) = (self.b[i][n], self.c[i][n]);
            let (before, after) = (part::<W>(&states[i], first), part::<W>(&states[i + 1], first));
            let decays = part::<W>(&decays[i], first);
            let to_b = part_mut::<W>(&mut sums.to_b[i], first);
            let to_c = part_mut::<W>(&mut sums.to_c[i], first);
            let ddelta = part_mut::<W>(&mut sums.ddelta[i], first);
            let ddrive = part_mut::<W>(&mut sums.ddrive[i], first);
            for lane in 0..W {
                to_c[lane] = mul_add(dy[lane], after[lane], to_c[lane]);
                let g = mul_add(dy[lane], c, dh[lane]);
                to_b[lane] = mul_add(g, drive[lane], to_b[lane]);
                ddrive[lane] = mul_add(g, b, ddrive[lane]);
                dh[lane] = g * decays[lane];
                // Gradient of the exponent Δ A.
                let dexponent = dh[lane] * before[lane];
                ddelta[lane] = mul_add(dexponent, a[lane], ddelta[lane]);
                da[lane] = mul_add(dexponent, delta[lane], da[lane]);
            }
        }
        *part_mut::<W>(sums.a, first) = da;
        *part_mut::<W>(sums.dh, first) = dh;
    }
}
