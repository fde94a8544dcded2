//! What the adapters of a precision add together.
//!
//! ```text
//! Δ = s · A · B                          one adapter
//! Δ = [s₁A₁ | s₂A₂] · [B₁; B₂]           its own and the one that widths share
//! ```

use burn::tensor::{Tensor, backend::Backend};

/// What the adapters of a precision add together, as one product of low rank.
#[derive(Debug, Clone)]
pub(crate) struct LowRankUpdate<B: Backend> {
    /// `[d_in, rank]`
    pub(crate) a: Tensor<B, 2>,
    /// `[rank, d_out]`
    pub(crate) b: Tensor<B, 2>,
    pub(crate) scaling: f64,
}

impl<B: Backend> LowRankUpdate<B> {
    /// That of two adapters together, each with its own rank and scaling.
    pub(crate) fn and(self, other: Self) -> Self {
        let scaled = |update: &Self| update.a.clone().mul_scalar(update.scaling);
        Self {
            a: Tensor::cat(vec![scaled(&self), scaled(&other)], 1),
            b: Tensor::cat(vec![self.b, other.b], 0),
            scaling: 1.0,
        }
    }

    /// `s · (x · A) · B`, in which nothing is as large as the weight.
    ///
    /// # Shapes
    ///
    /// - `x` `[rows, d_in]`
    /// - output `[rows, d_out]`
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.a.clone()).mul_scalar(self.scaling).matmul(self.b.clone())
    }

    /// `s · A · B`, what is added to the weight.
    ///
    /// # Shapes
    ///
    /// - output `[d_in, d_out]`
    pub(crate) fn product(&self) -> Tensor<B, 2> {
        self.a.clone().mul_scalar(self.scaling).matmul(self.b.clone())
    }
}
