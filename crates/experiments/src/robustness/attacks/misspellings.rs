//! Common misspellings of common words.
//!
//! Words come from a list of pairs; how a word is capitalised stays. Unlike random typos these are
//! mistakes that people make and that training text holds.

use std::collections::HashMap;
use std::sync::LazyLock;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::Result;
use crate::robustness::attacks::attack::{Access, Amount, Attack, Outcome};
use crate::robustness::protected_example::{EditScope, ProtectedExample, Unattackable, Word};
use crate::robustness::victim::oracle::Oracle;

/// One pair a line: the word, a tab, its misspelling.
const PAIRS: &str = include_str!("misspellings.tsv");

static MISSPELLINGS: LazyLock<HashMap<&'static str, &'static str>> =
    LazyLock::new(|| PAIRS.lines().filter_map(|line| line.split_once('\t')).collect());

/// How many words are misspelt and where.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MisspellingOptions {
    /// Words to misspell, out of those with a known misspelling.
    pub amount: Amount,
    /// Where words are looked for.
    pub scope: EditScope,
}

impl Default for MisspellingOptions {
    /// Every word that can be, in question and context.
    fn default() -> Self {
        Self { amount: Amount::Rate(1.0), scope: EditScope::default() }
    }
}

/// Misspelt words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Misspellings(MisspellingOptions);

impl Misspellings {
    /// Misspellings as the options say.
    ///
    /// # Errors
    ///
    /// When the amount is out of its range.
    pub fn new(options: MisspellingOptions) -> Result<Self> {
        options.amount.check()?;
        Ok(Self(options))
    }

    /// Edits an item; no model is needed.
    ///
    /// # Errors
    ///
    /// Never for words of an item: the edits are words outside all gold answers.
    pub fn perturb(&self, item: &ProtectedExample, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        let words = item.words(self.0.scope);
        let misspelt = |word: &Word| misspell(&word.text).map(|text| word.replaced_by(text));
        let mut edits: Vec<_> = words.iter().filter_map(misspelt).collect();
        edits.shuffle(rng);
        edits.truncate(self.0.amount.of(edits.len()));
        if edits.is_empty() {
            return Ok(Outcome::Unattackable(Unattackable::NoKnownWord));
        }
        item.edit(&edits).map(Outcome::Attacked)
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for Misspellings {
    fn name(&self) -> String {
        "misspellings".into()
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

/// The known misspelling of a word, with its capitals.
fn misspell(word: &str) -> Option<String> {
    let wrong = *MISSPELLINGS.get(word.to_lowercase().as_str())?;
    let mut letters = word.chars();
    let first = letters.next()?;
    if !first.is_uppercase() {
        return Some(wrong.to_string());
    }
    if letters.clone().next().is_some() && letters.all(char::is_uppercase) {
        return Some(wrong.to_uppercase());
    }
    let mut wrong = wrong.chars();
    Some(wrong.next()?.to_uppercase().chain(wrong).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_distinct_lower_case_words_and_other_spellings() {
        assert!(MISSPELLINGS.len() >= 120);
        assert_eq!(MISSPELLINGS.len(), PAIRS.lines().count(), "a word comes twice or a line has no tab");
        for (right, wrong) in MISSPELLINGS.iter() {
            assert_ne!(right, wrong);
            assert!(right.chars().chain(wrong.chars()).all(|c| c.is_ascii_lowercase()), "{right} {wrong}");
        }
    }

    #[test]
    fn capitals_stay() {
        for (word, wrong) in [("because", "becuase"), ("Because", "Becuase"), ("BECAUSE", "BECUASE")] {
            assert_eq!(misspell(word).as_deref(), Some(wrong));
        }
        assert_eq!(misspell("zyzzyva"), None);
    }
}
