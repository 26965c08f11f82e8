//! The processes of one run: what the environment says of them, and starting them where nobody else has.
//!
//! The variables are torchrun's, so `torchrun --no-python`, `srun` and `lossfloor train` itself can start the ranks.

use super::device::{DeviceArg, pick};
use super::{ExitStatus, exit, output, usage};
use crate::bridge::use_gpu;
use crate::config::{CollectivesChoice, RunConfig};
use crate::train::Gone;
use crate::train::ranks::{Ranks, Rendezvous, Transport};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;

/// Set for ranks that [`launch`] has started.
const LAUNCHED: &str = "LOSSFLOOR_LAUNCHED";
/// How long the other ranks may take to end when one has failed.
const GRACE: Duration = Duration::from_secs(10);

fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(usage(format!("{name}: {error}"))),
    }
}

/// Which rank this process is, where a launcher says so.
pub(super) fn rendezvous() -> anyhow::Result<Option<Rendezvous>> {
    if variable("RANK")?.is_none() {
        return Ok(None);
    }
    let text = |name: &str| {
        variable(name)?.ok_or_else(|| usage(format!("RANK is set but {name} is not; hint: torchrun sets both")))
    };
    let number = |name: &str| -> anyhow::Result<usize> {
        let value = text(name)?;
        value.parse().map_err(|_| usage(format!("{name}={value} is no whole number")))
    };
    let size = number("WORLD_SIZE")?;
    let rank = number("RANK")?;
    if rank >= size {
        return Err(usage(format!("RANK={rank} is not below WORLD_SIZE={size}")));
    }
    let local = |name: &str, default: usize| if variable(name)?.is_some() { number(name) } else { Ok(default) };
    if variable(LAUNCHED)?.is_some() {
        // Without its launcher nobody would end a rank that hangs.
        set_parent_process_death_signal(Some(Signal::KILL)).context("cannot bind this rank to its launcher")?;
    }
    Ok(Some(Rendezvous {
        rank,
        size,
        local_rank: local("LOCAL_RANK", rank)?,
        local_size: local("LOCAL_WORLD_SIZE", size)?,
        host: text("MASTER_ADDR")?,
        port: text("MASTER_PORT")?.parse().map_err(|_| usage("MASTER_PORT is no port"))?,
        served: variable("TORCHELASTIC_USE_AGENT_STORE")?.is_some_and(|value| value.eq_ignore_ascii_case("true")),
    }))
}

/// The device of this process: its own GPU among those of its machine.
pub(super) fn device(run: &RunConfig, place: Option<&Rendezvous>) -> anyhow::Result<Device> {
    let wanted: DeviceArg = run.exec.device.parse().map_err(|e| usage(format!("exec.device: {e}")))?;
    let first = pick(&wanted)?;
    let (Device::Cuda(first), Some(place)) = (first, place) else { return Ok(first) };
    if place.local_size > 1 && matches!(wanted, DeviceArg::Cuda(index) if index > 0) {
        return Err(usage("exec.device: names one GPU for several processes; hint: write cuda"));
    }
    let visible = tch::Cuda::device_count() as usize;
    let index = if place.local_size > visible { place.local_rank % visible } else { first + place.local_rank };
    use_gpu(index)?;
    Ok(Device::Cuda(index))
}

/// Meets the other ranks, if there are any.
pub(super) fn meet(run: &RunConfig, place: Option<&Rendezvous>, device: Device) -> anyhow::Result<Arc<Ranks>> {
    let Some(place) = place else { return Ok(Ranks::alone()) };
    if place.size > run.batch_rows {
        let rows = run.batch_rows;
        return Err(usage(format!("WORLD_SIZE: {} processes cannot share a batch of {rows} rows", place.size)));
    }
    let transport = match (run.exec.collectives, device) {
        (CollectivesChoice::Auto, Device::Cpu) | (CollectivesChoice::Gloo, _) => Some(Transport::Gloo),
        (CollectivesChoice::Nccl, Device::Cpu) => {
            return Err(usage("exec.collectives: nccl needs a GPU for each process"));
        }
        (CollectivesChoice::Nccl, _) => Some(Transport::Nccl),
        (CollectivesChoice::Auto, _) => None,
    };
    let rank = place.rank;
    let gone = move |gone: &Gone| {
        // Rank 0 has told the others, who need not repeat it.
        if !gone.told {
            output::note(&format!("error: {gone} (said by rank {rank})"));
        }
        // Without the destructors of static objects, which other threads still use.
        signal_hook::low_level::exit(ExitStatus::Internal as i32);
    };
    Ok(Ranks::meet(place, transport, device, gone)?)
}

