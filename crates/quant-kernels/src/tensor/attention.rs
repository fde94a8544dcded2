//! Causal self-attention without padding.
//!
//! ```text
//! y = softmax(s·Q·Kᵀ + M)·V        M hides the keys behind each query
//! ```
//!
//! It stands here because between quantised products it is what costs a transformer most.
//! Source of the computation in blocks of queries: Dao et al., *FlashAttention*, arXiv:2205.14135.

use burn::tensor::{Tensor, TensorPrimitive};

use crate::backends::{
    head_split::{CachedShapes, HeadSplit},
    transformer_backend::TransformerBackend,
};

/// Attention of every token to itself and those before it.
///
/// # Shapes
///
/// - `qkv` `[batch, tokens, 3 · d]`: queries, keys and values side by side
/// - output `[batch, tokens, d]`
///
/// # Panics
///
/// If the last dimension is not 3 · heads · width.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::{backends::head_split::HeadSplit, tensor::attention::causal_attention};
///
/// // The second token's query matches its own key, and gets mostly its own value.
/// let qkv = Tensor::<Flex, 3>::from_floats([[[1.0, 1.0, 5.0], [9.0, 2.0, 7.0]]], &Default::default());
/// let y = causal_attention(qkv, HeadSplit { heads: 1, scale: 1.0 }).into_data().to_vec::<f32>().unwrap();
/// assert!((y[0] - 5.0).abs() < 1e-5 && (y[1] - 7.0).abs() < 1e-3);
/// ```
pub fn causal_attention<B: TransformerBackend>(qkv: Tensor<B, 3>, split: HeadSplit) -> Tensor<B, 3> {
    let [_, _, packed] = qkv.dims();
    assert_eq!(packed % (3 * split.heads), 0, "{packed} numbers are not queries, keys and values of {split:?}");
    Tensor::from_primitive(TensorPrimitive::Float(B::causal_attention(qkv.into_primitive().tensor(), split)))
}

/// Attention of new tokens to themselves and all older ones, whose keys and values are kept. It has
/// no gradient of its own kernel: it is for generation.
///
/// # Shapes
///
/// - `q` `[batch, heads, new, width]`
/// - `k`, `v` `[batch, heads / sharing, old + new, width]`, parts of larger tensors without being copied; head `j` serves
///   the heads of queries from `j · sharing` on, `sharing` of them
/// - output `[batch, new, heads · width]`
///
/// # Panics
///
/// If the shapes are not these.
pub fn cached_attention<B: TransformerBackend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    scale: f64,
) -> Tensor<B, 3> {
    CachedShapes { q: q.dims(), k: k.dims(), v: v.dims() }.check();
    let [q, k, v] = [q, k, v].map(|x| x.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(B::cached_attention(q, k, v, scale)))
}
