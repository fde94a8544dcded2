//! Which files make a model on the Hub.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hub::plain_name::is_plain_name;

/// What says which tokens are added to a tokenizer, and which are special.
pub(super) const TOKENIZER_NOTES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// The files that a sharded model's index names.
pub(super) fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let wrong = |reason: String| Error::ShardIndex { path: index.to_owned(), reason };
    let text = fs::read(index).map_err(|source| Error::Io { path: index.to_owned(), source })?;
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
    let index: Index = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.is_empty() {
        return Err(wrong("field `weight_map` is empty, expected a file for every tensor".to_owned()));
    }
    match shards.iter().find(|shard| !(is_plain_name(shard) && shard.ends_with(".safetensors"))) {
        None => Ok(shards),
        Some(shard) => {
            Err(wrong(format!("field `weight_map` names `{shard}`, expected a .safetensors file of the same folder")))
        }
    }
}
