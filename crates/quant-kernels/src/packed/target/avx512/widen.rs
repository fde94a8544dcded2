//! Widening with AVX-512.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{
    layout::VECTOR,
    quads::Quads,
    ratios::{Ratios, shift},
    source::{is_nested, is_scaled, source_bits, tile_bytes, with_source},
};

/// Widens consecutive tiles, which share ratios, to consecutive quads.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn widen(source: u8, ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
    with_source!(source, widen_from(ratios, tiles, quads));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_from<const SOURCE: u8>(ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
    let ratios = load_ratios(ratios);
    for (tile, quads) in tiles.chunks_exact(tile_bytes(SOURCE)).zip(quads) {
        let place = quads.0.as_mut_ptr();
        macro_rules! store_quads {
            ($($i:literal)*) => {$(
                _mm512_store_si512(place.add($i * VECTOR).cast(), quad::<SOURCE, $i>(tile.as_ptr(), ratios));
            )*};
        }
        // SAFETY: the slice is a tile, and quads are 8 vectors on a boundary of 64 bytes.
        unsafe {
            store_quads!(0 1 2 3 4 5 6 7);
        }
    }
}

/// The ratios of 16 columns, as [`quad`] takes them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load_ratios(ratios: &Ratios) -> __m512i {
    // SAFETY: the array is a vector of 64 bytes on a boundary of 64 bytes.
    unsafe { _mm512_load_si512(ratios.0.as_ptr().cast()) }
}

/// The `I`-th quad of a tile, of whose columns these are the ratios.
///
/// # Safety
///
/// `tile` must be valid for reads of [`tile_bytes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn quad<const SOURCE: u8, const I: usize>(tile: *const u8, ratios: __m512i) -> __m512i {
    const { assert!(I < 8) };
    let load = |vector: usize| {
        debug_assert!((vector + 1) * VECTOR <= tile_bytes(SOURCE));
        // SAFETY: the vector lies in the tile, which the caller promises to be readable.
        unsafe { _mm512_loadu_si512(tile.add(vector * VECTOR).cast()) }
    };
    if is_scaled(SOURCE) {
        return scale::<SOURCE>(load(I), ratios);
    }
    if is_nested(SOURCE) {
        return cut::<SOURCE>(load(I));
    }
    let mut above = 0;
    let mut codes = _mm512_setzero_si512();
    if SOURCE & 8 != 0 {
        return load(I);
    }
    if SOURCE & 4 != 0 {
        let field = shift_right(load(I / 2), 4 * (I % 2) as u32);
        codes = shift_left(_mm512_and_si512(field, _mm512_set1_epi8(0x0f)), u32::from(SOURCE & 3));
        above = 4;
    }
    if SOURCE & 2 != 0 {
        let field = shift_right(load(above + I / 4), 2 * (I % 4) as u32);
        let field = shift_left(_mm512_and_si512(field, _mm512_set1_epi8(0x03)), u32::from(SOURCE & 1));
        codes = _mm512_or_si512(codes, field);
        above += 2;
    }
    if SOURCE & 1 != 0 {
        let field = shift_right(load(above), I as u32);
        codes = _mm512_or_si512(codes, _mm512_and_si512(field, _mm512_set1_epi8(0x01)));
    }
    codes
}

/// [`cut_code`](crate::packed::tiles::source::cut_code) of 64 codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn cut<const SOURCE: u8>(codes: __m512i) -> __m512i {
    let cut = 8 - u32::from(source_bits(SOURCE));
    let odd = _mm512_and_si512(shift_right(codes, cut), _mm512_set1_epi8(1));
    let half = _mm512_add_epi8(odd, _mm512_set1_epi8((1 << (cut - 1)) - 1));
    let high = shift_right(_mm512_adds_epu8(codes, half), cut);
    let mask = _mm512_set1_epi8((0xff_u8 >> cut) as i8);
    _mm512_max_epu8(_mm512_and_si512(high, mask), _mm512_set1_epi8(1))
}

/// [`scaled_code`](crate::packed::tiles::ratios::scaled_code) of 64 codes: `vpmulhrsw` is its rounded product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn scale<const SOURCE: u8>(codes: __m512i, ratios: __m512i) -> __m512i {
    let bits = source_bits(SOURCE);
    let down = const { 8 - shift(source_bits(SOURCE)) };
    let levels = _mm512_xor_si512(codes, _mm512_set1_epi8(i8::MIN));
    // A level of 8 bits in the upper half of 16 is 2^8 times itself.
    let even = _mm512_slli_epi16::<8>(levels);
    let odd = _mm512_and_si512(levels, _mm512_set1_epi16(-256));
    let [even, odd] = [even, odd].map(|levels| {
        let levels = _mm512_srav_epi16(levels, _mm512_set1_epi16(down as i16));
        _mm512_mulhrs_epi16(levels, ratios)
    });
    // Cut to 8 bits, and even and odd ones side by side again.
    let order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    let levels = _mm512_shuffle_epi8(_mm512_packs_epi16(even, odd), order);
    let high = (1_i8 << (bits - 1)) - 1;
    let levels = _mm512_max_epi8(_mm512_min_epi8(levels, _mm512_set1_epi8(high)), _mm512_set1_epi8(-high));
    _mm512_add_epi8(levels, _mm512_set1_epi8(high + 1))
}

/// Shifts by a constant: the compiler sees it once the call is inlined.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift_right(vector: __m512i, bits: u32) -> __m512i {
    if bits == 0 { vector } else { _mm512_srlv_epi32(vector, _mm512_set1_epi32(bits as i32)) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift_left(vector: __m512i, bits: u32) -> __m512i {
    if bits == 0 { vector } else { _mm512_sllv_epi32(vector, _mm512_set1_epi32(bits as i32)) }
}
