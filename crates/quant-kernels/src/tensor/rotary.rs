//! Rotary positions of queries and keys.
//!
//! ```text
//! x'ᵢ   = xᵢ·cosᵢ − xᵢ₊ₕ·sinᵢ
//! x'ᵢ₊ₕ = xᵢ·sinᵢ + xᵢ₊ₕ·cosᵢ          h = w/2,   i = 0 … h − 1
//! ```
//!
//! `w` is the width of a head; number `i` of the first half of a head and number `i` of its second half are turned
//! together. Source: Su et al., *RoFormer*, arXiv:2104.09864.

use burn::tensor::{Tensor, TensorPrimitive};

use crate::backends::transformer_backend::TransformerBackend;

/// Each head turned by the angles of its token.
///
/// # Shapes
///
/// - `x` `[batch, tokens, heads · w]`, the same out
/// - `cos`, `sin` `[batch or 1, tokens, w/2]`
///
/// # Panics
///
/// If the shapes are not these.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::tensor::rotary::turn_heads;
///
/// // A quarter of a turn.
/// let x = Tensor::<Flex, 3>::from_floats([[[1.0, 2.0]]], &Default::default());
/// let [cos, sin] = [0.0, 1.0].map(|x| Tensor::<Flex, 3>::from_floats([[[x]]], &Default::default()));
/// assert_eq!(turn_heads(x, [cos, sin], 1).into_data().to_vec::<f32>().unwrap(), [-2.0, 1.0]);
/// ```
pub fn turn_heads<B: TransformerBackend>(x: Tensor<B, 3>, [cos, sin]: [Tensor<B, 3>; 2], heads: usize) -> Tensor<B, 3> {
    let ([batch, tokens, d], terms) = (x.dims(), cos.dims());
    assert_eq!(terms, sin.dims(), "cosines and sines of different shapes");
    let fits = (terms[0] == 1 || terms[0] == batch) && terms[1] == tokens && 2 * heads * terms[2] == d;
    assert!(fits, "terms of shape {terms:?} do not turn {heads} heads of shape {:?}", [batch, tokens, d]);
    let [x, cos, sin] = [x, cos, sin].map(|x| x.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(B::turn_heads(x, [cos, sin], heads)))
}
