//! BLAKE3 of bytes, files and values in memory.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// From so many bytes on, several cores hash faster than one.
const PARALLEL_BYTES: usize = 128 << 10;

/// BLAKE3 of some content; as text 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

/// What is known of files that this process has hashed: a file of the same path, size and time is not read
/// again.
static HASHED: LazyLock<Mutex<HashMap<PathBuf, HashedFile>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy)]
struct HashedFile {
    bytes: u64,
    modified: SystemTime,
    hash: ContentHash,
}

impl ContentHash {
    /// The hash of some bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        update(&mut hasher, bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// The hash of a file. Within one process it is read once, as long as its size and its time of
    /// modification stay.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(io)?;
        let (bytes, modified) = (metadata.len(), metadata.modified().map_err(io)?);
        let key = std::path::absolute(path).map_err(io)?;
        let known = HASHED.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some(known) = known.filter(|known| known.bytes == bytes && known.modified == modified) {
            return Ok(known.hash);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path).map_err(io)?;
        let hash = Self(*hasher.finalize().as_bytes());
        let file = HashedFile { bytes, modified, hash };
        HASHED.lock().unwrap_or_else(PoisonError::into_inner).insert(key, file);
        Ok(hash)
    }
}

impl fmt::Display for ContentHash {
    /// All digits, or as many as the precision says: `{:.12}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        f.pad(&text)
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

impl FromStr for ContentHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let no_hash = || Error::NoHash { got: text.to_owned() };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_digit) {
            return Err(no_hash());
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| no_hash())
    }
}

impl TryFrom<String> for ContentHash {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// The hash of named parts, one after another.
///
/// ```text
/// BLAKE3(… ‖ length of the name ‖ name ‖ length of the bytes ‖ bytes ‖ …)
/// ```
///
/// Lengths are 64 bits, little-endian, and so are floats and numbers: the hash is the same on every machine.
///
/// ```
/// use content_identity::Hasher;
///
/// let mut one = Hasher::default();
/// one.bytes("a", b"bc");
/// let mut other = Hasher::default();
/// other.bytes("ab", b"c");
/// assert_ne!(one.finish(), other.finish());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds some bytes.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.head(name, bytes.len());
        update(&mut self.0, bytes);
    }

    /// Adds floats by their bits.
    pub fn floats(&mut self, name: &str, values: &[f32]) {
        self.head(name, 4 * values.len());
        if cfg!(target_endian = "little") {
            update(&mut self.0, bytemuck::cast_slice(values));
        } else {
            for value in values {
                self.0.update(&value.to_le_bytes());
            }
        }
    }

    /// Adds whole numbers, such as the ids of tokens.
    pub fn numbers(&mut self, name: &str, values: impl ExactSizeIterator<Item = u64>) {
        self.head(name, 8 * values.len());
        values.for_each(|value| _ = self.0.update(&value.to_le_bytes()));
    }

    /// The hash of all that was added.
    pub fn finish(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }

    fn head(&mut self, name: &str, bytes: usize) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&(bytes as u64).to_le_bytes());
    }
}

fn update(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    if bytes.len() < PARALLEL_BYTES {
        hasher.update(bytes)
    } else {
        hasher.update_rayon(bytes)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_bytes_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, 1, 70_000, 1 << 20] {
            let content: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
            let [first, second] = ["first", "second"].map(|name| dir.path().join(format!("{name}-{bytes}")));
            std::fs::write(&first, &content).unwrap();
            let hash = ContentHash::of_file(&first).unwrap();
            assert_eq!(hash, ContentHash::of_bytes(&content), "{bytes}");
            std::fs::rename(&first, &second).unwrap();
            assert_eq!(ContentHash::of_file(&second).unwrap(), hash);
        }
        // The published value for no bytes.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ContentHash::of_bytes(b"").to_string(), empty);
        assert_eq!(empty.parse::<ContentHash>().unwrap(), ContentHash::of_bytes(b""));
        assert_eq!(format!("{:.12}", ContentHash::of_bytes(b"")), empty[..12]);
    }

    #[test]
    fn a_file_that_is_changed_in_place_has_another_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, [0; 4096]).unwrap();
        let before = ContentHash::of_file(&path).unwrap();
        // The time differs even where the clock of the file system is coarse.
        let later = SystemTime::now() + std::time::Duration::from_secs(2);
        std::fs::write(&path, [1; 4096]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_ne!(ContentHash::of_file(&path).unwrap(), before);
        std::fs::write(&path, [0; 4097]).unwrap();
        assert_ne!(ContentHash::of_file(&path).unwrap(), before);
    }

    #[test]
    fn floats_are_hashed_by_their_bits() {
        let of = |values: &[f32]| {
            let mut hasher = Hasher::default();
            hasher.floats("a", values);
            hasher.finish()
        };
        assert_ne!(of(&[0.0]), of(&[-0.0]));
        let mut bytes = Hasher::default();
        bytes.bytes("a", &[0, 0, 128, 63]);
        assert_eq!(of(&[1.0]), bytes.finish());
        let mut numbers = Hasher::default();
        numbers.numbers("a", [1u64, 2].into_iter());
        bytes = Hasher::default();
        bytes.bytes("a", &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numbers.finish(), bytes.finish());
    }

    #[test]
    fn what_is_no_hash_is_refused_and_a_missing_file_named() {
        for wrong in ["", "12", &"A".repeat(64), &"g".repeat(64)] {
            assert!(wrong.parse::<ContentHash>().unwrap_err().to_string().contains("64 hexadecimal digits"));
        }
        assert!(ContentHash::of_file("no/such/file").unwrap_err().to_string().starts_with("no/such/file: "));
    }
}
