//! Text to token ids and back, with the characters each token stands for.
//!
//! [`TextTokenizer`] reads the tokenizer files of Hugging Face folders, `tokenizer.json` or GPT-2's pair of
//! `vocab.json` and `merges.txt` with what stands beside them, and trains small byte-level BPE
//! vocabularies of its own.
//!
//! What callers can rely on, whatever the file says:
//!
//! - offsets count Unicode scalar values of the original text, without the spaces that byte-level
//!   tokens carry; a token that is one byte of several of a character covers that character;
//! - text never becomes a special token: `<sep>` in a context is five letters;
//! - nothing is added, truncated or padded.
//!
//! ```
//! use squad_data::{BpeConfig, TextTokenizer};
//!
//! let texts = ["Ada keeps a crab.", "Ada keeps a crow.", "Ada keeps a camel."];
//! let config = BpeConfig { vocab_size: 280, ..BpeConfig::default() };
//! let tokenizer = TextTokenizer::train_bpe(texts, &config)?;
//! let encoding = tokenizer.encode("Ada keeps 🦀.")?;
//! let last = encoding.offsets.last().copied();
//! assert_eq!(last.map(|span| (span.start, span.end)), Some((11, 12)));
//! assert_eq!(tokenizer.decode(&encoding.ids)?, " Ada keeps 🦀.");
//! # Ok::<(), squad_data::Error>(())
//! ```

mod bpe;
mod checked_json;
mod folder;
mod offsets;
mod parts;
mod special_names;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenizers::{ModelWrapper, PostProcessorWrapper, Tokenizer};
use whole_files::PartialFile;

use crate::error::{Error, Result};
pub use bpe::{BpeConfig, LeadingSpace};
use offsets::CharIndex;
pub use parts::VocabularyParts;
use special_names::SpecialNames;
pub use vocabulary::{BpeVocabulary, Splitting, TokenKind};

/// GPT-2's one special token.
const END_OF_TEXT: &str = "<|endoftext|>";

/// What messages call a tokenizer that came from no file.
const TRAINED: &str = "trained BPE";

/// Characters `start..end` of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CharSpan {
    /// First character.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
}

impl CharSpan {
    /// The piece of `text` that the span covers; what lies behind the end of `text` is left out.
    ///
    /// ```
    /// use squad_data::CharSpan;
    ///
    /// assert_eq!(CharSpan { start: 2, end: 4 }.slice("é 🍵🍵!"), "🍵🍵");
    /// ```
    pub fn slice(self, text: &str) -> &str {
        let byte_of = |position: usize| {
            let mut indices = text.char_indices().map(|(byte, _)| byte);
            indices.nth(position).unwrap_or(text.len())
        };
        let start = byte_of(self.start);
        &text[start..byte_of(self.end).max(start)]
    }
}

/// A tokenised text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The characters of the text each token stands for; as many as ids.
    pub offsets: Vec<CharSpan>,
}

/// The token ids that inputs are put together with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Between question and context.
    pub separator: Vec<u32>,
    /// Behind the shorter inputs of a batch.
    pub pad: u32,
    /// Behind a generated answer.
    pub end: u32,
}

impl SpecialTokens {
    /// What the tokenizer's folder names: `sep_token`, `pad_token` and `eos_token`. Where it names none,
    /// `<sep>`, `<pad>` and `<eos>` if the vocabulary has all three, as those of
    /// [`TextTokenizer::train_bpe`] do; then what `config.json` names by ids, then GPT-2's
    /// `<|endoftext|>`. A separator or padding that nothing names is the end.
    ///
    /// # Errors
    /// [`Error::MissingToken`] if the tokenizer has no end, or a token that its folder names is not in the
    /// vocabulary.
    pub fn of(tokenizer: &TextTokenizer) -> Result<Self> {
        let own = ["<sep>", "<pad>", "<eos>"].map(|token| tokenizer.token_id(token));
        let own = if let [Some(_), Some(_), Some(_)] = own { own } else { [None; 3] };
        let TextTokenizer { names, by_id, .. } = tokenizer;
        let id = |name: &Option<String>| name.as_deref().map(|token| tokenizer.special_id(token)).transpose();
        let found = |name, own: Option<u32>, by_id| Ok::<_, Error>(id(name)?.or(own).or(id(by_id)?));
        let end = match found(&names.end, own[2], &by_id.end)? {
            Some(end) => end,
            None => tokenizer.special_id(END_OF_TEXT)?,
        };
        let separator = found(&names.separator, own[0], &by_id.separator)?.unwrap_or(end);
        let pad = found(&names.pad, own[1], &by_id.pad)?.unwrap_or(end);
        Ok(Self { separator: vec![separator], pad, end })
    }
}

