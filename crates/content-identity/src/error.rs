use std::path::PathBuf;

/// A content that could not be hashed, or a hash that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A text is no hash.
    #[error("`{got}` is no hash, expected 64 hexadecimal digits in lower case")]
    NoHash {
        /// The text.
        got: String,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
