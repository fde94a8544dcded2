//! The loss of a step.
//!
//! ```text
//! L = L_span + λ·L_next
//! ```
//!
//! The next-token part teaches a small model to bind a value to its entity; without it the model
//! learns the kind of value that is asked for, but not whose.

use burn::tensor::{Tensor, backend::Backend};
use gpt2_model::{Gpt2ForQuestionAnswering, SitePlan, next_token_loss, span_loss};
use quant_kernels::QuantBackend;
use serde::{Deserialize, Serialize};

use crate::reading::BatchTensors;
use crate::{Error, Result};

/// Score of a position where no answer can start or end: its probability is zero in f32.
const IMPOSSIBLE: f64 = -1e9;

/// Weights of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Weight λ of the next-token loss; at zero it is not computed.
    pub next_token: f64,
}

/// The losses of one batch, in nats.
#[derive(Debug, Clone)]
pub struct StepLoss<B: Backend> {
    /// What is minimised, `[1]`.
    pub total: Tensor<B, 1>,
    /// The span part, `[1]`.
    pub span: Tensor<B, 1>,
}

impl Objective {
    pub(crate) fn check(self) -> Result<()> {
        if self.next_token >= 0.0 && self.next_token.is_finite() {
            Ok(())
        } else {
            Err(Error::option("next_token", self.next_token, "a finite weight, at least 0"))
        }
    }

    /// Loss of a batch whose every window holds its answer.
    pub fn loss<B: QuantBackend>(
        &self,
        model: &Gpt2ForQuestionAnswering<B>,
        batch: &BatchTensors<B>,
        plan: &SitePlan,
    ) -> StepLoss<B> {
        let hidden = model.transformer.forward(batch.ids.clone(), None, plan);
        let logits = model.span_logits(hidden.clone());
        let masked = |t: Tensor<B, 2>| t.mask_fill(batch.unanswerable.clone(), IMPOSSIBLE);
        let span = span_loss(masked(logits.start), masked(logits.end), batch.starts.clone(), batch.ends.clone());
        let total = if self.next_token > 0.0 {
            let logits = model.transformer.lm_logits(hidden);
            span.clone() + next_token_loss(logits, batch.ids.clone(), Some(batch.padding.clone())) * self.next_token
        } else {
            span.clone()
        };
        StepLoss { total, span }
    }
}
