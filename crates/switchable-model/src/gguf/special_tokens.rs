//! The special tokens that the metadata names by their ids, as fields of a `config.json`.

use serde_json::{Map, Value};

use super::GgufFile;
use crate::error::Result;

/// The fields of a `config.json`, and the keys that they stand under.
const FIELDS: [(&str, &str); 3] = [
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ("sep_token_id", "tokenizer.ggml.seperator_token_id"),
];

/// The ends of a text, of a turn and of a message: a generated text ends at any of them.
const ENDS: [&str; 3] = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// `bos_token_id`, `eos_token_id` and the like, as far as the file has them.
pub(crate) fn token_ids(file: &GgufFile) -> Result<Map<String, Value>> {
    let mut fields = Map::new();
    for (field, key) in FIELDS {
        if let Some(id) = file.token_id(key)? {
            fields.insert(field.to_owned(), id.into());
        }
    }
    let mut ends = Vec::new();
    for key in ENDS {
        ends.extend(file.token_id(key)?.filter(|id| !ends.contains(id)));
    }
    match ends[..] {
        [] => {}
        [end] => _ = fields.insert("eos_token_id".to_owned(), end.into()),
        _ => _ = fields.insert("eos_token_id".to_owned(), ends.into()),
    }
    Ok(fields)
}
