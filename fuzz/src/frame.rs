//! Several files in one input, and headers that get past the length before them.
//!
//! ```text
//! input         section 0xFF section 0xFF … last section
//! header        the JSON of a safetensors file, or `#` and 8 bytes of its length and the JSON
//! data          repeated to as many bytes as the header describes; zeros where there are none
//! ```
//!
//! 0xFF is in no text, so that a change inside of one section leaves the others alone. A plain header gets
//! its right length and its data the right size: what is fuzzed is what it says. With `#` they are as they
//! are.

use serde_json::Value;

/// Between the files of one input.
pub const SEPARATOR: u8 = 0xFF;

/// No header is given more data than this, in bytes.
const MOST_DATA: usize = 1 << 16;

/// The sections of an input; those that are not there are empty.
pub(crate) fn sections<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == SEPARATOR);
    [(); N].map(|()| parts.next().unwrap_or_default())
}

/// A safetensors file of a header and data.
pub(crate) fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    if let Some((length, header)) = header.strip_prefix(b"#").and_then(|rest| rest.split_first_chunk::<8>()) {
        return [length, header, data].concat();
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    let bytes = described(header).min(MOST_DATA);
    file.extend(data.iter().chain(if data.is_empty() { &[0][..] } else { &[] }).cycle().take(bytes));
    file
}

/// Where the last tensor of a header ends.
fn described(header: &[u8]) -> usize {
    let Ok(Value::Object(header)) = serde_json::from_slice(header) else { return 0 };
    let ends = header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    ends.max().map_or(0, |end| usize::try_from(end).unwrap_or(usize::MAX))
}
