//! What can go wrong with a corpus, each with the file and what would be accepted.

use std::path::{Path, PathBuf};

/// A corpus could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused to read something.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused to write something.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No space is left where the corpus was to go.
    #[error("cannot write {path}: the disk is full; hint: free space and repeat the command, it starts afresh")]
    DiskFull {
        /// The file that no longer fitted.
        path: PathBuf,
    },
    /// Not a shard, or one that was cut short.
    #[error("{path} is no readable shard: {reason}")]
    NotShard {
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        reason: String,
    },
    /// A data path names no shards.
    #[error(
        "no shards at {path}: expected a folder with .bin files, a .bin file, or the beginning of their names such as data/quick/train"
    )]
    NoShards {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// There is not one block of the wanted length.
    #[error("{path} has no block of {needed} tokens (its longest shard has {longest}); hint: lower the row length")]
    TooShort {
        /// The data path.
        path: PathBuf,
        /// Tokens in one block.
        needed: u64,
        /// Tokens in the longest shard.
        longest: u64,
    },
    /// A token id that the model has no embedding for.
    #[error(
        "{path}: token {offset} has id {id}, outside the vocabulary of {vocab_size}; hint: set vocab_size to the corpus' own"
    )]
    TokenId {
        /// The shard.
        path: PathBuf,
        /// Position in the shard, in tokens.
        offset: u64,
        /// The offending id.
        id: i64,
        /// Ids must lie below this.
        vocab_size: u64,
    },
    /// A block that does not exist was asked for.
    #[error("{path} has {blocks} blocks, block {index} was asked for")]
    NoBlock {
        /// The data path.
        path: PathBuf,
        /// The block asked for.
        index: u64,
        /// Blocks there are.
        blocks: u64,
    },
    /// `corpus.json` or the floor file does not say what it should.
    #[error("{path}: {reason}")]
    Corpus {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The output folder holds something else.
    #[error("{path} {reason}; hint: remove the folder, or name another (--out; data.path in a study)")]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        reason: String,
    },
    /// A parameter out of range.
    #[error("{name} = {value}: expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// A tokenizer could not be loaded, trained or used.
    #[error("tokenizer {name}: {reason}")]
    Tokenizer {
        /// File or kind.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An input to pack does not read as text.
    #[error("{path}: {reason}")]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line where there is one.
        reason: String,
    },
}

impl DataError {
    /// A failed read of `path`.
    pub fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    /// A failed write of `path`; a full disk is told apart because its remedy is.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Write { path, source },
        }
    }

    /// Whether the user's input is at fault, rather than the system.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Write { .. } | Self::DiskFull { .. })
    }
}

impl From<crate::files::WriteError> for DataError {
    fn from(error: crate::files::WriteError) -> Self {
        Self::write(&error.path)(error.source)
    }
}
