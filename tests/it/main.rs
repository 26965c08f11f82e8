//! The integration tests, one binary.

mod analysis;
mod analysis_cli;
mod data;
