//! Generation of text, one token at a time with a KV cache.
//!
//! ```text
//! z'ᵢ = zᵢ/θ where zᵢ > 0, zᵢ·θ elsewhere, for the tokens i that are there       repetition penalty θ
//! greedy:   xₜ₊₁ = argmax z'
//! drawn:    xₜ₊₁ ~ softmax(z'/τ) over the k best, of these over the fewest that have the probability p
//! ```
//!
//! What a step does to the scores, in this order, is what `transformers` does to them: penalty, temperature τ,
//! top-k, top-p. Which token is drawn then is not the same, as that depends on the source of randomness.
//!
//! Sources: Keskar et al., *CTRL*, arXiv:1909.05858 (repetition penalty); Fan, Lewis and Dauphin,
//! arXiv:1805.04833 (top-k); Holtzman et al., *The Curious Case of Neural Text Degeneration*, arXiv:1904.09751
//! (top-p).
//!
//! | file | what |
//! |---|---|
//! | `options` | length, choice and end of a text |
//! | `folder_options` | the same as a model's folder says it |
//! | `scores` | what penalty, temperature, top-k and top-p leave of the scores |
//! | `chooser` | one token from them |
//! | `batch` | sequences of different lengths together |

mod batch;
mod chooser;
mod folder_options;
mod new_token;
pub mod options;
mod scores;

use std::ops::ControlFlow;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::spec::quant_spec::QuantSpec;

use self::batch::Batch;
use self::chooser::Chooser;
pub use self::new_token::NewToken;
pub use self::options::{DrawOptions, GenerateOptions, Sampling};
use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::model::SwitchableModel;
use crate::site_plan::SitePlan;

