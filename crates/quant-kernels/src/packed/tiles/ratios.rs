//! What the levels of 8 bits are multiplied by where a lower width has scales of its own.
//!
//! ```text
//! r = s_8 / s_b < 2^e        e = 2 at 7 bits, else 1
//! m = 2·⌊r · 2^(14−e)⌋ + 1
//! q_b = clamp((q_8 · 2^e · m + 2^14) >> 15, ±(2^(b−1) − 1))
//! ```
//!
//! `r` is the quotient of the stored scales in single precision, `>>` rounds down. As `m` is odd, no product
//! lies in the middle between two levels: however a processor breaks ties, it gives these levels, and
//! those of opposite weights are opposite. `m / 2^(15−e)` differs from `r` by less than `2^(e−15)`, so that
//! the middle between two levels moves by less than 0.02 levels.

use crate::packed::tiles::layout::TILE_COLUMNS;

/// Bits below the point of a product of a level and a ratio.
const POINT: u32 = 15;

/// `m` of 16 columns, twice each: one for each pair of bytes of a quad.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Ratios(pub(crate) [i16; 2 * TILE_COLUMNS]);

impl Ratios {
    /// Those of tiles whose codes are not multiplied.
    pub(crate) const NONE: Self = Self([0; 2 * TILE_COLUMNS]);
}

/// `e`: how far levels are shifted up before they are multiplied. At 7 bits the scales are the closest to those
/// of 8.
pub(crate) const fn shift(bits: u8) -> u32 {
    if bits == 7 { 2 } else { 1 }
}

/// `m`, of scales that [`are_apart`].
#[inline(always)]
pub(crate) fn ratio(bits: u8, eight: f32, own: f32) -> i16 {
    let halves = eight / own * f32::from(1_u16 << (POINT - 1 - shift(bits)));
    (2 * halves as i32 + 1) as i16
}

/// Whether the ratio of two scales can be represented.
pub(crate) fn are_apart(bits: u8, eight: f32, own: f32) -> bool {
    eight / own < least_divisor(bits)
}

/// `2^e`: the scale of a width is more than that of 8 bits divided by it.
pub(crate) fn least_divisor(bits: u8) -> f32 {
    f32::from(1_u16 << shift(bits))
}

/// The code of `bits` bits that stands for an 8-bit code of the symmetric mapping, by a ratio.
#[inline(always)]
pub(crate) const fn scaled_code(bits: u8, code: u8, ratio: i16) -> u8 {
    let level = (code as i32 - 128) << shift(bits);
    let rounded = (((level * ratio as i32) >> (POINT - 1)) + 1) >> 1;
    let high = (1 << (bits - 1)) - 1;
    let level = if rounded > high { high } else { rounded };
    let level = if level < -high { -high } else { level };
    (level + high + 1) as u8
}
