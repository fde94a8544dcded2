//! A byte-level BPE in parts, for files of other kinds: what [`BpeVocabulary`](super::BpeVocabulary) is made of, and
//! what stands beside it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{LeadingSpace, Splitting, TextTokenizer, TokenKind};
use crate::error::{Error, Result};

/// A byte-level BPE vocabulary, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VocabularyParts {
    /// The tokens by their ids; `None` where an id has none.
    pub tokens: Vec<Option<(String, TokenKind)>>,
    /// Pairs of tokens with a space between them, the first to be merged first.
    pub merges: Vec<String>,
    /// How a text is cut before.
    pub splitting: Splitting,
    /// Whether a text is read as if a space stood before it.
    pub leading_space: LeadingSpace,
    /// The token that the files put before every text. [`TextTokenizer`] itself adds none.
    pub begins_with: Option<u32>,
    /// The special tokens that the files name, by the fields of a `tokenizer_config.json`, such as `eos_token`.
    pub special: BTreeMap<String, u32>,
    /// The template of a chat, if there is one.
    pub chat_template: Option<String>,
}

impl TextTokenizer {
    /// The parts of a byte-level BPE.
    ///
    /// ```
    /// use squad_data::{BpeConfig, Splitting, TextTokenizer};
    ///
    /// let config = BpeConfig { vocab_size: 262, ..BpeConfig::default() };
    /// let parts = TextTokenizer::train_bpe(["crab crab crow crow"], &config)?.parts()?;
    /// assert_eq!((parts.tokens.len(), parts.splitting), (262, Splitting::Gpt2));
    /// assert_eq!(parts.merges[0], "c r");
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it is another tokenizer than these parts say, which names the field.
    pub fn parts(&self) -> Result<VocabularyParts> {
        let json: Value = serde_json::from_str(self.to_json()).map_err(|error| self.wrong(error.to_string()))?;
        let model = &json["model"];
        self.expect("model.type", &model["type"], "\"BPE\"", |value| value == "BPE")?;
        self.expect("normalizer", &json["normalizer"], "null", Value::is_null)?;
        for (field, place) in [
            ("continuing_subword_prefix", "model.continuing_subword_prefix"),
            ("end_of_word_suffix", "model.end_of_word_suffix"),
        ] {
            self.expect(place, &model[field], "null", |value| value.is_null() || value == "")?;
        }
        self.expect("model.byte_fallback", &model["byte_fallback"], "false", |value| value != true)?;
        let (splitting, leading_space) = self.splitting(&json["pre_tokenizer"])?;
        let whole_pieces = splitting == Splitting::Llama3;
        self.expect("model.ignore_merges", &model["ignore_merges"], &whole_pieces.to_string(), |value| {
            value.as_bool().unwrap_or(false) == whole_pieces
        })?;
        let merges = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
        let special = self.named_tokens()?;
        Ok(VocabularyParts {
            tokens: self.tokens_by_id(),
            merges: merges.iter().map(|merge| self.merge(merge)).collect::<Result<_>>()?,
            splitting,
            leading_space,
            begins_with: first_added(&json["post_processor"]).and_then(|token| self.token_id(token)).or_else(|| {
                let adds = self.config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(false);
                special.get("bos_token").copied().filter(|_| adds)
            }),
            special,
            chat_template: self.config.get("chat_template").and_then(Value::as_str).map(str::to_owned),
        })
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Tokenizer { name: self.name.clone(), reason }
    }

    fn expect(&self, field: &str, got: &Value, expected: &str, fits: impl Fn(&Value) -> bool) -> Result<()> {
        if fits(got) {
            return Ok(());
        }
        Err(self.wrong(format!("field `{field}` is {got}, expected {expected}")))
    }

    fn merge(&self, merge: &Value) -> Result<String> {
        let pair = merge.as_array().map(|pair| pair.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        match (merge, pair.as_deref()) {
            (Value::String(merge), _) => Ok(merge.clone()),
            (_, Some([first, second])) if ![first, second].iter().any(|token| token.contains(' ')) => {
                Ok(format!("{first} {second}"))
            }
            _ => Err(self.wrong(format!("a merge is {merge}, expected two tokens without a space in them"))),
        }
    }

    fn tokens_by_id(&self) -> Vec<Option<(String, TokenKind)>> {
        let vocabulary = self.tokenizer.get_vocab(true);
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut tokens = vec![None; vocabulary.values().max().map_or(0, |&last| last as usize + 1)];
        for (token, id) in vocabulary {
            let kind = match added.get(&id) {
                None => TokenKind::Merged,
                Some(token) if token.special => TokenKind::Special,
                Some(_) => TokenKind::Whole,
            };
            tokens[id as usize] = Some((token, kind));
        }
        tokens
    }

    /// The special tokens that `tokenizer_config.json` names.
    fn named_tokens(&self) -> Result<BTreeMap<String, u32>> {
        let mut named = BTreeMap::new();
        for field in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token"] {
            let value = self.config.get(field);
            let token = value.and_then(|value| value.as_str().or_else(|| value.get("content")?.as_str()));
            if let Some(token) = token {
                named.insert(field.to_owned(), self.special_id(token)?);
            }
        }
        Ok(named)
    }

