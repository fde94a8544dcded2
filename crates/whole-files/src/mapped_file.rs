//! A file's bytes without reading them.

#[cfg(not(miri))]
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

#[cfg(not(miri))]
use memmap2::Mmap;

use crate::error::{Result, at};

/// Miri has no memory maps of files: there they are read.
#[cfg(miri)]
type Mmap = Vec<u8>;

/// The bytes of a file, which the system reads when they are first looked at.
///
/// Nobody may shorten or change the file while this value lives: no program can rule that out, and every
/// program that maps files asks for it. Files that are replaced by a rename, as [`write()`](crate::write())
/// does, are safe: the map keeps the old one.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // Opening a pipe waits for somebody to write, and it cannot be mapped.
        if !std::fs::metadata(path).map_err(at(path))?.is_file() {
            return Err(at(path)(std::io::Error::other("is no regular file")));
        }
        #[cfg(miri)]
        let map = std::fs::read(path).map_err(at(path))?;
        #[cfg(not(miri))]
        let file = File::open(path).map_err(at(path))?;
        #[cfg(not(miri))]
        #[expect(unsafe_code, reason = "a memory map")]
        // SAFETY: the map is read-only, and that the file stays as it is is asked of the caller above.
        let map = unsafe { Mmap::map(&file) }.map_err(at(path))?;
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_and_one_that_is_replaced_can_be_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        crate::write(&path, b"").unwrap();
        assert!(MappedFile::open(&path).unwrap().is_empty());
        crate::write(&path, b"old").unwrap();
        let old = MappedFile::open(&path).unwrap();
        crate::write(&path, b"longer").unwrap();
        assert_eq!((&*old, &*MappedFile::open(&path).unwrap()), (&b"old"[..], &b"longer"[..]));
    }

    #[test]
    fn the_error_of_a_missing_file_names_it() {
        let error = MappedFile::open("no/such/file").unwrap_err();
        assert!(error.to_string().starts_with("no/such/file: "), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let error = MappedFile::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("no regular file"), "{error}");
    }
}
