//! [`PackedDataset`]: the shards that a path names, as blocks of `seq_len + 1` tokens.
//!
//! Blocks do not overlap and do not cross files; the tokens that remain at the end of a shard are never read. Inputs
//! of a block are its tokens `0..seq_len`, targets `1..=seq_len`. Documents are not masked.

use super::DataError;
use super::hash::short_hex;
use super::litpack::{HEADER_BYTES, Shard};
use super::order::block_of_row;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Below this many bytes a corpus is hashed, and its ids checked, in full when it is opened.
const SMALL_BYTES: usize = 64 << 20;
/// A larger corpus enters its fingerprint by this many samples of [`SAMPLE_BYTES`] a shard.
const SAMPLES: usize = 1024;
const SAMPLE_BYTES: usize = 1024;

/// Memory-mapped tokens, cut into blocks.
#[derive(Debug)]
pub struct PackedDataset {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Blocks in all shards up to and including the one of the same index.
    ends: Vec<u64>,
    block_tokens: usize,
    vocab_size: Option<u64>,
}

impl PackedDataset {
    /// Opens every shard that `path` names, sorted by name: all `*.bin` of a folder, one file, or all `{path}*.bin`.
    ///
    /// Ids of `vocab_size` and above are refused when they are read; a corpus under 64 MiB is checked whole, now.
    pub fn open(path: &Path, seq_len: usize, vocab_size: Option<u64>) -> Result<Self, DataError> {
        let shards = shard_paths(path)?.iter().map(|p| Shard::open(p)).collect::<Result<Vec<_>, _>>()?;
        let block_tokens = seq_len + 1;
        let ends: Vec<u64> = shards
            .iter()
            .scan(0, |total, shard| {
                *total += shard.tokens() / block_tokens as u64;
                Some(*total)
            })
            .collect();
        if ends.last().copied().unwrap_or(0) == 0 {
            let longest = longest(&shards);
            return Err(DataError::TooShort { path: path.to_owned(), needed: block_tokens as u64, longest });
        }
        if is_small(&shards) && vocab_size.is_some() {
            let mut ids = vec![0; 1 << 16];
            for shard in &shards {
                for offset in (0..shard.tokens()).step_by(ids.len()) {
                    let count = (shard.tokens() - offset).min(ids.len() as u64) as usize;
                    shard.read(offset, &mut ids[..count], vocab_size)?;
                }
            }
        }
        Ok(Self { path: path.to_owned(), shards, ends, block_tokens, vocab_size })
    }

    /// Blocks of `seq_len + 1` tokens.
    pub fn blocks(&self) -> u64 {
        self.ends.last().copied().expect("open refuses a data path without blocks")
    }

    /// Tokens in all shards, those included that fill no block.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(Shard::tokens).sum()
    }

    /// Tokens in the longest shard.
    pub fn longest_shard(&self) -> u64 {
        longest(&self.shards)
    }

    /// Identity of the content, whatever the files are called: 16 hex digits of a SHA-256 over each shard's header,
    /// length and content in order of name. Of a corpus of 64 MiB and above the content enters by 1024 samples of
    /// 1 KiB per shard, evenly spread, the last bytes included.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.shards, is_small(&self.shards))
    }

    /// Copies block `index`, in file order, to `out`, which must have room for `seq_len + 1` ids.
    pub fn block(&self, index: u64, out: &mut [i64]) -> Result<(), DataError> {
        assert_eq!(out.len(), self.block_tokens, "a block is seq_len + 1 tokens");
        if index >= self.blocks() {
            return Err(DataError::NoBlock { path: self.path.clone(), index, blocks: self.blocks() });
        }
        let shard = self.ends.partition_point(|&end| end <= index);
        let first = if shard == 0 { 0 } else { self.ends[shard - 1] };
        self.shards[shard].read((index - first) * self.block_tokens as u64, out, self.vocab_size)
    }

    /// Rows `first_row..first_row + rows` of the endless training stream, one after another, `seq_len + 1` ids each.
    ///
    /// A row is a pure function of `seed` and its number: every block once per epoch, in an order of that epoch. A
    /// resumed run and every rank find their rows without having read the others.
    pub fn training_rows(&self, seed: u64, first_row: u64, rows: usize) -> Result<Vec<i64>, DataError> {
        self.gather(rows, |i| block_of_row(first_row + i, self.blocks(), seed))
    }

    /// Blocks `first..first + rows` in file order, for validation.
    pub fn rows(&self, first: u64, rows: usize) -> Result<Vec<i64>, DataError> {
        self.gather(rows, |i| first + i)
    }

    fn gather(&self, rows: usize, block: impl Fn(u64) -> u64) -> Result<Vec<i64>, DataError> {
        let mut out = vec![0; rows * self.block_tokens];
        for (i, row) in out.chunks_exact_mut(self.block_tokens).enumerate() {
            self.block(block(i as u64), row)?;
        }
        Ok(out)
    }
}

