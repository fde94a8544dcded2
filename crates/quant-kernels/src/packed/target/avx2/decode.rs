//! Values of a tile with AVX2.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{layout::TILE_ROWS, params::Params, quads::Quads, strip::Strip};

/// `(u − z) · s` of each code.
#[target_feature(enable = "avx2")]
pub(crate) fn decode(quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
    for half in [0, 8] {
        // SAFETY: all arrays are whole vectors on boundaries of 64 bytes.
        unsafe {
            let zeros = _mm256_load_si256(params.zeros.as_ptr().add(half).cast());
            let scales = _mm256_load_ps(params.scales.as_ptr().add(half));
            let (values, _) = values.as_chunks_mut::<4>();
            for (quad, values) in values.iter_mut().enumerate() {
                let mut codes = _mm256_load_si256(quads.0.as_ptr().add(64 * quad + 4 * half).cast());
                for value in values {
                    let code = _mm256_and_si256(codes, _mm256_set1_epi32(0xff));
                    let level = _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zeros));
                    _mm256_store_ps(value.0.as_mut_ptr().add(half), _mm256_mul_ps(level, scales));
                    codes = _mm256_srli_epi32::<8>(codes);
                }
            }
        }
    }
}
