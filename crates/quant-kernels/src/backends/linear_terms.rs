//! What a linear layer adds to its product.

use burn::tensor::{backend::Backend, ops::FloatTensor};

use crate::packed::product::epilogue::OutputFunction;

/// What a linear layer adds to its product, as primitives of a backend.
#[derive(Debug, Clone)]
pub struct LinearTerms<B: Backend> {
    /// Added to each row, `[d_out]`.
    pub bias: Option<FloatTensor<B>>,
    /// An adapter: `A [d_in, rank]`, `B [rank, d_out]` and its factor `s`.
    pub adapter: Option<(FloatTensor<B>, FloatTensor<B>, f64)>,
    /// Applied last.
    pub function: OutputFunction,
}
