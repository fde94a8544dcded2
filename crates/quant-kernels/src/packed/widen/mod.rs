//! From the bytes of a tile to one code a byte.
//!
//! ```text
//! quad_i = ⋁ over planes p:  ((vector_(i·p/8) >> p·(i mod 8/p)) & (2^p − 1)) << bits below p
//! ```
//!
//! A *source* is what the tiles hold and which codes are wanted of them: the `b` bits that they
//! hold, or the `b` highest of 8, rounded on the way (see [`nested`](super::nested)). Kernels are
//! compiled for each source, so that all shifts and masks are constants.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;

use crate::cpu::{instruction_set::InstructionSet, multiversion::compiled_for};
use crate::packed::layout::{PLANE_WIDTHS, QUADS, TILE_CODES, VECTOR};

/// Added to the width of a source that is cut from 8 bits.
pub(crate) const NESTED: u8 = 16;

/// The width of the codes that come from a source.
pub(crate) const fn source_bits(source: u8) -> u8 {
    source % NESTED
}

/// Whether codes are cut from 8 bits.
pub(crate) const fn is_nested(source: u8) -> bool {
    source > NESTED
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
            other => unreachable!("there is no source {other}"),
        }
    };
}

pub(crate) use with_source;

/// The codes of a tile as quads `[8][16 columns][4 rows]`.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Quads(pub(crate) [u8; TILE_CODES]);

impl Quads {
    pub(crate) const ZERO: Self = Self([0; TILE_CODES]);
}

/// Widens consecutive tiles to consecutive quads.
///
/// # Panics
///
/// If `tiles` does not hold a tile for each of `quads`.
pub(crate) fn widen(set: InstructionSet, source: u8, tiles: &[u8], quads: &mut [Quads]) {
    assert_eq!(tiles.len(), tile_bytes(source) * quads.len(), "the tiles do not match their quads");
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => avx512::widen(source, tiles, quads),
        _ => compiled_for!(set, widen_here(source: u8, tiles: &[u8], quads: &mut [Quads])),
    }
}

/// [`widen`] in plain Rust, to be compiled for the instructions of its caller.
#[inline(always)]
pub(crate) fn widen_here(source: u8, tiles: &[u8], quads: &mut [Quads]) {
    with_source!(source, widen_tiles(tiles, quads));
}

#[inline(always)]
fn widen_tiles<const SOURCE: u8>(tiles: &[u8], quads: &mut [Quads]) {
    for (tile, quads) in tiles.chunks_exact(tile_bytes(SOURCE)).zip(quads) {
        widen_tile::<SOURCE>(tile, quads);
    }
}

#[inline(always)]
fn widen_tile<const SOURCE: u8>(tile: &[u8], quads: &mut Quads) {
    let (vectors, _) = tile.as_chunks::<VECTOR>();
    let (quads, _) = quads.0.as_chunks_mut::<VECTOR>();
    if is_nested(SOURCE) {
        for (vector, quad) in vectors.iter().zip(quads) {
            for (byte, code) in vector.iter().zip(quad) {
                *code = cut_code(source_bits(SOURCE), *byte);
            }
        }
        return;
    }
    let mut above = 0;
    for width in PLANE_WIDTHS {
        if SOURCE & width == 0 {
            continue;
        }
        let below = SOURCE - above - width;
        let mask = (0xff >> (8 - width)) as u8;
        let per_byte = 8 / width as usize;
        for i in 0..QUADS {
            let vector = &vectors[above as usize + i / per_byte];
            let shift = width * (i % per_byte) as u8;
            for (byte, code) in vector.iter().zip(&mut quads[i]) {
                let bits = ((byte >> shift) & mask) << below;
                *code = if above == 0 { bits } else { *code | bits };
            }
        }
        above += width;
    }
}

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
