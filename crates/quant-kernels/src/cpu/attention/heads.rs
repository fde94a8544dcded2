//! The numbers of attention by their heads.

use std::ops::Range;

use super::product::Matrix;

/// Where the heads of a tensor `[batch, heads, tokens, width]` lie, in elements from its start. The
/// values of one head of one token stand side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadStrides {
    pub(crate) batch: usize,
    pub(crate) head: usize,
    pub(crate) token: usize,
}

/// Numbers with the place of their heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) strides: HeadStrides,
}

impl HeadStrides {
    pub(super) fn of(self, batch: usize, head: usize) -> usize {
        batch * self.batch + head * self.head
    }
}

impl<'a> Heads<'a> {
    pub(super) fn skip(self, count: usize) -> Self {
        Self { values: &self.values[count..], ..self }
    }

    /// One head, from its first token on.
    pub(super) fn at(self, batch: usize, head: usize) -> Self {
        self.skip(self.strides.of(batch, head))
    }

    /// Whether all values of some tokens of one head are finite.
    pub(super) fn are_finite(self, tokens: Range<usize>, width: usize) -> bool {
        tokens.into_iter().all(|token| self.values[token * self.strides.token..][..width].iter().all(|x| x.is_finite()))
    }

    /// The tokens of one head from `first` on, of which there is one.
    pub(super) fn starting_at(self, first: usize) -> Self {
        self.skip(first * self.strides.token)
    }

    /// The tokens of one head from `first` on, as rows.
    pub(super) fn matrix(self, first: usize) -> Matrix<'a> {
        Matrix { values: &self.values[first * self.strides.token..], row: self.strides.token, column: 1 }
    }
}
