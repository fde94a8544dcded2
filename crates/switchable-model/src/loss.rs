//! Training losses.
//!
//! ```text
//! next token:  L = −1/n · Σ log p(xₜ₊₁ | x≤ₜ)          over the n targets that count
//! answer:      L = −1/k · Σ log p(aᵢ | prompt, a<ᵢ)    over the k tokens of an answer
//! span:        L = −1/2b · Σ (log p_start(s) + log p_end(e))   over b windows
//! ```
//!
//! Both in nats. Source of the span loss: Devlin et al., *BERT*, arXiv:1810.04805, section 4.2.

use burn::tensor::{Bool, Int, Tensor, TensorData, activation, backend::Backend};

/// Mean cross-entropy in nats of each token's successor.
///
/// A target counts where it is a real token: `padding` is true at padding.
///
/// # Shapes
///
/// `logits`: `[batch, tokens, vocab]`; `ids`: `[batch, tokens]`; `padding`: `[batch, tokens]`; a
/// scalar `[1]` out. With no target at all the loss is zero.
pub fn next_token_loss<B: Backend>(
    logits: Tensor<B, 3>,
    ids: Tensor<B, 2, Int>,
    padding: Option<Tensor<B, 2, Bool>>,
) -> Tensor<B, 1> {
    let [batch, tokens, vocab] = logits.dims();
    if tokens < 2 {
        return Tensor::zeros([1], &logits.device());
    }
    let targets = ids.slice([0..batch, 1..tokens]).reshape([batch * (tokens - 1), 1]);
    let logits = logits.slice([0..batch, 0..tokens - 1]).reshape([batch * (tokens - 1), vocab]);
    let picked = activation::log_softmax(logits, 1).gather(1, targets).neg();
    match padding {
        None => picked.mean(),
        Some(padding) => {
            let counted = padding.slice([0..batch, 1..tokens]).bool_not().float().reshape([batch * (tokens - 1), 1]);
            (picked * counted.clone()).sum() / counted.sum().clamp_min(1.0)
        }
    }
}

/// Mean cross-entropy in nats of the tokens of an answer, or of several in a row.
///
/// # Shapes
///
/// `logits`: `[tokens of the answer, vocab]`, each row the scores of its token; a scalar `[1]` out.
pub fn answer_loss<B: Backend>(logits: Tensor<B, 2>, answer: &[u32]) -> Tensor<B, 1> {
    let targets: Vec<i64> = answer.iter().map(|&id| i64::from(id)).collect();
    let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(targets, [answer.len(), 1]), &logits.device());
    activation::log_softmax(logits, 1).gather(1, targets).mean().neg()
}

/// Mean of the cross-entropies in nats of a span's first and last token.
///
/// # Shapes
///
/// `start_logits`, `end_logits`: `[batch, tokens]`; `starts`, `ends`: `[batch]`; a scalar `[1]` out.
pub fn span_loss<B: Backend>(
    start_logits: Tensor<B, 2>,
    end_logits: Tensor<B, 2>,
    starts: Tensor<B, 1, Int>,
    ends: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let side = |logits: Tensor<B, 2>, target: Tensor<B, 1, Int>| {
        activation::log_softmax(logits, 1).gather(1, target.unsqueeze_dim(1)).mean().neg()
    };
    (side(start_logits, starts) + side(end_logits, ends)) * 0.5
}
