//! What resolving runs needs to know of their data: a sweep's runs share it, and its hash is made once.

use crate::config::{ConfigError, DataFacts, data_facts};
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
