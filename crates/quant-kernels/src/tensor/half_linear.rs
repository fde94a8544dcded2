//! Linear layers whose products are of bf16.
//!
//! ```text
//! y = f(h(x)·W + s·(x·A)·B + bias)        h: to bf16;  x [rows, d_in],  W [d_in, d_out] in bf16
//! ```
//!
//! Sums are of f32. What is rounded, and by how much, is said in [`half_weight`](crate::packed::half_weight).

use burn::tensor::{Tensor, TensorPrimitive};

use crate::{
    backends::{linear_terms::LinearTerms, quant_backend::QuantBackend},
    packed::half_weight::HalfWeight,
};

/// `f(h(x)·W + s·(x·A)·B + bias)`, with gradients for `x`, `A` and `B`, and none for weight and bias:
///
/// ```text
/// d = s·∂L/∂y·Bᵀ        ∂L/∂x = h(∂L/∂y)·Wᵀ + d·Aᵀ        ∂L/∂A = xᵀ·d        ∂L/∂B = s·(x·A)ᵀ·∂L/∂y
/// ```
///
/// # Shapes
///
/// - `x` `[rows, d_in]`, output `[rows, d_out]`
///
/// # Panics
///
/// If the shapes disagree.
pub fn half_linear<B: QuantBackend>(x: Tensor<B, 2>, weight: &HalfWeight, terms: LinearTerms<B>) -> Tensor<B, 2> {
    let ([_, d_in], shape) = (x.dims(), weight.shape());
    assert_eq!(d_in, shape[0], "activations of {d_in} features do not fit weights of shape {shape:?}");
    Tensor::from_primitive(TensorPrimitive::Float(B::half_linear(x.into_primitive().tensor(), weight, terms)))
}
