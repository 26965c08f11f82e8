//! What resolving a run needs to know of its data. The one place where sweeps look at a corpus.

use crate::config::{ConfigError, DataFacts};
use crate::data::{CorpusInfo, DataError, PackedDataset};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Facts of each data path, looked up once.
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

/// Reads the facts of the data at `path`; `None` while there is none.
pub fn data_facts(path: &Path) -> Result<Option<DataFacts>, ConfigError> {
    let refuse = |error: DataError| ConfigError::value("data", error.to_string());
    // The identity of a corpus does not depend on how rows are cut, so the shortest rows do.
    let dataset = match PackedDataset::open(path, 1, None) {
        Ok(dataset) => dataset,
        Err(DataError::NoShards { .. }) => return Ok(None),
        Err(DataError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let info = CorpusInfo::beside(path).map_err(refuse)?;
    Ok(Some(DataFacts { fingerprint: dataset.fingerprint().to_owned(), vocab_size: info.map(|info| info.vocab_size) }))
}
