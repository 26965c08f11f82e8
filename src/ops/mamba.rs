//! What lies between a Mamba layer's two outer projections: convolution, SiLU, projections to Δ, B and C, selective scan,
//! gate. On a GPU it is one function with its own backward pass, so that no slice, sum or copy of its halves is made.

use super::Backend;
use super::causal_conv1d::{self, Activation, causal_conv1d};
use super::cuda::{Sources, arguments, ceil, dense_fp32, kernel_sources, rows_and_width, run_early, serves};
use super::gate::{gate, gate_backward, gate_forward};
use super::linear::{Weight, add_product, linear};
use super::selective_scan::{ScanInputs, cuda, selective_scan};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::nvrtc::Shape;
use tch::{Kind, Tensor};

const STEP: Sources = kernel_sources!("mamba_step");

/// Parameters of the inner part, fp32.
#[derive(Debug)]
pub struct InnerWeights<'a> {
    /// [d, 1, 4].
    pub conv_weight: &'a Tensor,
    pub conv_bias: &'a Tensor,
    /// [r + 2n, d]: Δ, B, C.
    pub x_proj: &'a Weight,
    /// [d, r].
    pub dt_proj: &'a Weight,
    pub dt_bias: &'a Tensor,
    /// [d, n].
    pub a_log: &'a Tensor,
    pub skip: &'a Tensor,
}

/// What the inner part gives.
#[derive(Debug)]
pub struct InnerOutput {
    /// The gated output of the scan, [b, t, d].
    pub gated: Tensor,
    /// The scan's output before the gate, where it was wanted.
    pub memory: Option<Tensor>,
    /// State after the last step, fp32, [b, d, n].
    pub last_state: Tensor,
}

/// xz [b, t, 2d]: what is convolved, and the gate.
pub fn inner(xz: &Tensor, weights: &InnerWeights, memory_wanted: bool, backend: Backend) -> InnerOutput {
    if serves(backend, xz) {
        let rank = weights.dt_proj.master().size()[1];
        let kind = xz.kind();
        let function = InnerOnCuda {
            rank,
            padded: ceil(rank, ALIGNMENT) * ALIGNMENT,
            state: weights.a_log.size()[1],
            x_proj: pad_x_proj(&weights.x_proj.value(kind), rank),
            dt_proj: pad_columns(&weights.dt_proj.value(kind)),
            memory_wanted,
        };
        let conv_weight = weights.conv_weight.squeeze_dim(1);
        let inputs = [
            xz,
            &conv_weight,
            weights.conv_bias,
            weights.x_proj.master(),
            weights.dt_proj.master(),
            weights.dt_bias,
            weights.a_log,
            weights.skip,
        ];
        let mut outputs = apply(function, &inputs.map(Some)).into_iter();
        let mut next = || outputs.next().expect("as many outputs as are made");
        let gated = next();
        let memory = memory_wanted.then(&mut next);
        return InnerOutput { gated, memory, last_state: next() };
    }
    let halves = xz.chunk(2, -1);
    let (x, z) = (halves[0].contiguous(), halves[1].contiguous());
    let convolved =
        causal_conv1d(&x, &weights.conv_weight.squeeze_dim(1), weights.conv_bias, Activation::Silu, backend);
    scan_projected(&convolved, &z, weights, None, memory_wanted, backend)
}

/// What decoding keeps of sequences.
#[derive(Debug)]
pub struct MambaState {
    /// The last inputs of the convolution, oldest first, in the dtype of activations, [b, 3, d].
    pub conv_bkd: Tensor,
    /// State of the scan, fp32, [b, d, n].
    pub ssm_bdn: Tensor,
}

impl MambaState {
    /// Of sequences that have no tokens yet, for a layer with this convolution weight [d, 1, taps] and `a_log` [d, n].
    pub fn empty(batch: i64, conv_weight: &Tensor, a_log: &Tensor, kind: Kind) -> Self {
        let (taps, (channels, states)) = (conv_weight.size()[2], a_log.size2().expect("A_log is [d, n]"));
        let zeros = |size: [i64; 3], kind| Tensor::zeros(size, (kind, a_log.device()));
        Self {
            conv_bkd: zeros([batch, taps - 1, channels], kind),
            ssm_bdn: zeros([batch, channels, states], Kind::Float),
        }
    }
}

