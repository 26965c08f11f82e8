//! Timing of work on a device, and what a device can do at best.

use tch::{Device, Kind, Tensor};

pub(super) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Waits until a device has done what it was asked.
pub(super) fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Median seconds of one call of `body`, each round timing several; the first round warms up.
pub(super) fn time(device: Device, rounds: usize, calls: usize, mut body: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    for round in 0..=rounds {
        wait(device);
        let start = std::time::Instant::now();
        for _ in 0..calls {
            body();
        }
        wait(device);
        if round > 0 {
            times.push(start.elapsed().as_secs_f64() / calls as f64);
        }
    }
    median(&mut times)
}

/// Highest memory of tensors so far, GiB; `None` on a CPU.
pub(super) fn peak_gib(device: Device) -> anyhow::Result<Option<f64>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    Ok(Some(crate::bridge::peak_memory(index)? as f64 / (1u64 << 30) as f64))
}

/// What a GPU can do at best, measured: a large bf16 product on random data, and a large copy.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Ceilings {
    pub matmul_tflops: f64,
    /// Bytes read and written, TB/s.
    pub copy_tbps: f64,
}

impl Ceilings {
    /// Of a GPU; a CPU is not measured.
    pub(super) fn of(device: Device) -> Option<Self> {
        matches!(device, Device::Cuda(_)).then(|| Self::measure(device))
    }

    /// As documents have them: nothing listed where nothing was measured.
    pub(super) fn listed(ceilings: Option<Self>) -> serde_json::Value {
        ceilings.map_or_else(|| serde_json::json!({}), |ceilings| serde_json::json!(ceilings))
    }

    pub(super) fn measure(device: Device) -> Self {
        const SIDE: i64 = 8192;
        let random = || Tensor::randn([SIDE, SIDE], (Kind::Float, device)).to_kind(Kind::BFloat16);
        let (a, b) = (random(), random());
        let product = time(device, 7, 3, || drop(a.mm(&b)));
        let from = Tensor::zeros([1 << 31], (Kind::Uint8, device));
        let mut to = from.empty_like();
        let copy = time(device, 7, 3, || to.copy_(&from));
        Self {
            matmul_tflops: 2.0 * (SIDE as f64).powi(3) / product / 1e12,
            copy_tbps: 2.0 * (1u64 << 31) as f64 / copy / 1e12,
        }
    }
}
