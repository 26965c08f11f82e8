//! The scan's CUDA kernels: their launches, and the scan alone behind autograd.

use super::super::cuda::{arguments, ceil, dense, row_stride, run};
use crate::bridge::autograd::{CustomFunction, Forward};
use crate::bridge::nvrtc::{Argument, KernelSource, Shape};
use tch::{Kind, Tensor};

const BF16: KernelSource = KernelSource {
    name: "selective_scan_bf16",
    text: concat!("#define ELEMENT_BITS 16\n#define WARPS 4\n", include_str!("kernel.cu")),
};
const FP32: KernelSource = KernelSource {
    name: "selective_scan_fp32",
    text: concat!("#define ELEMENT_BITS 32\n#define WARPS 4\n", include_str!("kernel.cu")),
};
/// Warps of a block, as defined above.
const WARPS: i64 = 4;
/// As in the source.
const STATES: i64 = 16;
const CHUNK: i64 = 16;
const LANES: i64 = 32;
/// Channels of a warp.
const WIDTH: i64 = 16;
/// fp32 values that a warp keeps of its channels' states.
const WARP_STATES: i64 = STATES * WIDTH;

/// Warps that keep the chip busy. With fewer, time is cut into segments, at the price of one more pass.
const ENOUGH_WARPS: i64 = 700;
/// What segments are then made for.
const WANTED_WARPS: i64 = 4000;
/// Chunks of a segment at least.
const SEGMENT_CHUNKS: i64 = 8;

/// How a scan is divided among blocks.
struct Division {
    batch: i64,
    time: i64,
    channels: i64,
    chunks: i64,
    segment_chunks: i64,
    segments: i64,
    warps: i64,
    blocks: i64,
    element_bytes: i64,
}

impl Division {
    fn of(x_btd: &Tensor) -> Self {
        let (batch, time, channels) = x_btd.size3().expect("x is [b, t, d]");
        assert!(channels % 2 == 0, "the scan kernels take an even number of channels");
        let (chunks, warps) = (ceil(time, CHUNK), ceil(channels, WIDTH));
        let wanted = if batch * warps >= ENOUGH_WARPS { 1 } else { ceil(WANTED_WARPS, batch * warps) };
        let segment_chunks = ceil(chunks, wanted).max(SEGMENT_CHUNKS).min(chunks);
        Self {
            batch,
            time,
            channels,
            chunks,
            segment_chunks,
            segments: ceil(chunks, segment_chunks),
            warps,
            blocks: ceil(channels, WIDTH * WARPS),
            element_bytes: if x_btd.kind() == Kind::BFloat16 { 2 } else { 4 },
        }
    }

    /// Launches over `segments` with buffers for tiles of so many inputs and so many further bytes in each warp.
    fn run(&self, like: &Tensor, name: &'static str, segments: i64, tiles: i64, bytes: i64, arguments: &[Argument]) {
        let shared = WARPS * (tiles * CHUNK * WIDTH * self.element_bytes + bytes);
        let shape = Shape { grid: (self.blocks, self.batch, segments), block: (LANES * WARPS, 1), shared };
        run(source(like), name, like.device(), shape, arguments);
    }

    /// What segments hand on: states, and sums of steps.
    fn carries(&self, like: &Tensor) -> [Tensor; 2] {
        let between = (self.segments - 1).max(1);
        [WARP_STATES, WIDTH]
            .map(|width| Tensor::empty([self.batch, between, self.warps, width], (Kind::Float, like.device())))
    }
}

fn source(like: &Tensor) -> &'static KernelSource {
    if like.kind() == Kind::BFloat16 { &BF16 } else { &FP32 }
}

/// Elements between rows, as the kernels take it.
fn stride(tensor: Option<&Tensor>) -> i32 {
    tensor.map_or(0, |t| row_stride(t) as i32)
}

/// What a scan reads. x and delta are dense [b, t, d]; b, c and z have evenly spaced rows; one dtype. The rest is fp32.
pub(in crate::ops) struct Arguments<'a> {
    pub x: &'a Tensor,
    /// Before the bias and the softplus.
    pub delta: &'a Tensor,
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    pub c: &'a Tensor,
    pub skip: Option<&'a Tensor>,
    pub z: Option<&'a Tensor>,
    pub bias: Option<&'a Tensor>,
    /// States before the first step, dense [b, d, n]; forward passes only.
    pub initial: Option<&'a Tensor>,
    pub softplus: bool,
}

/// What a forward pass gives.
pub(in crate::ops) struct Output {
    /// [b, t, d] in the dtype of x.
    pub y: Tensor,
    /// fp32 [b, d, n].
    pub last_state: Tensor,
    /// For the backward pass; undefined where the scan begins from given states.
    pub states: Tensor,
}

/// Gradients that a backward pass makes tensors for.
pub(in crate::ops) struct Gradients {
    pub x: Tensor,
    pub delta: Tensor,
    pub a: Tensor,
    pub skip: Option<Tensor>,
    pub bias: Option<Tensor>,
}