/// The inner part of the next tokens of sequences, xz [b, t, 2d], after those that `state` has seen; leaves it after
/// them. The gated output, and the scan's before the gate where it is wanted. Has no backward pass.
pub fn extend(
    xz: &Tensor,
    weights: &InnerWeights,
    state: &mut MambaState,
    memory_wanted: bool,
    backend: Backend,
) -> (Tensor, Option<Tensor>) {
    let (time, kept) = (xz.size()[1], state.conv_bkd.size()[1]);
    if time == 1 && serves(backend, xz) {
        return step_on_cuda(xz, weights, state, memory_wanted, backend);
    }
    let halves = xz.chunk(2, -1);
    let (x, z) = (&halves[0], &halves[1]);
    let convolve = |x: &Tensor| {
        causal_conv1d(x, &weights.conv_weight.squeeze_dim(1), weights.conv_bias, Activation::Silu, backend)
    };
    // As if nothing were in front, and the first outputs, which have something there, once more.
    let convolved = convolve(x);
    let near = kept.min(time);
    let first = Tensor::cat(&[&state.conv_bkd, &x.narrow(1, 0, near)], 1);
    convolved.narrow(1, 0, near).copy_(&convolve(&first).narrow(1, kept, near));
    let last = if time < kept { first.narrow(1, near, kept) } else { x.narrow(1, time - kept, kept) };
    state.conv_bkd.copy_(&last);
    let scanned = scan_projected(&convolved, z, weights, Some(&state.ssm_bdn), memory_wanted, backend);
    state.ssm_bdn.copy_(&scanned.last_state);
    (scanned.gated, scanned.memory)
}

/// As in the source: channels of a block of the scan's step, and threads of a channel.
const STEP_CHANNELS: i64 = 8;
const STEP_STATES: i64 = 16;
/// Sequences of a block of it.
const STEP_SEQUENCES: i64 = 4;

/// [`extend`] by one token.
fn step_on_cuda(
    xz: &Tensor,
    weights: &InnerWeights,
    state: &mut MambaState,
    memory_wanted: bool,
    backend: Backend,
) -> (Tensor, Option<Tensor>) {
    let (kind, device) = (xz.kind(), xz.device());
    let xz = xz.contiguous();
    let (batch, channels) = (xz.size()[0], xz.size()[2] / 2);
    let new = || Tensor::empty([batch, 1, channels], (kind, device));
    let halves = [0, channels].map(|from| xz.narrow(-1, from, channels));
    let convolved = new();
    let arguments = arguments![
        &halves[0],
        2 * channels,
        &state.conv_bkd,
        &dense_fp32(weights.conv_weight),
        &dense_fp32(weights.conv_bias),
        &convolved,
        channels as i32
    ];
    let shape = Shape::plane((ceil(channels, 128), batch), (128, 1));
    run_early(STEP.of(kind), "conv_step", device, shape, &arguments);
    let projected = linear(&convolved, weights.x_proj, backend);
    let (gated, memory) = (new(), memory_wanted.then(new));
    let dt_proj = weights.dt_proj.value(kind);
    let arguments = arguments![
        &convolved,
        &projected,
        &dt_proj,
        &halves[1],
        2 * channels,
        weights.dt_bias,
        weights.a_log,
        weights.skip,
        &state.ssm_bdn,
        &gated,
        memory.as_ref(),
        batch as i32,
        channels as i32,
        dt_proj.size()[1] as i32
    ];
    let shape =
        Shape::plane((ceil(channels, STEP_CHANNELS), ceil(batch, STEP_SEQUENCES)), (STEP_CHANNELS * STEP_STATES, 1));
    run_early(STEP.of(kind), "scan_step", device, shape, &arguments);
    (gated, memory)
}

