//! A tensor of a file: where it stands and how its values are held.

use std::ops::Range;

use safetensors::tensor::Dtype;

use crate::gguf::block_type::BlockType;
use crate::gguf::family::RowOrder;

/// A tensor.
#[derive(Debug)]
pub(super) struct Entry {
    /// The index of its file.
    pub(super) source: usize,
    /// Its bytes in the file.
    pub(super) bytes: Range<usize>,
    pub(super) shape: Vec<usize>,
    pub(super) held: Held,
    /// What its file calls it, where that is not its Hugging Face name.
    pub(super) called: Option<String>,
}

/// How a file holds the values of a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    Safetensors(Dtype),
    Gguf(BlockType, RowOrder),
}

impl Entry {
    /// Whether its values are codes beside their scales.
    pub(super) fn is_int8(&self) -> bool {
        matches!(self.held, Held::Safetensors(Dtype::I8))
    }

    /// The name in its file of a tensor of this name.
    pub(super) fn shown(&self, name: &str) -> String {
        self.called.as_deref().unwrap_or(name).to_owned()
    }

    /// Its values in row-major order, of the bytes of its file; `None` where they are not floats and not codes of
    /// their own.
    pub(super) fn values(&self, file: &[u8]) -> Option<Vec<f32>> {
        let bytes = &file[self.bytes.clone()];
        match self.held {
            Held::Safetensors(Dtype::F32) => Some(BlockType::F32.decode(bytes)),
            Held::Safetensors(Dtype::F16) => Some(BlockType::F16.decode(bytes)),
            Held::Safetensors(Dtype::BF16) => Some(BlockType::Bf16.decode(bytes)),
            Held::Safetensors(_) => None,
            Held::Gguf(block_type, order) => Some(order.in_folder(block_type.decode(bytes), &self.shape)),
        }
    }
}
