//! (skeleton)

mod data;
mod sweep;
