//! `lossfloor`: scaling studies of language-model architectures.
//!
//! Layers, lowest first; imports point down (`tests/it/layering.rs` reads the source and checks):
//!
//! | layer | modules |
//! |---|---|
//! | L0 | `units` `binomial` `expression` `files` `slurm` `arch` `scaling` `schedule` |
//! | L1 | `config` `record` `data` `bridge`* |
//! | L2 | `runs` `tasks` `ops`* |
//! | L3 | `nn`* `exchange` |
//! | L4 | `train`* `decode`* `sweep` `analysis` |
//! | L5 | `plot` `report` `verify`* `evaluate`* |
//! | L6 | `study` `cli` |
//!
//! `*` needs the feature `torch`.

pub mod analysis;
pub mod arch;
pub mod binomial;
pub mod cli;
pub mod config;
pub mod data;
pub mod exchange;
pub mod expression;
pub mod files;
pub mod plot;
pub mod record;
pub mod report;
pub mod runs;
pub mod scaling;
pub mod schedule;
pub mod slurm;
pub mod study;
pub mod sweep;
pub mod tasks;
pub mod units;

#[cfg(feature = "torch")]
pub mod bridge;
#[cfg(feature = "torch")]
pub mod decode;
#[cfg(feature = "torch")]
pub mod evaluate;
#[cfg(feature = "torch")]
pub mod nn;
#[cfg(feature = "torch")]
pub mod ops;
#[cfg(feature = "torch")]
pub mod train;
#[cfg(feature = "torch")]
pub mod verify;
