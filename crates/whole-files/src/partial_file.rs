//! Files that take their names when all of them is on the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Result, at};
use crate::operation;

/// Writes a file whole, in the place of one that is there; makes its folder.
///
/// # Errors
///
/// When the folder cannot be made or the file not be written; what was there before stays.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = PartialFile::create(path)?;
    file.fill(|file| file.write_all(bytes))?;
    file.persist()
}

/// A file that is being written beside the place that it will have; dropped, it leaves nothing.
///
/// ```
/// use std::io::Write as _;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("lines.txt");
/// let mut file = whole_files::PartialFile::create(&path)?;
/// file.fill(|file| writeln!(file, "first"))?;
/// assert!(!path.exists());
/// file.persist()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "first\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PartialFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl PartialFile {
    /// Starts the file that `path` will name; makes its folder.
    ///
    /// # Errors
    ///
    /// When `path` names a folder, or its own folder cannot be made or written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Err(at(path)(io::ErrorKind::IsADirectory.into()));
        }
        let folder = folder_around(path);
        operation::make_folders(folder).map_err(at(path))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Those of any new file, less what the process masks: temporary files are private by default.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = operation::make_file(&builder, folder).map_err(at(path))?;
        Ok(Self { file, target: path.to_owned() })
    }

    /// The name that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The name that it has while it is written, for libraries that open files by themselves.
    pub fn temporary_path(&self) -> &Path {
        self.file.path()
    }

    /// Writes to the file; errors name its target.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn fill(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        operation::write(self.file.as_file_mut(), write).map_err(at(&self.target))
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    ///
    /// When the system cannot.
    pub fn sync(&self) -> Result<()> {
        operation::sync(self.file.as_file()).map_err(at(&self.target))
    }

    /// Brings the file to the disk and gives it its name.
    ///
    /// # Errors
    ///
    /// When the system cannot; what had the name before stays.
    pub fn persist(self) -> Result<()> {
        persist_all([self])
    }
}

/// Gives several files their names once all of them are on the disk.
///
/// # Errors
///
/// When a file cannot be brought to the disk, none is renamed. A rename that fails after that leaves the
/// files before it in their places: each is the old one or the new one, and files that must not be mixed are
/// written as a [`PartialFolder`](crate::PartialFolder). When only the names cannot be brought to the disk, all
/// files are in their places.
pub fn persist_all(files: impl IntoIterator<Item = PartialFile>) -> Result<()> {
    let files: Vec<PartialFile> = files.into_iter().collect();
    for file in &files {
        file.sync()?;
    }
    let mut folders = BTreeSet::new();
    for PartialFile { file, target } in files {
        operation::name_file(file, &target).map_err(at(&target))?;
        folders.insert(folder_around(&target).to_owned());
    }
    for folder in folders {
        operation::sync_names(&folder).map_err(at(&folder))?;
    }
    Ok(())
}

/// The folder that holds what `path` names.
pub(crate) fn folder_around(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_are_made_and_files_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        write(&path, b"first").unwrap();
        write(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(names(path.parent().unwrap()), ["file"]);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"first").unwrap();
        let mut file = PartialFile::create(&path).unwrap();
        let error = file.fill(|file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(error.unwrap_err().to_string().contains("file: "));
        drop(file);
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"first".to_vec(), vec!["file".to_owned()]));
    }

    #[test]
    fn of_several_files_all_are_written_or_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("second")).unwrap();
        let files = ["first", "second"].map(|name| PartialFile::create(dir.path().join(name)));
        let [first, second] = files;
        assert!(first.is_ok() && second.unwrap_err().to_string().contains("second: "));
        drop(first);
        assert_eq!(names(dir.path()), ["second"]);
        persist_all(["a", "b"].map(|name| PartialFile::create(dir.path().join(name)).unwrap())).unwrap();
        assert_eq!(names(dir.path()), ["a", "b", "second"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| dir.path().join(name));
        write(&ours, b"").unwrap();
        fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
