//! Values of a tile with AVX-512.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{
    layout::TILE_ROWS,
    pairs::{Pair, TILE_PAIRS},
    params::Params,
    quads::Quads,
    strip::Strip,
};

/// `(u − z) · s` of each code.
#[target_feature(enable = "avx512f")]
pub(crate) fn decode(quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
    // SAFETY: all arrays are whole vectors of 64 bytes on boundaries of 64 bytes.
    unsafe {
        let zeros = _mm512_load_si512(params.zeros.as_ptr().cast());
        let scales = _mm512_load_ps(params.scales.as_ptr());
        let (values, _) = values.as_chunks_mut::<4>();
        for (quad, values) in values.iter_mut().enumerate() {
            let mut codes = _mm512_load_si512(quads.0.as_ptr().add(64 * quad).cast());
            for value in values {
                let code = _mm512_and_si512(codes, _mm512_set1_epi32(0xff));
                let level = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, zeros));
                _mm512_store_ps(value.0.as_mut_ptr(), _mm512_mul_ps(level, scales));
                codes = _mm512_srli_epi32::<8>(codes);
            }
        }
    }
}

/// `u − z` of each code in bf16.
#[target_feature(enable = "avx512f")]
pub(crate) fn pair(quads: &Quads, params: &Params, pairs: &mut [Pair; TILE_PAIRS]) {
    // SAFETY: all arrays are whole vectors of 64 bytes on boundaries of 64 bytes.
    unsafe {
        let zeros = _mm512_load_si512(params.zeros.as_ptr().cast());
        let byte = _mm512_set1_epi32(0xff);
        let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
        let level = |code| _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_sub_epi32(code, zeros)));
        let (pairs, _) = pairs.as_chunks_mut::<2>();
        for (quad, [first, second]) in pairs.iter_mut().enumerate() {
            let codes = _mm512_load_si512(quads.0.as_ptr().add(64 * quad).cast());
            let a = level(_mm512_and_si512(codes, byte));
            let b = level(_mm512_and_si512(_mm512_srli_epi32::<8>(codes), byte));
            let c = level(_mm512_and_si512(_mm512_srli_epi32::<16>(codes), byte));
            let d = level(_mm512_srli_epi32::<24>(codes));
            for (place, low, high) in [(first, a, b), (second, c, d)] {
                let low = _mm512_srli_epi32::<16>(low);
                // low | (high & upper)
                let pair = _mm512_ternarylogic_epi32::<0xf8>(low, high, upper);
                _mm512_store_si512(place.0.as_mut_ptr().cast(), pair);
            }
        }
    }
}
