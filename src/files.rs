//! Writing files that matter, whole or not at all; what a refused read or write says.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A file could not be written; the one that stood there before is untouched.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct WriteError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// A file or folder could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct ReadError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

impl ReadError {
    /// A failed read of `path`.
    pub fn of(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// Writes `path` by renaming a synced temporary file of the same folder over it; makes the folder when it is missing.
pub fn write_atomic(path: &Path, contents: &[u8]) -> Result<(), WriteError> {
    write_atomic_with(path, |file| file.write_all(contents))
}

/// As [`write_atomic`], for contents that are streamed.
pub fn write_atomic_with(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<(), WriteError> {
    place(path, write, |temporary| temporary.persist(path).map(drop).map_err(|e| e.error))
}

/// Writes `path` whole, unless a file stands there by then: that one stays.
pub fn write_new(path: &Path, contents: &[u8]) -> Result<(), WriteError> {
    place(
        path,
        |file| file.write_all(contents),
        |temporary| match temporary.persist_noclobber(path) {
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop).map_err(|e| e.error),
        },
    )
}

fn place(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
    persist: impl FnOnce(tempfile::NamedTempFile) -> std::io::Result<()>,
) -> Result<(), WriteError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let attempt = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
        write(temporary.as_file_mut())?;
        temporary.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        persist(temporary)
    };
    attempt().map_err(|source| WriteError { path: path.to_owned(), source })
}
