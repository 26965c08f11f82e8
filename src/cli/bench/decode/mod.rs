//! Decoding: `bench decode` measures it, `bench plot` draws what was measured.

#[cfg(feature = "torch")]
mod command;
mod figure;
#[cfg(feature = "torch")]
mod job;
mod measured;
pub mod plot;
#[cfg(feature = "torch")]
mod table;

#[cfg(feature = "torch")]
pub use command::{DecodeArgs, run};
