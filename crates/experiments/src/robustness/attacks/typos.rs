//! Keyboard typos inside words.
//!
//! ```text
//! swap       c₁ … cᵢ cᵢ₊₁ … cₙ  →  c₁ … cᵢ₊₁ cᵢ … cₙ
//! delete     c₁ … cᵢ … cₙ       →  c₁ … cₙ without cᵢ
//! insert     c₁ … cᵢ … cₙ       →  a neighbour key of cᵢ behind cᵢ
//! neighbour  c₁ … cᵢ … cₙ       →  a neighbour key of cᵢ in its place
//! ```
//!
//! First and last letter stay, as people read over such typos best: Pruthi, Dhingra and Lipton,
//! *Combating Adversarial Misspellings with Robust Word Recognition*, arXiv:1905.11268. Neighbours
//! are those of a QWERTY keyboard.

use rand::Rng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::{Access, Amount, Attack, Outcome};
use crate::robustness::protected_example::{EditScope, ProtectedExample, Unattackable};
use crate::robustness::victim::oracle::Oracle;

/// A slip of the finger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypoKind {
    /// Two letters change places.
    Swap,
    /// A letter is missing.
    Delete,
    /// A neighbour key is hit as well.
    Insert,
    /// A neighbour key is hit instead.
    Neighbour,
}

impl TypoKind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Swap, Self::Delete, Self::Insert, Self::Neighbour];

    /// The word with one such typo; `None` when it is too short or has no fitting letter.
    pub fn apply(self, word: &str, rng: &mut ChaCha8Rng) -> Option<String> {
        let mut letters: Vec<char> = word.chars().collect();
        if letters.len() < 3 {
            return None;
        }
        let inner = 1..letters.len() - 1;
        let choose = |fits: &dyn Fn(usize) -> bool, rng: &mut ChaCha8Rng| {
            inner.clone().filter(|&i| fits(i)).collect::<Vec<_>>().choose(rng).copied()
        };
        let differs = |a: char, b: char| a.to_lowercase().ne(b.to_lowercase());
        let has_neighbour = |i: usize| !neighbours(letters[i]).is_empty();
        match self {
            Self::Swap => {
                let i = choose(&|i| i + 1 < inner.end && differs(letters[i], letters[i + 1]), rng)?;
                letters.swap(i, i + 1);
            }
            Self::Delete => {
                letters.remove(choose(&|_| true, rng)?);
            }
            Self::Insert => {
                let i = choose(&has_neighbour, rng)?;
                letters.insert(i + 1, neighbour(letters[i], rng));
            }
            Self::Neighbour => {
                let i = choose(&has_neighbour, rng)?;
                letters[i] = neighbour(letters[i], rng);
            }
        }
        Some(letters.into_iter().collect())
    }
}

/// What typos are made and how many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypoOptions {
    /// The kinds to draw from.
    pub kinds: Vec<TypoKind>,
    /// Words that get one typo each.
    pub amount: Amount,
    /// Where words are looked for.
    pub scope: EditScope,
}

impl Default for TypoOptions {
    /// All kinds, in a tenth of the words, in question and context.
    fn default() -> Self {
        Self { kinds: TypoKind::ALL.to_vec(), amount: Amount::Rate(0.1), scope: EditScope::default() }
    }
}

/// One typo in each of some randomly drawn words.
#[derive(Debug, Clone, PartialEq)]
pub struct Typos(TypoOptions);

impl Typos {
    /// Typos as the options say.
    ///
    /// # Errors
    ///
    /// When there is no kind, or the amount is out of its range.
    pub fn new(options: TypoOptions) -> Result<Self> {
        if options.kinds.is_empty() {
            return Err(Error::option("kinds", "empty", "at least one kind of typo"));
        }
        options.amount.check()?;
        Ok(Self(options))
    }

    /// Edits an item; no model is needed.
    ///
    /// # Errors
    ///
    /// Never for words of an item: the edits are inside of words outside all gold answers.
    pub fn perturb(&self, item: &ProtectedExample, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        let mut kinds = self.0.kinds.clone();
        let mut edits = Vec::new();
        for word in item.words(self.0.scope) {
            kinds.shuffle(rng);
            let typo = kinds.iter().find_map(|kind| kind.apply(&word.text, rng));
            edits.extend(typo.map(|typo| word.replaced_by(typo)));
        }
        edits.shuffle(rng);
        edits.truncate(self.0.amount.of(edits.len()));
        if edits.is_empty() {
            return Ok(Outcome::Unattackable(Unattackable::NoEditableWord));
        }
        item.edit(&edits).map(Outcome::Attacked)
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for Typos {
    fn name(&self) -> String {
        "typos".into()
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn access(&self) -> Access {
        Access::Blind
    }

    fn attack(&self, item: &ProtectedExample, _: &Oracle<'_, B, M>, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        self.perturb(item, rng)
    }
}

/// A random neighbour of a letter that has some, in its case.
fn neighbour(letter: char, rng: &mut ChaCha8Rng) -> char {
    let keys = neighbours(letter).as_bytes();
    let key = char::from(keys[rng.random_range(0..keys.len() as u32) as usize]);
    if letter.is_uppercase() { key.to_ascii_uppercase() } else { key }
}

/// Letters on the keys around that of a letter; none for letters that have no key.
fn neighbours(letter: char) -> &'static str {
    match letter.to_ascii_lowercase() {
        'q' => "wa",
        'w' => "qeas",
        'e' => "wrsd",
        'r' => "etdf",
        't' => "ryfg",
        'y' => "tugh",
        'u' => "yihj",
        'i' => "uojk",
        'o' => "ipkl",
        'p' => "ol",
        'a' => "qwsz",
        's' => "weadzx",
        'd' => "ersfxc",
        'f' => "rtdgcv",
        'g' => "tyfhvb",
        'h' => "yugjbn",
        'j' => "uihknm",
        'k' => "iojlm",
        'l' => "opk",
        'z' => "asx",
        'x' => "sdzc",
        'c' => "dfxv",
        'v' => "fgcb",
        'b' => "ghvn",
        'n' => "hjbm",
        'm' => "jkn",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn neighbour_keys_are_neighbours_of_each_other() {
        for letter in 'a'..='z' {
            assert!(!neighbours(letter).is_empty() && !neighbours(letter).contains(letter), "{letter}");
            for other in neighbours(letter).chars() {
                assert!(neighbours(other).contains(letter), "{letter} {other}");
            }
        }
    }

    #[test]
    fn every_kind_changes_the_word_and_keeps_its_first_and_last_letter() {
        for kind in TypoKind::ALL {
            for seed in 0..200 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                for word in ["cat", "where", "Naïve", "hello", "TOWN"] {
                    let Some(typo) = kind.apply(word, &mut rng) else {
                        assert!(kind == TypoKind::Swap && word == "cat", "{kind:?} of {word}");
                        continue;
                    };
                    assert_ne!(typo, word);
                    assert_eq!(typo.chars().next(), word.chars().next(), "{kind:?} {word} {typo}");
                    assert_eq!(typo.chars().last(), word.chars().last(), "{kind:?} {word} {typo}");
                    let longer = typo.chars().count() as isize - word.chars().count() as isize;
                    let expected = match kind {
                        TypoKind::Swap | TypoKind::Neighbour => 0,
                        TypoKind::Delete => -1,
                        TypoKind::Insert => 1,
                    };
                    assert_eq!(longer, expected, "{kind:?} {word} {typo}");
                }
                for word in ["", "a", "is"] {
                    assert_eq!(kind.apply(word, &mut rng), None);
                }
            }
        }
    }
}
