//! What cannot be drawn or written.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of charts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of a figure cannot be drawn.
    #[error("`{field}` is {got}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What can be drawn.
        expected: String,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn field(field: &'static str, got: impl Display, expected: impl Into<String>) -> Self {
        Self::Field { field, got: got.to_string(), expected: expected.into() }
    }
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::Io { path, source }
    }
}
