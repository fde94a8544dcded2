//! Bytes that are shared: owned and aligned, or a part of a file's memory map.

use std::{fmt, ops::Range, sync::Arc};

use whole_files::MappedFile;

/// Bytes that are cheap to clone.
#[derive(Clone)]
pub(crate) enum Bytes {
    /// Bytes of this process: a part of a larger allocation, so that they start on a 64-byte
    /// boundary and their vectors never straddle cache lines.
    Owned(Arc<Vec<u8>>, Range<usize>),
    /// A part of a file.
    Mapped(Arc<MappedFile>, Range<usize>),
}

impl Bytes {
    const ALIGNMENT: usize = 64;

    /// Zeros, filled by `fill`.
    pub(crate) fn build(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = vec![0; len + Self::ALIGNMENT - 1];
        let start = bytes.as_ptr().align_offset(Self::ALIGNMENT).min(Self::ALIGNMENT - 1);
        let range = start..start + len;
        fill(&mut bytes[range.clone()]);
        Self::Owned(Arc::new(bytes), range)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes, range) => &bytes[range.clone()],
            Self::Mapped(map, range) => &map[range.clone()],
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Owned(..) => "owned",
            Self::Mapped(..) => "mapped",
        };
        write!(f, "{} {kind} bytes", self.as_slice().len())
    }
}
