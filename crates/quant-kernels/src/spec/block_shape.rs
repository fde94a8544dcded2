//! The rectangles of values that share a scale, for kernels.
//!
//! ```text
//! x [outer, rows, columns]     a block is group_rows × group_columns values of one matrix,
//!                              or all of x when it is whole
//! scale [outer, ⌈rows / group_rows⌉, ⌈columns / group_columns⌉], or [1, 1, 1]
//! ```

use crate::spec::granularity::Granularity;

/// How a tensor of three dimensions is cut into the blocks of values that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockShape {
    pub(crate) outer: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) cut: Cut,
}

/// Which values of each matrix `[rows, columns]` share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of them, those of the other matrices included.
    Whole,
    /// Runs of this many rows of one column.
    DownColumns(usize),
    /// Runs of this many columns of one row.
    AlongRows(usize),
}

impl BlockShape {
    /// The blocks of a tensor `[outer, rows, columns]`.
    pub(crate) fn new([outer, rows, columns]: [usize; 3], granularity: Granularity) -> Self {
        let cut = match granularity {
            Granularity::PerTensor => Cut::Whole,
            Granularity::PerChannel => Cut::DownColumns(rows.max(1)),
            Granularity::PerGroup(size) => Cut::DownColumns(size.get().min(rows.max(1))),
            Granularity::PerToken => Cut::AlongRows(columns.max(1)),
        };
        Self { outer, rows, columns, cut }
    }

    /// The same blocks of the tensor with its last two dimensions exchanged.
    #[cfg(feature = "flex")]
    pub(crate) fn transposed(self) -> Self {
        let cut = match self.cut {
            Cut::Whole => Cut::Whole,
            Cut::DownColumns(rows) => Cut::AlongRows(rows),
            Cut::AlongRows(columns) => Cut::DownColumns(columns),
        };
        Self { outer: self.outer, rows: self.columns, columns: self.rows, cut }
    }

    /// The shape of the scales.
    pub(crate) fn param_shape(self) -> [usize; 3] {
        match self.cut {
            Cut::Whole => [1, 1, 1],
            Cut::DownColumns(rows) => [self.outer, self.rows.div_ceil(rows), self.columns],
            Cut::AlongRows(columns) => [self.outer, self.rows, self.columns.div_ceil(columns)],
        }
    }

    /// The number of values.
    pub(crate) fn len(self) -> usize {
        self.outer * self.rows * self.columns
    }
}
