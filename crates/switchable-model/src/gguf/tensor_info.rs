//! What the header says of the tensors: shape, type and place of each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::block_type::BlockType;
use super::cursor::Cursor;
use super::fault::fault;
use crate::error::Result;

/// The longest name, in bytes, and the most dimensions that the format allows.
const LONGEST_NAME: usize = 64;
const MOST_DIMENSIONS: u32 = 4;

/// A name of one byte, one dimension, type and offset.
pub(super) const SHORTEST_INFO: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its shape in row-major order, the reverse of the file's: `[d_out, d_in]` of a linear layer.
    pub shape: Vec<usize>,
    /// How its values are held.
    pub block_type: BlockType,
    /// Its bytes in the file.
    pub(crate) bytes: Range<usize>,
}

/// A tensor whose bytes are not placed yet.
struct Unplaced {
    name: String,
    shape: Vec<usize>,
    block_type: BlockType,
    offset: u64,
    length: usize,
}

/// Reads what the header says of `count` tensors, and places them behind it.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    count: usize,
    alignment: usize,
    path: &Path,
) -> Result<BTreeMap<String, TensorInfo>> {
    let unplaced = (0..count).map(|index| read_one(cursor, index, path)).collect::<Result<Vec<_>>>()?;
    let padding = cursor.position().next_multiple_of(alignment) - cursor.position();
    if !unplaced.is_empty() {
        _ = cursor.range(padding, "the padding behind the header")?;
    }
    let (start, data) = (cursor.position(), cursor.rest());
    let (mut tensors, mut end) = (BTreeMap::new(), 0usize);
    for Unplaced { name, shape, block_type, offset, length } in unplaced {
        let place = |what: &str| format!("tensor `{name}`: {what}");
        let expected = end.next_multiple_of(alignment);
        if usize::try_from(offset) != Ok(expected) {
            let expected = format!("{expected}: where the one before it ends, in steps of {alignment} bytes");
            return Err(fault(path, &place("offset"), offset.to_string(), expected));
        }
        // Neither wraps around: `end` is at most the length of the file, and an alignment at most 2³¹.
        if expected > data || length > data - expected {
            let got = format!("cut short: {} bytes of data from byte {expected} on", data.saturating_sub(expected));
            return Err(fault(path, &place("data"), got, format!("{length} bytes")));
        }
        end = expected + length;
        let info = TensorInfo { shape, block_type, bytes: start + expected..start + end };
        if tensors.insert(name.clone(), info).is_some() {
            return Err(fault(path, &format!("tensor `{name}`"), "there twice".into(), "each name once".into()));
        }
    }
    if data - end >= alignment {
        let got = format!("followed by {} bytes that no tensor has", data - end);
        return Err(fault(path, "the last tensor", got, format!("fewer than {alignment}, which is padding")));
    }
    Ok(tensors)
}

fn read_one(cursor: &mut Cursor<'_>, index: usize, path: &Path) -> Result<Unplaced> {
    let place = format!("tensor {index}: name");
    let name = cursor.checked_text(&place)?.to_owned();
    if name.is_empty() || name.len() > LONGEST_NAME {
        let expected = format!("a name of 1 to {LONGEST_NAME} bytes");
        return Err(fault(path, &place, format!("a name of {} bytes", name.len()), expected));
    }
    let place = |what: &str| format!("tensor `{name}`: {what}");
    let dimensions = cursor.u32(&place("dimensions"))?;
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(fault(path, &place("dimensions"), dimensions.to_string(), format!("1 to {MOST_DIMENSIONS}")));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64(&place("shape"))?);
    }
    let number = cursor.u32(&place("type"))?;
    let block_type = BlockType::of(number)
        .map_err(|name| fault(path, &place("type"), name, format!("one of {}", BlockType::names())))?;
    let offset = cursor.u64(&place("offset"))?;
    let row = shape[0];
    let block = block_type.values();
    if !row.is_multiple_of(block as u64) || row == 0 {
        let expected = format!("a multiple of the {block} values of a block of {}", block_type.name());
        return Err(fault(path, &place("shape"), format!("rows of {row} values"), expected));
    }
    let values = shape.iter().try_fold(1u64, |values, &size| values.checked_mul(size));
    let length = values
        .and_then(|values| (values / block as u64).checked_mul(block_type.bytes() as u64))
        .and_then(|length| usize::try_from(length).ok());
    let (Some(length), false) = (length, shape.contains(&0)) else {
        return Err(fault(path, &place("shape"), format!("{shape:?}"), "sizes from 1 on that a file can hold".into()));
    };
    // The product of all sizes fits, so each of them does.
    let shape = shape.into_iter().rev().map(|size| size as usize).collect();
    Ok(Unplaced { name, shape, block_type, offset, length })
}
