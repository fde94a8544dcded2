//! The tokenizer of a Hugging Face folder, from all of its files, as `transformers` reads them.
//!
//! | file | what is taken from it |
//! |---|---|
//! | `tokenizer.json` | the tokenizer |
//! | `vocab.json`, `merges.txt` | GPT-2's byte-level BPE, where there is no `tokenizer.json` |
//! | `tokenizer_config.json` | tokens added to it (`added_tokens_decoder`), which tokens are special, and `add_prefix_space` of GPT-2's class |
//! | `special_tokens_map.json`, `added_tokens.json` | the same from older releases, where `tokenizer_config.json` has no `added_tokens_decoder` |
//! | `config.json` | `eos_token_id`, `pad_token_id` and `sep_token_id`, where no file names these tokens |

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use super::special_names::{Place, SpecialNames, described, special_tokens};
use super::{END_OF_TEXT, TextTokenizer, checked_json, refused};
use crate::error::{Error, Result};

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED_TOKENS: &str = "added_tokens.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const DECODER: &str = "added_tokens_decoder";

/// Files of other tokenizers, and what they are.
const FOREIGN: [(&str, &str); 4] = [
    ("vocab.txt", "a WordPiece vocabulary"),
    ("spiece.model", "a SentencePiece model"),
    ("tokenizer.model", "a SentencePiece model"),
    ("sentencepiece.bpe.model", "a SentencePiece model"),
];

/// The largest file of a tokenizer that is read: vocabularies of 256,000 tokens take 35 MB.
const MOST_BYTES: u64 = 512 << 20;

/// Reads a folder.
pub(super) fn read(dir: &Path) -> Result<TextTokenizer> {
    let mut read = base(dir)?;
    let config_path = dir.join(CONFIG);
    let config = object(&config_path)?.unwrap_or_default();
    let (config, added) = with_older_files(dir, config)?;
    let mut changed = read.add(&added)?;
    let special = special_tokens(&config, &config_path)?;
    changed |=
        read.add(&special.into_iter().map(|token| Addition { token, id: None, path: None }).collect::<Vec<_>>())?;
    if read.json.is_none() {
        add_end_of_text(&mut read.tokenizer);
    }
    changed |= read.set_prefix_space(&config, &config_path)?;
    let by_id = names_of_ids(dir, &read.tokenizer)?;
    let json = match (changed, read.json) {
        (false, Some(json)) => json,
        _ => read.tokenizer.to_string(true).map_err(|error| refused(&read.name, &error))?,
    };
    let names = SpecialNames::of(&config, &config_path)?;
    let tokenizer = TextTokenizer::from_tokenizer(read.tokenizer, json.into(), &read.name)?;
    Ok(TextTokenizer { names, by_id, config: config.into(), ..tokenizer })
}

/// A tokenizer on its way.
struct Reading {
    tokenizer: Tokenizer,
    /// The text of its `tokenizer.json`, if it came from one.
    json: Option<String>,
    name: String,
}

/// A token that a folder adds to the vocabulary.
struct Addition {
    token: AddedToken,
    /// The id that the file gives it.
    id: Option<u32>,
    /// The file.
    path: Option<PathBuf>,
}

impl Reading {
    /// Adds tokens, but for those that are there; whether there were any.
    fn add(&mut self, additions: &[Addition]) -> Result<bool> {
        let mut changed = false;
        for Addition { token, id, path } in additions {
            let added = self.tokenizer.get_added_vocabulary().get_vocab().contains_key(&token.content);
            if !added {
                self.tokenizer.add_tokens(std::slice::from_ref(token));
                changed = true;
            }
            let got = self.tokenizer.token_to_id(&token.content);
            if let (Some(id), Some(path)) = (id, path)
                && got != Some(*id)
            {
                return Err(Error::Field {
                    path: path.clone(),
                    field: format!("the id of `{}`", token.content),
                    expected: got.map_or_else(
                        || "a token".to_owned(),
                        |got| format!("{got}, the next free id or that of the vocabulary"),
                    ),
                    got: id.to_string(),
                });
            }
        }
        Ok(changed)
    }

