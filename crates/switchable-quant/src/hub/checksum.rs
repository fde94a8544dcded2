//! The two checksums by which a file on the Hub is known.
//!
//! ```text
//! large file (LFS):  SHA-256(content)
//! small file (git):  SHA-1("blob " ‖ decimal length ‖ 0 ‖ content)
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// What a file must hash to, in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    Sha256(String),
    GitBlob(String),
}

impl Checksum {
    /// The checksum that an entity tag is, if it is one.
    pub(super) fn from_etag(tag: &str) -> Option<Self> {
        let tag = tag.trim();
        let digits = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"').to_ascii_lowercase();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match digits.len() {
            64 => Some(Self::Sha256(digits)),
            40 => Some(Self::GitBlob(digits)),
            _ => None,
        }
    }

    /// The checksum of a file, of the same kind as this one.
    pub(super) fn of_same_kind(&self, path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        match self {
            Self::Sha256(_) => hash(Sha256::new(), &mut file).map(Self::Sha256).map_err(io),
            Self::GitBlob(_) => {
                let length = file.metadata().map_err(io)?.len();
                let start = Sha1::new().chain_update(format!("blob {length}\0"));
                hash(start, &mut file).map(Self::GitBlob).map_err(io)
            }
        }
    }

    /// Its digits, which are the name of the content on the Hub.
    pub(super) fn digits(&self) -> &str {
        let (Self::Sha256(digits) | Self::GitBlob(digits)) = self;
        digits
    }

    /// Whether a file has this checksum.
    pub(super) fn matches(&self, path: &Path) -> Result<bool> {
        Ok(self.of_same_kind(path)? == *self)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "sha256:{digits}"),
            Self::GitBlob(digits) => write!(f, "git-sha1:{digits}"),
        }
    }
}

fn hash<D: Digest>(mut digest: D, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    // Each byte is two digits.
    Ok(digest
        .finalize()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect())
}
