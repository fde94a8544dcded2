//! Heads of keys and values that several heads of queries share.
//!
//! Source: Ainslie et al., *GQA*, arXiv:2305.13245.

use burn::tensor::{Tensor, backend::Backend};

/// Every head as often as query heads share it, side by side.
///
/// # Shapes
///
/// `x`: `[batch, heads, tokens, w]`; `[batch, heads · sharing, tokens, w]` out.
pub fn repeat_heads<B: Backend>(x: Tensor<B, 4>, sharing: usize) -> Tensor<B, 4> {
    if sharing == 1 {
        return x;
    }
    let [batch, heads, tokens, width] = x.dims();
    let shared = x.reshape([batch, heads, 1, tokens, width]).expand([batch, heads, sharing, tokens, width]);
    shared.reshape([batch, heads * sharing, tokens, width])
}