    /// How texts are cut, by the pre-tokenizer of a `tokenizer.json`.
    fn splitting(&self, pre_tokenizer: &Value) -> Result<(Splitting, LeadingSpace)> {
        let adds_space = |step: &Value| step["add_prefix_space"] == true;
        let steps = pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice);
        let space = std::iter::once(pre_tokenizer).chain(steps).any(adds_space);
        let got = comparable(pre_tokenizer);
        let found = Splitting::ALL.into_iter().find(|splitting| comparable(&splitting.to_json()) == got);
        let Some(splitting) = found else {
            let names = Splitting::ALL.map(|splitting| format!("{splitting:?}")).join(", ");
            return Err(self.wrong(format!("field `pre_tokenizer` is {got}, expected that of {names}")));
        };
        Ok((splitting, if space { LeadingSpace::Added } else { LeadingSpace::Kept }))
    }
}

/// A pre-tokenizer without what does not decide where it cuts, and with what files leave out.
fn comparable(pre_tokenizer: &Value) -> Value {
    let mut step = pre_tokenizer.clone();
    if let Some(fields) = step.as_object_mut() {
        for field in ["trim_offsets", "add_prefix_space", "invert"] {
            if fields.get(field) != Some(&Value::Bool(true)) || field != "invert" {
                fields.remove(field);
            }
        }
        if fields.get("type").is_some_and(|kind| kind == "ByteLevel") {
            fields.entry("use_regex").or_insert(Value::Bool(true));
        }
    }
    if let Some(steps) = step.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        for step in steps {
            *step = comparable(step);
        }
    }
    step
}

/// The token that a post-processor puts first.
fn first_added(post_processor: &Value) -> Option<&str> {
    if let Some(all) = post_processor["processors"].as_array() {
        return all.iter().find_map(first_added);
    }
    post_processor["single"].get(0)?.get("SpecialToken")?["id"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::BpeVocabulary;

    fn tokenizer(splitting: Splitting) -> TextTokenizer {
        let tokens = vec![
            ("<end>", TokenKind::Special),
            ("a", TokenKind::Merged),
            ("b", TokenKind::Merged),
            ("ab", TokenKind::Merged),
            ("<a>", TokenKind::Whole),
        ];
        let config = json!({"eos_token": "<end>", "chat_template": "{{ x }}"}).as_object().cloned().unwrap();
        let vocabulary = BpeVocabulary { tokens, merges: vec!["a b"], splitting, config };
        TextTokenizer::from_vocabulary(&vocabulary, "list").unwrap()
    }

    #[test]
    fn parts_make_the_tokenizer_that_they_were_taken_from() {
        for splitting in Splitting::ALL {
            let whole = tokenizer(splitting);
            let parts = whole.parts().unwrap();
            assert_eq!((parts.splitting, parts.leading_space), (splitting, LeadingSpace::Kept));
            assert_eq!(parts.special, BTreeMap::from([("eos_token".to_owned(), 0)]));
            assert_eq!((parts.chat_template.as_deref(), parts.begins_with), (Some("{{ x }}"), None));
            let tokens = parts.tokens.iter().flatten().map(|(token, kind)| (token.as_str(), *kind)).collect();
            let merges = parts.merges.iter().map(String::as_str).collect();
            let vocabulary = BpeVocabulary { tokens, merges, splitting, config: Map::clone(&whole.config) };
            let again = TextTokenizer::from_vocabulary(&vocabulary, "again").unwrap();
            assert_eq!(again.to_json(), whole.to_json());
        }
    }

    #[test]
    fn a_tokenizer_of_another_kind_is_refused_by_field() {
        let whole = tokenizer(Splitting::Gpt2).to_json().to_owned();
        let changed = |pointer: &str, value: Value| {
            let mut json: Value = serde_json::from_str(&whole).unwrap();
            *json.pointer_mut(pointer).unwrap() = value;
            TextTokenizer::from_bytes(json.to_string().as_bytes(), "changed").unwrap().parts()
        };
        for (pointer, value, expected) in [
            ("/normalizer", json!({"type": "Lowercase"}), "field `normalizer` is {\"type\":\"Lowercase\"}"),
            ("/pre_tokenizer", json!({"type": "Whitespace"}), "field `pre_tokenizer` is {\"type\":\"Whitespace\"}"),
            ("/pre_tokenizer/use_regex", json!(false), "expected that of Gpt2, SingleDigits, Llama3, Unnamed"),
            ("/model/ignore_merges", json!(true), "field `model.ignore_merges` is true, expected false"),
            ("/model/byte_fallback", json!(true), "field `model.byte_fallback` is true, expected false"),
        ] {
            let message = changed(pointer, value).unwrap_err().to_string();
            assert!(message.starts_with("tokenizer changed: ") && message.contains(expected), "{message}");
        }
        assert!(changed("/pre_tokenizer/add_prefix_space", json!(true)).unwrap().leading_space == LeadingSpace::Added);
        let template = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<end>": {"id": "<end>", "ids": [0], "tokens": ["<end>"]}},
        });
        assert_eq!(changed("/post_processor", template).unwrap().begins_with, Some(0));
    }
}
