//! Which tokens a folder names as its special ones.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::{Error, Result};

/// The names of special tokens in the order in which `transformers` adds those that a vocabulary lacks.
const ATTRIBUTES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further ones, under the name of older releases and of newer ones.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The special tokens that inputs are put together with, as far as a folder names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SpecialNames {
    /// `sep_token`.
    pub(super) separator: Option<String>,
    /// `pad_token`.
    pub(super) pad: Option<String>,
    /// `eos_token`.
    pub(super) end: Option<String>,
}

impl SpecialNames {
    /// What `sep_token`, `pad_token` and `eos_token` of a `tokenizer_config.json` are.
    pub(super) fn of(config: &Map<String, Value>, path: &Path) -> Result<Self> {
        let name = |field: &str| {
            let token = config.get(field).map(|value| token(value, &Place { path, field })).transpose()?.flatten();
            Ok::<_, Error>(token.map(|token| token.content))
        };
        Ok(Self { separator: name("sep_token")?, pad: name("pad_token")?, end: name("eos_token")? })
    }
}

/// Every token that a `tokenizer_config.json` names as special.
pub(super) fn special_tokens(config: &Map<String, Value>, path: &Path) -> Result<Vec<AddedToken>> {
    let mut tokens = Vec::new();
    for field in ATTRIBUTES {
        if let Some(value) = config.get(field) {
            tokens.extend(token(value, &Place { path, field })?);
        }
    }
    for field in LISTS {
        let place = Place { path, field };
        match config.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                for value in list {
                    tokens.extend(token(value, &place)?);
                }
            }
            Some(Value::Object(named)) => {
                for value in named.values() {
                    tokens.extend(token(value, &place)?);
                }
            }
            Some(other) => return Err(place.error("a list of tokens", other)),
        }
    }
    Ok(tokens)
}

/// A field of a file, for errors.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) field: &'a str,
}

impl Place<'_> {
    pub(super) fn error(&self, expected: &str, got: &Value) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: self.field.to_owned(),
            expected: expected.to_owned(),
            got: got.to_string(),
        }
    }
}

/// A special token as a string or as an object with its flags; `None` for `null`.
fn token(value: &Value, place: &Place<'_>) -> Result<Option<AddedToken>> {
    match value {
        Value::Null => Ok(None),
        Value::String(content) => Ok(Some(AddedToken::from(content.clone(), true))),
        Value::Object(_) => Ok(Some(AddedToken { special: true, ..described(value, place)? })),
        other => Err(place.error("a token, an object that describes one, or null", other)),
    }
}

/// A token as an object with its flags, of which those that are missing are false but for `normalized`,
/// which is true where the token is not special.
pub(super) fn described(value: &Value, place: &Place<'_>) -> Result<AddedToken> {
    let Some(content) = value.get("content").and_then(Value::as_str) else {
        return Err(place.error("an object whose `content` is a token", value));
    };
    let flag = |name: &str| match value.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(place.error(&format!("true or false as `{name}`"), value)),
    };
    let special = flag("special")?.unwrap_or(false);
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word")?.unwrap_or(false),
        lstrip: flag("lstrip")?.unwrap_or(false),
        rstrip: flag("rstrip")?.unwrap_or(false),
        normalized: flag("normalized")?.unwrap_or(!special),
        special,
    })
}
