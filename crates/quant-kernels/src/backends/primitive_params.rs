//! Scales and zero points as a backend holds them.

use burn::tensor::{backend::Backend, ops::FloatTensor};

/// Scales and zero points as a backend holds them.
///
/// For a tensor `[.., rows, columns]`, with the dimensions before the last two taken together as
/// `outer`, both have the shape `[outer, 1, columns]` per channel, `[outer, ⌈rows / n⌉, columns]`
/// per group, `[outer, rows, 1]` per token and `[1, 1, 1]` per tensor. For values of 16 bits they are f32.
#[derive(Debug, Clone)]
pub struct PrimitiveParams<B: Backend> {
    /// The scales.
    pub scale: FloatTensor<B>,
    /// The zero points, integers held as floats, for the asymmetric mapping.
    pub zero_point: Option<FloatTensor<B>>,
}
