//! Training one model: data in, checkpoints and metrics out.

pub mod optimizer;
