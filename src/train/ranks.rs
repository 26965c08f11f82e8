//! [`Ranks`]: the processes that train one run together, each on its share of every batch.
//!
//! Gradients are sums over ranks, in fp32, of what each rank adds for its rows, weighted by the whole batch: a run takes
//! the same steps, to rounding, on any number of ranks. Each rank updates its parameters by the same numbers, or, with a
//! sharded optimiser, updates its part and hands it round (ZeRO stage 1, arXiv 1910.02054).

use crate::bridge::distributed::{Gloo, Reduction, Store, Work};
use crate::bridge::{BridgeError, NcclGroup, bus_id};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tch::{Device, Tensor};

use super::watch::{Gone, Watch};

/// Longest wait for a rank that has not come yet, or for one collective operation.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Which process of a run this is, and where they meet: what torchrun says in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// From 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// From 0 on each machine.
    pub local_rank: usize,
    /// How many there are on this machine.
    pub local_size: usize,
    /// The machine of rank 0.
    pub host: String,
    /// Where the meeting place listens.
    pub port: u16,
    /// Whether a launcher serves the meeting place already; else rank 0 does.
    pub served: bool,
}

/// What adds up the ranks' tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP, between CPUs; tensors of a GPU are copied there and back.
    Gloo,
    /// Between GPUs, one for each rank.
    Nccl,
}

#[derive(Debug)]
enum Group {
    Alone,
    Gloo { group: Mutex<(Gloo, Vec<Pending>)> },
    Nccl { group: Mutex<NcclGroup> },
}

/// An operation of Gloo that has begun.
#[derive(Debug)]
struct Pending {
    work: Work,
    /// The copy on the CPU and the tensor of the GPU that it belongs to.
    copy: Option<(Tensor, Tensor)>,
}

/// The processes of one run, as one of them sees them.
#[derive(Debug)]
pub struct Ranks {
    rank: usize,
    size: usize,
    group: Group,
    /// Dropped after the group.
    watch: Option<Watch>,
    _store: Option<Mutex<Store>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the process; until then the value is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ranks {
    /// One process, which has nobody to wait for.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self { rank: 0, size: 1, group: Group::Alone, watch: None, _store: None })
    }

