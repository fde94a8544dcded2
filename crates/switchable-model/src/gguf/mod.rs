//! GGUF, the files of llama.cpp: a whole model in one file, tokenizer included.
//!
//! ```text
//! "GGUF"  version  tensors  pairs          u32 and u64, little-endian
//! key  kind  value                         for each pair of the metadata
//! name  dimensions  sizes  type  offset    for each tensor, the sizes of a row first
//! data                                     in steps of `general.alignment` bytes, 32 by default
//! ```
//!
//! Versions 2 and 3 are read, mapped into memory and not copied. Every length is checked against the file
//! before it is used, and every tensor against its neighbours: each begins where the one before it ends.
//!
//! A family says what its metadata and tensors are in [`GgufFamily`]: they become the fields of a `config.json`
//! and tensors under their Hugging Face names, so that a file is opened as the folder is that it was made from.
//! Codes are read as the numbers that they stand for: full precision of such a file is already on the file's grid,
//! and rounding to that very grid again costs nothing and shows nothing.
//!
//! [`writer`] writes such files, [`export`] a model under a plan as one: the same names, the other way.
//!
//! Source: `docs/gguf.md` of ggml.

pub mod block_type;
mod coded_rows;
mod cursor;
pub mod export;
pub mod family;
pub(crate) mod fault;
mod fields;
mod metadata;
pub(crate) mod special_tokens;
pub(crate) mod tensor_info;
#[cfg(test)]
mod tests;
pub mod writer;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use self::cursor::Cursor;
pub use self::family::GgufFamily;
use self::fault::fault;
use self::metadata::Metadata;
use self::tensor_info::SHORTEST_INFO;
pub use self::tensor_info::TensorInfo;
use crate::error::{Error, Result};
use crate::weights::source::WeightSource;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];
const ALIGNMENT: &str = "general.alignment";
const ARCHITECTURE: &str = "general.architecture";
/// The steps of a file that does not say any.
const ALIGNMENT_WHERE_UNSAID: usize = 32;

/// Whether a path is that of a GGUF file: by its first bytes or by the end of its name. No file is none.
pub fn is_gguf(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let begins = || {
        let mut first = [0; MAGIC.len()];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
        read.is_ok() && first == MAGIC
    };
    path.is_file() && (path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) || begins())
}

/// A GGUF file, its header read and checked.
#[derive(Debug)]
pub struct GgufFile {
    source: WeightSource,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    ///
    /// When the file cannot be mapped, is of another kind or version, is cut short, or its header contradicts
    /// itself or the length of the file; the error names the key or the tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_source(WeightSource::open(path)?)
    }

    /// Reads the header of bytes that are there already.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn from_source(source: WeightSource) -> Result<Self> {
        let path = source.name();
        let mut cursor = Cursor::new(source.bytes(), path);
        let magic: [u8; 4] = cursor.array("magic")?;
        if magic != MAGIC {
            return Err(fault(path, "magic", format!("{:?}", magic.escape_ascii().to_string()), "\"GGUF\"".into()));
        }
        let version = cursor.u32("version")?;
        if !VERSIONS.contains(&version) {
            let is_turned = VERSIONS.contains(&version.swap_bytes());
            let got = if is_turned { "big-endian".to_owned() } else { version.to_string() };
            return Err(fault(path, "version", got, "2 or 3, little-endian".into()));
        }
        let tensors = cursor.count(SHORTEST_INFO, "number of tensors")?;
        let pairs = cursor.count(Metadata::shortest_pair(), "number of metadata pairs")?;
        let metadata = Metadata::read(&mut cursor, pairs, path)?;
        let alignment = alignment(&metadata, path)?;
        let tensors = tensor_info::read(&mut cursor, tensors, alignment, path)?;
        Ok(Self { source, metadata, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.name()
    }

    /// What `general.architecture` says, which is the family of the model.
    ///
    /// # Errors
    ///
    /// When it is missing or no text.
    pub fn architecture(&self) -> Result<&str> {
        self.text(ARCHITECTURE)?.ok_or_else(|| self.missing(ARCHITECTURE, "the name of an architecture"))
    }

    /// The error of a file of another architecture.
    pub(crate) fn refused_architecture(&self, expected: &str) -> Error {
        self.refused(ARCHITECTURE, expected)
    }

    /// A tensor by its name in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// The values of a tensor in row-major order, as the file has its rows.
    pub fn values(&self, info: &TensorInfo) -> Vec<f32> {
        info.block_type.decode(&self.source.bytes()[info.bytes.clone()])
    }

    fn bytes_of(&self, info: &TensorInfo) -> &[u8] {
        &self.source.bytes()[info.bytes.clone()]
    }

    pub(crate) fn into_parts(self) -> (WeightSource, BTreeMap<String, TensorInfo>) {
        (self.source, self.tensors)
    }

    /// How many tensors are held as codes, by the name of their type; empty for a file of floats.
    pub fn quantised(&self) -> BTreeMap<&'static str, usize> {
        let mut types = BTreeMap::new();
        for info in self.tensors.values().filter(|info| info.block_type.values() > 1) {
            *types.entry(info.block_type.name()).or_default() += 1;
        }
        types
    }
}

fn alignment(metadata: &Metadata, path: &Path) -> Result<usize> {
    match metadata.get(ALIGNMENT) {
        None => Ok(ALIGNMENT_WHERE_UNSAID),
        Some(metadata::Value::Whole(bytes)) if (8..=1 << 20).contains(bytes) && (bytes & (bytes - 1)) == 0 => {
            Ok(*bytes as usize)
        }
        Some(other) => {
            let place = metadata::place_of(ALIGNMENT);
            Err(fault(path, &place, other.shown(), "a power of two from 8 to 1048576".into()))
        }
    }
}
