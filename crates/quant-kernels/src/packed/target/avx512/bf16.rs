//! Products of bf16 with AVX-512: `vdpbf16ps` multiplies two rows of a column by two activations and adds both to the
//! column's sum in f32. Numbers below the normal ones count as 0.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::tiles::{
    columns::{Panel, SegmentParams},
    layout::TILE_COLUMNS,
    pairs::{Pair, TILE_PAIRS},
    rows::PairRows,
    sums::Sums,
};

/// Adds the products of up to 12 rows and one or two strips of 16 columns to sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(crate) fn block(panel: Panel<'_, Pair>, rows: PairRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (rows.count, panel.strips) {
                $(
                    ($rows, 1) => block_of::<$rows, 1>(panel.parts, rows, params, sums),
                    ($rows, 2) => block_of::<$rows, 2>(panel.parts, rows, params, sums),
                )*
                (count, strips) => {
                    unreachable!("the kernel takes 1 to 12 rows and 1 or 2 strips, got {count} and {strips}")
                }
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn block_of<const ROWS: usize, const STRIPS: usize>(
    pairs: &[Pair],
    rows: PairRows<'_>,
    params: SegmentParams<'_>,
    total: &mut Sums,
) {
    let pairs_per_strip = pairs.len() / STRIPS;
    let PairRows { pairs: values, stride, .. } = rows;
    for (segment, params) in params.iter() {
        let (start, end) = (segment.tiles.start * TILE_PAIRS, segment.tiles.end * TILE_PAIRS);
        assert!(end <= pairs_per_strip && (ROWS - 1) * stride + end <= values.len());
        let mut sums = [[_mm512_setzero_ps(); STRIPS]; ROWS];
        // SAFETY: by the assertion, all pairs of the segment lie in each strip, and their values in each row; `__m512bh`
        // is any 64 bytes.
        unsafe {
            let weights: [*const Pair; STRIPS] =
                std::array::from_fn(|strip| pairs.as_ptr().add(strip * pairs_per_strip));
            for tile in (start..end).step_by(TILE_PAIRS) {
                // A line of each row is a tile, and too many rows go by for the processor to see what comes next.
                for row in 0..ROWS {
                    let next = values.as_ptr().wrapping_add(row * stride + tile + TILE_PAIRS);
                    _mm_prefetch::<_MM_HINT_T0>(next.cast());
                }
                for index in tile..tile + TILE_PAIRS {
                    let weights = weights.map(|weights| bf16(_mm512_load_si512(weights.add(index).cast())));
                    for row in 0..ROWS {
                        let value = _mm512_set1_epi32(values.as_ptr().add(row * stride + index).read().cast_signed());
                        for strip in 0..STRIPS {
                            sums[row][strip] = _mm512_dpbf16_ps(sums[row][strip], weights[strip], bf16(value));
                        }
                    }
                }
            }
        }
        for row in 0..ROWS {
            for strip in 0..STRIPS {
                // SAFETY: the scales are 16 numbers, the row is 32, and the strip is 0 or 1.
                unsafe {
                    let place = total.0[row].as_mut_ptr().add(strip * TILE_COLUMNS);
                    let scales = _mm512_loadu_ps(params[strip].scales.as_ptr());
                    _mm512_storeu_ps(place, _mm512_fmadd_ps(scales, sums[row][strip], _mm512_loadu_ps(place)));
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16(vector: __m512i) -> __m512bh {
    // SAFETY: both are any 64 bytes.
    unsafe { std::mem::transmute(vector) }
}
