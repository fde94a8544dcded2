//! What a folder holds, in the one that will take its place.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::error::{Result, at};
use crate::operation;

/// Puts what a folder holds into another one, but for the entries that are replaced: those of `old` itself whose
/// names `replaced` knows. Files are shared where the file system can, else copied. `new` is made where it is
/// missing; an `old` that is missing holds nothing.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let target = dir.path().join("folder");
/// for name in ["kept", "old"] {
///     whole_files::write(target.join(name), b"")?;
/// }
///
/// let folder = whole_files::PartialFolder::create(&target)?;
/// whole_files::carry_over(&target, folder.path(), &|name| name == "old")?;
/// folder.persist()?;
/// assert!(target.join("kept").exists() && !target.join("old").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the old folder or a file in it cannot be read, or the new one cannot be written.
pub fn carry_over(old: impl AsRef<Path>, new: impl AsRef<Path>, replaced: &dyn Fn(&OsStr) -> bool) -> Result<()> {
    let (old, new) = (old.as_ref(), new.as_ref());
    operation::make_folders(new).map_err(at(new))?;
    let entries = match operation::list(old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(old))?,
    };
    for entry in entries {
        let entry = entry.map_err(at(old))?;
        let (from, to) = (entry.path(), new.join(entry.file_name()));
        if replaced(&entry.file_name()) {
            continue;
        }
        if entry.file_type().map_err(at(&from))?.is_dir() {
            carry_over(&from, &to, &|_| false)?;
        } else if operation::link(&from, &to).is_err() {
            operation::copy(&from, &to).map_err(at(&from))?;
        }
    }
    Ok(())
}
