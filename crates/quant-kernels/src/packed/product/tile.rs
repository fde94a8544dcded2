//! The part of a product that one call of a kernel computes.

use crate::packed::layout::TILE_COLUMNS;

/// The columns of a panel: one or two tiles side by side.
pub(super) const PANEL_COLUMNS: usize = 2 * TILE_COLUMNS;
/// The most rows of a tile.
pub(super) const TILE_ROWS_MAX: usize = 12;

/// Sums of up to 12 rows and 32 columns.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Tile(pub(super) [[f32; PANEL_COLUMNS]; TILE_ROWS_MAX]);

impl Tile {
    pub(super) const ZERO: Self = Self([[0.0; PANEL_COLUMNS]; TILE_ROWS_MAX]);
}

/// Where a tile stands in the product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    pub(super) columns: usize,
}
