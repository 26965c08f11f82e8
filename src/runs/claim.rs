//! [`Claim`]: a run's folder taken by one process.
//!
//! The lock is a file with its owner inside, made by linking a finished file to its name, which fails where there is one.
//! It is taken over when its owner is gone for certain, and only then. Whoever holds it looks before each write that
//! matters whether it still does.

use super::owner::{Fate, Observer, Owner};
use super::{RunError, RunFolder};
use crate::files::WriteError;
use fs4::FileExt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process works on it.
    #[error("{path} is in use by {who}; hint: wait for it, or stop it")]
    Held {
        /// The folder.
        path: PathBuf,
        /// Machine and process.
        who: String,
    },
    /// Another process took it, and it cannot be told whether that is still there.
    #[error(
        "{path} was taken by {who}, which cannot be asked from here; hint: continue there, or remove {path}/lock once \
         that process is gone for certain"
    )]
    OutOfSight {
        /// The folder.
        path: PathBuf,
        /// Machine and process.
        who: String,
    },
    /// Somebody else holds the lock now.
    #[error("{path} was taken by another process while this one worked on it; what was saved before is kept")]
    Lost {
        /// The folder.
        path: PathBuf,
    },
    /// The lock cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The lock cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// A run's folder, taken by this process until dropped.
#[derive(Debug)]
pub struct Claim {
    folder: RunFolder,
    owner: Owner,
}

impl Deref for Claim {
    type Target = RunFolder;
    fn deref(&self) -> &RunFolder {
        &self.folder
    }
}

/// Attempts to get a lock that others let go of at the same time.
const TRIES: usize = 20;

impl Claim {
    /// Takes the folder at `path` for this process, making it where there is none.
    pub fn take(path: &Path, observer: &Observer) -> Result<Self, ClaimError> {
        let folder = RunFolder::at(path);
        let owner = observer.this_process();
        let refused = |source| WriteError { path: folder.lock_path(), source };
        std::fs::create_dir_all(path).map_err(refused)?;
        let own = path.join(format!(".lock-{}", owner.token));
        let text = serde_json::to_string(&owner).expect("an owner is plain strings and numbers");
        let write = |path: &Path| -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write(&own).map_err(refused)?;
        let taken = Self::link(&folder, &own, &owner, observer, &write);
        // What is left of it is a hidden file of a few bytes.
        let _ = std::fs::remove_file(&own);
        taken?;
        Ok(Self { folder, owner })
    }

    fn link(
        folder: &RunFolder,
        own: &Path,
        owner: &Owner,
        observer: &Observer,
        write: &dyn Fn(&Path) -> std::io::Result<()>,
    ) -> Result<(), ClaimError> {
        let lock = folder.lock_path();
        let refused = |source| WriteError { path: lock.clone(), source };
        for _ in 0..TRIES {
            let made = match std::fs::hard_link(own, &lock) {
                // A file system without links.
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                    write(&lock)
                }
                other => other,
            };
            match made {
                Ok(()) if folder.owner()?.is_some_and(|now| now.token == owner.token) => return Ok(()),
                Ok(()) => continue,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(refused(error).into()),
            }
            let Some(holder) = folder.owner()? else {
                clear_empty(&lock).map_err(refused)?;
                continue;
            };
            if holder.token == owner.token {
                // A network file system may have done what it says it could not.
                return Ok(());
            }
            let (path, who) = (folder.path.clone(), holder.to_string());
            match observer.fate_now(&holder) {
                Fate::Alive => return Err(ClaimError::Held { path, who }),
                Fate::Unknown => return Err(ClaimError::OutOfSight { path, who }),
                Fate::Gone => clear(folder, &holder, owner).map_err(refused)?,
            }
        }
        let who = "processes that come and go".to_owned();
        Err(ClaimError::Held { path: folder.path.clone(), who })
    }

    /// Makes sure that the folder is still this process's. To be asked before anything in it is replaced.
    pub fn check(&self) -> Result<(), ClaimError> {
        match self.folder.owner()? {
            Some(now) if now.token == self.owner.token => Ok(()),
            _ => Err(ClaimError::Lost { path: self.folder.path.clone() }),
        }
    }
}

