//! How a block of rows and a panel of columns are computed, as many rows at a time as a kernel takes.

use std::ops::Range;

use crate::packed::{
    grid::Grid,
    product::{epilogue::Epilogue, schedule::pieces},
    target::Target,
    tiles::sums::{Region, Sums},
};

/// What every piece of a product has in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces<'a, T> {
    pub(crate) target: T,
    /// The rows that a kernel takes at once.
    pub(crate) kernel_rows: usize,
    pub(crate) epilogue: &'a Epilogue<'a>,
    /// Those of quantised activations, one for each row of the whole product.
    pub(crate) row_scales: Option<&'a [f32]>,
    pub(crate) output: &'a Grid<'a>,
}

impl<T: Target> Pieces<'_, T> {
    /// Computes a block of rows of some columns. `add` adds the products of a number of rows from a first on to sums, which are
    /// then finished and written.
    #[inline(always)]
    pub(crate) fn compute(
        self,
        block: Range<usize>,
        [column, columns]: [usize; 2],
        sums: &mut Sums,
        add: impl Fn(usize, usize, &mut Sums),
    ) {
        for piece in pieces(block, self.kernel_rows) {
            let (row, rows) = (piece.start, piece.len());
            let region = Region { row, rows, column, columns };
            self.output.prefetch(region);
            sums.clear(rows);
            add(row, rows, sums);
            self.epilogue.finish(self.target, sums, region, self.row_scales, self.output);
        }
    }
}
