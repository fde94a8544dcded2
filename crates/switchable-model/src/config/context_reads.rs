//! How often a window of a reading task holds its context, as a field of `config.json`.
//!
//! The field is not one of `transformers`, which passes over it: the same weights read the same ids there.

use serde_json::Value;

use super::fields::ConfigFields;
use crate::error::Result;

/// The field's name.
pub const CONTEXT_READS: &str = "context_reads";

/// More reads than this help nobody.
const MOST: usize = 8;

/// The field, 1 where it is missing.
///
/// # Errors
///
/// When it is no whole number from 1 to 8.
pub fn context_reads(fields: &ConfigFields<'_>) -> Result<usize> {
    match fields.size_or(CONTEXT_READS, 1)? {
        reads if reads <= MOST => Ok(reads),
        reads => Err(fields.error(CONTEXT_READS, &reads.into(), &format!("a whole number from 1 to {MOST}"))),
    }
}

/// Writes the field where it is not 1, so that other models' files stay as they are.
///
/// # Panics
///
/// When the configuration is no JSON object.
pub fn write_context_reads(reads: usize, config: &mut Value) {
    if reads != 1 {
        config[CONTEXT_READS] = reads.into();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_is_read_as_it_was_written_and_only_there_where_it_says_something() {
        let read = |config: &Value| context_reads(&ConfigFields::new(config, Path::new("config.json")).unwrap());
        for reads in [1, 2, 8] {
            let mut config = json!({});
            write_context_reads(reads, &mut config);
            assert_eq!(config.get(CONTEXT_READS).is_some(), reads > 1);
            assert_eq!(read(&config).unwrap(), reads);
        }
        for wrong in [json!(0), json!(9), json!("two"), json!(1.5)] {
            let message = read(&json!({ CONTEXT_READS: wrong })).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(CONTEXT_READS), "{message}");
        }
    }
}
