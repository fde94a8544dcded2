//! Where the bytes of a weights file come from.

use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of one safetensors file: mapped from disk or embedded in the program.
#[derive(Debug)]
pub struct WeightSource {
    name: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl WeightSource {
    /// Maps a file into memory without reading it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        #[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
        // SAFETY: the map is read-only and private to this value, and it is parsed and copied out
        // while a model loads. Another process that truncates the file meanwhile breaks this, as it
        // breaks every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self { name: path.into(), bytes: Bytes::Mapped(map) })
    }

    /// Takes bytes that are part of the program; `name` stands in errors.
    pub fn embedded(name: impl Into<PathBuf>, bytes: &'static [u8]) -> Self {
        Self { name: name.into(), bytes: Bytes::Embedded(bytes) }
    }

    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}
