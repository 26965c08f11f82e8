//! Checkpoints in and out: what CHECKPOINT on a command line means, and the model folder that other programs read.
//!
//! A *model folder* is what Hugging Face tools expect: `config.json` beside `model.safetensors`, or shards with
//! `model.safetensors.index.json`, and a `tokenizer.json` where there is one. The section `lossfloor` of its
//! `config.json` says how to build the model: the keys `model` and `scaling` as in a training configuration. Tensors
//! bear the names of one [`Layout`]; whoever reads a folder sees the names of [`arch::params`](crate::arch::params).
//!
//! [`open`] takes a model folder, the folder of a run or one of its checkpoints; [`open_state_dict`] takes files that
//! nothing describes, of safetensors or of PyTorch's `torch.save`; [`write`] makes a model folder of either. Values are
//! read where they lie, some rows at a time, so no more than one tensor is in memory.

mod describe;
mod folder;
mod infer;
mod layout;
mod pickle;
mod safetensors_file;
mod stored;
mod torch_file;
mod write;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torch_tests;

pub use folder::{ModelFolder, Param, StateDict, open, open_state_dict};
pub use layout::Layout;
pub use stored::Element;
pub use write::{WriteOptions, Written, write};

use crate::arch::ArchError;
use crate::config::ConfigError;
use crate::files::{ReadError, WriteError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The run that a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Its id.
    pub run_id: String,
    /// Optimiser steps it had taken.
    pub step: u64,
}

/// Why a model cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The system refused a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system refused a write; nothing is left of it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file or folder is not what it should be.
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
    /// An index names a file that is not there.
    #[error("{index}: its shard {shard} is missing")]
    MissingShard { index: PathBuf, shard: String },
    /// The tensors are those of another model.
    #[error("{path}: not the tensors of {model}: {problem}")]
    Names { path: PathBuf, model: String, problem: String },
    /// A tensor does not fit the model.
    #[error("{path}: '{tensor}' has shape {got:?} where {model} needs {needed:?}")]
    Shape { path: PathBuf, tensor: String, got: Vec<usize>, model: String, needed: Vec<usize> },
    /// A tensor's numbers are of a kind that no parameter has.
    #[error("{path}: '{tensor}' has dtype {dtype}; known: F32, BF16, F16")]
    Dtype { path: PathBuf, tensor: String, dtype: String },
    /// The folder to write is there already.
    #[error("{path} exists; name another folder")]
    Exists { path: PathBuf },
    /// The model cannot be written in this layout.
    #[error("the {layout} layout cannot hold this model: {problem}")]
    Layout { layout: &'static str, problem: String },
    /// What describes the model does not decide one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No such model.
    #[error(transparent)]
    Arch(#[from] ArchError),
}

impl ExchangeError {
    fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), problem: problem.into() }
    }
}
