//! Codes of a tile in registers of AVX2, 32 at a time.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{
    layout::VECTOR,
    ratios::{Ratios, shift},
    source::{is_nested, is_scaled, source_bits, tile_bytes},
};

/// The ratios of 16 columns, as the two halves that [`half_quad`] takes.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn load_ratios(ratios: &Ratios) -> [__m256i; 2] {
    // SAFETY: the array is two vectors of 32 bytes on a boundary of 64 bytes.
    [0, 1].map(|half| unsafe { _mm256_load_si256(ratios.0.as_ptr().add(16 * half).cast()) })
}

/// The codes of the 8 columns of a `HALF` in the `I`-th quad of a tile, of which these are the ratios.
///
/// # Safety
///
/// `tile` must be valid for reads of [`tile_bytes`].
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn half_quad<const SOURCE: u8, const I: usize, const HALF: usize>(
    tile: *const u8,
    ratios: __m256i,
) -> __m256i {
    const { assert!(I < 8 && HALF < 2) };
    let load = |vector: usize| {
        debug_assert!((vector + 1) * VECTOR <= tile_bytes(SOURCE));
        // SAFETY: the vector lies in the tile, which the caller promises to be readable.
        unsafe { _mm256_loadu_si256(tile.add(vector * VECTOR + HALF * VECTOR / 2).cast()) }
    };
    if is_scaled(SOURCE) {
        return scale::<SOURCE>(load(I), ratios);
    }
    if is_nested(SOURCE) {
        return cut::<SOURCE>(load(I));
    }
    let mut above = 0;
    let mut codes = _mm256_setzero_si256();
    if SOURCE & 8 != 0 {
        return load(I);
    }
    if SOURCE & 4 != 0 {
        let field = shift_right(load(I / 2), 4 * (I % 2) as u32);
        codes = shift_left(_mm256_and_si256(field, _mm256_set1_epi8(0x0f)), u32::from(SOURCE & 3));
        above = 4;
    }
    if SOURCE & 2 != 0 {
        let field = shift_right(load(above + I / 4), 2 * (I % 4) as u32);
        let field = shift_left(_mm256_and_si256(field, _mm256_set1_epi8(0x03)), u32::from(SOURCE & 1));
        codes = _mm256_or_si256(codes, field);
        above += 2;
    }
    if SOURCE & 1 != 0 {
        let field = shift_right(load(above), I as u32);
        codes = _mm256_or_si256(codes, _mm256_and_si256(field, _mm256_set1_epi8(0x01)));
    }
    codes
}

/// [`cut_code`](crate::packed::tiles::source::cut_code) of 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn cut<const SOURCE: u8>(codes: __m256i) -> __m256i {
    let cut = 8 - u32::from(source_bits(SOURCE));
    let odd = _mm256_and_si256(shift_right(codes, cut), _mm256_set1_epi8(1));
    let half = _mm256_add_epi8(odd, _mm256_set1_epi8((1 << (cut - 1)) - 1));
    let high = shift_right(_mm256_adds_epu8(codes, half), cut);
    let mask = _mm256_set1_epi8((0xff_u8 >> cut) as i8);
    _mm256_max_epu8(_mm256_and_si256(high, mask), _mm256_set1_epi8(1))
}

/// [`scaled_code`](crate::packed::tiles::ratios::scaled_code) of 32 codes: `vpmulhrsw` is its rounded product.
#[inline]
#[target_feature(enable = "avx2")]
fn scale<const SOURCE: u8>(codes: __m256i, ratios: __m256i) -> __m256i {
    let bits = source_bits(SOURCE);
    let down = const { 8 - shift(source_bits(SOURCE)) };
    let levels = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
    // A level of 8 bits in the upper half of 16 is 2^8 times itself.
    let even = _mm256_slli_epi16::<8>(levels);
    let odd = _mm256_and_si256(levels, _mm256_set1_epi16(-256));
    let down = _mm_cvtsi32_si128(down as i32);
    let [even, odd] = [even, odd].map(|levels| _mm256_mulhrs_epi16(_mm256_sra_epi16(levels, down), ratios));
    // Cut to 8 bits, and even and odd ones side by side again.
    let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    let levels = _mm256_shuffle_epi8(_mm256_packs_epi16(even, odd), order);
    let high = (1_i8 << (bits - 1)) - 1;
    let levels = _mm256_max_epi8(_mm256_min_epi8(levels, _mm256_set1_epi8(high)), _mm256_set1_epi8(-high));
    _mm256_add_epi8(levels, _mm256_set1_epi8(high + 1))
}

/// Shifts by a constant: the compiler sees it once the call is inlined.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn shift_right(vector: __m256i, bits: u32) -> __m256i {
    if bits == 0 { vector } else { _mm256_srlv_epi32(vector, _mm256_set1_epi32(bits as i32)) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift_left(vector: __m256i, bits: u32) -> __m256i {
    if bits == 0 { vector } else { _mm256_sllv_epi32(vector, _mm256_set1_epi32(bits as i32)) }
}
