//! What the tokenizer library cannot be given: it panics where an error belongs, takes what is none, or does not say
//! which field is wrong.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PaddingParams, PostProcessorWrapper, PreTokenizerWrapper,
    TruncationParams,
};

/// Sixty times as large as the vocabularies that there are.
const LARGEST_ID: u64 = (1 << 24) - 1;

/// The fields of a `tokenizer.json`.
const FIELDS: [&str; 9] = [
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
];

/// What a file should be that the library does not read.
const EXPECTED: &str = "a byte-level BPE as Hugging Face's `tokenizers` writes it";

/// Checks a `tokenizer.json` before the library reads it; the error says what was expected.
///
/// The library expects sound JSON inside of a decoder, and sound offsets in a `Precompiled` normaliser, whose table
/// it also allocates by the length that the file claims. `SentencePiece`'s unigram models alone have the latter. A field
/// that it does not know it calls an error of syntax, and of two tokens with one id it never gives one.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let value = parsed(json)?;
    let Some(fields) = value.as_object() else {
        return Err(format!("expected {EXPECTED}, which is a JSON object"));
    };
    if let Some(field) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(format!("field `{field}` is not known, expected {EXPECTED}: with {}", FIELDS.join(", ")));
    }
    if precompiled(&value["normalizer"]) {
        return Err("expected a normalizer other than `Precompiled`, got one".to_owned());
    }
    check_ids(&value["model"]["vocab"]).map_err(|reason| format!("field `model.vocab`: {reason}"))?;
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

/// What the library says of a `tokenizer.json` that it does not read, with the field that it says it of.
pub(super) fn refusal(json: &[u8], error: &tokenizers::Error) -> String {
    let value = parsed(json).unwrap_or_default();
    let missing = value.get("model").is_none().then(|| "field `model` is missing".to_owned());
    let of_field = || FIELDS.iter().find_map(|field| said_of(field, value.get(field)?));
    let said = missing.or_else(of_field).unwrap_or_else(|| error.to_string());
    format!("{said}, expected {EXPECTED}")
}

/// What the library says of one field; `None` where it reads it.
fn said_of(field: &str, value: &Value) -> Option<String> {
    let reason = match field {
        "version" => read::<String>(value),
        "truncation" => read::<Option<TruncationParams>>(value),
        "padding" => read::<Option<PaddingParams>>(value),
        "added_tokens" => read::<Vec<Value>>(value),
        "normalizer" => read::<Option<NormalizerWrapper>>(value),
        "pre_tokenizer" => read::<Option<PreTokenizerWrapper>>(value),
        "post_processor" => read::<Option<PostProcessorWrapper>>(value),
        "decoder" => read::<Option<DecoderWrapper>>(value),
        _ => read::<ModelWrapper>(value),
    }?;
    let kind = value.get("type").map_or_else(String::new, |kind| format!(" of the type {kind}"));
    Some(format!("field `{field}`{kind}: {reason}"))
}

fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Option<String> {
    T::deserialize(value).err().map(|error| error.to_string())
}

/// Checks the ids of an object of tokens.
fn check_ids(vocabulary: &Value) -> Result<(), String> {
    let mut tokens = HashMap::new();
    for (token, id) in vocabulary.as_object().into_iter().flatten() {
        check_id(id)?;
        if let Some(id) = id.as_u64()
            && let Some(first) = tokens.insert(id, token)
        {
            return Err(format!("tokens {first:?} and {token:?} have the id {id}, expected another for each token"));
        }
    }
    Ok(())
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
