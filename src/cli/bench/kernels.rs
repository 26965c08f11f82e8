//! `bench kernels`: the kernels of this crate, on a CPU side by side with the plain way.

use super::super::device::{DeviceArg, check_kernels, pick};
use super::super::{ExitStatus, output};
use super::document;
use super::model::at_least_one;
use super::timing::{Ceilings, median, time, wait};
use crate::bridge::autograd::{CustomFunction, Forward, apply};
use crate::ops::Backend;
use crate::ops::causal_conv1d::{Activation, causal_conv1d};
use crate::ops::selective_scan::{ScanInputs, selective_scan};
use crate::train::device_name;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// `bench kernels`
#[derive(Args, Debug)]
pub struct KernelArgs {
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// Rows
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..), default_value_t = 4)]
    batch: i64,
    /// Time steps
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..), default_value_t = 512)]
    length: i64,
    /// Channels
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..), default_value_t = 256)]
    channels: i64,
    /// Rounds, each timing every kernel once; the median counts
    #[arg(long, value_parser = at_least_one, default_value_t = 7)]
    rounds: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

struct Inputs {
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    z: Tensor,
    bias: Tensor,
    w: Tensor,
}

const STATES: i64 = 16;
const TAPS: i64 = 4;

impl Inputs {
    fn new(b: i64, t: i64, d: i64, kind: Kind, device: Device) -> Self {
        tch::manual_seed(1);
        let normal = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device)).set_requires_grad(true);
        let sequence = |width: i64| normal(&[b, t, width]).detach().to_kind(kind).set_requires_grad(true);
        let a = -Tensor::arange_start(1, STATES + 1, (Kind::Float, device)).expand([d, STATES], false).contiguous();
        Self {
            x: sequence(d),
            delta: sequence(d),
            a: a.set_requires_grad(true),
            b: sequence(STATES),
            c: sequence(STATES),
            d: normal(&[d]),
            z: sequence(d),
            bias: normal(&[d]),
            w: normal(&[d, TAPS]),
        }
    }

    fn scan(&self, backend: Backend) -> (Tensor, Vec<&Tensor>) {
        let out = selective_scan(
            &ScanInputs {
                x_btd: &self.x,
                delta_btd: &self.delta,
                a_dn: &self.a,
                b_btn: &self.b,
                c_btn: &self.c,
                d_d: Some(&self.d),
                z_btd: Some(&self.z),
                delta_bias_d: Some(&self.bias),
                initial_bdn: None,
                softplus: true,
            },
            backend,
        );
        let leaves = vec![&self.x, &self.delta, &self.a, &self.b, &self.c, &self.d, &self.z, &self.bias];
        (out.y_btd, leaves)
    }

    fn convolution(&self, backend: Backend) -> (Tensor, Vec<&Tensor>) {
        let y = causal_conv1d(&self.x, &self.w, &self.bias, Activation::Silu, backend);
        (y, vec![&self.x, &self.w, &self.bias])
    }

    fn run(&self, kernel: Kernel, backend: Backend, direction: Direction, dy: &Tensor) {
        match direction {
            Direction::Forward => {
                let _ = tch::no_grad(|| self.output(kernel, backend));
            }
            Direction::Both => {
                let (y, leaves) = self.output(kernel, backend);
                Tensor::run_backward(&[feed(&y, dy)], &leaves, false, false);
            }
        }
    }

    fn output(&self, kernel: Kernel, backend: Backend) -> (Tensor, Vec<&Tensor>) {
        match kernel {
            Kernel::SelectiveScan => self.scan(backend),
            Kernel::CausalConv1d => self.convolution(backend),
        }
    }
}

/// A scalar whose gradient in y is dy, at no cost that would be timed.
fn feed(y: &Tensor, dy: &Tensor) -> Tensor {
    apply(Feed(dy.shallow_clone()), &[Some(y)]).pop().expect("one output")
}

struct Feed(Tensor);

impl CustomFunction for Feed {
    const NAME: &'static str = "feed";

    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let nothing = Tensor::zeros([], (Kind::Float, inputs[0].device()));
        Forward { outputs: vec![nothing], saved: Vec::new(), constant_outputs: 0 }
    }

    fn backward(&mut self, _saved: &[Tensor], _grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        vec![Some(self.0.shallow_clone())]
    }
}

#[derive(Clone, Copy)]
enum Kernel {
    SelectiveScan,
    CausalConv1d,
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Both,
}

const CASES: [(&str, Kernel, Direction); 4] = [
    ("selective scan, forward", Kernel::SelectiveScan, Direction::Forward),
    ("selective scan, forward + backward", Kernel::SelectiveScan, Direction::Both),
    ("causal conv1d + SiLU, forward", Kernel::CausalConv1d, Direction::Forward),
    ("causal conv1d + SiLU, forward + backward", Kernel::CausalConv1d, Direction::Both),
];