/// A port of this machine that is free now; whoever takes it in between makes the ranks fail with one line.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(listener.context("no port is free")?.port())
}

/// Starts this command once for each of a machine's ranks and waits for them. Signals are passed on.
pub(super) fn launch(run: &RunConfig) -> anyhow::Result<ExitStatus> {
    if run.exec.nodes > 1 {
        let problem = format!("exec.nodes = {}: one command starts the ranks of one machine", run.exec.nodes);
        return Err(usage(format!("{problem}; hint: `lossfloor sweep submit`, or torchrun on each machine")));
    }
    let size = run.exec.gpus;
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let port = free_port()?;
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGUSR2,
    ])
    .context("cannot listen for signals")?;
    let mut ranks: Vec<Child> = Vec::new();
    for rank in 0..size {
        let child = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", size.to_string())
            .env("LOCAL_WORLD_SIZE", size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env(LAUNCHED, "1")
            // A terminal's Ctrl-C comes here alone, and is passed on once.
            .process_group(0)
            .spawn();
        match child {
            Ok(child) => ranks.push(child),
            Err(error) => {
                end(&mut ranks);
                return Err(error).context(format!("cannot start rank {rank} of {size}"));
            }
        }
    }
    let mut statuses: Vec<Option<std::process::ExitStatus>> = vec![None; size];
    let mut first_end: Option<Instant> = None;
    while statuses.iter().any(Option::is_none) {
        for number in signals.pending() {
            let signal = match number {
                signal_hook::consts::SIGINT => Signal::INT,
                signal_hook::consts::SIGUSR2 => Signal::USR2,
                _ => Signal::TERM,
            };
            pass_on(&ranks, &statuses, signal);
        }
        for (child, status) in ranks.iter_mut().zip(&mut statuses) {
            if status.is_none() {
                *status = child.try_wait().context("cannot wait for a rank")?;
            }
        }
        let failed = statuses.iter().flatten().any(|status| !status.success() && status.code() != Some(75));
        if failed && first_end.get_or_insert_with(Instant::now).elapsed() > GRACE {
            end(&mut ranks);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    judge(&statuses.into_iter().flatten().collect::<Vec<_>>())
}

fn pass_on(ranks: &[Child], statuses: &[Option<std::process::ExitStatus>], signal: Signal) {
    for (child, status) in ranks.iter().zip(statuses) {
        // One that was waited for has given its id back.
        if let (None, Some(pid)) = (status, Pid::from_raw(child.id() as i32)) {
            let _ = kill_process(pid, signal);
        }
    }
}

fn end(ranks: &mut [Child]) {
    for child in ranks {
        let _ = child.kill();
    }
}

/// What all ranks together ended with: what the first one that knows a reason says.
fn judge(statuses: &[std::process::ExitStatus]) -> anyhow::Result<ExitStatus> {
    if statuses.iter().all(std::process::ExitStatus::success) {
        return Ok(ExitStatus::Done);
    }
    if let Some((rank, signal)) = statuses.iter().enumerate().find_map(|(rank, s)| Some((rank, s.signal()?))) {
        return Err(exit(ExitStatus::Internal, format!("rank {rank} was killed by signal {signal}")));
    }
    let codes = || statuses.iter().filter_map(std::process::ExitStatus::code);
    let told = codes().filter(|code| *code > 1).max().and_then(ExitStatus::from_code);
    // Each has said why it ended.
    Ok(told.unwrap_or(ExitStatus::Internal))
}
