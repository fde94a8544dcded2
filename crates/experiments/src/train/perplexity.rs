//! Perplexity of a language model on running text.
//!
//! ```text
//! perplexity = exp(L),   L = −1/n · Σ log p(xₜ₊₁ | x≤ₜ)
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::train::text_task::text_loss;

/// How well a model foretells a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Mean next-token loss in nats.
    pub loss: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens of a window.
    pub window: usize,
}

impl Perplexity {
    /// Reads a stream of tokens window by window.
    ///
    /// # Errors
    ///
    /// As [`text_loss`].
    ///
    /// # Panics
    ///
    /// As [`text_loss`].
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        model: &M,
        tokens: &[u32],
        window: usize,
        plan: &SitePlan,
    ) -> Result<Self> {
        let loss = text_loss(model, tokens, window, plan)?;
        Ok(Self { loss, perplexity: loss.exp(), tokens: tokens.len(), window })
    }
}

impl fmt::Display for Perplexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, perplexity, tokens, .. } = self;
        write!(f, "{loss:.4} nats per token, perplexity {perplexity:.2}, {tokens} tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perplexity_is_one_line() {
        let measured = Perplexity { loss: 2.0, perplexity: 2f64.exp(), tokens: 640, window: 32 };
        assert_eq!(measured.to_string(), "2.0000 nats per token, perplexity 7.39, 640 tokens");
    }
}
