//! Scales and codes of 0 of the columns of a tile.

use crate::packed::tiles::{layout::TILE_COLUMNS, ratios::Ratios};

/// Scales and codes of 0 of 16 columns, and what their 8-bit levels are multiplied by where they are cut by
/// ratios.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Params {
    pub(crate) scales: [f32; TILE_COLUMNS],
    pub(crate) zeros: [i32; TILE_COLUMNS],
    pub(crate) ratios: Ratios,
}

impl Params {
    pub(crate) const ZERO: Self = Self { scales: [0.0; TILE_COLUMNS], zeros: [0; TILE_COLUMNS], ratios: Ratios::NONE };
}
