//! Reading a header front to back, with every length checked before it is used.

use std::ops::Range;
use std::path::Path;

use super::fault::fault;
use crate::error::Result;

/// A place in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], path: &'a Path) -> Self {
        Self { bytes, at: 0, path }
    }

    /// The bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The bytes that are not read yet.
    pub(super) fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Where the next bytes stand, which are passed over; `place` is what they are, for errors.
    pub(super) fn range(&mut self, length: usize, place: &str) -> Result<Range<usize>> {
        if length > self.rest() {
            let got = format!("cut short: {} bytes from byte {} on", self.rest(), self.at);
            return Err(fault(self.path, place, got, format!("{length}")));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    pub(super) fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N]> {
        let range = self.range(N, place)?;
        Ok(self.bytes[range].try_into().expect("the range has this length"))
    }

    pub(super) fn u32(&mut self, place: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    pub(super) fn u64(&mut self, place: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    /// A number of things of which each takes at least `bytes` bytes of what follows.
    pub(super) fn count(&mut self, bytes: usize, place: &str) -> Result<usize> {
        let count = self.u64(place)?;
        let most = self.rest() / bytes;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => {
                Err(fault(self.path, place, count.to_string(), format!("at most {most}, which the file has room for")))
            }
        }
    }

    /// Where a text stands behind its length.
    pub(super) fn text(&mut self, place: &str) -> Result<Range<usize>> {
        let length = self.count(1, place)?;
        self.range(length, place)
    }

    /// A text behind its length, checked to be UTF-8.
    pub(super) fn checked_text(&mut self, place: &str) -> Result<&'a str> {
        let range = self.text(place)?;
        utf8(self.path, &self.bytes[range], place)
    }
}

/// Bytes as text.
pub(super) fn utf8<'a>(path: &Path, bytes: &'a [u8], place: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| fault(path, place, error.to_string(), "text in UTF-8".into()))
}
