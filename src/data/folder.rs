//! Making a corpus folder: whole or not at all, by one process at a time.
//!
//! A locked marker file stands in the folder while it is being filled. Shards that lie beside a marker without a lock
//! are what an interrupted attempt left, and are replaced; shards without marker or `corpus.json` are somebody's.
//! An attempt that ends with an error takes its files away again.

use super::info::{self, folder_of};
use super::{CorpusInfo, CorpusKind, DataError};
use std::fs::File;
use std::path::{Path, PathBuf};

const MARKER: &str = ".incomplete";

/// An output folder held by this process until [`OutputFolder::commit`].
#[derive(Debug)]
pub(super) struct OutputFolder {
    path: PathBuf,
    _lock: File,
    complete: bool,
}

/// What stands where the corpus is to go.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nothing of value: go ahead.
    Ours(OutputFolder),
    /// The very corpus that was asked for.
    Complete(Box<CorpusInfo>),
}

/// Claims `path` for a corpus of `kind` made with the parameters `source`.
pub(super) fn claim(path: &Path, kind: CorpusKind, source: &serde_json::Value) -> Result<Claim, DataError> {
    let occupied = |reason: String| DataError::Occupied { path: path.to_owned(), reason };
    if let Some(info) = existing(path, kind, source)? {
        return Ok(Claim::Complete(Box::new(info)));
    }
    let marker = path.join(MARKER);
    let resumed = marker.exists();
    if !resumed && path.exists() {
        if !path.is_dir() {
            return Err(occupied("is a file".to_owned()));
        }
        if let Some(found) = leftovers(path)?.first() {
            return Err(occupied(format!("holds {} but no corpus.json", found.display())));
        }
    }
    std::fs::create_dir_all(path).map_err(DataError::write(path))?;
    let lock = File::create(&marker).map_err(DataError::write(&marker))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(occupied("is being written by another process".to_owned()));
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(DataError::write(&marker)(source)),
    }
    // Another process may have finished between the first look and the lock.
    if let Some(info) = existing(path, kind, source)? {
        // That process may have removed the marker itself, before or after this one made it.
        let _ = std::fs::remove_file(&marker);
        return Ok(Claim::Complete(Box::new(info)));
    }
    for file in leftovers(path)? {
        std::fs::remove_file(&file).map_err(DataError::write(&file))?;
    }
    Ok(Claim::Ours(OutputFolder { path: path.to_owned(), _lock: lock, complete: false }))
}

impl OutputFolder {
    /// Where the files go.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Declares the corpus complete.
    pub(super) fn commit(mut self, info: &CorpusInfo) -> Result<(), DataError> {
        info.save(&self.path)?;
        self.complete = true;
        let marker = self.path.join(MARKER);
        std::fs::remove_file(&marker).map_err(DataError::write(&marker))
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let removed = leftovers(&self.path).is_ok_and(|files| files.iter().all(|f| std::fs::remove_file(f).is_ok()));
        // What stays behind is recognised by the marker.
        if removed {
            let _ = std::fs::remove_file(self.path.join(MARKER));
        }
    }
}

/// Whether the shards that a data path names are those of a corpus that is being written, or that a killed attempt left.
pub fn is_unfinished(path: &Path) -> bool {
    let folder = folder_of(path);
    folder.join(MARKER).exists() && !folder.join(info::FILE_NAME).exists()
}

fn existing(path: &Path, kind: CorpusKind, source: &serde_json::Value) -> Result<Option<CorpusInfo>, DataError> {
    match CorpusInfo::in_folder(path)? {
        Some(info) if info.kind == kind && &info.source == source => Ok(Some(info)),
        Some(info) => Err(DataError::Occupied {
            path: path.to_owned(),
            reason: match difference(&info.source, source) {
                Some(difference) => format!("holds a corpus made with other parameters ({difference})"),
                None => "holds a corpus of another kind".to_owned(),
            },
        }),
        None => Ok(None),
    }
}

/// The first parameter in which two corpora differ, as `name: there -> asked`.
fn difference(there: &serde_json::Value, asked: &serde_json::Value) -> Option<String> {
    let (there, asked) = (there.as_object()?, asked.as_object()?);
    let show = |value: Option<&serde_json::Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    asked
        .iter()
        .find(|(name, value)| there.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}: {} there, {value} asked", show(there.get(name))))
}

/// Files in `path` that an attempt of ours leaves.
fn leftovers(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(DataError::read(path))? {
        let path = entry.map_err(DataError::read(path))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if [".bin", ".bin.part", ".nll.f32", ".spill"].iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
