//! What is asked of the system, each kind of operation at one place, so that tests can let any of them fail.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// Makes a folder and those around it.
pub(crate) fn make_folders(path: &Path) -> io::Result<()> {
    before()?;
    fs::create_dir_all(path)
}

/// Makes an empty file of a name that nothing has.
pub(crate) fn make_file(named: &Builder<'_, '_>, folder: &Path) -> io::Result<NamedTempFile> {
    before()?;
    named.tempfile_in(folder)
}

/// Makes an empty folder of a name that nothing has.
pub(crate) fn make_folder(named: &Builder<'_, '_>, around: &Path) -> io::Result<TempDir> {
    before()?;
    named.tempdir_in(around)
}

/// The entries of a folder.
pub(crate) fn list(folder: &Path) -> io::Result<fs::ReadDir> {
    before()?;
    fs::read_dir(folder)
}

/// Gives a file a second name.
pub(crate) fn link(file: &Path, name: &Path) -> io::Result<()> {
    before()?;
    fs::hard_link(file, name)
}

/// Makes a second file of one, on the disk.
pub(crate) fn copy(file: &Path, name: &Path) -> io::Result<()> {
    before()?;
    fs::copy(file, name)?;
    sync(&File::open(name)?)
}

/// Writes to a file.
pub(crate) fn write(file: &mut File, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if let Err(fault) = before() {
        // As a disk that fills up: some of it is there.
        write(file)?;
        file.set_len(file.metadata()?.len() / 2)?;
        return Err(fault);
    }
    write(file)
}

/// Brings a file to the disk.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    before()?;
    file.sync_all()
}

/// Brings the names in a folder to the disk.
pub(crate) fn sync_names(folder: &Path) -> io::Result<()> {
    before()?;
    // Other systems have no such operation.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Gives a file its name, in the place of one that is there.
pub(crate) fn name_file(file: NamedTempFile, target: &Path) -> io::Result<()> {
    before()?;
    file.persist(target).map(drop).map_err(|error| error.error)
}

/// Gives a folder another name, which nothing has.
pub(crate) fn name_folder(folder: &Path, target: &Path) -> io::Result<()> {
    before()?;
    fs::rename(folder, target)
}

/// Lets two folders change names at once. It is `Unsupported` where the system or its file system cannot.
pub(crate) fn exchange(first: &Path, second: &Path) -> io::Result<()> {
    before()?;
    #[cfg(any(test, feature = "failing"))]
    if !crate::failing::exchanges() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        renameat_with(CWD, first, CWD, second, RenameFlags::EXCHANGE).map_err(|errno| match errno {
            Errno::INVAL | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            errno => errno.into(),
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        _ = (first, second);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Removes a folder and all in it.
pub(crate) fn remove_folder(folder: TempDir) -> io::Result<()> {
    before()?;
    folder.close()
}

#[cfg(not(any(test, feature = "failing")))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
fn before() -> io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "failing"))]
use crate::failing::before;
