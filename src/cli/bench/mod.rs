//! `lossfloor bench`: what this machine does.

#[cfg(feature = "torch")]
mod child;
mod decode;
mod document;
mod fit;
#[cfg(feature = "torch")]
mod kernels;
#[cfg(feature = "torch")]
mod model;
#[cfg(feature = "torch")]
mod timing;
#[cfg(feature = "torch")]
mod train;

use super::ExitStatus;
#[cfg(feature = "torch")]
use super::runtime;
use clap::Subcommand;

/// Time kernels, training steps and fits
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Fits: a grid of starts, one certified fit, resamples, many small groups
    Fit(fit::FitArgs),
    /// Selective scan and causal convolution: on a CPU against their references, on a GPU against memory bandwidth
    #[cfg(feature = "torch")]
    Kernels(kernels::KernelArgs),
    /// Training steps on random tokens: tokens/s, share of the device's speed, memory, time to the third step
    #[cfg(feature = "torch")]
    Train(train::TrainArgs),
    /// Prompts read and tokens generated with random weights: time to the first token, tokens/s, the floor that memory sets
    #[cfg(feature = "torch")]
    Decode(decode::DecodeArgs),
    /// Draw what `bench decode --json` printed: latency against throughput, by tokens generated and by length of prompts,
    /// beside the floor that memory sets
    Plot(decode::plot::PlotArgs),
}

pub fn run(command: BenchCommand) -> anyhow::Result<ExitStatus> {
    match command {
        BenchCommand::Fit(args) => fit::run(&args),
        #[cfg(feature = "torch")]
        BenchCommand::Kernels(args) => {
            runtime::use_threads(None)?;
            kernels::run(&args)
        }
        #[cfg(feature = "torch")]
        BenchCommand::Train(args) => {
            runtime::use_threads(None)?;
            train::run(&args)
        }
        #[cfg(feature = "torch")]
        BenchCommand::Decode(args) => {
            runtime::use_threads(None)?;
            decode::run(&args)
        }
        BenchCommand::Plot(args) => decode::plot::run(&args),
    }
}
