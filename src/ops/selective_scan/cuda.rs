//! The scan's CUDA kernel behind autograd.

use crate::bridge::autograd::{CustomFunction, Forward};
use crate::bridge::nvrtc::{Argument, KernelSource, launch};
use tch::{Kind, Tensor};

const SOURCE: KernelSource = KernelSource { name: "selective_scan", text: include_str!("kernel.cu") };
/// As in the source.
const STATES: i64 = 16;
const CHUNK: i64 = 16;
const WARP: i64 = 32;
/// Threads of a block: few, so that small models fill several multiprocessors.
const BLOCK: i64 = 64;

/// A scan in fp32 on a CUDA device; inputs in the order of [`super::ScanInputs`].
pub(super) struct ScanOnCuda {
    pub softplus: bool,
}

struct Sizes {
    batch: i64,
    time: i64,
    channels: i64,
}

impl Sizes {
    fn of(x_btd: &Tensor) -> Self {
        let (batch, time, channels) = x_btd.size3().expect("x is [b, t, d]");
        Self { batch, time, channels }
    }

    fn grid(&self) -> (u32, u32, u32) {
        ((self.channels as u64).div_ceil(BLOCK as u64) as u32, self.batch as u32, 1)
    }

    fn warps(&self) -> i64 {
        (self.channels + WARP - 1) / WARP
    }
}

fn values(tensor: &Tensor) -> Argument<'_> {
    Argument::Values(tensor.defined().then_some(tensor))
}

impl CustomFunction for ScanOnCuda {
    fn forward(&mut self, inputs: &[Tensor]) -> Forward {
        let sizes = Sizes::of(&inputs[0]);
        let Sizes { batch, time, channels } = sizes;
        let on = (Kind::Float, inputs[0].device());
        let y = inputs[0].empty_like();
        let last = Tensor::empty([batch, channels, STATES], on);
        let saved_states = Tensor::empty([batch, (time + CHUNK - 1) / CHUNK, STATES, channels], on);
        let mut arguments: Vec<Argument> = inputs.iter().map(values).collect();
        arguments.extend([&y, &last, &saved_states].map(values));
        arguments.extend([i32::from(self.softplus), time as i32, channels as i32].map(Argument::Int));
        launch(&SOURCE, "scan_forward", on.1, sizes.grid(), BLOCK as u32, &arguments)
            .unwrap_or_else(|error| panic!("{error}"));
        let mut saved: Vec<Tensor> = inputs.iter().map(Tensor::shallow_clone).collect();
        saved.push(saved_states);
        Forward { outputs: vec![y, last], saved, constant_outputs: 1 }
    }

    fn backward(&mut self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let (states, inputs) = saved.split_last().expect("the states were saved");
        let Some(dy) = &grads[0] else { return inputs.iter().map(|_| None).collect() };
        let dy = dy.contiguous();
        let sizes = Sizes::of(&inputs[0]);
        let Sizes { batch, time, channels } = sizes;
        let on = (Kind::Float, dy.device());
        let [dx, ddelta, dgate] = [(); 3].map(|()| inputs[0].empty_like());
        let da = Tensor::empty([batch, channels, STATES], on);
        let [dskip, dbias] = [(); 2].map(|()| Tensor::empty([batch, channels], on));
        let dbc = Tensor::empty([batch, time, sizes.warps(), 2 * STATES], on);
        let mut arguments: Vec<Argument> = inputs.iter().map(values).collect();
        arguments.extend([&dy, states, &dx, &ddelta, &da, &dbc, &dskip, &dgate, &dbias].map(values));
        let numbers = [i32::from(self.softplus), time as i32, channels as i32, sizes.warps() as i32];
        arguments.extend(numbers.map(Argument::Int));
        launch(&SOURCE, "scan_backward", on.1, sizes.grid(), BLOCK as u32, &arguments)
            .unwrap_or_else(|error| panic!("{error}"));
        let sum = |t: &Tensor, axis: i64| t.sum_dim_intlist([axis].as_slice(), false, Kind::Float);
        let dbc = sum(&dbc, 2);
        let given = |index: usize, gradient: Tensor| inputs[index].defined().then_some(gradient);
        vec![
            Some(dx),
            Some(ddelta),
            Some(sum(&da, 0)),
            Some(dbc.narrow(2, 0, STATES).contiguous()),
            Some(dbc.narrow(2, STATES, STATES).contiguous()),
            given(super::SKIP, sum(&dskip, 0)),
            given(super::GATE, dgate),
            given(super::BIAS, sum(&dbias, 0)),
        ]
    }
}
