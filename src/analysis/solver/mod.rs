//! Finding the optimum of a law: variable projection on a grid of shapes for a start, damped Newton steps with exact
//! second derivatives to the end, and independent starts to confirm it.

pub mod least_squares;
pub mod matrix;
pub mod newton;
pub mod problem;
pub mod search;
pub mod vector;

pub use newton::{Held, Minimum};
pub use problem::{Block, Criterion, Problem, Residual};
