//! `lossfloor bench`: what this machine does, side by side with the plain way.

use super::device::{DeviceArg, pick};
use super::{ExitStatus, output};
use crate::ops::Backend;
use crate::ops::causal_conv1d::{Activation, causal_conv1d};
use crate::ops::selective_scan::{ScanInputs, selective_scan};
use crate::train::device_name;
use clap::{Args, Subcommand};
use serde_json::json;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Time kernels against plain LibTorch
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Selective scan and causal convolution, forward and backward, each against its reference
    Kernels(KernelArgs),
}

/// `bench kernels`
#[derive(Args, Debug)]
pub struct KernelArgs {
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// Rows
    #[arg(long, default_value_t = 4)]
    batch: i64,
    /// Time steps
    #[arg(long, default_value_t = 512)]
    length: i64,
    /// Channels
    #[arg(long, default_value_t = 256)]
    channels: i64,
    /// Rounds, each timing every kernel once; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(command: BenchCommand) -> anyhow::Result<ExitStatus> {
    match command {
        BenchCommand::Kernels(args) => kernels(&args),
    }
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
    fn new(args: &KernelArgs, device: Device) -> Self {
        tch::manual_seed(1);
        let normal = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device)).set_requires_grad(true);
        let (b, t, d) = (args.batch, args.length, args.channels);
        let a = -Tensor::arange_start(1, STATES + 1, (Kind::Float, device)).expand([d, STATES], false).contiguous();
        Self {
            x: normal(&[b, t, d]),
            delta: normal(&[b, t, d]),
            a: a.set_requires_grad(true),
            b: normal(&[b, t, STATES]),
            c: normal(&[b, t, STATES]),
            d: normal(&[d]),
            z: normal(&[b, t, d]),
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

    fn run(&self, kernel: Kernel, backend: Backend, direction: Direction) {
        match direction {
            Direction::Forward => {
                let _ = tch::no_grad(|| self.output(kernel, backend));
            }
            Direction::Both => {
                let (y, leaves) = self.output(kernel, backend);
                Tensor::run_backward(&[y.sum(Kind::Float)], &leaves, false, false);
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

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn kernels(args: &KernelArgs) -> anyhow::Result<ExitStatus> {
    let device = pick(&args.device)?;
    let inputs = Inputs::new(args, device);
    let wait = || {
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
    };
    let mut rows = Vec::new();
    for (name, kernel, direction) in CASES {
        let (mut fused, mut reference) = (Vec::new(), Vec::new());
        // In turn, so that a drift of the machine's speed meets both; the first round warms up.
        for round in 0..=args.rounds {
            for (backend, times) in [(Backend::Fused, &mut fused), (Backend::Reference, &mut reference)] {
                wait();
                let start = Instant::now();
                inputs.run(kernel, backend, direction);
                wait();
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        rows.push((name, median(&mut fused), median(&mut reference)));
    }
    let shape =
        format!("batch {}, length {}, channels {}, state {STATES}, fp32", args.batch, args.length, args.channels);
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, fused, reference)| {
                json!({ "kernel": name, "shape": shape, "fused_ms": fused, "reference_ms": reference,
                        "ratio": reference / fused })
            })
            .collect();
        let threads = tch::get_num_threads();
        output::json(&json!({ "device": device_name(device), "ceilings": { "cpu_threads": threads }, "rows": rows }))?;
    } else {
        let mut table = output::table(&["kernel", "ours ms", "LibTorch ms", "faster by"]);
        for (name, fused, reference) in &rows {
            let ratio = format!("{:.1} x", reference / fused);
            table.add_row([(*name).to_owned(), format!("{fused:.2}"), format!("{reference:.2}"), ratio]);
        }
        let head = format!(
            "{shape}; {} with {} threads; medians of {}",
            device_name(device),
            tch::get_num_threads(),
            args.rounds
        );
        output::print(&format!("{head}\n{table}"))?;
    }
    Ok(ExitStatus::Done)
}
