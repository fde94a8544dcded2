//! A byte-level BPE from the parts that files of other kinds hold: a list of tokens and one of merges.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::special_names::SpecialNames;
use super::{TextTokenizer, folder, refused};
use crate::error::{Error, Result};

/// What a token of a [`BpeVocabulary`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Text becomes it by merges.
    Merged,
    /// Text that is spelt like it becomes it as a whole.
    Whole,
    /// No text becomes it.
    Special,
}

/// How a text is cut into pieces before any merge: none reaches over the end of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Splitting {
    /// As GPT-2: words with the space before them, numbers, punctuation.
    Gpt2,
    /// As GPT-2, and each digit by itself.
    SingleDigits,
    /// As Llama 3: numbers of at most three digits, contractions in either case.
    Llama3,
    /// As llama.cpp where a file names none: punctuation first, then as GPT-2, then digits by threes.
    Unnamed,
}

/// A byte-level BPE vocabulary in parts.
#[derive(Debug, Clone)]
pub struct BpeVocabulary<'a> {
    /// The tokens in the byte alphabet, in the order of their ids.
    pub tokens: Vec<(&'a str, TokenKind)>,
    /// Pairs of tokens with a space between them, the first to be merged first.
    pub merges: Vec<&'a str>,
    /// How a text is cut before.
    pub splitting: Splitting,
    /// What a `tokenizer_config.json` beside it would say, such as `eos_token`.
    pub config: Map<String, Value>,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";

impl Splitting {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Gpt2, Self::SingleDigits, Self::Llama3, Self::Unnamed];

    /// The pre-tokenizer of a `tokenizer.json`.
    pub(super) fn to_json(self) -> Value {
        let bytes = |cuts: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts});
        let cut = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let steps = match self {
            Self::Gpt2 => return bytes(true),
            Self::SingleDigits => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            Self::Llama3 => vec![cut(LLAMA3), bytes(false)],
            Self::Unnamed => {
                vec![cut(PUNCTUATION), cut(GPT2), cut(r"\p{N}+"), cut("[0-9][0-9][0-9]"), bytes(false)]
            }
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

impl TextTokenizer {
    /// A tokenizer of a vocabulary in parts; errors call it `name`.
    ///
    /// ```
    /// use squad_data::{BpeVocabulary, Splitting, TextTokenizer, TokenKind};
    ///
    /// let tokens = ["<end>", "a", "b", "ab", "abab"].map(|token| (token, TokenKind::Merged));
    /// let vocabulary = BpeVocabulary {
    ///     tokens: tokens.to_vec(),
    ///     merges: vec!["a b", "ab ab"],
    ///     splitting: Splitting::Gpt2,
    ///     config: serde_json::Map::new(),
    /// };
    /// let tokenizer = TextTokenizer::from_vocabulary(&vocabulary, "two letters")?;
    /// assert_eq!(tokenizer.encode("ababa")?.ids, [4, 1]);
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a token is there twice, a merge is no pair of tokens, or is of a token that is not
    /// there; [`Error::Field`] if the configuration names a special token by something else than a text.
    pub fn from_vocabulary(vocabulary: &BpeVocabulary<'_>, name: &str) -> Result<Self> {
        let json = vocabulary.to_json(name)?.to_string();
        let tokenizer = folder::parse(&json, name)?;
        // The library writes the vocabulary in the order of the ids.
        let json = tokenizer.to_string(true).map_err(|error| refused(name, &error))?;
        let names = SpecialNames::of(&vocabulary.config, Path::new(name))?;
        let tokenizer = Self::from_tokenizer(tokenizer, json.into(), name)?;
        Ok(Self { names, config: vocabulary.config.clone().into(), ..tokenizer })
    }
}

impl BpeVocabulary<'_> {
    /// The text of a `tokenizer.json`.
    fn to_json(&self, name: &str) -> Result<Value> {
        let wrong = |reason: String| Error::Tokenizer { name: name.to_owned(), reason };
        let mut ids = HashMap::new();
        for (id, (token, _)) in self.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(*token, id) {
                return Err(wrong(format!("token {id} is {token:?} as token {first} is, expected each token once")));
            }
        }
        let mut merges = Vec::with_capacity(self.merges.len());
        for (index, merge) in self.merges.iter().enumerate() {
            let pair = merge.split_once(' ').filter(|(first, second)| !first.is_empty() && !second.contains(' '));
            let Some((first, second)) = pair else {
                return Err(wrong(format!(
                    "merge {index} is {merge:?}, expected two tokens with a space between them"
                )));
            };
            merges.push([first, second]);
        }
        let added = self.tokens.iter().enumerate().filter(|(_, (_, kind))| *kind != TokenKind::Merged);
        let added: Vec<Value> = added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind == TokenKind::Special,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let tokens: BTreeMap<&str, usize> = ids.into_iter().collect();
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": self.splitting.to_json(), "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                // A piece that is a token as a whole needs no merges in Llama 3.
                "ignore_merges": self.splitting == Splitting::Llama3,
                "vocab": tokens, "merges": merges,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tokens: &[(&str, TokenKind)], merges: &[&str]) -> Result<TextTokenizer> {
        let config = json!({"eos_token": "<end>"}).as_object().cloned().unwrap();
        let (tokens, merges) = (tokens.to_vec(), merges.to_vec());
        TextTokenizer::from_vocabulary(&BpeVocabulary { tokens, merges, splitting: Splitting::Gpt2, config }, "list")
    }

    const TOKENS: [(&str, TokenKind); 5] = [
        ("<end>", TokenKind::Special),
        ("a", TokenKind::Merged),
        ("Ġ", TokenKind::Merged),
        ("Ġa", TokenKind::Merged),
        ("<a>", TokenKind::Whole),
    ];

    #[test]
    fn special_tokens_are_no_text_and_whole_ones_are() {
        let tokenizer = read(&TOKENS, &["Ġ a"]).unwrap();
        assert_eq!(tokenizer.encode("a a<a>").unwrap().ids, [1, 3, 4]);
        assert_eq!(tokenizer.token(0).as_deref(), Some("<end>"));
        assert!(!tokenizer.encode("<end>").unwrap().ids.contains(&0));
        assert_eq!(crate::SpecialTokens::of(&tokenizer).unwrap().end, 0);
        assert_eq!(tokenizer.decode(&[1, 3, 4, 0]).unwrap(), "a a<a>");
    }

    #[test]
    fn what_is_wrong_with_a_list_is_named() {
        let twice = [TOKENS.as_slice(), &[("a", TokenKind::Merged)]].concat();
        for (tokens, merges, expected) in [
            (twice.as_slice(), ["Ġ a"].as_slice(), "token 5 is \"a\" as token 1 is"),
            (&TOKENS, &["Ġa"], "merge 0 is \"Ġa\""),
            (&TOKENS, &["Ġ a", "a a a"], "merge 1 is \"a a a\""),
            (&TOKENS, &["Ġ b"], "`b`"),
            (&[], &[], "empty"),
        ] {
            let message = read(tokens, merges).unwrap_err().to_string();
            assert!(message.starts_with("tokenizer list: ") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn every_way_of_cutting_cuts_where_it_should() {
        let text = "I'LL pay 12345 (or so)";
        for (splitting, expected) in [
            (Splitting::Gpt2, vec!["I", "'", "LL", "Ġpay", "Ġ12345", "Ġ(", "or", "Ġso", ")"]),
            (
                Splitting::SingleDigits,
                vec!["I", "'", "LL", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "Ġ(", "or", "Ġso", ")"],
            ),
            (Splitting::Llama3, vec!["I", "'LL", "Ġpay", "Ġ", "123", "45", "Ġ(", "or", "Ġso", ")"]),
            (Splitting::Unnamed, vec!["I", "'", "LL", "Ġpay", "Ġ", "123", "45", "Ġ", "(", "or", "Ġso", ")"]),
        ] {
            // Every piece is a token: merges that build each letter by letter would find no more than that.
            let mut tokens: Vec<String> = Vec::new();
            let mut merges: Vec<String> = Vec::new();
            for piece in &expected {
                let letters: Vec<char> = piece.chars().collect();
                for end in 1..=letters.len() {
                    let (start, letter) = (letters[..end - 1].iter().collect::<String>(), letters[end - 1].to_string());
                    if end > 1 && !merges.contains(&format!("{start} {letter}")) {
                        merges.push(format!("{start} {letter}"));
                    }
                    tokens.extend([format!("{start}{letter}"), letter]);
                }
            }
            tokens.sort();
            tokens.dedup();
            let vocabulary = BpeVocabulary {
                tokens: tokens.iter().map(|token| (token.as_str(), TokenKind::Merged)).collect(),
                merges: merges.iter().map(String::as_str).collect(),
                splitting,
                config: Map::new(),
            };
            let tokenizer = TextTokenizer::from_vocabulary(&vocabulary, "pieces").unwrap();
            let pieces: Vec<String> =
                tokenizer.encode(text).unwrap().ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
            assert_eq!(pieces, expected, "{splitting:?}");
        }
    }

    #[test]
    fn the_parts_of_gpt2s_files_give_the_ids_of_gpt2_on_paragraphs_of_wikipedia() {
        let Some(data) = crate::real_data::folder() else { return };
        let folder = data.join("gpt2-tokenizer");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let ids: std::collections::BTreeMap<String, usize> = serde_json::from_str(&read("vocab.json")).unwrap();
        let mut tokens = vec![("", TokenKind::Merged); ids.len()];
        for (token, id) in &ids {
            let kind = if token == "<|endoftext|>" { TokenKind::Special } else { TokenKind::Merged };
            tokens[*id] = (token, kind);
        }
        let merges = read("merges.txt");
        let merges = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
        let vocabulary = BpeVocabulary { tokens, merges, splitting: Splitting::Gpt2, config: Map::new() };
        let parts = TextTokenizer::from_vocabulary(&vocabulary, "parts").unwrap();
        let whole = TextTokenizer::from_dir(&folder).unwrap();
        let text = std::fs::read_to_string(data.join("squad/dev-v1.1-part.json")).unwrap();
        let mut compared = 0;
        for piece in text.split(": ").step_by(40) {
            let ids = whole.encode_ids(piece).unwrap();
            assert_eq!(parts.encode_ids(piece).unwrap(), ids, "{piece}");
            compared += ids.len();
        }
        assert!(compared > 10_000, "{compared}");
    }
}
