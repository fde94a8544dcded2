//! A folder that takes its name when all of it is there.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use crate::error::{Result, at};

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
        let around = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(around).map_err(at(around))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let folder = builder.tempdir_in(around).map_err(at(around))?;
        Ok(Self { folder, target: path })
    }

    /// The name that it has while it is filled.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name, in the place of one that is there.
    ///
    /// On Linux the two change places at once, where the file system can do that; elsewhere a kill between two
    /// renames can leave the old folder under a name that starts with `.partial-` and none under its own.
    ///
    /// # Errors
    ///
    /// When the system refuses; the old folder stays.
    pub fn persist(self) -> Result<()> {
        let Self { folder, target } = self;
        if !target.exists() {
            fs::rename(folder.path(), &target).map_err(at(&target))?;
            // It has another name, so there is nothing left to remove.
            _ = folder.keep();
            return Ok(());
        }
        if exchange(folder.path(), &target).is_ok() {
            // What is removed with the temporary folder's name is the old one.
            return Ok(());
        }
        let aside = folder.path().with_extension("old");
        fs::rename(&target, &aside).map_err(at(&target))?;
        if let Err(error) = fs::rename(folder.path(), &target) {
            fs::rename(&aside, &target).map_err(at(&target))?;
            return Err(at(&target)(error));
        }
        _ = folder.keep();
        fs::remove_dir_all(&aside).map_err(at(&aside))
    }
}

/// Lets two folders change their names at once.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
}
