//! Text to token ids and back, with the characters each token stands for.
//!
//! [`TextTokenizer`] reads Hugging Face `tokenizer.json` files and GPT-2's pair of `vocab.json`
//! and `merges.txt`, and trains small byte-level BPE vocabularies of its own.
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
mod offsets;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use crate::error::{Error, Result};
pub use bpe::{BpeConfig, LeadingSpace};
use offsets::CharIndex;

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
    /// `<sep>`, `<pad>` and `<eos>` where the tokenizer has all three, as those of
    /// [`TextTokenizer::train_bpe`] do; else GPT-2's `<|endoftext|>` in all three places.
    ///
    /// # Errors
    /// [`Error::MissingToken`] if the tokenizer has neither.
    pub fn of(tokenizer: &TextTokenizer) -> Result<Self> {
        let own = ["<sep>", "<pad>", "<eos>"].map(|token| tokenizer.token_id(token));
        if let [Some(separator), Some(pad), Some(end)] = own {
            return Ok(Self { separator: vec![separator], pad, end });
        }
        let id = tokenizer.special_id(END_OF_TEXT)?;
        Ok(Self { separator: vec![id], pad: id, end: id })
    }
}

/// A tokenizer that reports character offsets.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// Without what would truncate, pad, or cut offsets other than [`CharIndex`] does.
    tokenizer: Tokenizer,
    /// The whole `tokenizer.json`.
    json: Arc<str>,
    /// The file it came from, for messages.
    name: String,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a folder, or `vocab.json` and `merges.txt` where it has none.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Tokenizer`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let file = dir.join("tokenizer.json");
        let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
        if file.is_file() {
            return Self::from_file(file);
        }
        if vocab.is_file() && merges.is_file() {
            return Self::from_vocab_and_merges(vocab, merges);
        }
        Err(Error::Tokenizer {
            name: dir.display().to_string(),
            reason: "expected tokenizer.json, or vocab.json and merges.txt, in the folder, \
                     got neither"
                .to_owned(),
        })
    }

    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Tokenizer`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|source| Error::read(path, source))?;
        Self::from_bytes(&json, &path.display().to_string())
    }

    /// Reads the text of a `tokenizer.json`, as one embedded in a program; errors call it `name`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn from_bytes(json: &[u8], name: &str) -> Result<Self> {
        checked_json::check(json).map_err(|reason| refused(name, &reason.into()))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| refused(name, &error))?;
        Self::from_tokenizer(tokenizer, String::from_utf8_lossy(json).into(), name)
    }

    /// Reads GPT-2's pair of files: a byte-level BPE that adds no space before the text.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Tokenizer`].
    pub fn from_vocab_and_merges(vocab: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        let (vocab, merges) = (vocab.as_ref(), merges.as_ref());
        for path in [vocab, merges] {
            // The tokenizer library's messages do not say which of the two files is missing.
            std::fs::metadata(path).map_err(|source| Error::read(path, source))?;
        }
        let name = format!("{} and {}", vocab.display(), merges.display());
        let (vocab, merges) = (vocab.to_string_lossy(), merges.to_string_lossy());
        let model = BPE::from_file(&vocab, &merges).build().map_err(|error| refused(&name, &error))?;
        let byte_level = ByteLevel::default().add_prefix_space(false);
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        if tokenizer.token_to_id(END_OF_TEXT).is_some() {
            tokenizer.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true).normalized(false)]);
        }
        let json = tokenizer.to_string(true).map_err(|error| refused(&name, &error))?;
        Self::from_tokenizer(tokenizer, json.into(), &name)
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
        tokenizer
            .with_truncation(None)
            .map_err(|error| refused(name, &error))?
            .with_padding(None)
            .with_post_processor(None::<PostProcessorWrapper>);
        tokenizer.set_encode_special_tokens(true);
        Ok(Self { tokenizer, json, name: name.to_owned() })
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

    /// The text of the `tokenizer.json`: unchanged, if it was read from one.
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
}

fn refused(name: &str, error: &tokenizers::Error) -> Error {
    Error::Tokenizer { name: name.to_owned(), reason: error.to_string() }
}
