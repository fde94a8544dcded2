//! The part of a product that one call of a kernel computes.

use crate::packed::tiles::layout::TILE_COLUMNS;

/// The most strips of 16 columns of a panel.
pub(crate) const PANEL_STRIPS: usize = 2;
/// The most columns of a panel.
pub(crate) const PANEL_COLUMNS: usize = PANEL_STRIPS * TILE_COLUMNS;
/// The most rows that a kernel takes at once.
pub(crate) const ROWS_MAX: usize = 12;

/// Sums of up to 12 rows and 32 columns.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Sums(pub(crate) [[f32; PANEL_COLUMNS]; ROWS_MAX]);

impl Sums {
    pub(crate) const ZERO: Self = Self([[0.0; PANEL_COLUMNS]; ROWS_MAX]);

    /// Sets the first rows to 0.
    pub(crate) fn clear(&mut self, rows: usize) {
        self.0[..rows].fill([0.0; PANEL_COLUMNS]);
    }
}

/// Where sums stand in the product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) column: usize,
    pub(crate) columns: usize,
}

impl Default for Sums {
    fn default() -> Self {
        Self::ZERO
    }
}
