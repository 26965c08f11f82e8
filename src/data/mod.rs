//! Corpora: the one shard format ([`litpack`]), reading it ([`PackedDataset`]), what a corpus says about itself
//! ([`CorpusInfo`], [`FloorTable`], [`TargetReader`], [`Tokenizer`]), and the two ways to make one ([`synthetic`],
//! [`pack`]). No tensors.

mod dataset;
mod documents;
mod error;
mod floor;
mod folder;
mod hash;
mod info;
pub mod litpack;
mod order;
pub mod pack;
mod predictor;
mod source;
pub mod synthetic;
mod targets;
mod tokenizer;

pub use dataset::PackedDataset;
pub use error::DataError;
pub use floor::{Floor, FloorTable};
pub use folder::is_unfinished;
pub use info::{CorpusInfo, CorpusKind, KindFloor};
pub use source::SyntheticSpec;
pub use targets::{Distances, RowTarget, TargetReader};
pub use tokenizer::{TextStream, Tokenizer};

/// How far a corpus has come; counts only grow within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, for people.
    pub stage: &'static str,
    /// Units done: tokens when generating, bytes of input when packing.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Called now and then while a corpus is made, from any thread.
pub type ProgressFn<'a> = &'a (dyn Fn(Progress) + Sync);
