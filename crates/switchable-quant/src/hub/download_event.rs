//! What a download tells the user.

use std::fmt;
use std::path::Path;

/// A step of a download, for the user to see.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum DownloadEvent<'a> {
    /// What was asked for is already in the folder.
    Cached {
        /// Where it is.
        path: &'a Path,
    },
    /// A file begins.
    Started {
        /// Where it comes from.
        url: &'a str,
        /// Its length in bytes, if the server says it.
        bytes: Option<u64>,
    },
    /// A part of a file arrived.
    Received {
        /// Where it comes from.
        url: &'a str,
        /// Bytes so far.
        received: u64,
        /// Its length in bytes, if the server says it.
        bytes: Option<u64>,
    },
    /// A file is complete, its checksum is right, and it has its name.
    Verified {
        /// Where it is.
        path: &'a Path,
        /// The kind of checksum and its digits.
        checksum: &'a str,
    },
}

impl fmt::Display for DownloadEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cached { path } => write!(f, "using {}", path.display()),
            Self::Started { url, bytes: Some(bytes) } => write!(f, "downloading {url} ({bytes} bytes)"),
            Self::Started { url, bytes: None } => write!(f, "downloading {url}"),
            Self::Received { url, received, bytes: Some(bytes) } => {
                write!(f, "{url}: {received} of {bytes} bytes")
            }
            Self::Received { url, received, bytes: None } => write!(f, "{url}: {received} bytes"),
            Self::Verified { path, checksum } => write!(f, "{}: {checksum} is right", path.display()),
        }
    }
}

/// Writes a line on standard error for each event but the parts of a file.
pub fn log_to_stderr(event: &DownloadEvent<'_>) {
    if !matches!(event, DownloadEvent::Received { .. }) {
        eprintln!("{event}");
    }
}
