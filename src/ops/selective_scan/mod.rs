//! The selective scan of Mamba-1 (arXiv 2312.00752, Algorithm 2 with the Euler input term):
//!
//! ```text
//! Δ   = softplus(delta + delta_bias)
//! h_t = exp(Δ_t A) ⊙ h_{t−1} + (Δ_t x_t) ⊗ B_t,   h_0 = 0 unless it is given
//! y_t = h_t · C_t + D ⊙ x_t,   times silu(z_t) where there is a gate
//! ```
//!
//! Layout: [b, t, d], channels contiguous, so that no projection around the scan needs a transpose; B and C are
//! [b, t, n]. The kernels are `cpu.rs` and `kernel.cu`; their backward passes keep states at chunk boundaries only and
//! recompute the rest, so their memory grows with t / chunk.

mod cpu;
pub(super) mod cuda;

use super::Backend;
use super::cuda::serves;
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::bridge::tensor::{values, values_mut};
use tch::{Device, Kind, Tensor};

/// Inputs of a scan. `delta` is before the bias and the softplus.
#[derive(Clone, Copy)]
pub struct ScanInputs<'a> {
    pub x_btd: &'a Tensor,
    pub delta_btd: &'a Tensor,
    /// Negative decay rates, fp32.
    pub a_dn: &'a Tensor,
    pub b_btn: &'a Tensor,
    pub c_btn: &'a Tensor,
    /// Skip connection, fp32.
    pub d_d: Option<&'a Tensor>,
    /// Gate.
    pub z_btd: Option<&'a Tensor>,
    pub delta_bias_d: Option<&'a Tensor>,
    /// State before the first step, fp32 [b, d, n]; the kernels have no backward pass from it.
    pub initial_bdn: Option<&'a Tensor>,
    pub softplus: bool,
}

/// Output [b, t, d] in the dtype of x, and the last state [b, d, n] (fp32, without gradient).
pub struct ScanOutput {
    pub y_btd: Tensor,
    pub last_state_bdn: Tensor,
}

/// The scan with the implementation that `backend` names.
pub fn selective_scan(inputs: &ScanInputs, backend: Backend) -> ScanOutput {
    match backend {
        Backend::Reference => selective_scan_ref(inputs),
        Backend::Fused => fused(inputs),
    }
}

/// One time step after the other, in fp32.
pub fn selective_scan_ref(inputs: &ScanInputs) -> ScanOutput {
    let kind = inputs.x_btd.kind();
    let x_btd = inputs.x_btd.to_kind(Kind::Float);
    let raw_btd = inputs.delta_btd.to_kind(Kind::Float);
    let raw_btd = inputs.delta_bias_d.map_or(raw_btd.shallow_clone(), |bias| raw_btd + bias.to_kind(Kind::Float));
    let delta_btd = if inputs.softplus { raw_btd.softplus() } else { raw_btd };
    let b_btn = inputs.b_btn.to_kind(Kind::Float);
    let c_btn = inputs.c_btn.to_kind(Kind::Float);
    let (batch, time, channels) = x_btd.size3().expect("x is [b, t, d]");
    let state = inputs.a_dn.size()[1];
    let zeros = || Tensor::zeros([batch, channels, state], (Kind::Float, x_btd.device()));
    let mut h_bdn = inputs.initial_bdn.map_or_else(zeros, Tensor::shallow_clone);
    let input_btd = &delta_btd * &x_btd;
    let deltas = delta_btd.unbind(1);
    let drives = input_btd.unbind(1);
    let bs = b_btn.unbind(1);
    let cs = c_btn.unbind(1);
    let mut ys = Vec::with_capacity(time as usize);
    for t in 0..time as usize {
        let decay_bdn = (deltas[t].unsqueeze(-1) * inputs.a_dn).exp();
        h_bdn = (drives[t].unsqueeze(-1) * bs[t].unsqueeze(1)).addcmul(&decay_bdn, &h_bdn);
        ys.push(h_bdn.matmul(&cs[t].unsqueeze(-1)).squeeze_dim(-1));
    }
    let y_btd = Tensor::stack(&ys, 1);
    let y_btd = inputs.d_d.map_or(y_btd.shallow_clone(), |skip| y_btd + skip * &x_btd);
    let y_btd = inputs.z_btd.map_or(y_btd.shallow_clone(), |z| y_btd * z.to_kind(Kind::Float).silu());
    ScanOutput { y_btd: y_btd.to_kind(kind), last_state_bdn: h_bdn.detach() }
}

/// The CPU kernel behind autograd.
struct ScanOnCpu {
    softplus: bool,
}

/// Order of the tensors in `apply`.
const SKIP: usize = 5;
const GATE: usize = 6;
const BIAS: usize = 7;
const INITIAL: usize = 8;