/// The shards that a data path names, sorted by name.
pub(super) fn shard_paths(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let none = || DataError::NoShards { path: path.to_owned() };
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (folder, prefix) = if path.is_dir() {
        (path.to_owned(), String::new())
    } else {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        (folder, path.file_name().ok_or_else(none)?.to_string_lossy().into_owned())
    };
    if !folder.is_dir() {
        return Err(none());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(DataError::read(&folder))? {
        let path = entry.map_err(DataError::read(&folder))?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        if named && path.extension().is_some_and(|e| e == "bin") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn longest(shards: &[Shard]) -> u64 {
    shards.iter().map(Shard::tokens).max().unwrap_or(0)
}

fn is_small(shards: &[Shard]) -> bool {
    shards.iter().map(|s| s.raw().len()).sum::<usize>() < SMALL_BYTES
}

fn fingerprint(shards: &[Shard], whole: bool) -> String {
    let mut hash = Sha256::new();
    for shard in shards {
        let (header, content) = shard.raw().split_at(HEADER_BYTES);
        hash.update(header);
        hash.update((content.len() as u64).to_le_bytes());
        if whole || content.len() <= SAMPLES * SAMPLE_BYTES {
            hash.update(content);
        } else {
            let span = content.len() - SAMPLE_BYTES;
            for sample in 0..SAMPLES {
                let at = (span as u128 * sample as u128 / (SAMPLES as u128 - 1)) as usize;
                hash.update(&content[at..at + SAMPLE_BYTES]);
            }
        }
    }
    short_hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::litpack::ShardWriter;
    use super::*;

    fn corpus(prefix: &str, tokens: u32, shard_tokens: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), prefix, 1000, shard_tokens);
        writer.push(&(0..tokens).collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        folder
    }

    #[test]
    fn blocks_stay_inside_their_files() {
        // Shards of 25, 25 and 10 tokens; blocks of 8: 3 + 3 + 1.
        let folder = corpus("train", 60, 25);
        let data = PackedDataset::open(&folder.path().join("train"), 7, Some(1000)).unwrap();
        assert_eq!((data.blocks(), data.tokens()), (7, 60));
        let starts: Vec<i64> = (0..7).map(|b| data.rows(b, 1).unwrap()[0]).collect();
        assert_eq!(starts, [0, 8, 16, 25, 33, 41, 50]);
        assert!(matches!(data.rows(6, 2), Err(DataError::NoBlock { index: 7, blocks: 7, .. })));
    }

    #[test]
    fn training_rows_are_the_same_however_they_are_asked_for() {
        let folder = corpus("train", 600, 100);
        let data = PackedDataset::open(folder.path(), 7, None).unwrap();
        let together = data.training_rows(5, 3, 200).unwrap();
        let apart: Vec<i64> = (3..203).flat_map(|row| data.training_rows(5, row, 1).unwrap()).collect();
        assert_eq!(together, apart);
        let mut starts: Vec<i64> = data.training_rows(5, 0, 72).unwrap().chunks(8).map(|row| row[0]).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 72, "an epoch reads every block once");
    }

    #[test]
    fn the_fingerprint_is_of_content_and_not_of_names() {
        let open = |folder: &tempfile::TempDir| PackedDataset::open(folder.path(), 7, None).unwrap();
        let (a, b, c) = (corpus("train", 60, 25), corpus("other", 60, 25), corpus("train", 61, 25));
        assert_eq!(open(&a).fingerprint(), open(&b).fingerprint());
        assert_ne!(open(&a).fingerprint(), open(&c).fingerprint());
        assert_eq!(open(&a).fingerprint().len(), 16);
    }

    #[test]
    fn a_path_without_shards_and_a_row_without_a_block_are_errors() {
        let folder = corpus("train", 60, 25);
        let missing = folder.path().join("validation");
        assert!(matches!(PackedDataset::open(&missing, 7, None), Err(DataError::NoShards { .. })));
        assert!(matches!(
            PackedDataset::open(folder.path(), 25, None),
            Err(DataError::TooShort { needed: 26, longest: 25, .. })
        ));
        assert!(matches!(PackedDataset::open(folder.path(), 7, Some(59)), Err(DataError::TokenId { id: 59, .. })));
    }
}
