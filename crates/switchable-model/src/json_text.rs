//! Reading the JSON files of a model folder.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The largest JSON file that is read: the index of a model of 10,000 tensors takes 1 MB.
const MOST_BYTES: u64 = 64 << 20;

/// The text of a file, without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let io = |error| Error::io(path, error);
    let fault = |reason: String| Error::Text { path: path.into(), reason };
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::new();
    if length <= MOST_BYTES {
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    }
    if length.max(bytes.len() as u64) > MOST_BYTES {
        return Err(fault(format!("expected at most {MOST_BYTES} bytes of JSON, got more")));
    }
    let text = String::from_utf8(bytes).map_err(|error| fault(format!("expected text in UTF-8, got {error}")))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What a text says; `path` stands in the error, with line and column.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::json(path, error))
}
