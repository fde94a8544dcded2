//! How attention splits a token's numbers into heads.

use burn::tensor::{Tensor, backend::Backend};

/// How attention splits a token's numbers into heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSplit {
    /// The number of heads.
    pub heads: usize,
    /// `s`, which multiplies the scores: mostly 1 / √width.
    pub scale: f64,
}

impl HeadSplit {
    /// Queries, keys and values, each `[batch, heads, tokens, width]`, views of the same numbers.
    ///
    /// # Shapes
    ///
    /// - `qkv` `[batch, tokens, 3 · d]`
    pub fn split<B: Backend>(self, qkv: Tensor<B, 3>) -> [Tensor<B, 4>; 3] {
        let [batch, tokens, packed] = qkv.dims();
        let width = packed / (3 * self.heads);
        let qkv = qkv.reshape([batch, tokens, 3 * self.heads, width]);
        [0, 1, 2].map(|part| qkv.clone().narrow(2, part * self.heads, self.heads).swap_dims(1, 2))
    }

    /// `[batch, heads, tokens, width]` to `[batch, tokens, d]`.
    pub fn join<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, heads, tokens, width] = x.dims();
        x.swap_dims(1, 2).reshape([batch, tokens, heads * width])
    }
}
