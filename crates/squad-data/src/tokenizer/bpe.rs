//! Training of a byte-level BPE vocabulary.
//!
//! ```text
//! repeat until the vocabulary is full:
//!     (a, b) = the pair of neighbours that occurs most, the smallest ids among equals
//!     add the token ab; join every a b
//! ```
//!
//! Words come from GPT-2's own splitting, so that no token crosses a word. The order among equals
//! is fixed here, where the tokenizer library's trainer leaves it in rare cases to a randomly
//! seeded hash map: a vocabulary that is committed beside its model must come out the same again.
//!
//! Source: Sennrich et al., arXiv 1508.07909; bytes as the alphabet: Radford et al., "Language
//! Models are Unsupervised Multitask Learners", 2019.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::error::{Error, Result};

/// Pairs that occur less often are not joined: a token for one place teaches nothing.
const MIN_OCCURRENCES: u64 = 2;

/// Whether a text is read as if a space stood before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeadingSpace {
    /// As GPT-2 does: a word has another token at the start of a text than inside of it.
    Kept,
    /// A word has the same token everywhere, which a small vocabulary needs.
    Added,
}

/// What [`TextTokenizer::train_bpe`](crate::TextTokenizer::train_bpe) makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpeConfig {
    /// Most tokens, special ones and the 256 bytes included (1024).
    pub vocab_size: usize,
    /// Tokens that no text contains; their ids are 0, 1, 2 and so on (`<pad>`, `<sep>`, `<eos>`).
    pub special_tokens: Vec<String>,
    /// Whether a text is read as if a space stood before it (added).
    pub leading_space: LeadingSpace,
}

impl Default for BpeConfig {
    fn default() -> Self {
        Self {
            vocab_size: 1024,
            special_tokens: ["<pad>", "<sep>", "<eos>"].map(str::to_owned).to_vec(),
            leading_space: LeadingSpace::Added,
        }
    }
}

impl BpeConfig {
    fn check(&self, alphabet: usize) -> Result<()> {
        let least = self.special_tokens.len() + alphabet;
        if self.vocab_size < least {
            let expected = format!("at least {least}, the special tokens and the bytes");
            return Err(Error::config("vocab_size", self.vocab_size, expected));
        }
        let mut seen = HashSet::new();
        for token in &self.special_tokens {
            if token.is_empty() || !seen.insert(token) {
                let expected = "different tokens, none of them empty";
                let got = format!("{:?}", self.special_tokens);
                return Err(Error::config("special_tokens", got, expected));
            }
        }
        Ok(())
    }
}

type Pair = (u32, u32);

/// A word, how often it occurs, and the tokens it is made of so far.
struct Word {
    tokens: Vec<u32>,
    occurrences: u64,
}

impl Word {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.tokens.windows(2).map(|pair| (pair[0], pair[1]))
    }

    fn join(&mut self, (a, b): Pair, joined: u32) {
        let mut tokens = Vec::with_capacity(self.tokens.len());
        let mut rest = self.tokens.as_slice();
        while let Some((&first, behind)) = rest.split_first() {
            if first == a && behind.first() == Some(&b) {
                tokens.push(joined);
                rest = &behind[1..];
            } else {
                tokens.push(first);
                rest = behind;
            }
        }
        self.tokens = tokens;
    }
}

/// How often each pair occurs, and in which words.
#[derive(Default)]
struct PairIndex {
    occurrences: HashMap<Pair, u64>,
    words: HashMap<Pair, BTreeSet<usize>>,
    /// May hold outdated counts; [`PairIndex::most_frequent`] passes over them.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl PairIndex {
    fn add(&mut self, position: usize, word: &Word) {
        for pair in word.pairs() {
            let occurrences = self.occurrences.entry(pair).or_default();
            *occurrences += word.occurrences;
            self.queue.push((*occurrences, Reverse(pair)));
            self.words.entry(pair).or_default().insert(position);
        }
    }

    fn remove(&mut self, position: usize, word: &Word) {
        for pair in word.pairs() {
            if let Some(occurrences) = self.occurrences.get_mut(&pair) {
                *occurrences -= word.occurrences;
                self.queue.push((*occurrences, Reverse(pair)));
            }
            if let Some(words) = self.words.get_mut(&pair) {
                words.remove(&position);
            }
        }
    }

    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((occurrences, Reverse(pair))) = self.queue.pop() {
            if occurrences < MIN_OCCURRENCES {
                return None;
            }
            if self.occurrences.get(&pair) == Some(&occurrences) {
                return Some(pair);
            }
        }
        None
    }
}

/// Trains a vocabulary and gives it as the text of a `tokenizer.json`.
pub(super) fn train<I>(texts: I, config: &BpeConfig) -> Result<String>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let splitter = ByteLevel::default().add_prefix_space(config.leading_space == LeadingSpace::Added);
    let alphabet: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    config.check(alphabet.len())?;

    let mut spellings: Vec<String> = config.special_tokens.clone();
    let byte_ids: HashMap<char, u32> = alphabet
        .into_iter()
        .map(|byte| {
            spellings.push(byte.to_string());
            (byte, spellings.len() as u32 - 1)
        })
        .collect();
    let mut words: Vec<Word> = count_words(texts, splitter)?
        .into_iter()
        .map(|(word, occurrences)| Word { tokens: word.chars().map(|byte| byte_ids[&byte]).collect(), occurrences })
        .collect();
    let mut index = PairIndex::default();
    for (position, word) in words.iter().enumerate() {
        index.add(position, word);
    }

    let mut taken: HashSet<String> = spellings.iter().cloned().collect();
    let mut merges: Vec<[String; 2]> = Vec::new();
    while spellings.len() < config.vocab_size
        && let Some(pair) = index.most_frequent()
    {
        let parts = [pair.0, pair.1].map(|id| spellings[id as usize].clone());
        let spelling = parts.concat();
        if !taken.insert(spelling.clone()) {
            // Another pair, or a special token, is spelt the same: the pair stays apart.
            continue;
        }
        let joined = spellings.len() as u32;
        spellings.push(spelling);
        merges.push(parts);
        for position in index.words.get(&pair).cloned().unwrap_or_default() {
            index.remove(position, &words[position]);
            words[position].join(pair, joined);
            index.add(position, &words[position]);
        }
    }
    Ok(tokenizer_json(config, &spellings, &merges))
}

/// Every word of the texts, spelt in the byte alphabet, with its number of occurrences.
fn count_words<I>(texts: I, splitter: ByteLevel) -> Result<BTreeMap<String, u64>>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut words: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        let mut text = PreTokenizedString::from(text.as_ref());
        splitter.pre_tokenize(&mut text).map_err(|error| super::refused(super::TRAINED, &error))?;
        for (word, ..) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match words.get_mut(word) {
                Some(occurrences) => *occurrences += 1,
                None => {
                    words.insert(word.to_owned(), 1);
                }
            }
        }
    }
    Ok(words)
}

fn tokenizer_json(config: &BpeConfig, spellings: &[String], merges: &[[String; 2]]) -> String {
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": config.leading_space == LeadingSpace::Added,
        "trim_offsets": true,
        "use_regex": true,
    });
    let special: Vec<_> = config
        .special_tokens
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let vocab: BTreeMap<&str, usize> =
        spellings.iter().enumerate().map(|(id, spelling)| (spelling.as_str(), id)).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    })
    .to_string()
}
