//! How attention splits a token's numbers into heads, and which shapes belong together.

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

/// Every head as often as query heads share it, side by side. Source: Ainslie et al., *GQA*, arXiv:2305.13245.
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

/// The shapes of new queries and of the keys and values of all tokens, `[batch, heads, tokens, width]`. As many heads of
/// queries share each head of keys and values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachedShapes {
    pub(crate) q: [usize; 4],
    pub(crate) k: [usize; 4],
    pub(crate) v: [usize; 4],
}

impl CachedShapes {
    /// Checks that there is one key and one value for each token, and that the queries are of the last of them.
    ///
    /// # Panics
    ///
    /// If not.
    pub(crate) fn check(self) {
        let Self { q, k, v } = self;
        assert!(k == v, "keys of shape {k:?} and values of shape {v:?} are not of the same tokens");
        let [batch, heads, new, width] = q;
        let shares = heads == k[1] || (k[1] > 0 && heads > 0 && heads.is_multiple_of(k[1]));
        let fits = [batch, width] == [k[0], k[3]] && shares && new <= k[2];
        assert!(fits, "queries of shape {q:?} are not of the last tokens of keys of shape {k:?}");
    }
}
