//! Files of packed and plain tensors, in the safetensors format.
//!
//! ```text
//! 8 bytes    n, little-endian
//! n bytes    JSON: `__metadata__` and, for each tensor, dtype, shape and place; padded with spaces
//! the rest   NAME.codes        U8  [bytes]           every tile, see `layout`
//!            NAME.scales       F16 or F32            the granularity's shape
//!            NAME.zero_points  U8                    the same shape, asymmetric weights only
//!            NAME              F32, F16 or BF16      a plain tensor
//! ```
//!
//! `__metadata__` holds `format`, `version`, the JSON object `packed` of what each packed tensor
//! is, and entries `user.KEY` for whoever writes the file. All codes stand first and on 64-byte
//! boundaries, so that the kernels read a memory map as fast as memory of their own.

pub mod plain;
pub mod reader;
pub mod writer;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity};

const FORMAT: &str = "switchable-quant.packed";
const VERSION: &str = "1";
/// Before the names of entries of `__metadata__` that this format leaves to others.
const USER: &str = "user.";

/// The endings of the tensors that make up a packed one.
const CODES: &str = ".codes";
const SCALES: &str = ".scales";
const ZERO_POINTS: &str = ".zero_points";

/// What a packed tensor is, apart from the format of its scales, which their dtype says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    shape: [usize; 2],
    bits: BitWidth,
    #[serde(rename = "mapping")]
    format: Format,
    granularity: Granularity,
}

/// The descriptions of all packed tensors, by name.
type Descriptions = BTreeMap<String, Description>;
