//! The floor of exactly the tokens that an evaluation reads: `validation.nll.f32` holds -ln p(token | its document so
//! far) of every validation token, in nats, little-endian f32, aligned with the validation stream.
//!
//! A row of another length than the corpus was made for begins in the middle of a document, where a model sees less
//! than the source: the value is then a lower bound ([`Floor::exact`] is false). The first token of a validation row
//! is never a target; 0 stands for it, which keeps the bound a bound.

use super::DataError;
use super::info::{CorpusInfo, folder_of};
use std::path::{Path, PathBuf};

/// The file, in the corpus' folder.
pub const FILE_NAME: &str = "validation.nll.f32";

/// A floor over some rows and positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// Mean of -ln p, nats per target.
    pub nats: f64,
    /// Targets it is the mean of.
    pub targets: u64,
    /// Whether a model that reads these rows can attain it; otherwise it is a lower bound.
    pub exact: bool,
}

/// Per-token floors of a synthetic corpus' validation tokens.
#[derive(Debug)]
pub struct FloorTable {
    path: PathBuf,
    nats: Vec<f32>,
    row_tokens: Option<u64>,
}

impl FloorTable {
    /// The table that belongs to a data path such as `data/quick/validation`; none for text.
    pub fn beside(path: &Path) -> Result<Option<Self>, DataError> {
        let Some(info) = CorpusInfo::beside(path)? else { return Ok(None) };
        if info.floor_nats.is_none() {
            return Ok(None);
        }
        let path = folder_of(path).join(FILE_NAME);
        let bytes = std::fs::read(&path).map_err(DataError::read(&path))?;
        let expected = info.validation_tokens * 4;
        if bytes.len() as u64 != expected {
            let reason = format!("{} bytes, expected {expected}; hint: make the corpus again", bytes.len());
            return Err(DataError::Corpus { path, reason });
        }
        let nats = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Ok(Some(Self { path, nats, row_tokens: info.validation_row_tokens }))
    }

    /// The floor of the first `positions` targets of every row of `row_len` tokens (inputs `0..positions`, targets
    /// `1..=positions`).
    pub fn floor_for(&self, positions: usize, row_len: usize) -> Result<Floor, DataError> {
        self.floor_of_rows(positions, row_len, 0, usize::MAX)
    }

    /// The same for rows `first_row..first_row + rows` (as many as there are).
    pub fn floor_of_rows(
        &self,
        positions: usize,
        row_len: usize,
        first_row: usize,
        rows: usize,
    ) -> Result<Floor, DataError> {
        if positions == 0 || positions >= row_len {
            return Err(DataError::Parameter {
                name: "positions",
                value: positions.to_string(),
                expected: format!("1 to {} in rows of {row_len} tokens", row_len.saturating_sub(1)),
            });
        }
        let (sum, targets) = self
            .nats
            .chunks_exact(row_len)
            .skip(first_row)
            .take(rows)
            .flat_map(|row| &row[1..=positions])
            .fold((0.0, 0u64), |(sum, count), &nats| (sum + f64::from(nats), count + 1));
        if targets == 0 {
            return Err(DataError::TooShort {
                path: self.path.clone(),
                needed: (first_row + 1) as u64 * row_len as u64,
                longest: self.nats.len() as u64,
            });
        }
        Ok(Floor { nats: sum / targets as f64, targets, exact: self.row_tokens == Some(row_len as u64) })
    }
}
