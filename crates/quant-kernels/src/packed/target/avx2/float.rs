//! Float products with AVX2 and FMA.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::{
    target::portable::widen::widen,
    tiles::{
        columns::{PackedStrip, Panel, SegmentParams},
        layout::{QUADS, TILE_ROWS},
        quads::Quads,
        rows::FloatRows,
        source::tile_bytes,
        strip::Strip,
        sums::Sums,
    },
};

/// Adds the products of up to 6 rows and a decoded strip to sums.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn block(panel: Panel<'_, Strip>, rows: FloatRows<'_>, sums: &mut Sums) {
    debug_assert_eq!(panel.strips, 1, "the kernel takes one strip");
    let FloatRows { count, values, stride } = rows;
    match count {
        1 => block_of::<1>(panel.parts, stride, values, sums),
        2 => block_of::<2>(panel.parts, stride, values, sums),
        3 => block_of::<3>(panel.parts, stride, values, sums),
        4 => block_of::<4>(panel.parts, stride, values, sums),
        5 => block_of::<5>(panel.parts, stride, values, sums),
        6 => block_of::<6>(panel.parts, stride, values, sums),
        _ => unreachable!("the kernel takes 1 to 6 rows, got {count}"),
    }
}

#[target_feature(enable = "avx2,fma")]
fn block_of<const ROWS: usize>(panel: &[Strip], d_in: usize, values: &[f32], total: &mut Sums) {
    assert!(d_in <= panel.len() && ROWS * d_in <= values.len());
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: by the assertion, the strip holds `d_in` rows of 16 and each row `d_in` values.
    unsafe {
        for (index, weights) in panel[..d_in].iter().enumerate() {
            let weights = [_mm256_load_ps(weights.0.as_ptr()), _mm256_load_ps(weights.0.as_ptr().add(8))];
            for row in 0..ROWS {
                let value = _mm256_set1_ps(values.as_ptr().add(row * d_in + index).read());
                for half in 0..2 {
                    sums[row][half] = _mm256_fmadd_ps(value, weights[half], sums[row][half]);
                }
            }
        }
        for row in 0..ROWS {
            for half in 0..2 {
                _mm256_storeu_ps(total.0[row].as_mut_ptr().add(8 * half), sums[row][half]);
            }
        }
    }
}

/// Adds the products of up to 4 rows and a strip of packed tiles to sums.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn stream(strip: PackedStrip<'_>, rows: FloatRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    match rows.count {
        1 => stream_of::<1, 4>(strip, rows, params, sums),
        2 => stream_of::<2, 2>(strip, rows, params, sums),
        3 => stream_of::<3, 1>(strip, rows, params, sums),
        4 => stream_of::<4, 1>(strip, rows, params, sums),
        count => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

/// Each tile is widened to bytes in the first-level cache: with 16 registers this costs no more
/// than to widen it in them. `CHAINS` sums a row are kept apart, so that none waits for the one
/// before.
#[target_feature(enable = "avx2,fma")]
fn stream_of<const ROWS: usize, const CHAINS: usize>(
    strip: PackedStrip<'_>,
    rows: FloatRows<'_>,
    params: SegmentParams<'_>,
    total: &mut Sums,
) {
    // 2^23 + u has the code u in its low bits.
    const MAGIC: f32 = 8_388_608.0;
    let PackedStrip { source, tiles: bytes } = strip;
    let FloatRows { values, stride, .. } = rows;
    let size = tile_bytes(source);
    let mut quads = Quads::ZERO;
    for (segment, [params, _]) in params.iter() {
        let tiles = segment.tiles.clone();
        assert!((ROWS - 1) * stride + tiles.end * TILE_ROWS <= values.len());
        let mut sums = [[[_mm256_setzero_ps(); 2]; CHAINS]; ROWS];
        // SAFETY: the array holds 16 numbers.
        let zeros = [0, 8].map(|at| unsafe { _mm256_loadu_si256(params.zeros.as_ptr().add(at).cast()) });
        let zeros = zeros.map(|zeros| _mm256_add_ps(_mm256_cvtepi32_ps(zeros), _mm256_set1_ps(MAGIC)));
        for index in tiles {
            widen(source, &params.ratios, &bytes[index * size..][..size], std::slice::from_mut(&mut quads));
            // SAFETY: by the assertion, the values of the tile lie in each row; quads hold 512 bytes.
            unsafe {
                let values = values.as_ptr().add(index * TILE_ROWS);
                for quad in 0..QUADS {
                    for half in 0..2 {
                        let codes = _mm256_load_si256(quads.0.as_ptr().add(64 * quad + 32 * half).cast());
                        let mut shifted = codes;
                        for j in 0..4 {
                            let code = _mm256_and_si256(shifted, _mm256_set1_epi32(0xff));
                            let level = _mm256_or_si256(code, _mm256_castps_si256(_mm256_set1_ps(MAGIC)));
                            let weight = _mm256_sub_ps(_mm256_castsi256_ps(level), zeros[half]);
                            shifted = _mm256_srli_epi32(shifted, 8);
                            for row in 0..ROWS {
                                let value = _mm256_set1_ps(values.add(row * stride + 4 * quad + j).read());
                                let sum = &mut sums[row][j % CHAINS][half];
                                *sum = _mm256_fmadd_ps(value, weight, *sum);
                            }
                        }
                    }
                }
            }
        }
        for row in 0..ROWS {
            for half in 0..2 {
                let sum = sums[row].iter().fold(_mm256_setzero_ps(), |sum, chain| _mm256_add_ps(sum, chain[half]));
                // SAFETY: the arrays hold 16 numbers or more.
                unsafe {
                    let place = total.0[row].as_mut_ptr().add(8 * half);
                    let scales = _mm256_loadu_ps(params.scales.as_ptr().add(8 * half));
                    _mm256_storeu_ps(place, _mm256_fmadd_ps(scales, sum, _mm256_loadu_ps(place)));
                }
            }
        }
    }
}
