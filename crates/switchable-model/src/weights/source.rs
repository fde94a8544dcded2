//! Where the bytes of a weights file come from.

use std::path::{Path, PathBuf};

use whole_files::MappedFile;

use crate::error::Result;

/// The bytes of one safetensors file: mapped from disk or embedded in the program.
#[derive(Debug)]
pub struct WeightSource {
    name: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
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
        Ok(Self { name: path.into(), bytes: Bytes::Mapped(MappedFile::open(path)?) })
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