    /// Applies `add_prefix_space` where GPT-2's class would; whether that changes the tokenizer.
    fn set_prefix_space(&mut self, config: &Map<String, Value>, path: &Path) -> Result<bool> {
        let field = "add_prefix_space";
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        if self.json.is_some() && !class.is_some_and(|class| class.starts_with("GPT2Tokenizer")) {
            return Ok(false);
        }
        let wanted = match config.get(field) {
            None | Some(Value::Null) => return Ok(false),
            Some(Value::Bool(wanted)) => *wanted,
            Some(other) => return Err(Place { path, field }.error("true or false", other)),
        };
        match self.tokenizer.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(bytes)) if bytes.add_prefix_space != wanted => {
                let bytes = bytes.add_prefix_space(wanted);
                self.tokenizer.with_pre_tokenizer(Some(bytes));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// The tokenizer without what other files add to it.
fn base(dir: &Path) -> Result<Reading> {
    let file = dir.join(TOKENIZER);
    let (vocab, merges) = (dir.join(VOCABULARY), dir.join(MERGES));
    if file.is_file() {
        let (json, name) = (read_text(&file)?, file.display().to_string());
        let tokenizer = parse(&json, &name)?;
        return Ok(Reading { tokenizer, json: Some(json), name });
    }
    let fault = |reason: String| Err(Error::Tokenizer { name: dir.display().to_string(), reason });
    match (vocab.is_file(), merges.is_file()) {
        (true, true) => {
            let name = format!("{} and {}", vocab.display(), merges.display());
            Ok(Reading { tokenizer: byte_level_bpe(&vocab, &merges)?, json: None, name })
        }
        (true, false) => fault(format!("{VOCABULARY} is there, expected {MERGES} beside it, or {TOKENIZER}")),
        (false, true) => fault(format!("{MERGES} is there, expected {VOCABULARY} beside it, or {TOKENIZER}")),
        (false, false) => match FOREIGN.iter().find(|(name, _)| dir.join(name).is_file()) {
            Some((name, what)) => fault(format!(
                "{name} is {what}, which is not read, expected {TOKENIZER}: \
                 `transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python writes one"
            )),
            None => fault(format!("expected {TOKENIZER}, or {VOCABULARY} and {MERGES}, in the folder, got neither")),
        },
    }
}

/// Parses a `tokenizer.json`, and checks that its added tokens get the ids that it gives them.
pub(super) fn parse(json: &str, name: &str) -> Result<Tokenizer> {
    #[derive(serde::Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    checked_json::check(json.as_bytes()).map_err(|reason| refused(name, &reason.into()))?;
    let tokenizer = Tokenizer::from_bytes(json)
        .map_err(|error| refused(name, &checked_json::refusal(json.as_bytes(), &error).into()))?;
    let file: File = serde_json::from_str(json).map_err(|error| refused(name, &error.into()))?;
    for Added { id, content } in file.added_tokens {
        let got = tokenizer.token_to_id(&content);
        if got != Some(id) {
            let got = got.map_or_else(|| "no id".to_owned(), |got| got.to_string());
            let reason = format!("`added_tokens` give `{content}` the id {id}, expected {got} as the vocabulary does");
            return Err(Error::Tokenizer { name: name.to_owned(), reason });
        }
    }
    Ok(tokenizer)
}

/// GPT-2's pair of files, without special tokens.
fn byte_level_bpe(vocab_path: &Path, merges_path: &Path) -> Result<Tokenizer> {
    let [vocab, merges] = [read_text(vocab_path)?, read_text(merges_path)?];
    checked_json::check_vocabulary(vocab.as_bytes())
        .map_err(|reason| refused(&vocab_path.display().to_string(), &reason.into()))?;
    let vocab: BTreeMap<String, u32> =
        serde_json::from_str(&vocab).map_err(|source| Error::Json { path: vocab_path.to_owned(), source })?;
    let mut pairs = Vec::new();
    for (number, line) in merges.lines().enumerate() {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        match line.split(' ').collect::<Vec<_>>()[..] {
            [first, second] => pairs.push((first.to_owned(), second.to_owned())),
            _ => {
                return Err(Error::Field {
                    path: merges_path.to_owned(),
                    field: format!("line {}", number + 1),
                    expected: "two tokens with a space between them".to_owned(),
                    got: format!("{line:?}"),
                });
            }
        }
    }
    let name = format!("{} and {}", vocab_path.display(), merges_path.display());
    let vocab: Vocab = vocab.into_iter().collect();
    let model = BPE::builder().vocab_and_merges(vocab, pairs).build().map_err(|error| refused(&name, &error))?;
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    Ok(tokenizer)
}

/// GPT-2's pair of files alone.
pub(super) fn read_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<TextTokenizer> {
    let mut tokenizer = byte_level_bpe(vocab, merges)?;
    add_end_of_text(&mut tokenizer);
    let name = format!("{} and {}", vocab.display(), merges.display());
    let json = tokenizer.to_string(true).map_err(|error| refused(&name, &error))?;
    TextTokenizer::from_tokenizer(tokenizer, json.into(), &name)
}

/// GPT-2's one special token, where the vocabulary has it.
fn add_end_of_text(tokenizer: &mut Tokenizer) {
    if tokenizer.token_to_id(END_OF_TEXT).is_some() {
        tokenizer.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
    }
}

/// The configuration with what older files say, and the tokens that are added, by their ids.
fn with_older_files(dir: &Path, mut config: Map<String, Value>) -> Result<(Map<String, Value>, Vec<Addition>)> {
    let path = dir.join(CONFIG);
    let mut added = BTreeMap::new();
    if let Some(decoder) = config.get(DECODER) {
        let place = Place { path: &path, field: DECODER };
        let Some(tokens) = decoder.as_object() else { return Err(place.error("an object of tokens", decoder)) };
        for (id, value) in tokens {
            let Ok(number) = id.parse() else { return Err(place.error("token ids as keys", &id.as_str().into())) };
            if added.insert(number, described(value, &place)?).is_some() {
                return Err(place.error("each token id once", &id.as_str().into()));
            }
        }
    } else {
        config.extend(object(&dir.join(SPECIAL_TOKENS_MAP))?.unwrap_or_default());
        let older = dir.join(ADDED_TOKENS);
        let special = special_tokens(&config, &path)?;
        for (content, id) in object(&older)?.unwrap_or_default() {
            let place = Place { path: &older, field: &content };
            let Some(number) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                return Err(place.error("a token id", &id));
            };
            let is_special = special.iter().any(|token| token.content == content);
            let token = AddedToken::from(content.clone(), is_special);
            if added.insert(number, token).is_some() {
                return Err(place.error("an id of its own", &id));
            }
        }
        let additions = added.into_iter();
        let additions = additions.map(|(id, token)| Addition { token, id: Some(id), path: Some(older.clone()) });
        return Ok((config, additions.collect()));
    }
    let additions = added.into_iter().map(|(id, token)| Addition { token, id: Some(id), path: Some(path.clone()) });
    Ok((config, additions.collect()))
}

/// The tokens that `config.json` names by their ids. Ids that the vocabulary does not have are left out:
/// `transformers` writes GPT-2's own for any vocabulary.
fn names_of_ids(dir: &Path, tokenizer: &Tokenizer) -> Result<SpecialNames> {
    let config = object(&dir.join("config.json"))?.unwrap_or_default();
    let name = |field: &str| {
        let id = config.get(field).map(|value| value.get(0).unwrap_or(value)).and_then(Value::as_u64)?;
        tokenizer.id_to_token(u32::try_from(id).ok()?)
    };
    Ok(SpecialNames { separator: name("sep_token_id"), pad: name("pad_token_id"), end: name("eos_token_id") })
}

/// A JSON object; `None` where there is no such file.
fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(path)?;
    match serde_json::from_str(&text).map_err(|source| Error::Json { path: path.to_owned(), source })? {
        Value::Object(map) => Ok(Some(map)),
        other => Err(Place { path, field: "<root>" }.error("a JSON object", &other)),
    }
}

/// The text of a file, without a byte order mark.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let read = |source| Error::read(path, source);
    let fault = |reason: String| Error::Text { path: path.to_owned(), reason };
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut bytes = Vec::new();
    if length <= MOST_BYTES {
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    }
    if length.max(bytes.len() as u64) > MOST_BYTES {
        return Err(fault(format!("expected at most {MOST_BYTES} bytes, got more")));
    }
    let text = String::from_utf8(bytes).map_err(|error| fault(format!("expected text in UTF-8, got {error}")))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
