//! The folder of results, looked at before there are any.

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

#[cfg(test)]
mod tests {
    use super::*;

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
