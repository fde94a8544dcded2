//! Products of the weights of attention, in which what is hidden has no part.

use super::heads::Heads;
use super::product::{Matrix, Pointer, product};

/// Weights of the pairs of a query and a key, `[rows, first + rows]`: query `row` sees `first + row + 1` keys, and
/// its other weights are 0.
///
/// What is hidden has the weight 0, and 0·NaN is NaN: where a row of the other matrix is not finite, each query is
/// multiplied by itself, with the keys that it sees alone.
#[derive(Clone, Copy)]
pub(super) struct CausalPairs<'a> {
    pub(super) weights: &'a [f32],
    pub(super) first: usize,
    pub(super) rows: usize,
}

impl CausalPairs<'_> {
    fn seen(self) -> usize {
        self.first + self.rows
    }

    /// `y = weights·x`, where `x` has a row for each key.
    ///
    /// # Safety
    ///
    /// As that of [`product`], for `rows` rows of `y`.
    #[expect(unsafe_code, reason = "as the product")]
    pub(super) unsafe fn with_keys(self, x: Heads<'_>, width: usize, y: Pointer) {
        let weights = Matrix::rows(self.weights, self.seen());
        // The first query sees all before the block, and itself.
        if x.are_finite(self.first + 1..self.seen(), width) {
            // SAFETY: the caller's promise.
            unsafe { product([self.rows, self.seen(), width], weights, x.matrix(0), y, false) };
            return;
        }
        for row in 0..self.rows {
            // SAFETY: the caller's promise, for one of the rows.
            unsafe { product([1, self.first + row + 1, width], weights.below(row), x.matrix(0), y.below(row), false) };
        }
    }

    /// `y += weightsᵀ·x`, where `x` has a row for each query.
    ///
    /// # Safety
    ///
    /// As that of [`product`], for as many rows of `y` as there are keys.
    #[expect(unsafe_code, reason = "as the product")]
    pub(super) unsafe fn with_queries(self, x: Heads<'_>, width: usize, y: Pointer) {
        let weights = Matrix::rows(self.weights, self.seen());
        // The last query sees all.
        if x.are_finite(0..self.rows - 1, width) {
            // SAFETY: the caller's promise.
            unsafe { product([self.seen(), self.rows, width], weights.transposed(), x.matrix(0), y, true) };
            return;
        }
        for row in 0..self.rows {
            let sizes = [self.first + row + 1, 1, width];
            // SAFETY: the caller's promise, for some of the rows.
            unsafe { product(sizes, weights.below(row).transposed(), x.matrix(row), y, true) };
        }
    }
}
