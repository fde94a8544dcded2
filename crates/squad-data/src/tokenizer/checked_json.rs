//! What the tokenizer library cannot be given: it panics where an error belongs.

use serde_json::Value;

/// Checks a `tokenizer.json` before the library reads it; the error says what was expected.
///
/// The library expects sound JSON inside of a decoder, and sound offsets in a `Precompiled` normaliser, whose table
/// it also allocates by the length that the file claims. SentencePiece's unigram models alone have the latter.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("not valid JSON: {error}"))?;
    match precompiled(&value["normalizer"]) {
        true => Err("expected a normalizer other than `Precompiled`, got one".to_owned()),
        false => Ok(()),
    }
}

/// Whether a normaliser is precompiled or a sequence with one that is.
fn precompiled(normalizer: &Value) -> bool {
    match normalizer {
        Value::Object(fields) => {
            fields.contains_key("precompiled_charsmap")
                || fields.get("type").is_some_and(|kind| kind == "Precompiled")
                || fields.values().any(precompiled)
        }
        Value::Array(items) => items.iter().any(precompiled),
        _ => false,
    }
}
