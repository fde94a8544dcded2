//! Words replaced by what the model itself would write in their place.
//!
//! ```text
//! importance(i)   = L(x without word i) − L(x)
//! candidates(i)   = the k words w with the highest p(w | everything before word i)
//! x ← the candidate with the highest loss, word after word by importance, until the answer is wrong
//! ```
//!
//! Among candidates that make the answer wrong the most probable one is taken, unless the search goes on to its last step: then
//! the one with the highest loss is. As TextFooler (Jin et
//! al., arXiv:1907.11932) and BERT-Attack (Li et al., arXiv:2004.09984) do, but with a causal model,
//! which proposes from the left context alone, and by its own language-model head: no other model or
//! word list takes part.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use squad_data::CharSpan;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::{Access, Attack, Outcome};
use crate::robustness::attacks::budget::{AttackBudget, SearchEnd, Strongest};
use crate::robustness::protected_example::{Edit, EditScope, Names, ProtectedExample, Unattackable, Word};
use crate::robustness::victim::model_under_attack::TokenText;
use crate::robustness::victim::oracle::{Oracle, Reading};

/// How words are substituted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordSubstitutionOptions {
    /// Most words replaced in an item.
    pub substitutions: usize,
    /// Proposals tried for each word.
    pub candidates: usize,
    /// Where words are replaced. In the question another word may ask for something else.
    pub scope: EditScope,
    /// Whether words with a capital letter, and numbers, take part.
    pub names: Names,
    /// How long the search may go on.
    #[serde(default, skip_serializing_if = "AttackBudget::is_default")]
    pub budget: AttackBudget,
}

impl Default for WordSubstitutionOptions {
    /// In the context, names and numbers left as they are.
    fn default() -> Self {
        let (names, budget) = (Names::default(), AttackBudget::default());
        Self { substitutions: 4, candidates: 12, scope: EditScope::Context, names, budget }
    }
}

/// Greedy word substitution by the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordSubstitution(WordSubstitutionOptions);

impl WordSubstitution {
    /// Substitution as the options say.
    ///
    /// # Errors
    ///
    /// When the number of substitutions, of candidates or the budget is zero.
    pub fn new(options: WordSubstitutionOptions) -> Result<Self> {
        for (field, got) in [("substitutions", options.substitutions), ("candidates", options.candidates)] {
            if got == 0 {
                return Err(Error::option(field, got, "at least 1"));
            }
        }
        options.budget.check()?;
        Ok(Self(options))
    }

    fn words(&self, item: &ProtectedExample) -> Vec<Word> {
        item.words(self.0.scope)
    }

    /// Positions of the words that may be replaced, the most important first.
    fn by_importance<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        item: &ProtectedExample,
        oracle: &Oracle<'_, B, M>,
    ) -> Result<Vec<usize>> {
        let mut without = Vec::new();
        for (index, word) in self.words(item).iter().enumerate() {
            if self.0.names.allow(&word.text) {
                without.extend(item.edit(&[left_out(word)]).ok().map(|edited| (index, edited)));
            }
        }
        without.truncate(self.0.budget.left(oracle));
        if without.is_empty() {
            return Ok(Vec::new());
        }
        let readings = oracle.read(&without.iter().map(|(_, edited)| edited).collect::<Vec<_>>())?;
        let mut ranked: Vec<_> = without.iter().zip(&readings).filter_map(|((i, _), r)| Some((*i, r.loss?))).collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Ok(ranked.into_iter().map(|(index, _)| index).collect())
    }

    /// Proposals of the model for a word, the most probable first.
    fn proposals<'v, B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        item: &ProtectedExample,
        word: &Word,
        oracle: &Oracle<'v, B, M>,
    ) -> Result<Vec<&'v str>> {
        let Some(gold) = oracle.gold_window(item)? else { return Ok(Vec::new()) };
        let position = gold.positions(word.place, word.chars);
        let fits = |token: &&TokenText| {
            let text = token.text.trim_start();
            text != word.text && self.0.names.allow(text)
        };
        let words: Vec<&'v TokenText> = oracle.victim().words().iter().filter(fits).collect();
        let ids: Vec<u32> = words.iter().map(|token| token.id).collect();
        if position.is_empty() {
            return Ok(Vec::new());
        }
        let Some(probabilities) = oracle.next_token_probabilities(&gold, position.start, &ids) else {
            return Ok(Vec::new());
        };
        let mut ranked: Vec<_> = words.iter().zip(probabilities).collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Ok(ranked.into_iter().take(self.0.candidates).map(|(token, _)| token.text.trim_start()).collect())
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for WordSubstitution {
    fn name(&self) -> String {
        "word-substitution".into()
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn access(&self) -> Access {
        Access::Scores
    }

    fn attack(&self, item: &ProtectedExample, oracle: &Oracle<'_, B, M>, _: &mut ChaCha8Rng) -> Result<Outcome> {
        let clean = oracle.read(&[item])?;
        let Some(mut loss) = clean.first().and_then(|reading| reading.loss) else {
            return Ok(Outcome::Unattackable(Unattackable::AnswerOutsideWindow));
        };
        let order = self.by_importance(item, oracle)?;
        if order.is_empty() {
            return Ok(Outcome::Unattackable(Unattackable::NoEditableWord));
        }
        let budget = self.0.budget;
        let mut strongest = Strongest::unedited(item, loss);
        let (mut edited, mut done, mut has_read) = (item.clone(), 0, false);
        for index in order {
            // One reading is for the proposals.
            let room = budget.left(oracle);
            if done == self.0.substitutions || room < 2 {
                break;
            }
            // One word takes the place of one word, so their numbers stay.
            let word = &self.words(&edited)[index];
            let proposals = self.proposals(&edited, word, oracle)?;
            let tried: Vec<_> = proposals
                .into_iter()
                .filter_map(|text| edited.edit(&[word.replaced_by(text)]).ok())
                .take(room - 1)
                .collect();
            if tried.is_empty() {
                continue;
            }
            has_read = true;
            let readings = oracle.read(&tried.iter().collect::<Vec<_>>())?;
            if budget.end == SearchEnd::FirstSuccess
                && let Some(fooled) = readings.iter().position(Reading::is_fooled)
            {
                return Ok(Outcome::Attacked(tried[fooled].clone()));
            }
            for (edited, reading) in tried.iter().zip(&readings) {
                strongest.consider(edited, reading);
            }
            let losses = tried.iter().zip(&readings).filter_map(|(text, reading)| Some((text, reading.loss?)));
            let Some((text, highest)) = losses.max_by(|(_, a), (_, b)| a.total_cmp(b)) else { continue };
            if highest > loss {
                (edited, loss, done) = (text.clone(), highest, done + 1);
            }
        }
        // Proposals that all lower the loss are a failed attack, not an item that cannot be attacked.
        let nothing = Outcome::Unattackable(Unattackable::NoCandidate);
        Ok(if has_read { Outcome::Attacked(strongest.into_edited()) } else { nothing })
    }
}

/// The edit that leaves a word out, with the character before it where there is one.
fn left_out(word: &Word) -> Edit {
    let CharSpan { start, end } = word.chars;
    Edit { place: word.place, chars: CharSpan { start: start.saturating_sub(1), end }, text: String::new() }
}
