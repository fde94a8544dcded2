//! HotFlip: swaps that a first-order estimate says raise the loss most, searched by beam.
//!
//! ```text
//! L(x with token i ← w) − L(x)  ≈  (e_w − e_i)ᵀ · ∂L/∂e_i
//! scores                        =  G·Eᵀ − diag(G·E[ids]ᵀ)        all tokens w at all places i at once
//! ```
//!
//! `E` `[vocab, n_embd]` are the token embeddings, `G` `[tokens, n_embd]` the gradient of the loss with
//! respect to them. The best estimates become text, are tokenised again and read by the model; the
//! beam keeps the texts with the highest true loss. Of the texts read, one that is answered wrongly is given back before one
//! that is not, then the one with the highest loss. Source: Ebrahimi et al., *HotFlip: White-Box
//! Adversarial Examples for Text Classification*, arXiv:1712.06751.

use std::collections::HashSet;

use burn::tensor::{Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::reading::scores;
use squad_data::CharSpan;
use switchable_model::model::{SwitchableModel, TrainableModel};

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::{Access, Attack, Outcome};
use crate::robustness::attacks::budget::{AttackBudget, SearchEnd, Strongest};
use crate::robustness::protected_example::{Edit, EditScope, Names, Place, ProtectedExample, Unattackable, Word};
use crate::robustness::victim::model_under_attack::TokenText;
use crate::robustness::victim::oracle::{EmbeddingGradient, GoldWindow, Oracle, Reading};

/// What is swapped for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipUnit {
    /// Words of one token for words of the corpus of one token.
    #[default]
    Word,
    /// Any token for any other.
    Token,
}

/// How HotFlip searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotFlipOptions {
    /// What is swapped.
    pub unit: FlipUnit,
    /// Most swaps in an item.
    pub flips: usize,
    /// Texts that are kept after each swap.
    pub beam: usize,
    /// Swaps of each kept text that the model reads.
    pub candidates: usize,
    /// Where swaps are made. In the question a swap may ask for something else.
    pub scope: EditScope,
    /// Whether words with a capital letter, and numbers, take part.
    pub names: Names,
    /// How long the search may go on.
    #[serde(default, skip_serializing_if = "AttackBudget::is_default")]
    pub budget: AttackBudget,
}

impl Default for HotFlipOptions {
    /// In the context, names and numbers left as they are.
    fn default() -> Self {
        Self {
            unit: FlipUnit::default(),
            flips: 3,
            beam: 2,
            candidates: 8,
            scope: EditScope::Context,
            names: Names::default(),
            budget: AttackBudget::default(),
        }
    }
}

/// The gradient attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotFlip(HotFlipOptions);

/// One swap, by its estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenFlip {
    /// Position in the window.
    pub position: usize,
    /// The token that is put there.
    pub token: u32,
    /// First-order estimate of the rise of the loss, in nats.
    pub estimate: f32,
    edit: Edit,
}

impl HotFlip {
    /// HotFlip as the options say.
    ///
    /// # Errors
    ///
    /// When the number of flips, the beam, the number of candidates or the budget is zero, or the budget is a single reading.
    pub fn new(options: HotFlipOptions) -> Result<Self> {
        for (field, got) in [("flips", options.flips), ("beam", options.beam), ("candidates", options.candidates)] {
            if got == 0 {
                return Err(Error::option(field, got, "at least 1"));
            }
        }
        options.budget.check()?;
        match options.budget.readings {
            Some(1) => Err(Error::option("readings", 1, "at least 2: a gradient, and an edit that it proposes")),
            _ => Ok(Self(options)),
        }
    }

