//! (skeleton)

mod data;
