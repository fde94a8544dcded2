//! Files of kept work.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use span_reader::running::json_file::read_json;

use crate::error::{Error, Result};

/// The version of their format. The first one told work apart by paths and names.
pub(crate) const VERSION: u32 = 2;

/// Reads a file of kept work, or what is asked of it.
///
/// # Errors
///
/// [`Error::Damaged`] when it is no JSON, or was cut short; [`Error::Reader`] when it holds something else, or cannot be
/// read.
pub(crate) fn read_kept<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path).map_err(|error| match &error {
        // Bytes that are no text are as damaged as text that is no JSON.
        span_reader::Error::Io { source, .. } if source.kind() == ErrorKind::InvalidData => damaged(path, error),
        span_reader::Error::Json { source, .. } | span_reader::Error::JsonField { source, .. }
            if source.classify() != Category::Data =>
        {
            damaged(path, error)
        }
        _ => error.into(),
    })
}

fn damaged(path: &Path, source: span_reader::Error) -> Error {
    Error::Damaged { path: path.into(), source }
}
