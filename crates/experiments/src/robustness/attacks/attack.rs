//! What an attack is.
//!
//! An attack gets one item, access to the model under one plan or several, and a random source; it
//! gives the item back edited, or says why it cannot. All randomness comes from that source. Edits go
//! through [`ProtectedExample::edit`], so no attack can touch a gold answer. A further attack is one
//! file with an implementation of [`Attack`].

use std::fmt;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::protected_example::{ProtectedExample, Unattackable};
use crate::robustness::victim::oracle::Oracle;

/// What an attack asks of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Nothing: the same edits whatever the model.
    Blind,
    /// Answers, losses and probabilities.
    Scores,
    /// Gradients as well.
    Gradients,
}

/// What came of an attack on one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The edited item.
    Attacked(ProtectedExample),
    /// Nothing could be edited.
    Unattackable(Unattackable),
}

/// A way to edit an item so that the model answers it wrongly.
pub trait Attack<B: QuantAutodiffBackend, M: TrainableModel<B>>: fmt::Debug + Sync {
    /// Short name, in words joined by hyphens.
    fn name(&self) -> String;

    /// All parameters, for artefacts.
    fn settings(&self) -> Value;

    /// What the attack asks of the model.
    fn access(&self) -> Access;

    /// Attacks one item.
    ///
    /// # Errors
    ///
    /// When the model or the tokenizer refuses. A question that outgrows the window is one of these
    /// errors; [`Crafting`](crate::robustness::protocol::craft::Crafting) reports such an item as unattackable.
    fn attack(&self, item: &ProtectedExample, oracle: &Oracle<'_, B, M>, rng: &mut ChaCha8Rng) -> Result<Outcome>;
}

/// How many words an attack changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// This share of the words that can be changed, in (0, 1]; at least one word.
    Rate(f64),
    /// This many words, or all where there are fewer.
    Count(usize),
}

impl Amount {
    /// Number of words out of `words`.
    pub fn of(self, words: usize) -> usize {
        match self {
            Self::Rate(rate) => ((rate * words as f64).round() as usize).max(1).min(words),
            Self::Count(count) => count.min(words),
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Rate(rate) if !(rate > 0.0 && rate <= 1.0) => {
                Err(Error::option("rate", rate, "a number above 0, at most 1"))
            }
            Self::Count(0) => Err(Error::option("count", 0, "at least 1")),
            Self::Rate(_) | Self::Count(_) => Ok(()),
        }
    }
}
