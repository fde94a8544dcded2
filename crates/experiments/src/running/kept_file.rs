//! Files of kept work.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use span_reader::running::json_file::read_json;

use crate::error::{Error, Result};

/// Reads a file of kept work, or what is asked of it.
///
/// # Errors
///
/// [`Error::Damaged`] when it does not hold that; [`Error::Io`] when it cannot be read.
pub(crate) fn read_kept<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path).map_err(|error| match error {
        // Bytes that are no text are as damaged as text that is no JSON.
        span_reader::Error::Io { ref source, .. } if source.kind() != ErrorKind::InvalidData => error.into(),
        source => Error::Damaged { path: path.into(), source },
    })
}
