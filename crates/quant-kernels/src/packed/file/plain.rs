//! Tensors that are not packed.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::packed::storage::Bytes;

/// The number format of a plain tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlainFormat {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl PlainFormat {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|format| format.dtype() == dtype)
    }
}

/// The values of a plain tensor that is to be written.
#[derive(Debug, Clone, Copy)]
pub enum PlainData<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// The upper half of single precision.
    Bf16(&'a [bf16]),
}

impl PlainData<'_> {
    pub(super) fn format(self) -> PlainFormat {
        match self {
            Self::F32(_) => PlainFormat::F32,
            Self::F16(_) => PlainFormat::F16,
            Self::Bf16(_) => PlainFormat::Bf16,
        }
    }

    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// A plain tensor of a file.
#[derive(Debug, Clone)]
pub struct PlainTensor {
    pub(super) format: PlainFormat,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Bytes,
}

impl PlainTensor {
    /// The number format.
    pub fn format(&self) -> PlainFormat {
        self.format
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values as they are in the file: little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The values in single precision, row-major. Every number of the other formats is one.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.format {
            PlainFormat::F32 => self.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            PlainFormat::F16 => {
                self.bytes().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
            PlainFormat::Bf16 => {
                self.bytes().as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
        }
    }
}