/// Projections to Δ, B and C of what was convolved, scan and gate.
fn scan_projected(
    convolved: &Tensor,
    z: &Tensor,
    weights: &InnerWeights,
    initial: Option<&Tensor>,
    memory_wanted: bool,
    backend: Backend,
) -> InnerOutput {
    let rank = weights.dt_proj.master().size()[1];
    let state = weights.a_log.size()[1];
    let projected = linear(convolved, weights.x_proj, backend).split_with_sizes([rank, state, state], -1);
    let delta = linear(&projected[0], weights.dt_proj, backend);
    let out = selective_scan(
        &ScanInputs {
            x_btd: convolved,
            delta_btd: &delta,
            a_dn: &-weights.a_log.exp(),
            b_btn: &projected[1],
            c_btn: &projected[2],
            d_d: Some(weights.skip),
            z_btd: (!memory_wanted).then_some(z),
            delta_bias_d: Some(weights.dt_bias),
            initial_bdn: initial,
            softplus: true,
        },
        backend,
    );
    let (gated, memory) =
        if memory_wanted { (gate(z, &out.y_btd, backend), Some(out.y_btd)) } else { (out.y_btd, None) };
    InnerOutput { gated, memory, last_state: out.last_state_bdn }
}

/// Δ's columns are padded to a multiple of this, so that B, C and the rows of both projections begin on 16 bytes.
const ALIGNMENT: i64 = 8;

fn pad_columns(weight: &Tensor) -> Tensor {
    let columns = weight.size()[1];
    weight.constant_pad_nd([0, ceil(columns, ALIGNMENT) * ALIGNMENT - columns])
}

/// Zero rows between Δ's and those of B and C.
fn pad_x_proj(weight: &Tensor, rank: i64) -> Tensor {
    let padding = ceil(rank, ALIGNMENT) * ALIGNMENT - rank;
    if padding == 0 {
        return weight.shallow_clone();
    }
    let zeros = Tensor::zeros([padding, weight.size()[1]], (weight.kind(), weight.device()));
    Tensor::cat(&[weight.narrow(0, 0, rank), zeros, weight.narrow(0, rank, weight.size()[0] - rank)], 0)
}

struct InnerOnCuda {
    rank: i64,
    /// `rank` with its padding.
    padded: i64,
    state: i64,
    /// Padded, in the dtype of the activations.
    x_proj: Tensor,
    dt_proj: Tensor,
    memory_wanted: bool,
}

impl InnerOnCuda {
    /// Δ's columns, B and C of what x_proj gives, [b, t, ..].
    fn divide(&self, projected: &Tensor) -> [Tensor; 3] {
        let part = |from: i64, width: i64| projected.narrow(-1, from, width);
        [part(0, self.padded), part(self.padded, self.state), part(self.padded + self.state, self.state)]
    }

    /// [rows, ..] of a view [b, t, ..] with evenly spaced rows.
    fn flat(t: &Tensor) -> Tensor {
        let (rows, width) = rows_and_width(t);
        let stride = t.stride();
        t.as_strided([rows, width], [stride[stride.len() - 2], 1], None)
    }

    fn scan<'a>(&self, of: &'a Saved) -> cuda::Arguments<'a> {
        cuda::Arguments {
            x: &of.convolved,
            delta: &of.delta,
            a: &of.a,
            b: &of.b,
            c: &of.c,
            skip: Some(&of.skip),
            z: (!self.memory_wanted).then_some(&of.z),
            bias: Some(&of.dt_bias),
            initial: None,
            softplus: true,
        }
    }
}

/// Tensors of one pass, views included.
struct Saved {
    x: Tensor,
    z: Tensor,
    convolved: Tensor,
    delta: Tensor,
    low: Tensor,
    b: Tensor,
    c: Tensor,
    a: Tensor,
    skip: Tensor,
    dt_bias: Tensor,
}

