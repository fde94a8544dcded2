//! The folder of results, looked at before there are any.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Makes a folder, and the folders around it, and writes a file to it that is removed again: what takes
/// hours does not end in a folder that cannot be written.
///
/// # Errors
///
/// When the folder cannot be made, is a file, or takes no file.
pub fn prepare_folder(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let io = |source| Error::io(dir, source);
    std::fs::create_dir_all(dir).map_err(io)?;
    let probe = whole_files::PartialFile::create(dir.join("probe")).map_err(|error| io(error.source))?;
    probe.sync().map_err(|error| io(error.source))
}

/// A folder that one program writes its results to, until this is dropped.
#[derive(Debug)]
pub struct LockedFolder {
    /// Nothing where the system has no locks of folders.
    _lock: Option<File>,
}

impl LockedFolder {
    /// Locks a folder. The lock ends with the program, however it ends, and leaves no file.
    ///
    /// # Errors
    ///
    /// When another program has the folder, or it cannot be opened.
    pub fn new(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !cfg!(unix) {
            return Ok(Self { _lock: None });
        }
        let folder = File::open(dir).map_err(|source| Error::io(dir, source))?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(folder) }),
            Err(TryLockError::WouldBlock) => Err(Error::FolderInUse { path: dir.into() }),
            // Some network file systems have none.
            Err(TryLockError::Error(_)) => Ok(Self { _lock: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_that_another_writes_to_is_refused_by_name_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let first = LockedFolder::new(dir.path()).unwrap();
        let message = LockedFolder::new(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&dir.path().display().to_string()) && message.contains("another"), "{message}");
        drop(first);
        LockedFolder::new(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_are_made_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        prepare_folder(&inner).unwrap();
        prepare_folder(&inner).unwrap();
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_folder_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for wrong in [file.clone(), file.join("inner")] {
            let message = prepare_folder(&wrong).unwrap_err().to_string();
            assert!(message.contains("file"), "{message}");
        }
    }
}