/// Takes away what a former version left; a lock that is only just being written stays.
fn clear_empty(lock: &Path) -> std::io::Result<()> {
    const BEING_WRITTEN: Duration = Duration::from_secs(60);
    match std::fs::metadata(lock) {
        Ok(meta) if meta.len() == 0 && meta.modified()?.elapsed().is_ok_and(|age| age > BEING_WRITTEN) => {
            std::fs::remove_file(lock)
        }
        _ => {
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        }
    }
}

/// Takes the lock of `gone` away, and no other: whoever comes at the same time may have replaced it already.
fn clear(folder: &RunFolder, gone: &Owner, own: &Owner) -> std::io::Result<()> {
    // Where locks of this kind work, one process at a time comes this far; what follows holds where they do not.
    let guard = OpenOptions::new().create(true).truncate(false).write(true).open(folder.path.join(".lock-guard"))?;
    let _ = FileExt::lock(&guard);
    let (lock, aside) = (folder.lock_path(), folder.path.join(format!(".lock-gone-{}", own.token)));
    if folder.owner().ok().flatten().as_ref() != Some(gone) {
        return Ok(());
    }
    match std::fs::rename(&lock, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let taken: Option<Owner> = std::fs::read(&aside).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if taken.as_ref() != Some(gone) {
        // Somebody's fresh lock: back to its place, unless that is taken again; then its owner notices before it writes.
        let _ = std::fs::hard_link(&aside, &lock);
    }
    std::fs::remove_file(&aside)
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.check().is_ok() {
            // A lock that stays is one of a process that is gone.
            let _ = std::fs::remove_file(self.folder.lock_path());
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        match &self.job {
            Some((job, _)) => write!(f, " (Slurm job {job})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let observer = Observer::new(None);
        let first = Claim::take(place.path(), &observer).unwrap();
        let second = Claim::take(place.path(), &observer).unwrap_err().to_string();
        assert!(second.contains("is in use by process"), "{second}");
        first.check().unwrap();
        drop(first);
        drop(Claim::take(place.path(), &observer).unwrap());
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_lock_is_taken_over_from_the_dead_alone() {
        let place = tempfile::tempdir().unwrap();
        let observer = Observer::new(None);
        let write = |owner: &Owner| {
            std::fs::write(place.path().join("lock"), serde_json::to_string(owner).unwrap()).unwrap();
        };
        let own = observer.this_process();
        write(&Owner { started: 1, ..own.clone() });
        let claim = Claim::take(place.path(), &observer).unwrap();
        write(&Owner { token: "thief".to_owned(), ..own.clone() });
        assert!(matches!(claim.check(), Err(ClaimError::Lost { .. })));
        drop(claim);
        assert!(place.path().join("lock").exists(), "the lock of another process stays");
        write(&Owner { boot_id: "elsewhere".to_owned(), host: "far".to_owned(), ..own });
        assert!(matches!(Claim::take(place.path(), &observer), Err(ClaimError::OutOfSight { .. })));
    }

    #[test]
    fn the_empty_lock_of_a_former_version_is_nobodys() {
        let place = tempfile::tempdir().unwrap();
        let lock = std::fs::File::create(place.path().join("lock")).unwrap();
        let observer = Observer::new(None);
        assert!(!RunFolder::at(place.path()).is_held(&observer).unwrap());
        assert!(
            matches!(Claim::take(place.path(), &observer), Err(ClaimError::Held { .. })),
            "it may be being written"
        );
        lock.set_modified(std::time::SystemTime::now() - Duration::from_secs(120)).unwrap();
        Claim::take(place.path(), &observer).unwrap().check().unwrap();
    }

    #[test]
    fn of_many_that_want_a_dead_ones_lock_one_gets_it() {
        let place = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let own = Observer::new(None).this_process();
            std::fs::write(place.path().join("lock"), serde_json::to_string(&Owner { started: 1, ..own }).unwrap())
                .unwrap();
            let holders: usize = std::thread::scope(|scope| {
                let take = || scope.spawn(|| Claim::take(place.path(), &Observer::new(None)).ok());
                let all: Vec<_> = (0..8).map(|_| take()).collect();
                let claims: Vec<_> = all.into_iter().filter_map(|one| one.join().unwrap()).collect();
                claims.iter().filter(|claim| claim.check().is_ok()).count()
            });
            assert_eq!(holders, 1);
        }
    }
}
