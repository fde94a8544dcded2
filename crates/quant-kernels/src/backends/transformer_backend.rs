//! What a transformer computes between its quantised products.
//!
//! ```text
//! plain:     x ─ mul ─ add ─ sigmoid ─ … ─→ y      a pass over memory each
//! kernel:    x ───────────────────────────→ y      one
//! ```
//!
//! In plain operations these cost a transformer as much as its products do.

use burn::tensor::{backend::Backend, ops::FloatTensor};

use crate::backends::{head_split::HeadSplit, plain};

/// A backend of burn with the operations that stand between quantised products.
///
/// Every method has a default that is made of the backend's plain tensor operations, so any backend can
/// be used with an empty `impl`.
///
/// | backend | kernels |
/// |---|---|
/// | `Flex` | vector instructions chosen at run time, all cores |
/// | `NdArray`, `Cuda`, `Wgpu` | burn's own operations |
/// | `Autodiff<B>` | those of `B`, with gradients |
pub trait TransformerBackend: Backend {
    /// [`gelu_tanh`](crate::tensor::gelu::gelu_tanh).
    ///
    /// # Shapes
    ///
    /// - `x` and output: any
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::gelu::gelu_tanh::<Self>(x)
    }

    /// The gradient of GELU's input from that of its output.
    ///
    /// # Shapes
    ///
    /// - `x`, `gradient` and output: the same
    fn gelu_tanh_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::gelu::gelu_tanh_backward::<Self>(x, gradient)
    }

    /// [`causal_attention`](crate::tensor::attention::causal_attention).
    ///
    /// # Shapes
    ///
    /// - `qkv` `[batch, tokens, 3 · d]`, output `[batch, tokens, d]`
    fn causal_attention(qkv: FloatTensor<Self>, split: HeadSplit) -> FloatTensor<Self> {
        plain::attention::causal_attention::<Self>(qkv, split)
    }

    /// The gradient of attention's input from that of its output.
    ///
    /// # Shapes
    ///
    /// - `qkv` and output `[batch, tokens, 3 · d]`, `gradient` `[batch, tokens, d]`
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        split: HeadSplit,
    ) -> FloatTensor<Self> {
        plain::attention::causal_attention_backward::<Self>(qkv, gradient, split)
    }

    /// [`cached_attention`](crate::tensor::attention::cached_attention).
    ///
    /// # Shapes
    ///
    /// - `q` `[batch, heads, new, width]`, `k` and `v` `[batch, heads / sharing, old + new, width]`
    /// - output `[batch, new, heads · width]`
    fn cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        plain::attention::cached_attention::<Self>(q, k, v, scale)
    }

    /// [`turn_heads`](crate::tensor::rotary::turn_heads), from cosines and sines.
    ///
    /// # Shapes
    ///
    /// - `x` and output `[batch, tokens, heads · w]`, `terms` `[batch or 1, tokens, w/2]` each
    fn turn_heads(x: FloatTensor<Self>, terms: [FloatTensor<Self>; 2], heads: usize) -> FloatTensor<Self> {
        plain::rotary::turn_heads::<Self>(x, terms, heads)
    }
}
