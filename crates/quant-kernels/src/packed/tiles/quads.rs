//! The codes of a tile, one a byte.

use crate::packed::tiles::layout::TILE_CODES;

/// The codes of a tile as quads `[8][16 columns][4 rows]`.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Quads(pub(crate) [u8; TILE_CODES]);

impl Quads {
    pub(crate) const ZERO: Self = Self([0; TILE_CODES]);
}