pub fn run(args: &KernelArgs) -> anyhow::Result<ExitStatus> {
    match pick(&args.device)? {
        device @ Device::Cuda(_) => {
            check_kernels(device, Backend::Fused, "--device cpu times the CPU's kernels")?;
            on_gpu(args, device)
        }
        device => on_cpu(args, device),
    }
}

/// Shapes that GPU kernels are timed at: batch, length, channels.
const GPU_SHAPES: [[i64; 3]; 3] = [[8, 4096, 1984], [8, 4096, 3968], [1, 32_768, 3968]];

/// A kernel beside the time that its bytes need.
#[derive(Serialize)]
struct GpuRow {
    kernel: &'static str,
    /// Batch, length, channels.
    shape: String,
    ms: f64,
    floor_ms: f64,
}

/// bf16 kernels beside the time that their bytes need at the measured copy speed.
fn on_gpu(args: &KernelArgs, device: Device) -> anyhow::Result<ExitStatus> {
    let ceilings = Ceilings::measure(device);
    let mut rows = Vec::new();
    for [batch, length, channels] in GPU_SHAPES {
        let inputs = Inputs::new(batch, length, channels, Kind::BFloat16, device);
        let dy = Tensor::randn([batch, length, channels], (Kind::Float, device)).to_kind(Kind::BFloat16);
        for (name, kernel, direction) in CASES {
            let ms = 1e3 * time(device, args.rounds, 3, || inputs.run(kernel, Backend::Fused, direction, &dy));
            // Tensors as long as x that must be read or written at the least.
            let passes = match (kernel, direction) {
                (Kernel::SelectiveScan, Direction::Forward) => 4,
                (Kernel::SelectiveScan, Direction::Both) => 4 + 7,
                (Kernel::CausalConv1d, Direction::Forward) => 2,
                (Kernel::CausalConv1d, Direction::Both) => 2 + 3,
            };
            let floor_ms = (passes * 2 * batch * length * channels) as f64 / ceilings.copy_tbps / 1e9;
            rows.push(GpuRow { kernel: name, shape: format!("{batch}, {length}, {channels}"), ms, floor_ms });
        }
    }
    if args.json {
        document::print(&device_name(device), ceilings, &rows)?;
    } else {
        let mut table = output::table(&["kernel", "batch, length, channels", "ms", "floor ms", "of floor"]);
        for GpuRow { kernel, shape, ms, floor_ms } in rows {
            let share = format!("{:.1} x", ms / floor_ms);
            table.add_row([kernel.to_owned(), shape, format!("{ms:.3}"), format!("{floor_ms:.3}"), share]);
        }
        let head = format!("{}; bf16, state {STATES}; copy {:.2} TB/s", device_name(device), ceilings.copy_tbps);
        output::print(&format!("{head}\n{table}"))?;
    }
    Ok(ExitStatus::Done)
}

/// A kernel beside its reference.
#[derive(Serialize)]
struct CpuRow<'a> {
    kernel: &'static str,
    shape: &'a str,
    fused_ms: f64,
    reference_ms: f64,
    ratio: f64,
}

/// fp32 kernels and their references, in turn.
fn on_cpu(args: &KernelArgs, device: Device) -> anyhow::Result<ExitStatus> {
    let inputs = Inputs::new(args.batch, args.length, args.channels, Kind::Float, device);
    let dy = Tensor::ones([args.batch, args.length, args.channels], (Kind::Float, device));
    let shape =
        format!("batch {}, length {}, channels {}, state {STATES}, fp32", args.batch, args.length, args.channels);
    let mut rows = Vec::new();
    for (name, kernel, direction) in CASES {
        let (mut fused, mut reference) = (Vec::new(), Vec::new());
        // In turn, so that a drift of the machine's speed meets both; the first round warms up.
        for round in 0..=args.rounds {
            for (backend, times) in [(Backend::Fused, &mut fused), (Backend::Reference, &mut reference)] {
                wait(device);
                let start = Instant::now();
                inputs.run(kernel, backend, direction, &dy);
                wait(device);
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let (fused_ms, reference_ms) = (median(&mut fused), median(&mut reference));
        rows.push(CpuRow { kernel: name, shape: &shape, fused_ms, reference_ms, ratio: reference_ms / fused_ms });
    }
    let threads = tch::get_num_threads();
    if args.json {
        document::print(&device_name(device), json!({ "cpu_threads": threads }), &rows)?;
    } else {
        let mut table = output::table(&["kernel", "ours ms", "LibTorch ms", "faster by"]);
        for row in &rows {
            let (fused, reference) = (format!("{:.2}", row.fused_ms), format!("{:.2}", row.reference_ms));
            table.add_row([row.kernel.to_owned(), fused, reference, format!("{:.1} x", row.ratio)]);
        }
        let head = format!("{shape}; {} with {threads} threads; medians of {}", device_name(device), args.rounds);
        output::print(&format!("{head}\n{table}"))?;
    }
    Ok(ExitStatus::Done)
}
