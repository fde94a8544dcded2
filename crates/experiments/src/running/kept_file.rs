//! Files of kept work.

use std::io::ErrorKind;
use std::path::Path;

use content_identity::Identity;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use span_reader::running::json_file::read_json;

use crate::error::{Error, Result};

/// The version of their format. The first one told work apart by paths and names.
pub(crate) const VERSION: u32 = 2;

/// What a file says of itself, whatever its version.
#[derive(Debug, Deserialize)]
struct Label {
    #[serde(default)]
    version: u32,
}

/// What a file says that its result was made from.
#[derive(Debug, Deserialize)]
pub(crate) struct Made {
    pub(crate) made_from: Identity,
}

/// What the result of a file was made from.
///
/// # Errors
///
/// Those of [`check_format`] and [`read_kept`].
pub(crate) fn made_from(path: &Path) -> Result<Identity> {
    check_format(path)?;
    Ok(read_kept::<Made>(path)?.made_from)
}

/// Refuses a file of kept work of another version.
///
/// # Errors
///
/// [`Error::OtherFormat`] where the versions differ, and those of [`read_kept`].
pub(crate) fn check_format(path: &Path) -> Result<()> {
    check_version(path, read_kept::<Label>(path)?.version, VERSION)
}

/// Refuses a file of another version of its format.
///
/// # Errors
///
/// When the versions differ.
pub fn check_version(path: &Path, found: u32, expected: u32) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::OtherFormat { path: path.into(), found, expected }) }
}

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
