//! Whether what is kept belongs to the run at hand.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Refuses a file of another run.
///
/// # Errors
///
/// When the values differ; the error names the first field that does.
pub fn check_identity(path: &Path, found: &Value, expected: &Value) -> Result<()> {
    first_difference("", found, expected)
        .map_or(Ok(()), |(field, found, expected)| Err(Error::OtherRun { path: path.into(), field, found, expected }))
}

/// Refuses a file of another version of its format.
///
/// # Errors
///
/// When the versions differ.
pub fn check_version(path: &Path, found: u32, expected: u32) -> Result<()> {
    let (field, path) = ("version".to_string(), path.to_path_buf());
    let other = Error::OtherRun { path, field, found: found.to_string(), expected: expected.to_string() };
    if found == expected { Ok(()) } else { Err(other) }
}

/// First place at which two JSON values differ: its path and both values.
fn first_difference(path: &str, found: &Value, expected: &Value) -> Option<(String, String, String)> {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let null = &Value::Null;
                first_difference(&path, a.get(key).unwrap_or(null), b.get(key).unwrap_or(null))
            })
        }
        _ if found == expected => None,
        _ => Some((path.to_string(), found.to_string(), expected.to_string())),
    }
}
