//! Where kernels that stream floats find codes: as fields of the vectors that a tile holds, where they stand.

use crate::packed::tiles::layout::TILE_ROWS;

/// The width of the fields that codes are taken from: that of the plane where there is one, else
/// bytes that the planes are put together in first.
pub(crate) const fn field_width(source: u8) -> u32 {
    match source {
        2 | 4 => source as u32,
        _ => 8,
    }
}

/// How far a field of a quad stands from the lowest bit of a half of its column's 32 bits.
pub(crate) const fn field_shift(source: u8, quad: usize, j: usize) -> usize {
    let width = field_width(source) as usize;
    8 * (j % 2) + width * (quad % (8 / width))
}

/// What the values of the rows of a tile are multiplied by before they come to a kernel that
/// multiplies them by levels times 2^shift.
pub(crate) fn row_factors(source: u8) -> [f32; TILE_ROWS] {
    std::array::from_fn(|row| 1.0 / f32::from(1_u16 << field_shift(source, row / 4, row % 4)))
}
