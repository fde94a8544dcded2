//! A folder that takes its name when all of it is there.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use crate::error::{Result, at};
use crate::operation;
use crate::partial_file::folder_around;

/// A folder that is being filled beside the place that it will have; dropped, it leaves nothing.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let folder = whole_files::PartialFolder::create(dir.path().join("step-000200"))?;
/// whole_files::write(folder.path().join("state.json"), b"{}")?;
/// folder.persist()?;
/// assert!(dir.path().join("step-000200/state.json").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PartialFolder {
    folder: TempDir,
    target: PathBuf,
}

impl PartialFolder {
    /// Starts the folder that `path` will name; makes the folder around it.
    ///
    /// # Errors
    ///
    /// When the folder around it cannot be made or written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // The folder behind a link or a name such as `.`, not the link, is what is replaced.
        let path = if path.exists() { fs::canonicalize(path).map_err(at(path))? } else { path.to_owned() };
        let around = folder_around(&path);
        operation::make_folders(around).map_err(at(around))?;
        Self::within(around, &path)
    }

    /// Starts the folder that `target` will name, in a folder of the same file system.
    pub(crate) fn within(around: &Path, target: &Path) -> Result<Self> {
        let mut builder = named();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let folder = operation::make_folder(&builder, around).map_err(at(around))?;
        Ok(Self { folder, target: target.to_owned() })
    }

    /// The name that it has while it is filled.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name, in the place of one that is there. At no moment is neither there, unless the
    /// file system cannot exchange two names; then the old folder has another name, `.partial-…`, for a moment.
    ///
    /// # Errors
    ///
    /// When the name is that of a file, the new folder cannot be renamed, which leaves the old one in its place,
    /// or the old one not be removed, which leaves the new one in its place.
    pub fn persist(self) -> Result<()> {
        let Self { folder, target } = self;
        operation::sync_names(folder.path()).map_err(at(&target))?;
        let replaced = match fs::symlink_metadata(&target) {
            Ok(there) if there.is_dir() => Some(replace(folder, &target).map_err(at(&target))?),
            Ok(_) => return Err(at(&target)(io::ErrorKind::NotADirectory.into())),
            Err(_) => {
                operation::name_folder(folder.path(), &target).map_err(at(&target))?;
                // It has another name, so there is nothing left to remove.
                _ = folder.keep();
                None
            }
        };
        let around = folder_around(&target);
        operation::sync_names(around).map_err(at(around))?;
        match replaced {
            Some(replaced) => operation::remove_folder(replaced).map_err(at(&target)),
            None => Ok(()),
        }
    }
}

/// Puts a folder in the place of another one, which is returned.
fn replace(folder: TempDir, target: &Path) -> io::Result<TempDir> {
    match operation::exchange(folder.path(), target) {
        // The old folder has the name that the new one had.
        Ok(()) => return Ok(folder),
        Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
        Err(_) => {}
    }
    let aside = operation::make_folder(&named(), folder_around(target))?;
    operation::name_folder(target, aside.path())?;
    match operation::name_folder(folder.path(), target) {
        Ok(()) => {
            _ = folder.keep();
            Ok(aside)
        }
        Err(error) => {
            fs::rename(aside.path(), target)?;
            _ = aside.keep();
            Err(error)
        }
    }
}

/// Names of folders that are not whole, or not in their places.
fn named() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_replaces_the_one_of_its_name_and_a_dropped_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("folder");
        for name in ["first", "second"] {
            let folder = PartialFolder::create(&target).unwrap();
            crate::write(folder.path().join(name), b"").unwrap();
            folder.persist().unwrap();
        }
        drop(PartialFolder::create(&target).unwrap());
        assert!(target.join("second").exists() && !target.join("first").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_the_folder_behind_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [behind, link] = ["behind", "link"].map(|name| dir.path().join(name));
        fs::create_dir(&behind).unwrap();
        std::os::unix::fs::symlink(&behind, &link).unwrap();
        let folder = PartialFolder::create(&link).unwrap();
        crate::write(folder.path().join("file"), b"").unwrap();
        folder.persist().unwrap();
        assert!(link.is_symlink() && behind.join("file").exists());
    }

    #[test]
    fn a_file_is_not_replaced_by_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        fs::write(&target, b"kept").unwrap();
        let error = PartialFolder::create(&target).unwrap().persist().unwrap_err().to_string();
        assert!(error.contains("file: "), "{error}");
        assert_eq!((fs::read(&target).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"kept".to_vec(), 1));
    }
}
