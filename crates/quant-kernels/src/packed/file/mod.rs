//! Files of packed and plain tensors, in the safetensors format.
//!
//! ```text
//! 8 bytes    n, little-endian
//! n bytes    JSON: `__metadata__` and, for each tensor, dtype, shape and place; padded with spaces
//! the rest   NAME.codes        U8  [bytes]           every tile, see `layout`
//!            NAME.scales       F16 or F32            the granularity's shape
//!            NAME.zero_points  U8                    the same shape, asymmetric weights only
//!            NAME.scales.bits-B  F16 or F32          the same shape, nested weights with scales of B bits only
//!            NAME              F32, F16 or BF16      a plain tensor
//! ```
//!
//! Version 2 has the last, version 1 all else: a file without them is of version 1. `__metadata__` holds `format`, `version`, the JSON object `packed` of what each packed tensor
//! is, and entries `user.KEY` for whoever writes the file. All codes stand first and on 64-byte
//! boundaries, so that the kernels read a memory map as fast as memory of their own.

pub mod plain;
pub mod reader;
pub mod writer;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity};

const FORMAT: &str = "switchable-quant.packed";
/// Of files whose widths share their scales.
const VERSION: &str = "1";
/// Of files in which a width has scales of its own.
const VERSION_WITH_WIDTH_SCALES: &str = "2";
/// Before the names of entries of `__metadata__` that this format leaves to others.
const USER: &str = "user.";

/// The endings of the tensors that make up a packed one.
const CODES: &str = ".codes";
const SCALES: &str = ".scales";
const ZERO_POINTS: &str = ".zero_points";

/// The ending of the scales of a width.
fn width_scales(bits: BitWidth) -> String {
    format!("{SCALES}.bits-{bits}")
}

/// What a packed tensor is, apart from the format of its scales, which their dtype says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    shape: [usize; 2],
    bits: BitWidth,
    #[serde(rename = "mapping")]
    format: Format,
    granularity: Granularity,
    /// The widths below that of the codes that have scales of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    width_scales: Vec<BitWidth>,
}

/// The descriptions of all packed tensors, by name.
type Descriptions = BTreeMap<String, Description>;