/// Runs the scan.
pub(in crate::ops) fn forward(scan: &Arguments) -> Output {
    let Arguments { x, delta, a, b, c, skip, z, bias, initial, softplus } = *scan;
    let division = Division::of(x);
    let fp32 = (Kind::Float, x.device());
    let y = Tensor::empty(x.size(), (x.kind(), x.device()));
    let last_state = Tensor::empty([division.batch, division.channels, STATES], fp32);
    // From given states there is no backward pass, which these are for.
    let states = match initial {
        Some(_) => Tensor::new(),
        None => Tensor::empty([division.batch, division.chunks, division.warps, WARP_STATES], fp32),
    };
    let [carry, steps] = &division.carries(x);
    let (softplus, time, channels) = (i32::from(softplus), division.time as i32, division.channels as i32);
    let segment_chunks = division.segment_chunks as i32;
    let (tiles, pair) = (15, 4096);
    if division.segments > 1 {
        let arguments =
            arguments![x, delta, a, b, stride(Some(b)), bias, carry, steps, softplus, time, channels, segment_chunks];
        division.run(x, "scan_forward_carry", division.segments - 1, tiles, pair, &arguments);
    }
    let arguments = arguments![
        x,
        delta,
        a,
        b,
        stride(Some(b)),
        c,
        stride(Some(c)),
        skip,
        z,
        stride(z),
        bias,
        initial,
        &y,
        &last_state,
        &states,
        carry,
        steps,
        softplus,
        time,
        channels,
        segment_chunks
    ];
    division.run(x, "scan_forward", division.segments, tiles, pair, &arguments);
    Output { y, last_state, states }
}

/// dy is dense; the gradients of z, b and c are written to views with evenly spaced rows.
pub(in crate::ops) fn backward(
    scan: &Arguments,
    states: &Tensor,
    dy: &Tensor,
    dz: Option<&Tensor>,
    db: &Tensor,
    dc: &Tensor,
) -> Gradients {
    let Arguments { x, delta, a, b, c, skip, z, bias, initial, softplus } = *scan;
    assert!(initial.is_none(), "a scan from given states has no backward pass");
    let division = Division::of(x);
    let fp32 = (Kind::Float, x.device());
    let (batch, rows) = (division.batch, division.batch * division.time);
    let (dx, ddelta) = (x.empty_like(), x.empty_like());
    let [carry, steps] = &division.carries(x);
    let (softplus, time, channels) = (i32::from(softplus), division.time as i32, division.channels as i32);
    let segment_chunks = division.segment_chunks as i32;
    if division.segments > 1 {
        let arguments = arguments![
            delta,
            a,
            c,
            stride(Some(c)),
            z,
            stride(z),
            bias,
            dy,
            carry,
            steps,
            softplus,
            time,
            channels,
            segment_chunks
        ];
        division.run(x, "scan_backward_carry", division.segments - 1, 10, 4096, &arguments);
    }
    // Sums of a block over its channels, and of a segment over its steps; added up below in a fixed order.
    let dbc_parts = Tensor::empty([division.blocks, rows, 2 * STATES], fp32);
    let parts = batch * division.segments;
    let da_parts = Tensor::empty([parts, division.channels, STATES], fp32);
    let [dskip_parts, dbias_parts] = [(); 2].map(|()| Tensor::empty([parts, division.channels], fp32));
    let arguments = arguments![
        x,
        delta,
        a,
        b,
        stride(Some(b)),
        c,
        stride(Some(c)),
        skip,
        z,
        stride(z),
        bias,
        dy,
        states,
        carry,
        steps,
        &dx,
        &ddelta,
        dz,
        stride(dz),
        None::<&Tensor>,
        &dbc_parts,
        &da_parts,
        &dskip_parts,
        &dbias_parts,
        softplus,
        time,
        channels,
        segment_chunks
    ];
    division.run(x, "scan_backward", division.segments, 12, 2048 + 4096 + 2048 + 3072 + 4096, &arguments);
    let da = Tensor::empty([division.channels, STATES], fp32);
    let [dskip, dbias] = [(); 2].map(|()| Tensor::empty([division.channels], fp32));
    let arguments = arguments![
        &dbc_parts,
        &da_parts,
        &dskip_parts,
        &dbias_parts,
        db,
        stride(Some(db)),
        dc,
        stride(Some(dc)),
        &da,
        &dskip,
        &dbias,
        division.blocks as i32,
        parts as i32,
        rows as i32,
        channels
    ];
    let blocks = ceil(rows * 2 * STATES, 256) + ceil(division.channels * (STATES + 2), 256);
    run(source(x), "scan_backward_sums", x.device(), Shape::line(blocks, 256), &arguments);
    Gradients { x: dx, delta: ddelta, a: da, skip: skip.map(|_| dskip), bias: bias.map(|_| dbias) }
}

/// A scan on a CUDA device; inputs in the order of [`super::ScanInputs`].
pub(super) struct ScanOnCuda {
    pub softplus: bool,
}

impl ScanOnCuda {
    fn arguments<'a>(&self, inputs: &'a [Tensor]) -> Arguments<'a> {
        let given = |index: usize| inputs[index].defined().then(|| &inputs[index]);
        Arguments {
            x: &inputs[0],
            delta: &inputs[1],
            a: &inputs[2],
            b: &inputs[3],
            c: &inputs[4],
            skip: given(super::SKIP),
            z: given(super::GATE),
            bias: given(super::BIAS),
            initial: given(super::INITIAL),
            softplus: self.softplus,
        }
    }
}

impl CustomFunction for ScanOnCuda {
    const NAME: &'static str = "selective scan";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let Output { y, last_state, states } = forward(&self.arguments(inputs));
        let mut saved: Vec<Tensor> = inputs.iter().map(Tensor::shallow_clone).collect();
        saved.push(states);
        Forward { outputs: vec![y, last_state], saved, constant_outputs: 1 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let (states, inputs) = saved.split_last().expect("the states were saved");
        let Some(dy) = &grads[0] else { return inputs.iter().map(|_| None).collect() };
        let scan = self.arguments(inputs);
        let dz = scan.z.map(Tensor::empty_like);
        let (db, dc) = (scan.b.empty_like(), scan.c.empty_like());
        let Gradients { x, delta, a, skip, bias } = backward(&scan, states, &dense(dy), dz.as_ref(), &db, &dc);
        vec![Some(x), Some(delta), Some(a), Some(db), Some(dc), skip, dz, bias, None]
    }
}
