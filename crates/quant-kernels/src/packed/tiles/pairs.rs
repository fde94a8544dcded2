//! Values in bf16, two neighbouring rows of a tile together: what dot products of bf16 want.

use crate::packed::tiles::layout::{TILE_COLUMNS, TILE_ROWS};

/// The pairs of rows of a tile.
pub(crate) const TILE_PAIRS: usize = TILE_ROWS / 2;

/// Two rows of 16 columns in bf16: of each column the upper row in the lower half of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Pair(pub(crate) [u32; TILE_COLUMNS]);

impl Pair {
    pub(crate) const ZERO: Self = Self([0; TILE_COLUMNS]);
}