/// A tokenizer that reports character offsets. Copies share the vocabulary.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// Without what would truncate, pad, or cut offsets other than [`CharIndex`] does.
    tokenizer: Arc<Tokenizer>,
    /// The whole `tokenizer.json`.
    json: Arc<str>,
    /// The file it came from, for messages.
    name: String,
    /// The special tokens that its folder names.
    names: SpecialNames,
    /// The special tokens that `config.json` of its folder names by their ids.
    by_id: SpecialNames,
    /// Its `tokenizer_config.json` as it was read; empty where there was none.
    config: Arc<Map<String, Value>>,
}

impl TextTokenizer {
    /// Reads the tokenizer of a Hugging Face folder: `tokenizer.json`, or `vocab.json` and `merges.txt`, with
    /// what `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` say of
    /// added and of special tokens.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, or the folder holds a tokenizer of another kind; the error
    /// names the file and the field.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        folder::read(dir.as_ref())
    }

    /// Reads a Hugging Face `tokenizer.json` alone.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Text`] or [`Error::Tokenizer`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(folder::read_text(path)?.as_bytes(), &path.display().to_string())
    }

    /// Reads the text of a `tokenizer.json`, as one embedded in a program; errors call it `name`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn from_bytes(json: &[u8], name: &str) -> Result<Self> {
        let json = std::str::from_utf8(json).map_err(|error| refused(name, &error.into()))?;
        let json = json.strip_prefix('\u{feff}').unwrap_or(json);
        Self::from_tokenizer(folder::parse(json, name)?, json.into(), name)
    }

    /// Reads GPT-2's pair of files: a byte-level BPE that adds no space before the text.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, which names it.
    pub fn from_vocab_and_merges(vocab: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        folder::read_vocab_and_merges(vocab.as_ref(), merges.as_ref())
    }

    /// Learns a byte-level BPE vocabulary; the same one from the same texts, always.
    ///
    /// The vocabulary is the special tokens, the 256 bytes, and one token a merge. It stays
    /// smaller than asked for when the texts have no more pairs that occur twice.
    ///
    /// # Errors
    /// [`Error::Config`] if `vocab_size` has no room for the special tokens and the bytes, or if a
    /// special token is empty or given twice.
    pub fn train_bpe<I>(texts: I, config: &BpeConfig) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let json = bpe::train(texts, config)?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| refused(TRAINED, &error))?;
        // The library writes the vocabulary in the order of the ids.
        let json = tokenizer.to_string(true).map_err(|error| refused(TRAINED, &error))?;
        Self::from_tokenizer(tokenizer, json.into(), TRAINED)
    }

    fn from_tokenizer(mut tokenizer: Tokenizer, json: Arc<str>, name: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Tokenizer { name: name.to_owned(), reason };
        if tokenizer.get_vocab_size(false) == 0 {
            return Err(wrong("the vocabulary of its model is empty, so that no text becomes a token".into()));
        }
        if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
            && let Some(dropout) = bpe.dropout.filter(|dropout| *dropout > 0.0)
        {
            let what = "a text would become other tokens each time";
            return Err(wrong(format!("field `model.dropout` is {dropout}, expected null: {what}")));
        }
        tokenizer
            .with_truncation(None)
            .map_err(|error| refused(name, &error))?
            .with_padding(None)
            .with_post_processor(None::<PostProcessorWrapper>);
        tokenizer.set_encode_special_tokens(true);
        let (names, by_id) = (SpecialNames::default(), SpecialNames::default());
        Ok(Self { tokenizer: Arc::new(tokenizer), json, name: name.to_owned(), names, by_id, config: Arc::default() })
    }

    /// Splits a text into tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no token for a part of the text and no token
    /// that stands for the unknown.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| refused(&self.name, &error))?;
        let index = CharIndex::new(text);
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| index.trimmed(start, end)).collect();
        Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets })
    }

    /// The token ids of a text alone, which is faster for long ones.
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`].
    pub fn encode_ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| refused(&self.name, &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// A tokenizer that adds a space before the text gives that space back.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.token(id).is_none()) {
            return Err(Error::Tokenizer {
                name: self.name.clone(),
                reason: format!("expected token ids of a vocabulary of {}, got {id}", self.vocab_size()),
            });
        }
        self.tokenizer.decode(ids, true).map_err(|error| refused(&self.name, &error))
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The token of an id as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The id of a token that the caller cannot do without.
    ///
    /// # Errors
    /// [`Error::MissingToken`].
    pub fn special_id(&self, token: &str) -> Result<u32> {
        self.token_id(token).ok_or_else(|| Error::MissingToken { name: self.name.clone(), token: token.to_owned() })
    }

    /// Tokens in the vocabulary, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Checks that a model of so many tokens knows every token that a text can become, and those that inputs
    /// are put together with. Special tokens that nothing uses may lie beyond: folders have such.
    ///
    /// # Errors
    /// [`Error::TokenBeyond`].
    pub fn check_fits(&self, vocabulary: usize) -> Result<()> {
        let beyond = |id: u32| usize::try_from(id).is_ok_and(|id| id >= vocabulary);
        let added = self.tokenizer.get_added_tokens_decoder();
        let is_special = |id: u32| added.get(&id).is_some_and(|token| token.special);
        let used = SpecialTokens::of(self)
            .ok()
            .into_iter()
            .flat_map(|SpecialTokens { separator, pad, end }| separator.into_iter().chain([pad, end]));
        let of_text = self.tokenizer.get_vocab(true).into_values().filter(|&id| !is_special(id));
        match of_text.chain(used).filter(|&id| beyond(id)).min() {
            Some(id) => Err(Error::TokenBeyond {
                name: self.name.clone(),
                token: self.token(id).unwrap_or_default(),
                id,
                vocabulary,
            }),
            None => Ok(()),
        }
    }

    /// The text of the `tokenizer.json`: unchanged, if it was read from one and nothing beside it adds tokens.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// Writes a `tokenizer.json`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(whole_files::write(path, self.json.as_bytes())?)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder, both whole or neither.
    ///
    /// The second is what was read, and names the special tokens; where none was read, it says that
    /// the first is to be taken as it is.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save_in(&self, dir: impl AsRef<Path>) -> Result<()> {
        let mut config = Map::clone(&self.config);
        config.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
        if let Ok(special) = SpecialTokens::of(self) {
            let separator = special.separator.first().copied();
            let named = [("sep_token", separator), ("pad_token", Some(special.pad)), ("eos_token", Some(special.end))];
            for (field, id) in named {
                let there = config.get(field).is_some_and(|value| !value.is_null());
                if let Some(token) = id.and_then(|id| self.token(id)).filter(|_| !there) {
                    config.insert(field.to_owned(), token.into());
                }
            }
        }
        let texts =
            [(folder::TOKENIZER, self.json.to_string()), (folder::CONFIG, format!("{:#}\n", Value::from(config)))];
        let mut files = Vec::new();
        for (name, text) in texts {
            let mut file = PartialFile::create(dir.as_ref().join(name))?;
            file.fill(|file| file.write_all(text.as_bytes()))?;
            files.push(file);
        }
        Ok(whole_files::persist_all(files)?)
    }
}

fn refused(name: &str, error: &tokenizers::Error) -> Error {
    Error::Tokenizer { name: name.to_owned(), reason: error.to_string() }
}