    /// The `most` swaps with the highest estimates, best first, not yet checked for what they
    /// tokenise to.
    ///
    /// # Panics
    ///
    /// When the backend gives scores that cannot be read as f32.
    pub fn best_flips<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        item: &ProtectedExample,
        gradient: &EmbeddingGradient<B>,
        oracle: &Oracle<'_, B, M>,
        most: usize,
    ) -> Vec<TokenFlip> {
        let victim = oracle.victim();
        let gold = &gradient.gold;
        let keep = |token: &&TokenText| self.0.names.allow(&token.text);
        let (places, tokens): (Vec<_>, Vec<&TokenText>) = match self.0.unit {
            FlipUnit::Word => (self.word_places(item, gold), victim.words().iter().filter(keep).collect()),
            FlipUnit::Token => (self.token_places(item, gold), victim.tokens().iter().filter(keep).collect()),
        };
        if places.is_empty() || tokens.is_empty() {
            return Vec::new();
        }
        let rows = |positions: Vec<i64>| {
            let n = positions.len();
            Tensor::<B::InnerBackend, 1, Int>::from_data(TensorData::new(positions, [n]), &victim.device)
        };
        let embeddings = victim.model.transformer.token_embedding();
        let present = places.iter().map(|(position, ..)| i64::from(gold.window.ids[*position])).collect();
        let present = embeddings.clone().select(0, rows(present));
        let wanted = embeddings.select(0, rows(tokens.iter().map(|token| i64::from(token.id)).collect()));
        let gradient = gradient.gradient.clone().select(0, rows(places.iter().map(|place| place.0 as i64).collect()));
        let rise = gradient.clone().matmul(wanted.transpose()) - (gradient * present).sum_dim(1);
        let rise = scores(rise);

        let mut order: Vec<usize> = (0..rise.len()).collect();
        let by_rise = |a: &usize, b: &usize| rise[*b].total_cmp(&rise[*a]).then(a.cmp(b));
        let most = most.min(order.len());
        if most < order.len() {
            order.select_nth_unstable_by(most, by_rise);
            order.truncate(most);
        }
        order.sort_unstable_by(by_rise);
        let flip = |index: usize| {
            let (position, place, chars) = places[index / tokens.len()];
            let token = tokens[index % tokens.len()];
            let text = match self.0.unit {
                // The space before the word stays where it is.
                FlipUnit::Word => token.text.trim_start().to_string(),
                FlipUnit::Token if chars.start == 0 => token.text.trim_start().to_string(),
                FlipUnit::Token => token.text.clone(),
            };
            TokenFlip { position, token: token.id, estimate: rise[index], edit: Edit { place, chars, text } }
        };
        order.into_iter().map(flip).filter(|flip| flip.token != gold.window.ids[flip.position]).collect()
    }

    /// The item after a swap; `None` when the edited text does not tokenise to what was meant, or a
    /// name is not what it was.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn apply<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        item: &ProtectedExample,
        flip: &TokenFlip,
        gold: &GoldWindow,
        oracle: &Oracle<'_, B, M>,
    ) -> Result<Option<ProtectedExample>> {
        let Ok(edited) = item.edit(std::slice::from_ref(&flip.edit)) else { return Ok(None) };
        // A token without a space could be put against one.
        if self.0.names == Names::Keep && item.names() != edited.names() {
            return Ok(None);
        }
        let after = match oracle.gold_window(&edited) {
            Ok(Some(after)) => after,
            Ok(None) | Err(Error::Data(squad_data::Error::LongQuestion { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut meant = gold.window.ids.clone();
        meant[flip.position] = flip.token;
        Ok((after.window.ids == meant && after.target == gold.target).then_some(edited))
    }

    /// Words that are one token of the window: position, text and characters.
    fn word_places(&self, item: &ProtectedExample, gold: &GoldWindow) -> Vec<(usize, Place, CharSpan)> {
        let words = item.words(self.0.scope).into_iter();
        let words = words.filter(|word| self.0.names.allow(&word.text));
        let place = |word: Word| {
            let positions = gold.positions(word.place, word.chars);
            let is_whole = positions.len() == 1 && gold.chars(positions.start) == Some((word.place, word.chars));
            is_whole.then_some((positions.start, word.place, word.chars))
        };
        words.filter_map(place).collect()
    }

    /// Tokens outside all gold answers, each with the space before it.
    fn token_places(&self, item: &ProtectedExample, gold: &GoldWindow) -> Vec<(usize, Place, CharSpan)> {
        let place = |position: usize| {
            let (place, chars) = gold.chars(position)?;
            let in_scope = match self.0.scope {
                EditScope::Everywhere => true,
                EditScope::Question => place == Place::Question,
                EditScope::Context => place == Place::Context,
            };
            let before = position.checked_sub(1).and_then(|before| gold.chars(before));
            let start = match before.filter(|(other, _)| *other == place) {
                Some((_, before)) => before.end,
                // Where a later window begins, the end of the token before is not known.
                None if place == Place::Context && gold.window.context_tokens.start > 0 => return None,
                None => 0,
            };
            let whole = CharSpan { start, end: chars.end };
            // Tokens that share a character are parts of it.
            let is_part = start > chars.start;
            let is_free = in_scope && !is_part && !item.is_gold(place, whole);
            (is_free && self.0.names.allow(&item.around(place, chars))).then_some((position, place, whole))
        };
        (0..gold.window.ids.len()).filter_map(place).collect()
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for HotFlip {
    fn name(&self) -> String {
        match self.0.unit {
            FlipUnit::Word => "hot-flip-word".into(),
            FlipUnit::Token => "hot-flip-token".into(),
        }
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn access(&self) -> Access {
        Access::Gradients
    }

    fn attack(&self, item: &ProtectedExample, oracle: &Oracle<'_, B, M>, _: &mut ChaCha8Rng) -> Result<Outcome> {
        let (budget, mut beam) = (self.0.budget, vec![item.clone()]);
        let mut seen = HashSet::from([texts(item)]);
        let mut strongest: Option<Strongest> = None;
        let mut has_read = false;
        for _ in 0..self.0.flips {
            let mut edited = Vec::new();
            for text in &beam {
                // A gradient by which nothing can be read any more is not asked for.
                let room = budget.left(oracle).saturating_sub(edited.len());
                if room < 2 && strongest.is_some() {
                    break;
                }
                let Some(gradient) = oracle.gradient(text)? else {
                    return Ok(Outcome::Unattackable(Unattackable::AnswerOutsideWindow));
                };
                strongest.get_or_insert_with(|| Strongest::unedited(item, gradient.loss));
                let most = self.0.candidates.min(room.saturating_sub(1));
                let mut read = 0;
                for flip in self.best_flips(text, &gradient, oracle, self.0.candidates * 8) {
                    if read == most {
                        break;
                    }
                    let Some(after) = self.apply(text, &flip, &gradient.gold, oracle)? else { continue };
                    if seen.insert(texts(&after)) {
                        edited.push(after);
                        read += 1;
                    }
                }
            }
            if edited.is_empty() {
                break;
            }
            has_read = true;
            let readings = oracle.read(&edited.iter().collect::<Vec<_>>())?;
            let mut ranked: Vec<_> = edited.into_iter().zip(readings).collect();
            let loss = |reading: &Reading| reading.loss.unwrap_or(f64::NEG_INFINITY);
            ranked.sort_by(|(_, a), (_, b)| loss(b).total_cmp(&loss(a)));
            if let Some(strongest) = &mut strongest {
                for (edited, reading) in &ranked {
                    strongest.consider(edited, reading);
                }
                if budget.end == SearchEnd::FirstSuccess && strongest.is_fooled() {
                    break;
                }
            }
            ranked.truncate(self.0.beam);
            beam = ranked.into_iter().map(|(text, _)| text).collect();
        }
        let nothing = Outcome::Unattackable(Unattackable::NoCandidate);
        let strongest = strongest.filter(|_| has_read);
        Ok(strongest.map_or(nothing, |strongest| Outcome::Attacked(strongest.into_edited())))
    }
}

/// Both texts of an item.
fn texts(item: &ProtectedExample) -> (String, String) {
    (item.example().question.clone(), item.example().context.to_string())
}
