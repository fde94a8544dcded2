//! A GGUF file that is written: metadata and tensors, whole or not at all.
//!
//! Version 3, in steps of 32 bytes, the shape of a row first: what [`GgufFile`](super::GgufFile) reads.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use whole_files::PartialFile;

use super::block_type::BlockType;
use super::{ALIGNMENT_WHERE_UNSAID, MAGIC};
use crate::error::Result;

const VERSION: u32 = 3;

/// The kinds of values, by their numbers in the file.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const FLAG: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// A value of the metadata, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of whole numbers.
    Numbers(Vec<i32>),
}

impl From<u32> for MetadataValue {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for MetadataValue {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<bool> for MetadataValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for MetadataValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl MetadataValue {
    /// Its kind and its bytes, as they stand behind the key.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::U32(number) => out.write_all(&[U32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::F32(number) => out.write_all(&[F32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::Flag(flag) => {
                out.write_all(&FLAG.to_le_bytes())?;
                out.write_all(&[u8::from(*flag)])
            }
            Self::Text(text) => {
                out.write_all(&TEXT.to_le_bytes())?;
                write_text(out, text)
            }
            Self::Texts(texts) => {
                write_list_head(out, TEXT, texts.len())?;
                texts.iter().try_for_each(|text| write_text(out, text))
            }
            Self::Numbers(numbers) => {
                write_list_head(out, I32, numbers.len())?;
                numbers.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
            }
        }
    }
}

fn write_list_head(out: &mut impl Write, kind: u32, len: usize) -> io::Result<()> {
    out.write_all(&[LIST.to_le_bytes(), kind.to_le_bytes()].concat())?;
    out.write_all(&(len as u64).to_le_bytes())
}

fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// A tensor as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedTensor {
    /// Its shape in row-major order, as [`TensorInfo`](super::TensorInfo) has it.
    pub shape: Vec<usize>,
    /// How its values are held.
    pub block_type: BlockType,
    /// Its rows.
    pub bytes: Vec<u8>,
}

/// A file in the making.
///
/// ```
/// use switchable_model::gguf::GgufFile;
/// use switchable_model::gguf::block_type::BlockType;
/// use switchable_model::gguf::writer::{EncodedTensor, GgufWriter};
///
/// let dir = tempfile::tempdir()?;
/// let mut writer = GgufWriter::default();
/// writer.pair("general.architecture", "llama");
/// let bytes = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
/// writer.tensor("output_norm.weight", EncodedTensor { shape: vec![2], block_type: BlockType::F32, bytes });
/// writer.write(dir.path().join("norm.gguf"))?;
///
/// let file = GgufFile::open(dir.path().join("norm.gguf"))?;
/// assert_eq!(file.architecture()?, "llama");
/// assert_eq!(file.values(file.tensor("output_norm.weight").unwrap()), [1.5, -2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    pairs: Vec<(String, MetadataValue)>,
    tensors: Vec<(String, EncodedTensor)>,
}

impl GgufWriter {
    /// Adds a pair of the metadata.
    pub fn pair(&mut self, key: impl Into<String>, value: impl Into<MetadataValue>) {
        self.pairs.push((key.into(), value.into()));
    }

    /// Adds a tensor.
    ///
    /// # Panics
    ///
    /// If its bytes are not those of its shape.
    pub fn tensor(&mut self, name: impl Into<String>, tensor: EncodedTensor) {
        let (values, name) = (tensor.shape.iter().product::<usize>(), name.into());
        let EncodedTensor { block_type, bytes, shape } = &tensor;
        let expected = values / block_type.values() * block_type.bytes();
        assert_eq!(bytes.len(), expected, "bytes of `{name}`, {} of shape {shape:?}", block_type.name());
        self.tensors.push((name, tensor));
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &EncodedTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Writes the file, in the place of one that is there.
    ///
    /// # Errors
    ///
    /// When the path names a folder or the file cannot be written; what was there before stays.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = PartialFile::create(path)?;
        file.fill(|file| {
            let mut out = BufWriter::new(file);
            self.write_to(&mut out)?;
            out.flush()
        })?;
        Ok(file.persist()?)
    }

    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut header = MAGIC.to_vec();
        header.write_all(&VERSION.to_le_bytes())?;
        header.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        header.write_all(&(self.pairs.len() as u64).to_le_bytes())?;
        for (key, value) in &self.pairs {
            write_text(&mut header, key)?;
            value.write(&mut header)?;
        }
        let mut offset = 0usize;
        for (name, tensor) in &self.tensors {
            write_text(&mut header, name)?;
            header.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
            for size in tensor.shape.iter().rev() {
                header.write_all(&(*size as u64).to_le_bytes())?;
            }
            header.write_all(&tensor.block_type.number().to_le_bytes())?;
            header.write_all(&(offset as u64).to_le_bytes())?;
            offset += padded(tensor.bytes.len());
        }
        header.resize(padded(header.len()), 0);
        out.write_all(&header)?;
        for (_, EncodedTensor { bytes, .. }) in &self.tensors {
            out.write_all(bytes)?;
            out.write_all(&[0; ALIGNMENT_WHERE_UNSAID][..padded(bytes.len()) - bytes.len()])?;
        }
        Ok(())
    }
}

const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT_WHERE_UNSAID)
}

#[cfg(test)]
mod tests {
    use super::super::GgufFile;
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/model.gguf");
        let mut writer = GgufWriter::default();
        writer.pair("general.architecture", "gpt2");
        writer.pair("a.size", 7);
        writer.pair("a.number", 0.25f32);
        writer.pair("a.flag", true);
        writer.pair("a.texts", MetadataValue::Texts(vec!["one".into(), "zwei 🦀".into(), String::new()]));
        writer.pair("a.numbers", MetadataValue::Numbers(vec![1, -1]));
        let floats = |values: &[f32]| BlockType::F32.encode_floats(values);
        // Neither ends at a step of 32 bytes.
        let first = EncodedTensor {
            shape: vec![2, 3],
            block_type: BlockType::F32,
            bytes: floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        };
        let halves = BlockType::F16.encode_floats(&[0.5, -65504.0]);
        writer.tensor("first", first);
        writer.tensor("second", EncodedTensor { shape: vec![2], block_type: BlockType::F16, bytes: halves });
        writer.write(&path).unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!((file.architecture().unwrap(), file.size("a.size", None).unwrap()), ("gpt2", 7));
        assert_eq!(file.positive("a.number", None).unwrap().to_bits(), 0.25f64.to_bits());
        assert_eq!(file.flag("a.flag").unwrap(), Some(true));
        assert_eq!(file.texts("a.texts").unwrap().unwrap(), ["one", "zwei 🦀", ""]);
        assert_eq!(file.numbers("a.numbers").unwrap().unwrap(), [1, -1]);
        let (first, second) = (file.tensor("first").unwrap(), file.tensor("second").unwrap());
        assert_eq!(
            (first.shape.as_slice(), file.values(first)),
            ([2, 3].as_slice(), vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        );
        assert_eq!((second.block_type, file.values(second)), (BlockType::F16, vec![0.5, -65504.0]));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_no_file_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let message = GgufWriter::default().write(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&dir.path().display().to_string()), "{message}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
