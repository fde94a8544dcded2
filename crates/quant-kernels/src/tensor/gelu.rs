//! GELU in its tanh form.
//!
//! ```text
//! y     = x·σ(u),   u = 2·√(2/π)·(x + 0.044715·x³)          = x/2 · (1 + tanh(u/2))
//! ∂y/∂x = σ(u) + x·σ(u)·(1 − σ(u))·2·√(2/π)·(1 + 3·0.044715·x²)
//! ```
//!
//! Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415. It stands here
//! because in plain operations it costs a transformer as much as a quantised product.

use burn::tensor::{Tensor, TensorPrimitive};

use crate::backends::transformer_backend::TransformerBackend;

/// GELU in its tanh form, GPT-2's `gelu_new`, of each element. NaN stays NaN.
///
/// # Shapes
///
/// - `x` and output: any
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
///
/// let x = Tensor::<Flex, 1>::from_floats([0.0, 10.0, -10.0], &Default::default());
/// let y = quant_kernels::tensor::gelu::gelu_tanh(x).into_data().to_vec::<f32>().unwrap();
/// assert!(y[0] == 0.0 && (y[1] - 10.0).abs() < 1e-6 && y[2].abs() < 1e-6);
/// ```
pub fn gelu_tanh<B: TransformerBackend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(B::gelu_tanh(x.into_primitive().tensor())))
}
