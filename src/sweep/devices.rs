//! What this machine has to run things on, found without LibTorch.

use super::packing::Need;
use super::{SweepError, SweepFile};
use serde_json::Value;

/// GPUs and cores that runs may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// What `CUDA_VISIBLE_DEVICES` has to say for each visible GPU.
    pub gpus: Vec<String>,
    /// CPU cores.
    pub cores: usize,
    /// Product name of the first GPU.
    pub gpu_name: Option<String>,
    /// Bytes of memory of the smallest GPU.
    pub gpu_memory: Option<u64>,
}

/// Where runs go: some on GPUs, the others on cores of the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// One entry for each run that fits on it: a GPU.
    pub gpus: Vec<String>,
    /// Cores that runs without a GPU share.
    pub cores: usize,
    /// Runs at once, at most.
    pub most: usize,
}

impl Slots {
    /// All of it.
    pub fn whole(&self) -> Need {
        Need { gpus: self.gpus.len(), cores: self.cores }
    }

    /// `count` different GPUs that have room beside what is `taken`, the emptiest first; fewer where there are no more.
    pub fn pick(&self, count: usize, taken: &[String]) -> Vec<String> {
        let mut free = self.gpus.clone();
        for gpu in taken {
            if let Some(position) = free.iter().position(|one| one == gpu) {
                free.remove(position);
            }
        }
        let room = |gpu: &String| free.iter().filter(|one| *one == gpu).count();
        let mut different: Vec<String> = Vec::new();
        for gpu in &free {
            if !different.contains(gpu) {
                different.push(gpu.clone());
            }
        }
        different.sort_by_key(|gpu| std::cmp::Reverse(room(gpu)));
        different.truncate(count);
        different
    }
}

impl Machine {
    /// Looks at this machine. `visible` is the environment's `CUDA_VISIBLE_DEVICES`.
    pub fn detect(visible: Option<&str>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let gpus: Vec<String> = match visible {
            // As CUDA reads it: what stands after the first invalid entry does not count.
            Some(list) => list
                .split(',')
                .map(str::trim)
                .take_while(|entry| !entry.is_empty() && !entry.starts_with('-'))
                .map(str::to_owned)
                .collect(),
            None => (0..count_gpus()).map(|index| index.to_string()).collect(),
        };
        let listed = if gpus.is_empty() { Vec::new() } else { list_gpus() };
        Self {
            gpus,
            cores,
            gpu_name: listed.first().map(|(name, _)| name.clone()),
            gpu_memory: listed.iter().map(|(_, bytes)| *bytes).min(),
        }
    }

    /// A machine of a cluster, of which nothing more is known: runs that may use a GPU get one.
    pub fn with_gpus() -> Self {
        Self { gpus: vec!["any".to_owned()], cores: 1, gpu_name: None, gpu_memory: None }
    }

    /// The slots that a sweep's `backends.local` and `run.max_running` leave of this machine.
    pub fn slots(&self, sweep: &SweepFile) -> Result<Slots, SweepError> {
        let local = &sweep.backends.local;
        let place = "backends.local.gpus";
        let chosen: Vec<String> = match &local.gpus {
            None => self.gpus.clone(),
            Some(Value::String(word)) if word == "all" => self.gpus.clone(),
            Some(Value::Array(positions)) => {
                let mut chosen = Vec::new();
                for position in positions {
                    let gpu = position.as_u64().and_then(|index| self.gpus.get(index as usize));
                    chosen.push(gpu.cloned().ok_or_else(|| {
                        sweep.layout(place, format!("{position} is none of the {} visible GPUs", self.gpus.len()))
                    })?);
                }
                chosen
            }
            Some(other) => {
                return Err(sweep.layout(place, format!("{other} is neither 'all' nor a list such as [0, 1]")));
            }
        };
        // Runs are dealt out over the GPUs before any GPU gets its second one.
        let per_gpu = local.runs_per_gpu.unwrap_or(1);
        let gpus = (0..per_gpu).flat_map(|_| chosen.iter().cloned()).collect();
        Ok(Slots { gpus, cores: local.cores.unwrap_or(self.cores), most: sweep.run.max_running.unwrap_or(usize::MAX) })
    }
}

/// Dense peak of a device in FLOP/s, by its vendor's data sheet.
pub fn peak_flops(name: &str, bf16: bool) -> Option<f64> {
    match (name, bf16) {
        ("NVIDIA H200" | "NVIDIA H100 80GB HBM3", true) => Some(989.4e12),
        ("NVIDIA H200" | "NVIDIA H100 80GB HBM3", false) => Some(66.9e12),
        ("NVIDIA A100-SXM4-80GB" | "NVIDIA A100-SXM4-40GB", true) => Some(312e12),
        ("NVIDIA A100-SXM4-80GB" | "NVIDIA A100-SXM4-40GB", false) => Some(19.5e12),
        _ => None,
    }
}

/// Names and bytes of memory of the GPUs, as the driver's tool lists them.
fn list_gpus() -> Vec<(String, u64)> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    let Ok(output) = std::process::Command::new("nvidia-smi").args(query).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    let gpu = |line: &str| {
        let (name, mib) = line.rsplit_once(',')?;
        Some((name.trim().to_owned(), mib.trim().parse::<u64>().ok()? << 20))
    };
    text.lines().filter_map(gpu).collect()
}

fn count_gpus() -> usize {
    if let Ok(entries) = std::fs::read_dir("/proc/driver/nvidia/gpus") {
        return entries.flatten().count();
    }
    let listing = std::process::Command::new("nvidia-smi").arg("-L").output();
    match listing {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with("GPU ")).count()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Slots};

    #[test]
    fn a_run_gets_different_gpus_and_the_emptiest_first() {
        let slots = Slots { gpus: ["0", "1", "2", "0", "1", "2"].map(str::to_owned).into(), cores: 1, most: 9 };
        assert_eq!(slots.pick(2, &["0".to_owned()]), ["1", "2"]);
        assert_eq!(slots.pick(9, &["1".to_owned(), "1".to_owned()]), ["0", "2"]);
    }

    #[test]
    fn visible_devices_are_read_as_cuda_does() {
        assert_eq!(Machine::detect(Some("2, 0,-1,1")).gpus, ["2", "0"]);
        assert_eq!(Machine::detect(Some("")).gpus, Vec::<String>::new());
    }
}
