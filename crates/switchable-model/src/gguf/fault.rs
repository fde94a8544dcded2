//! What is wrong with a GGUF file, and where.

use std::path::Path;

use crate::error::Error;

/// The error of a place of a file, such as ``metadata `llama.block_count` `` or ``tensor `output.weight`: type``.
pub(crate) fn fault(path: &Path, place: &str, got: String, expected: String) -> Error {
    Error::Gguf { path: path.into(), place: place.into(), got, expected }
}
