//! What a family's GGUF files hold, in the words of its Hugging Face folders.

use std::fmt;

use serde_json::{Map, Value};

use super::GgufFile;
use super::writer::MetadataValue;
use crate::error::Result;
use crate::parameters::{WeightLayout, transposed};

/// How the GGUF files of a family are read and written.
pub struct GgufFamily<C> {
    /// What `general.architecture` of its files is.
    pub architecture: &'static str,
    /// The fields of `config.json` that the metadata stands for, but for `model_type` and the ids of tokens.
    pub fields: fn(&GgufFile) -> Result<Map<String, Value>>,
    /// The tensors outside of the blocks, by their names in GGUF and in a Hugging Face folder, without the
    /// `.weight` and `.bias` that stand behind both.
    pub tensors: &'static [(&'static str, &'static str)],
    /// What stands before the number of a block in the names of a Hugging Face folder, as `blk.` does in GGUF.
    pub block: &'static str,
    /// The tensors of a block, both names without what stands before and behind.
    pub block_tensors: &'static [(&'static str, &'static str)],
    /// Tensors that are not the model's parameters: what they say is in the fields.
    pub beside: &'static [&'static str],
    /// The heads of a tensor of a block, by its name in GGUF, whose rows stand in the order of llama.cpp's rotations:
    /// the two rows that are turned together beside one another, and not half a head apart.
    pub turned_heads: fn(&C, &str) -> Option<usize>,
    /// What a file says of a configuration; refuses one that llama.cpp would run otherwise.
    pub written: fn(&C) -> Result<WrittenConfig>,
}

/// What a file says of a configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WrittenConfig {
    /// The metadata, by what stands behind the architecture in their keys.
    pub pairs: Vec<(&'static str, MetadataValue)>,
    /// Tensors that are not the model's parameters.
    pub beside: Vec<(&'static str, Vec<f32>)>,
}

impl<C> fmt::Debug for GgufFamily<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFamily").field("architecture", &self.architecture).finish_non_exhaustive()
    }
}

/// How the rows of a tensor in a file lie, against those of a Hugging Face folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The same.
    Same,
    /// Rows are columns.
    Transposed,
    /// Those that are turned together are neighbours in each of so many heads.
    Turned(usize),
}

impl RowOrder {
    /// Values of a file in the order of a Hugging Face folder, where the tensor has a shape.
    pub(crate) fn in_folder(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match (self, shape) {
            (Self::Transposed, &[rows, columns]) => transposed(&values, [columns, rows]),
            (Self::Turned(heads), &[rows, ..]) if rows.is_multiple_of(2 * heads) => {
                let (half, columns) = (rows / heads / 2, values.len() / rows);
                // Row i of half a head is every second row of the head in the file.
                let in_file = |row: usize| {
                    let (head, part, i) = (row / (2 * half), row / half % 2, row % half);
                    2 * (head * half + i) + part
                };
                (0..rows).flat_map(|row| &values[in_file(row) * columns..][..columns]).copied().collect()
            }
            _ => values,
        }
    }

    /// The row of a Hugging Face folder, `[d_out, d_in]`, that is a row of the file.
    pub(super) fn folder_row(self, row: usize, rows: usize) -> usize {
        match self {
            Self::Turned(heads) if rows.is_multiple_of(2 * heads) => {
                let half = rows / heads / 2;
                let (head, i, part) = (row / (2 * half), row / 2 % half, row % 2);
                2 * head * half + part * half + i
            }
            _ => row,
        }
    }
}

/// Where a tensor of a file belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its Hugging Face name.
    pub(crate) name: String,
    pub(crate) order: RowOrder,
}

const PARTS: [&str; 2] = [".weight", ".bias"];

impl<C> GgufFamily<C> {
    /// Where a tensor belongs by its name in the file, in a folder that lays out weights in some way; `None` where
    /// it is none of the family's.
    pub(crate) fn place(&self, config: &C, name: &str, (dimensions, layout): (usize, WeightLayout)) -> Option<Place> {
        let part = PARTS.into_iter().find(|part| name.ends_with(part))?;
        let bare = &name[..name.len() - part.len()];
        let Some((block, own)) = bare.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            let (_, name) = self.tensors.iter().find(|(gguf, _)| *gguf == bare)?;
            return Some(Place { name: format!("{name}{part}"), order: RowOrder::Same });
        };
        let (_, in_folder) = self.block_tensors.iter().find(|(gguf, _)| *gguf == own)?;
        let is_number = !block.is_empty() && block.bytes().all(|byte| byte.is_ascii_digit());
        let order = match (self.turned_heads)(config, own) {
            Some(heads) => RowOrder::Turned(heads),
            // In GGUF weights are [d_out, d_in] in every family.
            None if dimensions == 2 && layout == WeightLayout::InOut => RowOrder::Transposed,
            None => RowOrder::Same,
        };
        is_number.then(|| Place { name: format!("{}{block}.{in_folder}{part}", self.block), order })
    }

    /// The name in GGUF of a tensor that a model asks for by its Hugging Face name.
    pub(crate) fn name_in_file(&self, name: &str) -> Option<String> {
        let part = PARTS.into_iter().find(|part| name.ends_with(part))?;
        let bare = &name[..name.len() - part.len()];
        if let Some((gguf, _)) = self.tensors.iter().find(|(_, own)| *own == bare) {
            return Some(format!("{gguf}{part}"));
        }
        let (block, own) = bare.strip_prefix(self.block)?.split_once('.')?;
        let (gguf, _) = self.block_tensors.iter().find(|(_, name)| *name == own)?;
        Some(format!("blk.{block}.{gguf}{part}"))
    }

    /// The name in GGUF of a parameter by its Hugging Face name, and how the rows of `[d_out, ..]` lie there.
    pub(super) fn written_place(&self, config: &C, name: &str) -> Option<(String, RowOrder)> {
        let in_file = self.name_in_file(name)?;
        let own = in_file.strip_prefix("blk.").and_then(|rest| rest.split('.').nth(1));
        let order = own.and_then(|own| (self.turned_heads)(config, own)).map_or(RowOrder::Same, RowOrder::Turned);
        Some((in_file, order))
    }
}
