//! Results as JSON files, each whole or not at all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Writes indented JSON to a temporary file in the same folder, then renames it.
///
/// # Errors
///
/// When the folder cannot be made or written.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    let path = path.as_ref();
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::json(path, e))?;
    text.push('\n');
    Ok(whole_files::write(path, text.as_bytes())?)
}

/// Writes text to a temporary file in the same folder, then renames it.
///
/// # Errors
///
/// When the folder cannot be made or written.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    Ok(whole_files::write(path, text.as_bytes())?)
}

/// Reads JSON.
///
/// # Errors
///
/// When the file cannot be read or does not hold what is asked for.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let is_in_field = error.path().iter().next().is_some();
        let (field, source) = (error.path().to_string(), error.into_inner());
        // A list in the place of a name is no data but syntax to the parser.
        if is_in_field && !source.is_eof() {
            Error::JsonField { path: path.into(), field, source }
        } else {
            Error::json(path, source)
        }
    })?;
    json.end().map_err(|e| Error::json(path, e))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_field() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        for (text, expected) in [
            (r#"{"rows": {"a": [1, "two"]}}"#, "result.json: field `rows.a[1]`: invalid type: string"),
            ("{", "result.json: EOF"),
            (r#"{"rows": {}} x"#, "result.json: trailing characters"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = read_json::<BTreeMap<String, BTreeMap<String, Vec<u32>>>>(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
