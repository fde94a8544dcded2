//! Integer products with AVX2.
//!
//! ```text
//! u ≤ 127   vpmaddubsw: |u₀·a₀ + u₁·a₁| ≤ 2·127·127 = 32 258 fits 16 bits; vpmaddwd with ones
//! u ≤ 255   even and odd codes apart, widened to 16 bits: vpmaddwd
//! ```
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{
    columns::{Panel, SegmentParams},
    layout::QUADS,
    quads::Quads,
    rows::IntegerRows,
    sums::Sums,
};

/// Adds the products of up to 4 rows and a widened strip of codes of `bits` bits to sums.
#[target_feature(enable = "avx2")]
pub(crate) fn block(
    bits: u8,
    panel: Panel<'_, Quads>,
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    debug_assert_eq!(panel.strips, 1, "the kernel takes one strip");
    match (rows.count, bits) {
        (1, 8) => block_of::<1, true>(panel.parts, rows, params, sums),
        (2, 8) => block_of::<2, true>(panel.parts, rows, params, sums),
        (3, 8) => block_of::<3, true>(panel.parts, rows, params, sums),
        (4, 8) => block_of::<4, true>(panel.parts, rows, params, sums),
        (1, _) => block_of::<1, false>(panel.parts, rows, params, sums),
        (2, _) => block_of::<2, false>(panel.parts, rows, params, sums),
        (3, _) => block_of::<3, false>(panel.parts, rows, params, sums),
        (4, _) => block_of::<4, false>(panel.parts, rows, params, sums),
        (count, _) => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

#[target_feature(enable = "avx2")]
fn block_of<const ROWS: usize, const WIDE: bool>(
    quads: &[Quads],
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    let segments = params.segments.len();
    for (at, (segment, [params, _])) in params.iter().enumerate() {
        let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
        for index in segment.tiles.clone() {
            let (codes, _) = quads[index].0.as_chunks::<32>();
            let values: [&[u32; QUADS]; ROWS] =
                std::array::from_fn(|row| &rows.quads[row * rows.stride + index * QUADS..].as_chunks().0[0]);
            for quad in 0..QUADS {
                for half in 0..2 {
                    // SAFETY: the pointer is that of 32 bytes.
                    let codes = unsafe { _mm256_loadu_si256(codes[2 * quad + half].as_ptr().cast()) };
                    let even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
                    let odd = _mm256_srli_epi16(codes, 8);
                    for row in 0..ROWS {
                        let values = _mm256_set1_epi32(values[row][quad] as i32);
                        if !WIDE {
                            let pairs = _mm256_maddubs_epi16(codes, values);
                            let sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                            dots[row][half] = _mm256_add_epi32(dots[row][half], sum);
                            continue;
                        }
                        let even_values = _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8);
                        let odd_values = _mm256_srai_epi16(values, 8);
                        let sum =
                            _mm256_add_epi32(_mm256_madd_epi16(even, even_values), _mm256_madd_epi16(odd, odd_values));
                        dots[row][half] = _mm256_add_epi32(dots[row][half], sum);
                    }
                }
            }
        }
        for row in 0..ROWS {
            let sum = _mm256_set1_epi32(rows.sums[row * segments + at]);
            for half in 0..2 {
                // SAFETY: the pointers are those of 8 numbers of arrays of 16 or more, half is 0 or 1.
                unsafe {
                    let zeros = _mm256_loadu_si256(params.zeros.as_ptr().add(8 * half).cast());
                    let scales = _mm256_loadu_ps(params.scales.as_ptr().add(8 * half));
                    let centred = _mm256_sub_epi32(dots[row][half], _mm256_mullo_epi32(zeros, sum));
                    let term = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(centred));
                    let place = sums.0[row].as_mut_ptr().add(8 * half);
                    _mm256_storeu_ps(place, _mm256_add_ps(_mm256_loadu_ps(place), term));
                }
            }
        }
    }
}
