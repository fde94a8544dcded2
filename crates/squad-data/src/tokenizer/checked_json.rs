//! What the tokenizer library cannot be given: it panics where an error belongs.

use serde_json::Value;

/// Sixty times as large as the vocabularies that there are.
const LARGEST_ID: u64 = (1 << 24) - 1;

/// Checks a `tokenizer.json` before the library reads it; the error says what was expected.
///
/// The library expects sound JSON inside of a decoder, and sound offsets in a `Precompiled` normaliser, whose table
/// it also allocates by the length that the file claims. `SentencePiece`'s unigram models alone have the latter.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let value = parsed(json)?;
    if precompiled(&value["normalizer"]) {
        return Err("expected a normalizer other than `Precompiled`, got one".to_owned());
    }
    check_ids(&value["model"]["vocab"])?;
    let added = value["added_tokens"].as_array().into_iter().flatten();
    added.map(|token| &token["id"]).try_for_each(check_id)
}

/// Checks a `vocab.json`: the library counts from 0 to the largest id.
pub(super) fn check_vocabulary(json: &[u8]) -> Result<(), String> {
    check_ids(&parsed(json)?)
}

fn parsed(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map_err(|error| format!("not valid JSON: {error}"))
}

/// Checks the ids of an object of tokens.
fn check_ids(vocabulary: &Value) -> Result<(), String> {
    vocabulary.as_object().into_iter().flat_map(|tokens| tokens.values()).try_for_each(check_id)
}

fn check_id(id: &Value) -> Result<(), String> {
    match id.as_u64() {
        Some(id) if id > LARGEST_ID => Err(format!("expected token ids of at most {LARGEST_ID}, got {id}")),
        _ => Ok(()),
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
