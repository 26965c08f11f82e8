//! What resolving a run needs to know of its data.

use super::{ConfigError, DataFacts};
use crate::data::{CorpusInfo, DataError, PackedDataset, is_unfinished};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The facts of the data at `path`; `None` while there is none, or only a part of it.
pub fn data_facts(path: &Path) -> Result<Option<DataFacts>, ConfigError> {
    let refused = |error: DataError| ConfigError::value("data", error.to_string());
    if is_unfinished(path) {
        return Ok(None);
    }
    let dataset = match PackedDataset::open(path, 1, None) {
        Ok(dataset) => dataset,
        Err(DataError::NoShards { .. }) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let info = CorpusInfo::beside(path).map_err(refused)?;
    Ok(Some(DataFacts {
        fingerprint: dataset.fingerprint(),
        vocab_size: info.map(|i| i.vocab_size),
        longest_shard: dataset.longest_shard(),
    }))
}

/// Facts of each data path, looked up once: that hashes the data.
#[derive(Debug, Default)]
pub struct FactsCache {
    known: RefCell<HashMap<PathBuf, Option<DataFacts>>>,
}

impl FactsCache {
    /// The facts of `path`; `None` while there is no data.
    pub fn get(&self, path: &Path) -> Result<Option<DataFacts>, ConfigError> {
        if let Some(facts) = self.known.borrow().get(path) {
            return Ok(facts.clone());
        }
        let facts = data_facts(path)?;
        self.known.borrow_mut().insert(path.to_owned(), facts.clone());
        Ok(facts)
    }
}
