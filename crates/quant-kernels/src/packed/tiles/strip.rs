//! The values of a tile.

use crate::packed::tiles::layout::TILE_COLUMNS;

/// The values of a row of a tile: 16 columns.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Strip(pub(crate) [f32; TILE_COLUMNS]);

impl Strip {
    pub(crate) const ZERO: Self = Self([0.0; TILE_COLUMNS]);
}
