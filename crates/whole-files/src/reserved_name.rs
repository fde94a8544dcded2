//! The name of a folder that one process alone is going to write.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Result, at};
use crate::operation;
use crate::partial_file::folder_around;
use crate::partial_folder::PartialFolder;

/// The name of a folder that nobody else reserves until this is dropped, however long the folder takes.
///
/// Beside the name stands a folder `.partial-NAME` with a lock, in which what gets the name is filled. The lock ends
/// with the process, however it ends: what a killed one left is taken away by the next that reserves the name.
/// Where the system has no locks of folders, nobody is refused.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let name = whole_files::ReservedName::new(dir.path().join("model"))?;
/// # #[cfg(unix)]
/// assert!(whole_files::ReservedName::new(dir.path().join("model")).is_err());
/// let folder = name.partial()?;
/// whole_files::write(folder.path().join("config.json"), b"{}")?;
/// folder.persist()?;
/// drop(name);
/// assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReservedName {
    target: PathBuf,
    /// Where the folder is filled.
    workshop: PathBuf,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    _lock: Option<File>,
}

/// How often the folder of the lock may vanish under it.
const TRIES: usize = 16;

impl ReservedName {
    /// Reserves the name of a folder, and removes what a process that no longer lives left of it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ResourceBusy`] when another has it, and when the folder around it cannot be made or written.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // The folder behind a link or a name such as `.`, not the link, is what is replaced.
        let target = if path.exists() { fs::canonicalize(path).map_err(at(path))? } else { path.to_owned() };
        let around = folder_around(&target).to_owned();
        let Some(name) = target.file_name() else { return Err(at(path)(io::ErrorKind::InvalidFilename.into())) };
        let mut partial = std::ffi::OsString::from(".partial-");
        partial.push(name);
        let workshop = around.join(partial);
        let made = around.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made = made.map(Path::to_owned).collect();
        for _ in 0..TRIES {
            operation::make_folders(&workshop).map_err(at(&around))?;
            let Some(lock) = lock(&workshop).map_err(at(path))? else { continue };
            empty(&workshop).map_err(at(&workshop))?;
            return Ok(Self { target, workshop, made, _lock: lock.0 });
        }
        Err(at(path)(io::ErrorKind::ResourceBusy.into()))
    }

    /// The folder that gets the name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Starts the folder that gets the name.
    ///
    /// # Errors
    ///
    /// When the folder around it cannot be written.
    pub fn partial(&self) -> Result<PartialFolder> {
        PartialFolder::within(&self.workshop, &self.target)
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        // What stays is taken away by the next that reserves the name.
        _ = fs::remove_dir_all(&self.workshop);
        for folder in &self.made {
            _ = fs::remove_dir(folder);
        }
    }
}

/// A lock, if the system has any.
struct Lock(Option<File>);

/// Locks a folder; none where it was taken away meanwhile.
fn lock(folder: &Path) -> io::Result<Option<Lock>> {
    if !cfg!(unix) {
        return Ok(Some(Lock(None)));
    }
    let file = match File::open(folder) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(is_still_there(&file, folder)?.then_some(Lock(Some(file)))),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        // Some network file systems have none.
        Err(TryLockError::Error(_)) => Ok(Some(Lock(None))),
    }
}

/// Whether a name is that of an open folder itself, not of a link to it.
#[cfg(unix)]
fn is_still_there(file: &File, folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata()?;
    match fs::symlink_metadata(folder) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_still_there(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Removes all that is in a folder.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in operation::list(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn one_name_is_reserved_once_and_others_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let [first, other] = ["made/first", "made/other"].map(|name| dir.path().join(name));
        let held = ReservedName::new(&first).unwrap();
        let error = ReservedName::new(&first).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(error.path, first);
        drop(ReservedName::new(&other).unwrap());
        drop(held);
        assert_eq!(names(dir.path()), <[&str; 0]>::default());
        ReservedName::new(&first).unwrap();
    }

    #[test]
    fn the_name_stays_reserved_while_a_folder_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("folder");
        for name in ["first", "second"] {
            let held = ReservedName::new(&target).unwrap();
            let folder = held.partial().unwrap();
            crate::write(folder.path().join(name), b"").unwrap();
            folder.persist().unwrap();
            assert!(ReservedName::new(&target).is_err());
            drop(held);
            assert_eq!((names(dir.path()), names(&target)), (vec!["folder".into()], vec![name.to_owned()]));
        }
    }

    #[test]
    fn what_a_killed_process_left_is_taken_away_and_what_a_link_names_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("folder");
        fs::create_dir_all(dir.path().join(".partial-folder/.partial-abc/adapters")).unwrap();
        fs::write(dir.path().join(".partial-folder/.partial-abc/codes"), "half").unwrap();
        let held = ReservedName::new(&target).unwrap();
        assert!(names(&dir.path().join(".partial-folder")).is_empty());
        drop(held);
        assert!(names(dir.path()).is_empty());

        let apart = tempfile::tempdir().unwrap();
        fs::write(apart.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink(apart.path(), dir.path().join(".partial-folder")).unwrap();
        assert!(ReservedName::new(&target).is_err());
        assert!(apart.path().join("kept").exists());
    }
}
