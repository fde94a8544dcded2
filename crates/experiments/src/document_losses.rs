//! How well a language model foretells documents, one by one.
//!
//! ```text
//! L_d = −Σ_t log p(x_{t+1} | x≤t)           of document d, in nats, window by window
//! nats per token = Σ_d L_d / Σ_d n_d        perplexity = exp of it
//! bits per byte  = Σ_d L_d / (ln 2 · Σ_d bytes_d)
//! ```
//!
//! The first token of a window is given, all others count: `n_d` are those. Plans are compared on the same documents,
//! which are resampled as they are, since the tokens of one are not independent.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::running::stop::StopFlag;
use span_reader::statistics::Interval;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::running::progress::Progress;
use crate::train::text_task::windows_loss;

/// The tokens that run at once, at most: logits of a large vocabulary are what a pass holds.
const TOKENS_AT_ONCE: usize = 2048;

/// A text as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The bytes of its text.
    pub bytes: usize,
}

impl Document {
    /// The tokens that are foretold in windows of some length.
    fn foretold(&self, window: usize) -> usize {
        self.tokens.chunks(window).map(|window| window.len() - 1).sum()
    }
}

/// What a model loses on each of some documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentLosses {
    /// `L_d` in nats.
    pub nats: Vec<f64>,
    /// `n_d`.
    pub tokens: Vec<usize>,
    /// The bytes of all documents.
    pub bytes: usize,
}

impl DocumentLosses {
    /// Reads documents window by window.
    ///
    /// # Errors
    ///
    /// Where `window` is below 2, no document has two tokens, a token is not in the vocabulary, the model lacks an
    /// adapter of the plan, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        model: &M,
        documents: &[Document],
        (window, plan): (usize, &SitePlan),
        (stop, progress): (&StopFlag, &mut Progress),
    ) -> Result<Self> {
        if window < 2 {
            return Err(Error::option("window", window, "at least 2 tokens"));
        }
        let tokens: Vec<usize> = documents.iter().map(|document| document.foretold(window)).collect();
        let all: usize = tokens.iter().sum();
        if all == 0 {
            return Err(Error::TooLittleText { tokens: documents.iter().map(|d| d.tokens.len()).sum(), least: 2 });
        }
        model.check_plan(plan)?;
        let mut nats = Vec::with_capacity(documents.len());
        for document in documents {
            stop.check()?;
            let whole = document.tokens.len() / window * window;
            let (windows, rest) = document.tokens.split_at(whole);
            let at_once = (TOKENS_AT_ONCE / window).max(1) * window;
            let mut sum = 0.0;
            for some in windows.chunks(at_once) {
                sum += windows_loss(model, some, window, plan)? * (some.len() / window * (window - 1)) as f64;
            }
            if rest.len() > 1 {
                sum += windows_loss(model, rest, rest.len(), plan)? * (rest.len() - 1) as f64;
            }
            nats.push(sum);
            progress.step(format!(
                "{plan_nats:.3} nats per token",
                plan_nats = sum / document.foretold(window).max(1) as f64
            ));
        }
        Ok(Self { nats, tokens, bytes: documents.iter().map(|document| document.bytes).sum() })
    }

    /// Nats per token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats.iter().sum::<f64>() / self.tokens.iter().sum::<usize>() as f64
    }

    /// The exponential of the nats per token.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// Bits per byte of the texts.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats.iter().sum::<f64>() / (std::f64::consts::LN_2 * self.bytes as f64)
    }

    /// The nats per token that these losses lie above those of another plan on the same documents, and the interval
    /// that the documents leave: none where there are not two of them.
    ///
    /// # Panics
    ///
    /// If they are of other documents.
    pub fn above(&self, other: &Self, seed: u64) -> (f64, Option<Interval>) {
        assert_eq!(self.tokens, other.tokens, "losses of the same documents");
        let differences: Vec<f64> = self.nats.iter().zip(&other.nats).map(|(nats, other)| nats - other).collect();
        let tokens: Vec<f64> = self.tokens.iter().map(|&tokens| tokens as f64).collect();
        let mean = differences.iter().sum::<f64>() / tokens.iter().sum::<f64>();
        (mean, (differences.len() > 1).then(|| Interval::of_ratio(&differences, &tokens, seed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_per_token_and_compared_by_document() {
        let of = |nats: &[f64]| DocumentLosses { nats: nats.to_vec(), tokens: vec![10, 30, 60], bytes: 400 };
        let (worse, better) = (of(&[25.0, 75.0, 150.0]), of(&[20.0, 60.0, 120.0]));
        assert!((better.nats_per_token() - 2.0).abs() < 1e-12);
        assert!((better.perplexity() - 2f64.exp()).abs() < 1e-12);
        assert!((better.bits_per_byte() - 200.0 / 400.0 / std::f64::consts::LN_2).abs() < 1e-12);
        // Each document loses half a nat per token: resampling them leaves no doubt.
        let (mean, interval) = worse.above(&better, 1);
        let interval = interval.unwrap();
        assert!(
            (mean - 0.5).abs() < 1e-12 && (interval.low - 0.5).abs() < 1e-12 && (interval.high - 0.5).abs() < 1e-12
        );
        let (mean, interval) = of(&[20.0, 90.0, 120.0]).above(&better, 1);
        assert!(
            (mean - 0.3).abs() < 1e-12 && interval.is_some_and(|interval| interval.low < 0.1 && interval.high > 0.5)
        );
        let alone = DocumentLosses { nats: vec![20.0], tokens: vec![10], bytes: 40 };
        assert_eq!(alone.above(&alone, 1), (0.0, None));
    }

    #[test]
    fn the_first_token_of_a_window_is_given() {
        let of = |tokens: usize| Document { tokens: vec![0; tokens], bytes: 1 };
        assert_eq!([0, 1, 2, 8, 9, 10, 16].map(|tokens| of(tokens).foretold(8)), [0, 0, 1, 7, 7, 8, 14]);
    }
}
