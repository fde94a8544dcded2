//! Which keys a query may see, and attention under such a mask.
//!
//! ```text
//! A = softmax(s·Q·Kᵀ + M)·V        M is −∞ where a key stands behind its query or is padding
//! ```

use burn::tensor::{Bool, Tensor, activation, backend::Backend, module::attention, ops::AttentionModuleOptions};

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub enum AttentionMask<B: Backend> {
    /// Its own and all older ones.
    Causal,
    /// Not those marked here, `[batch, 1, queries, keys]`.
    Hidden(Tensor<B, 4, Bool>),
}

impl<B: Backend> AttentionMask<B> {
    /// Causal, and the keys marked in `padding` hidden.
    ///
    /// # Shapes
    ///
    /// `padding`: `[batch, tokens]`, true at padding.
    pub fn causal_with_padding(padding: &Tensor<B, 2, Bool>) -> Self {
        let [batch, tokens] = padding.dims();
        // `tril_mask` is true strictly above the diagonal.
        let future = Tensor::<B, 2, Bool>::tril_mask([tokens, tokens], 0, &padding.device());
        let future = future.unsqueeze::<4>().expand([batch, 1, tokens, tokens]);
        let padded = padding.clone().reshape([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens]);
        Self::Hidden(future.bool_or(padded))
    }
}

/// Attention of queries to the keys that are not hidden, in training and without.
///
/// # Shapes
///
/// `qkv`: each `[batch, heads, tokens, width]`; `hidden`: `[batch, 1, queries, keys]`;
/// `[batch, heads, queries, width]` out.
pub fn masked_attention<B: Backend>(
    [q, k, v]: [Tensor<B, 4>; 3],
    hidden: &Tensor<B, 4, Bool>,
    scale: f64,
) -> Tensor<B, 4> {
    if B::ad_enabled(&q.device()) {
        let scores = (q * scale).matmul(k.transpose()).mask_fill(hidden.clone(), f32::MIN);
        activation::softmax(scores, 3).matmul(v)
    } else {
        let options = AttentionModuleOptions { scale: Some(scale), ..Default::default() };
        attention(q, k, v, Some(hidden.clone()), None, options)
    }
}