    /// Meets the other ranks. Without a `transport`, NCCL where each of them has a GPU to itself, else Gloo. From then on `gone` is called, from a thread of its own, when one of them has vanished: work
    /// that waits for it would wait for ever.
    pub fn meet(
        place: &Rendezvous,
        transport: Option<Transport>,
        device: Device,
        gone: impl Fn(&Gone) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, BridgeError> {
        let &Rendezvous { rank, size, .. } = place;
        let serves = rank == 0 && !place.served;
        let meet = |error: BridgeError| {
            let address = format!("{}:{}", place.host, place.port);
            BridgeError(format!("rank {rank} of {size} cannot meet the others at {address}: {}", first_line(&error)))
        };
        let store = Store::meet(&place.host, place.port, serves, size, PATIENCE).map_err(meet)?;
        let watch = Watch::begin(&store, place, gone)?;
        let transport = match transport {
            Some(transport) => transport,
            None => choose(&store, place, device)?,
        };
        let group = match (transport, device) {
            (Transport::Nccl, Device::Cuda(index)) => {
                let id = if rank == 0 {
                    let id = NcclGroup::id()?;
                    store.set("lossfloor/nccl", &id)?;
                    id
                } else {
                    let id = store.get("lossfloor/nccl")?;
                    id.try_into().map_err(|_| BridgeError("rank 0 has sent no NCCL id".to_owned()))?
                };
                Group::Nccl { group: Mutex::new(NcclGroup::join(&id, rank, size, index)?) }
            }
            _ => {
                // Ranks of one machine need no network.
                let host = (place.local_size == size).then_some("127.0.0.1");
                Group::Gloo { group: Mutex::new((Gloo::join(&store, rank, size, host, PATIENCE)?, Vec::new())) }
            }
        };
        Ok(Arc::new(Self { rank, size, group, watch: Some(watch), _store: Some(Mutex::new(store)) }))
    }

    /// This one's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the one that writes the run's files.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// This rank's part of `count` things, as even as can be.
    pub fn share(&self, count: usize) -> Range<usize> {
        self.rank * count / self.size..(self.rank + 1) * count / self.size
    }

    /// The part of a flat tensor of `length` elements that rank `rank` keeps the optimiser's state of.
    pub fn shard(&self, rank: usize, length: i64) -> (i64, i64) {
        const ALIGNMENT: i64 = 1024;
        let each = (length + self.size as i64 - 1) / self.size as i64;
        let each = (each + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        let start = (rank as i64 * each).min(length);
        (start, each.min(length - start))
    }

    /// Whether waiting for work between ranks is work of the GPU's own stream, which can be recorded.
    pub(super) fn waits_on_device(&self) -> bool {
        matches!(self.group, Group::Nccl { .. })
    }

    /// Whether work between ranks can go on while this process computes.
    pub fn overlaps(&self, device: Device) -> bool {
        match self.group {
            Group::Alone => false,
            Group::Nccl { .. } => true,
            // Copies from and to a GPU would wait.
            Group::Gloo { .. } => device == Device::Cpu,
        }
    }

    /// Begins to add a contiguous tensor to those of the other ranks, in place; done after the next [`Self::wait`].
    pub fn begin_sum(&self, tensor: &Tensor) -> Result<(), BridgeError> {
        self.begin_reduction(tensor, Reduction::Sum)
    }

    fn begin_reduction(&self, tensor: &Tensor, reduction: Reduction) -> Result<(), BridgeError> {
        match &self.group {
            Group::Alone => Ok(()),
            Group::Nccl { group } => locked(group).all_reduce(tensor, reduction),
            Group::Gloo { group } => on_cpu(group, tensor, |gloo, on_cpu| gloo.all_reduce(on_cpu, reduction)),
        }
    }

    fn begin_broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), BridgeError> {
        if tensor.numel() == 0 {
            return Ok(());
        }
        match &self.group {
            Group::Alone => Ok(()),
            Group::Nccl { group } => locked(group).broadcast(tensor, root),
            Group::Gloo { group } => on_cpu(group, tensor, |gloo, on_cpu| gloo.broadcast(on_cpu, root)),
        }
    }

    /// Waits for everything that was begun; a GPU waits, not its host.
    pub fn wait(&self) -> Result<(), BridgeError> {
        match &self.group {
            Group::Alone => Ok(()),
            Group::Nccl { group } => locked(group).wait(),
            Group::Gloo { group } => {
                for Pending { work, copy } in std::mem::take(&mut locked(group).1) {
                    work.wait()?;
                    if let Some((from, to)) = copy {
                        tch::no_grad(|| to.shallow_clone().copy_(&from));
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds a contiguous tensor to those of the other ranks, in place.
    pub fn sum(&self, tensor: &Tensor) -> Result<(), BridgeError> {
        self.begin_sum(tensor)?;
        self.wait()
    }

    /// The largest value of each element over all ranks, in place.
    pub fn max(&self, tensor: &Tensor) -> Result<(), BridgeError> {
        self.begin_reduction(tensor, Reduction::Max)?;
        self.wait()
    }

    /// Gives every rank the leader's contiguous tensor.
    pub fn copy_from_leader(&self, tensor: &Tensor) -> Result<(), BridgeError> {
        self.begin_broadcast(tensor, 0)?;
        self.wait()
    }

    /// Gives every rank each rank's own shard of a flat tensor.
    pub fn gather_shards(&self, flat: &Tensor) -> Result<(), BridgeError> {
        for rank in 0..self.size {
            let (start, count) = self.shard(rank, flat.numel() as i64);
            self.begin_broadcast(&flat.narrow(0, start, count), rank)?;
        }
        self.wait()
    }

    /// Says goodbye once all ranks have come this far: from now on they may end in any order.
    pub fn part(&self) -> Result<(), BridgeError> {
        if let Some(watch) = &self.watch {
            watch.part()?;
        }
        Ok(())
    }
}

/// NCCL if every rank has a GPU and no two the same one, else Gloo; all ranks come to the same answer.
fn choose(store: &Store, place: &Rendezvous, device: Device) -> Result<Transport, BridgeError> {
    let key = |rank: usize| format!("lossfloor/device/{rank}");
    let own = match device {
        Device::Cuda(index) => {
            format!("{} {}", rustix::system::uname().nodename().to_string_lossy(), bus_id(index)?)
        }
        _ => String::new(),
    };
    store.set(&key(place.rank), own.as_bytes())?;
    let mut seen = HashSet::new();
    for rank in 0..place.size {
        let other = store.get(&key(rank))?;
        if other.is_empty() || !seen.insert(other) {
            return Ok(Transport::Gloo);
        }
    }
    Ok(Transport::Nccl)
}

/// Begins an operation of Gloo on the copy of `tensor` that lies on the CPU.
fn on_cpu(
    group: &Mutex<(Gloo, Vec<Pending>)>,
    tensor: &Tensor,
    begin: impl FnOnce(&Gloo, &Tensor) -> Result<Work, BridgeError>,
) -> Result<(), BridgeError> {
    let mut group = locked(group);
    let copy = match tensor.device() {
        Device::Cpu => None,
        _ => Some((tensor.to_device(Device::Cpu), tensor.shallow_clone())),
    };
    let work = begin(&group.0, copy.as_ref().map_or(tensor, |(on_cpu, _)| on_cpu))?;
    group.1.push(Pending { work, copy });
    Ok(())
}

/// c10d's messages go on with a stack of calls.
fn first_line(error: &BridgeError) -> &str {
    error.0.lines().next().unwrap_or_default()
}
