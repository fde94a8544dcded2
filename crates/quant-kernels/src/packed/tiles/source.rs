//! What tiles hold, and which codes are wanted of them.
//!
//! A *source* is the `b` bits that the tiles hold; or the `b` highest of 8, rounded on the way; or `b` bits by
//! the ratio of two scales, also of 8 (see [`nested`](crate::packed::nested)). Kernels are compiled for each source, so that all shifts and masks
//! are constants.

use crate::packed::tiles::layout::VECTOR;

/// Added to the width of a source that is cut from 8 bits.
pub(crate) const NESTED: u8 = 16;

/// Added to the width of a source that is cut from 8 bits by the [ratios](crate::packed::tiles::ratios) of scales.
pub(crate) const SCALED: u8 = 32;

/// The width of the codes that come from a source.
pub(crate) const fn source_bits(source: u8) -> u8 {
    source % NESTED
}

/// Whether codes are cut from 8 bits.
pub(crate) const fn is_nested(source: u8) -> bool {
    source > NESTED
}

/// Whether codes are cut by ratios of scales.
pub(crate) const fn is_scaled(source: u8) -> bool {
    source > SCALED
}

/// The bytes of a tile of a source.
pub(crate) const fn tile_bytes(source: u8) -> usize {
    VECTOR * if is_nested(source) { 8 } else { source as usize }
}

/// Calls a function that is generic over the source with the source at hand.
macro_rules! with_source {
    ($source:expr, $function:ident $(::<$($generic:tt),*>)? ( $($argument:expr),* $(,)? )) => {
        match $source {
            2 => $function::<2 $($(, $generic)*)?>($($argument),*),
            3 => $function::<3 $($(, $generic)*)?>($($argument),*),
            4 => $function::<4 $($(, $generic)*)?>($($argument),*),
            5 => $function::<5 $($(, $generic)*)?>($($argument),*),
            6 => $function::<6 $($(, $generic)*)?>($($argument),*),
            7 => $function::<7 $($(, $generic)*)?>($($argument),*),
            8 => $function::<8 $($(, $generic)*)?>($($argument),*),
            18 => $function::<18 $($(, $generic)*)?>($($argument),*),
            19 => $function::<19 $($(, $generic)*)?>($($argument),*),
            20 => $function::<20 $($(, $generic)*)?>($($argument),*),
            21 => $function::<21 $($(, $generic)*)?>($($argument),*),
            22 => $function::<22 $($(, $generic)*)?>($($argument),*),
            23 => $function::<23 $($(, $generic)*)?>($($argument),*),
            34 => $function::<34 $($(, $generic)*)?>($($argument),*),
            35 => $function::<35 $($(, $generic)*)?>($($argument),*),
            36 => $function::<36 $($(, $generic)*)?>($($argument),*),
            37 => $function::<37 $($(, $generic)*)?>($($argument),*),
            38 => $function::<38 $($(, $generic)*)?>($($argument),*),
            39 => $function::<39 $($(, $generic)*)?>($($argument),*),
            other => unreachable!("there is no source {other}"),
        }
    };
}

pub(crate) use with_source;

/// The code of `bits` bits that stands for an 8-bit code `u` of the symmetric mapping.
///
/// ```text
/// k = 8 − b        u_b = max(1, min(255, u + 2^(k−1) − 1 + bit k of u) >> k)
/// ```
///
/// Adding a half less one, and one more where the result would be odd, rounds half to even. Sums
/// past 255 are those whose level lies above the highest one, and 255 is cut to the highest.
#[inline(always)]
pub(crate) const fn cut_code(bits: u8, code: u8) -> u8 {
    if bits == 8 {
        return code;
    }
    let cut = 8 - bits;
    let half = (1 << (cut - 1)) - 1;
    let rounded = code.saturating_add(half + ((code >> cut) & 1)) >> cut;
    if rounded == 0 { 1 } else { rounded }
}
