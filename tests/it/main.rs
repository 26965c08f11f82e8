//! The integration tests, one binary.

mod analysis;
mod analysis_cli;
mod data;

#[cfg(feature = "torch")]
mod torch;
