//! The tokenizer of a GGUF file, and what its weights leave open.
//!
//! | key, behind `tokenizer.` | what is taken from it |
//! |---|---|
//! | `ggml.model` | `gpt2`: byte-level BPE, the one kind that is read |
//! | `ggml.tokens`, `ggml.token_type`, `ggml.merges` | the vocabulary |
//! | `ggml.pre` | how a text is cut before it is merged |
//! | `ggml.bos_token_id` and the like | the special tokens by name |
//! | `chat_template` | kept, for folders that are written |
//! | `ggml.add_bos_token` | kept, for files that are written |
//!
//! Nothing is added to a text, whatever `ggml.add_bos_token` says, as with every tokenizer here.

use serde_json::{Map, Value};

use squad_data::{BpeVocabulary, Splitting, TextTokenizer, TokenKind};
use switchable_model::gguf::GgufFile;

use crate::error::Result;

pub(crate) const MODEL: &str = "tokenizer.ggml.model";
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(crate) const TYPES: &str = "tokenizer.ggml.token_type";
pub(crate) const MERGES: &str = "tokenizer.ggml.merges";
pub(crate) const PRE: &str = "tokenizer.ggml.pre";
pub(crate) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(crate) const CHAT_TEMPLATE: &str = "chat_template";

/// The fields of a `tokenizer_config.json`, and the keys of their ids.
pub(crate) const SPECIAL: [(&str, &str); 5] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// Names of ways to cut a text, as llama.cpp has them; the first of each is the one that is written.
const SPLITTINGS: [(&str, Splitting); 8] = [
    ("gpt-2", Splitting::Gpt2),
    ("gpt2", Splitting::Gpt2),
    ("smollm", Splitting::SingleDigits),
    ("llama-bpe", Splitting::Llama3),
    ("llama3", Splitting::Llama3),
    ("llama-v3", Splitting::Llama3),
    ("falcon3", Splitting::Llama3),
    ("default", Splitting::Unnamed),
];

/// The numbers of the types of tokens.
pub(crate) const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
pub(crate) const CONTROL: i64 = 3;
pub(crate) const USER_DEFINED: i64 = 4;
pub(crate) const UNUSED: i64 = 5;

/// What llama.cpp calls a way to cut a text.
pub(crate) fn name_of(splitting: Splitting) -> &'static str {
    let name = SPLITTINGS.into_iter().find(|(_, own)| *own == splitting).map(|(name, _)| name);
    name.unwrap_or_else(|| unreachable!("every way has a name, {splitting:?} as well"))
}

/// The tokenizer of a file.
pub(crate) fn tokenizer_of(file: &GgufFile) -> Result<TextTokenizer> {
    match file.text(MODEL)? {
        Some("gpt2") => {}
        Some(_) => return Err(file.refused(MODEL, "\"gpt2\", which is byte-level BPE").into()),
        None => return Err(file.missing(MODEL, "\"gpt2\", which is byte-level BPE").into()),
    }
    let tokens = file.texts(TOKENS)?.ok_or_else(|| file.missing(TOKENS, "the list of tokens"))?;
    let types = file.numbers(TYPES)?;
    if let Some(types) = types.as_ref().filter(|types| types.len() != tokens.len()) {
        return Err(file
            .refused(TYPES, &format!("{} types, one for each token, not {}", tokens.len(), types.len()))
            .into());
    }
    let splitting = match file.text(PRE)? {
        None => Splitting::Unnamed,
        Some(name) => match SPLITTINGS.into_iter().find(|(known, _)| *known == name) {
            Some((_, splitting)) => splitting,
            None => {
                return Err(file.refused(PRE, &format!("one of {}", SPLITTINGS.map(|row| row.0).join(", "))).into());
            }
        },
    };
    let (config, named) = config_of(file, &tokens)?;
    let kind = |id: usize| match types.as_ref().map(|types| types[id]) {
        Some(CONTROL | UNKNOWN) => TokenKind::Special,
        Some(USER_DEFINED) => TokenKind::Whole,
        _ if named.contains(&id) => TokenKind::Special,
        _ => TokenKind::Merged,
    };
    let vocabulary = BpeVocabulary {
        tokens: tokens.iter().enumerate().map(|(id, token)| (*token, kind(id))).collect(),
        merges: file.texts(MERGES)?.ok_or_else(|| file.missing(MERGES, "the list of merges"))?,
        splitting,
        config,
    };
    Ok(TextTokenizer::from_vocabulary(&vocabulary, &file.path().display().to_string())?)
}

/// What a `tokenizer_config.json` would say, and the ids of the special tokens in it.
fn config_of(file: &GgufFile, tokens: &[&str]) -> Result<(Map<String, Value>, Vec<usize>)> {
    let (mut config, mut ids) = (Map::new(), Vec::new());
    for (field, key) in SPECIAL {
        let Some(id) = file.token_id(key)? else { continue };
        let Some(token) = tokens.get(id as usize) else {
            return Err(file.refused(key, &format!("an id below the {} tokens", tokens.len())).into());
        };
        config.insert(field.to_owned(), (*token).into());
        ids.push(id as usize);
    }
    if let Some(adds) = file.flag(ADD_BOS)? {
        config.insert("add_bos_token".to_owned(), adds.into());
    }
    if let Some(template) = file.text(&format!("tokenizer.{CHAT_TEMPLATE}"))? {
        config.insert(CHAT_TEMPLATE.to_owned(), template.into());
    }
    Ok((config, ids))
}

/// What a file leaves open: that its numbers are on a grid already, and how texts are cut.
pub(crate) fn notes_of(file: &GgufFile) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let types: Vec<String> = file.quantised().iter().map(|(name, tensors)| format!("{tensors} as {name}")).collect();
    if !types.is_empty() {
        notes.push(format!(
            "weights    {} tensors are codes ({}): 32 bits are what these stand for, and rounding to the same grid \
             shows nothing",
            file.quantised().values().sum::<usize>(),
            types.join(", ")
        ));
    }
    if file.text(PRE)?.is_none() {
        notes.push(format!("tokenizer  `{PRE}` is missing: texts are cut as llama.cpp cuts them without it"));
    }
    Ok(notes)
}