fn optional(tensor: &Tensor) -> Option<&[f32]> {
    tensor.defined().then(|| values(tensor))
}

impl ScanOnCpu {
    fn arguments<'a>(&self, inputs: &'a [Tensor]) -> cpu::Arguments<'a> {
        let (batch, time, channels) = inputs[0].size3().expect("x is [b, t, d]");
        cpu::Arguments {
            batch: batch as usize,
            time: time as usize,
            channels: channels as usize,
            x: values(&inputs[0]),
            delta: values(&inputs[1]),
            a: values(&inputs[2]),
            b: values(&inputs[3]),
            c: values(&inputs[4]),
            skip: optional(&inputs[SKIP]),
            gate: optional(&inputs[GATE]),
            bias: optional(&inputs[BIAS]),
            initial: optional(&inputs[INITIAL]),
            softplus: self.softplus,
        }
    }
}

fn like(tensor: &Tensor) -> Tensor {
    Tensor::empty(tensor.size(), (Kind::Float, Device::Cpu))
}

impl CustomFunction for ScanOnCpu {
    const NAME: &'static str = "selective scan";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let arguments = self.arguments(inputs);
        let mut y = like(&inputs[0]);
        let (batch, channels) = (arguments.batch as i64, arguments.channels as i64);
        let state = inputs[2].size()[1];
        let mut last_state = Tensor::empty([batch, channels, state], (Kind::Float, Device::Cpu));
        let mut boundaries = Tensor::empty([arguments.boundary_values() as i64], (Kind::Float, Device::Cpu));
        cpu::forward(&arguments, values_mut(&mut y), values_mut(&mut last_state), values_mut(&mut boundaries));
        let mut saved: Vec<Tensor> = inputs.iter().map(Tensor::shallow_clone).collect();
        saved.push(boundaries);
        Forward { outputs: vec![y, last_state], saved, constant_outputs: 1 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let (boundaries, inputs) = saved.split_last().expect("the boundaries were saved");
        let Some(dy) = &grads[0] else { return (0..inputs.len()).map(|_| None).collect() };
        let dy = dy.contiguous();
        let arguments = self.arguments(inputs);
        let mut out: Vec<Option<Tensor>> = inputs.iter().map(|t| t.defined().then(|| like(t))).collect();
        {
            let [dx, ddelta, da, db, dc, dskip, dgate, dbias, initial] = out.as_mut_slice() else {
                unreachable!("a scan has nine inputs");
            };
            fn required(slot: &mut Option<Tensor>) -> &mut [f32] {
                values_mut(slot.as_mut().expect("this input is always given"))
            }
            let gradients = cpu::Gradients {
                x: required(dx),
                delta: required(ddelta),
                a: required(da),
                b: required(db),
                c: required(dc),
                skip: dskip.as_mut().map(values_mut),
                gate: dgate.as_mut().map(values_mut),
                bias: dbias.as_mut().map(values_mut),
            };
            *initial = None;
            cpu::backward(&arguments, values(&dy), values(boundaries), gradients);
        }
        out
    }
}

/// The kernel of the inputs' device.
fn fused(inputs: &ScanInputs) -> ScanOutput {
    assert_eq!(inputs.a_dn.size()[1], cpu::STATES as i64, "the scan kernels are written for 16 states");
    let kind = inputs.x_btd.kind();
    let sequences = [inputs.x_btd, inputs.delta_btd, inputs.b_btn, inputs.c_btn];
    let constants = [Some(inputs.a_dn), inputs.d_d, inputs.delta_bias_d, inputs.initial_bdn];
    let on_gpu = serves(Backend::Fused, inputs.x_btd);
    let sequence_kind = if on_gpu { kind } else { Kind::Float };
    let [x, delta, b, c] = sequences.map(|t| t.to_kind(sequence_kind).contiguous());
    let z = inputs.z_btd.map(|t| t.to_kind(sequence_kind).contiguous());
    let [a, skip, bias, initial] = constants.map(|t| t.map(|t| t.to_kind(Kind::Float).contiguous()));
    let sequences = [Some(&x), Some(&delta), a.as_ref(), Some(&b), Some(&c)];
    let rest = [skip.as_ref(), z.as_ref(), bias.as_ref(), initial.as_ref()];
    let all = [sequences.as_slice(), &rest].concat();
    let mut outputs = match on_gpu {
        false => apply(ScanOnCpu { softplus: inputs.softplus }, &all),
        true => apply(cuda::ScanOnCuda { softplus: inputs.softplus }, &all),
    };
    let last_state_bdn = outputs.pop().expect("two outputs");
    let y_btd = outputs.pop().expect("two outputs").to_kind(kind);
    ScanOutput { y_btd, last_state_bdn }
}
