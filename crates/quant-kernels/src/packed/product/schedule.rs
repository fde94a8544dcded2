//! How a product is cut into pieces of work.

use std::ops::Range;

use rayon::prelude::*;

use crate::packed::tiles::sums::PANEL_COLUMNS;

/// Products of less than this many multiplications stay on the calling thread.
const WORTH_A_THREAD: usize = 1 << 17;
/// The bytes of activations that stay in a core's second-level cache beside a panel of weights.
const CACHED_BYTES: usize = 384 << 10;

/// A product that is to be cut into blocks of rows and panels of columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) rows: usize,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    /// The bytes of a row of activations.
    pub(crate) row_bytes: usize,
    /// The rows that a kernel takes at once.
    pub(crate) kernel_rows: usize,
    /// The columns of a panel.
    pub(crate) columns: usize,
}

impl Schedule {
    /// Runs `work` on every block of rows and panel of columns, as (rows, first column).
    pub(crate) fn run(self, work: impl Fn(Range<usize>, usize) + Sync) {
        debug_assert!(self.columns <= PANEL_COLUMNS);
        let panels = self.d_out.div_ceil(self.columns);
        let block = self.block_rows(panels);
        let items = self.rows.div_ceil(block) * panels;
        let item = |at: usize| {
            let first = at / panels * block;
            work(first..self.rows.min(first + block), at % panels * self.columns);
        };
        let multiplications = self.rows.saturating_mul(self.d_in).saturating_mul(self.d_out);
        if multiplications < WORTH_A_THREAD || rayon::current_num_threads() == 1 {
            (0..items).for_each(item);
        } else {
            let least = (items * (WORTH_A_THREAD / 2)).div_ceil(multiplications).max(1);
            (0..items).into_par_iter().with_min_len(least).for_each(item);
        }
    }

    /// Rows that stay in the cache while the panels go by, fewer where there would not be enough
    /// work for all threads.
    fn block_rows(self, panels: usize) -> usize {
        let cached = CACHED_BYTES / self.row_bytes.max(1);
        let wanted_blocks = (4 * rayon::current_num_threads()).div_ceil(panels.max(1));
        let block = cached.min(self.rows.div_ceil(wanted_blocks));
        block.next_multiple_of(self.kernel_rows).max(4 * self.kernel_rows)
    }
}

/// Cuts rows into as few pieces of at most `most` as there can be, of nearly the same length: a
/// kernel that takes few rows keeps less of the processor busy.
pub(crate) fn pieces(rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.len().div_ceil(most);
    let piece = rows.len().div_ceil(count.max(1)).max(1);
    rows.clone().step_by(piece).map(move |start| start..rows.end.min(start + piece))
}
