//! What resolving a run needs to know of its data.

use super::{ConfigError, DataFacts};
use crate::data::{CorpusInfo, DataError, PackedDataset};
use std::path::Path;

/// The facts of the data at `path`; `None` while there is none.
pub fn data_facts(path: &Path) -> Result<Option<DataFacts>, ConfigError> {
    let refused = |error: DataError| ConfigError::value("data", error.to_string());
    let dataset = match PackedDataset::open(path, 1, None) {
        Ok(dataset) => dataset,
        Err(DataError::NoShards { .. }) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let info = CorpusInfo::beside(path).map_err(refused)?;
    Ok(Some(DataFacts { fingerprint: dataset.fingerprint().to_owned(), vocab_size: info.map(|i| i.vocab_size) }))
}