impl CustomFunction for InnerOnCuda {
    const NAME: &'static str = "mamba conv, projections and scan";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let [xz, conv_weight, conv_bias, _, _, dt_bias, a_log, skip] = inputs else { unreachable!("eight inputs") };
        let xz = xz.contiguous();
        let channels = xz.size()[2] / 2;
        let [x, z] = [0, channels].map(|from| xz.narrow(-1, from, channels));
        let (conv_weight, conv_bias) = (dense_fp32(conv_weight), dense_fp32(conv_bias));
        let convolved = causal_conv1d::forward_on_cuda(&x, &conv_weight, &conv_bias);
        let projected = convolved.linear(&self.x_proj, None::<&Tensor>);
        let [low, b, c] = self.divide(&projected);
        let delta = Self::flat(&low).mm(&self.dt_proj.transpose(0, 1)).view_as(&convolved);
        let a = -dense_fp32(a_log).exp();
        let (skip, dt_bias) = (dense_fp32(skip), dense_fp32(dt_bias));
        let saved = Saved { x, z, convolved, delta, low, b, c, a, skip, dt_bias };
        let out = cuda::forward(&self.scan(&saved));
        let mut outputs = Vec::new();
        let mut kept = vec![xz];
        if self.memory_wanted {
            outputs.push(gate_forward(&saved.z, &out.y));
            kept.push(out.y.shallow_clone());
        } else {
            kept.push(Tensor::new());
        }
        outputs.push(out.y);
        outputs.push(out.last_state);
        kept.extend([conv_weight, conv_bias, saved.convolved, projected, saved.delta, saved.a, saved.skip]);
        kept.extend([saved.dt_bias, out.states]);
        Forward { outputs, saved: kept, constant_outputs: 1 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let [xz, memory, conv_weight, conv_bias, convolved, projected, delta, a, skip, dt_bias, states] = saved else {
            unreachable!("eleven saved tensors")
        };
        let channels = xz.size()[2] / 2;
        let halves = |t: &Tensor| [0, channels].map(|from| t.narrow(-1, from, channels));
        let [x, z] = halves(xz);
        let [low, b, c] = self.divide(projected);
        let clone = Tensor::shallow_clone;
        let of = Saved {
            x,
            z,
            convolved: clone(convolved),
            delta: clone(delta),
            low,
            b,
            c,
            a: clone(a),
            skip: clone(skip),
            dt_bias: clone(dt_bias),
        };
        let dxz = xz.empty_like();
        let [dx, dz] = halves(&dxz);
        let zeros = || convolved.zeros_like();
        let dgated = grads[0].as_ref().map_or_else(zeros, Tensor::contiguous);
        let dy = if self.memory_wanted {
            let dmemory = convolved.empty_like();
            gate_backward(&dgated, &of.z, memory, &dz, &dmemory);
            match &grads[1] {
                Some(from_readers) => dmemory + from_readers,
                None => dmemory,
            }
        } else {
            dgated
        };
        let dprojected = projected.empty_like();
        let [dlow, db, dc] = self.divide(&dprojected);
        let scan = self.scan(&of);
        let dz = scan.z.map(|_| &dz);
        let cuda::Gradients { x: dconvolved, delta: ddelta, a: da, skip: dskip, bias: dbias } =
            cuda::backward(&scan, states, &dy, dz, &db, &dc);
        let (dconvolved, ddelta) = (Self::flat(&dconvolved), Self::flat(&ddelta));
        let _ = ddelta.mm_out(&Self::flat(&dlow), &self.dt_proj);
        let product = |dy: &Tensor, x: &Tensor| {
            let sum = Tensor::zeros([dy.size()[1], x.size()[1]], (Kind::Float, x.device()));
            add_product(&sum, dy, x);
            sum
        };
        let ddt_proj = product(&ddelta, &Self::flat(&of.low)).narrow(1, 0, self.rank);
        let dprojected = Self::flat(&dprojected);
        let dx_proj = product(&dprojected, &Self::flat(convolved));
        let dx_proj =
            Tensor::cat(&[dx_proj.narrow(0, 0, self.rank), dx_proj.narrow(0, self.padded, 2 * self.state)], 0);
        let dconvolved = dconvolved.addmm(&dprojected, &self.x_proj).view_as(convolved);
        let (dconv_weight, dconv_bias) =
            causal_conv1d::backward_on_cuda(&dconvolved, &of.x, conv_weight, conv_bias, &dx);
        vec![
            Some(dxz),
            Some(dconv_weight),
            Some(dconv_bias),
            Some(dx_proj),
            Some(ddt_proj.contiguous()),
            dbias,
            // A = −exp(A_log).
            Some(da * a),
            dskip,
        ]
    }
}
