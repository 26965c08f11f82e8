//! The integration tests, one binary.

mod analysis;
mod analysis_cli;
mod data;
mod layering;
mod sweep;
mod sweep_run;

#[cfg(feature = "torch")]
mod torch;