/// Text from a model.
///
/// It is implemented for every model.
pub trait Generate<B: QuantBackend>: SwitchableModel<B> {
    /// Checks token ids before they reach an embedding look-up.
    ///
    /// # Errors
    ///
    /// When there are none, more than the model's positions, or one outside the vocabulary.
    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let shape = self.shape();
        if ids.is_empty() || ids.len() > shape.positions {
            return Err(Error::SequenceLength { got: ids.len(), positions: shape.positions });
        }
        match ids.iter().position(|&id| id as usize >= shape.vocabulary) {
            Some(position) => Err(Error::TokenId { id: ids[position], position, vocab_size: shape.vocabulary }),
            None => Ok(()),
        }
    }

    /// Continues a prompt and returns the new tokens alone.
    ///
    /// Generation ends at a stop token, which is not returned, at `max_new_tokens` or `max_length`, or when the
    /// model's positions are full.
    ///
    /// # Errors
    ///
    /// When the prompt is empty, too long or outside the vocabulary, an option is out of range, the plan is one
    /// that [`check_plan`](SwitchableModel::check_plan) refuses, or the scores of a token are not numbers.
    fn generate(&self, prompt: &[u32], options: &GenerateOptions, plan: &SitePlan) -> Result<Vec<u32>> {
        let texts = self.generate_streaming(&[prompt], options, plan, |_| ControlFlow::Continue(()));
        let texts = texts.map_err(|error| match error {
            Error::Prompt { source, .. } => *source,
            other => other,
        })?;
        Ok(texts.into_iter().flatten().collect())
    }

    /// Continues prompts of any lengths together and returns the new tokens of each.
    ///
    /// The prompts are padded on the left. Positions count real tokens, padding is not attended to, and each
    /// sequence ends at its own stop token or length; then it leaves the batch. What a sequence attends to is
    /// computed for it alone; the products of all sequences are computed together, and a product of several rows may
    /// differ from that of one by its rounding. So each sequence gets the tokens that it gets alone, unless two
    /// tokens are as close to each other as rounding is. Draws of a sequence are those of the seed, as alone: equal
    /// prompts give equal texts. Where a plan quantises activations by a scale that rows share, one sequence is
    /// generated after the other, and nothing is shared.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate); that of a prompt names it.
    fn generate_batch<P: AsRef<[u32]>>(
        &self,
        prompts: &[P],
        options: &GenerateOptions,
        plan: &SitePlan,
    ) -> Result<Vec<Vec<u32>>> {
        self.generate_streaming(prompts, options, plan, |_| ControlFlow::Continue(()))
    }

    /// [`generate_batch`](Self::generate_batch), and every token is handed out as soon as it is there: the
    /// tokens of a sequence in their order, those of different sequences in turns. Where `on_token` breaks, all
    /// sequences end, and what there is of them is returned, that token included.
    ///
    /// # Errors
    ///
    /// As [`generate_batch`](Self::generate_batch). What was handed out before an error was right.
    fn generate_streaming<P: AsRef<[u32]>>(
        &self,
        prompts: &[P],
        options: &GenerateOptions,
        plan: &SitePlan,
        mut on_token: impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>> {
        let shape = self.shape();
        options.check(shape.vocabulary)?;
        self.check_plan(plan)?;
        let prompts: Vec<&[u32]> = prompts.iter().map(AsRef::as_ref).collect();
        for (index, prompt) in prompts.iter().enumerate() {
            let checked = self.check_ids(prompt).and_then(|()| options.check_prompt(prompt.len()));
            checked.map_err(|source| Error::Prompt { index, source: Box::new(source) })?;
        }
        let mut batch = Batch::new(&prompts, options, shape);
        let together = if self.reads_tokens_alone(plan) { prompts.len().max(1) } else { 1 };
        for first in (0..prompts.len()).step_by(together) {
            if batch.run(first..first + together, self, plan, &mut on_token)?.is_break() {
                break;
            }
        }
        Ok(batch.into_new_tokens())
    }

    /// Continues one sequence whose first tokens a cache holds, and returns the new tokens; `next` are those of its
    /// tokens that the cache does not hold yet. The cache takes up these, and the new ones as far as they were read
    /// ([`KvCache::len`] says how many): the last only where a stop token follows it. What several prompts begin with is
    /// read once in this way: a copy of its cache, or one that was [cut](KvCache::truncate) to it again, is continued by
    /// each. The text is that of [`generate`](Self::generate) for plans that [read tokens
    /// alone](Self::reads_tokens_alone).
    ///
    /// Generation ends as that of [`generate`](Self::generate), or where the cache is full; a repetition penalty is for
    /// the tokens of `next` and those behind them.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate).
    ///
    /// # Panics
    ///
    /// When the cache is for several sequences, for one with padding before it, or has no room for `next`.
    fn generate_cached(
        &self,
        cache: &mut KvCache<B>,
        next: &[u32],
        options: &GenerateOptions,
        plan: &SitePlan,
        mut on_token: impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Result<Vec<u32>> {
        let shape = self.shape();
        options.check(shape.vocabulary)?;
        self.check_plan(plan)?;
        self.check_ids(next)?;
        cache.expect_room(1, next.len());
        assert!(!cache.is_padded(), "a sequence with padding before it cannot be continued alone");
        let read = cache.len() + next.len();
        options.check_prompt(read)?;
        let mut batch = Batch::behind(read, next, options, shape, cache.capacity());
        if batch.has_room() {
            _ = batch.run_behind(vec![0], next.to_vec(), cache, self, plan, &mut on_token)?;
        }
        Ok(batch.into_new_tokens().into_iter().flatten().collect())
    }

    /// Whether no number of a token depends on those that are read beside it or behind it in one pass, so that a text
    /// may be read in pieces: activations are at full precision, or have a scale for each token.
    fn reads_tokens_alone(&self, plan: &SitePlan) -> bool {
        plan.iter().all(|(site, precision)| {
            let activation = self.site(site).quantisation(&precision).activation;
            precision.activations.is_full() || activation.granularity == QuantSpec::PER_TOKEN.granularity
        })
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> Generate<B> for M {}

/// The token that greedy generation takes: the first of those with the highest score.
///
/// # Errors
///
/// The score from which none can be chosen, where one is not a number or none is finite.
pub fn greedy_token(scores: &[f32]) -> Result<u32, f32> {
    Chooser::new(&[], &GenerateOptions::default()).choose(&mut scores.to_vec())
}
