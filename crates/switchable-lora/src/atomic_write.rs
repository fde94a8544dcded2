//! Files that are replaced as a whole or not at all.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes a file beside its place and then renames it into it.
pub(crate) fn write_file(path: &Path, contents: &[u8]) -> Result<()> {
    write_files(&[(path.to_path_buf(), contents)])
}

/// Writes several files beside their places, and renames them only when all are complete on disk.
pub(crate) fn write_files(files: &[(PathBuf, &[u8])]) -> Result<()> {
    let mut complete = Vec::with_capacity(files.len());
    for (path, contents) in files {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut file = NamedTempFile::new_in(folder).map_err(Error::io(path))?;
        file.write_all(contents).map_err(Error::io(path))?;
        file.as_file().sync_all().map_err(Error::io(path))?;
        complete.push((path, file));
    }
    for (path, file) in complete {
        readable_by_others(&file).map_err(Error::io(path))?;
        file.persist(path).map_err(|error| Error::io(path)(error.error))?;
    }
    Ok(())
}

/// Temporary files are private; what replaces a file should not be.
fn readable_by_others(file: &NamedTempFile) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
