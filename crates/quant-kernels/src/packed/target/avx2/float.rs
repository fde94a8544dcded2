//! Float products with AVX2 and FMA.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::{
    target::{
        avx2::widen::{half_quad, load_ratios},
        fields::{field_shift, field_width},
    },
    tiles::{
        columns::{PackedStrip, Panel, SegmentParams},
        layout::{TILE_ROWS, VECTOR},
        rows::FloatRows,
        source::{tile_bytes, with_source},
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

/// Adds the products of up to 4 rows and a strip of packed tiles to sums. The values are those of the
/// activations times [`row_factors`](crate::packed::target::fields::row_factors).
#[target_feature(enable = "avx2,fma")]
pub(crate) fn stream(strip: PackedStrip<'_>, rows: FloatRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    let PackedStrip { source, tiles } = strip;
    match rows.count {
        1 => with_source!(source, stream_of::<1, 4>(tiles, rows, params, sums)),
        2 => with_source!(source, stream_of::<2, 2>(tiles, rows, params, sums)),
        3 => with_source!(source, stream_of::<3, 1>(tiles, rows, params, sums)),
        4 => with_source!(source, stream_of::<4, 1>(tiles, rows, params, sums)),
        count => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

/// A code is never shifted to the lowest bits of a half of its column's 32 bits: masked where it stands and put
/// into the low bits of 2^23, it makes the number 2^23 + u·2^shift, of which 2^23 + z·2^shift is taken away. All of
/// this is exact: the numbers are integers of less than 24 bits. `CHAINS` sums a row are kept apart, so that
/// none waits for the one before.
#[target_feature(enable = "avx2,fma")]
fn stream_of<const SOURCE: u8, const ROWS: usize, const CHAINS: usize>(
    bytes: &[u8],
    rows: FloatRows<'_>,
    params: SegmentParams<'_>,
    total: &mut Sums,
) {
    const MAGIC: f32 = 8_388_608.0;
    let FloatRows { values, stride, .. } = rows;
    let magic = _mm256_castps_si256(_mm256_set1_ps(MAGIC));
    for (segment, [params, _]) in params.iter() {
        let tiles = segment.tiles.clone();
        assert!(
            tiles.end * tile_bytes(SOURCE) <= bytes.len()
                && (ROWS - 1) * stride + tiles.end * TILE_ROWS <= values.len()
        );
        // SAFETY: the array holds 16 numbers.
        let zeros = [0, 8].map(|at| unsafe { _mm256_loadu_si256(params.zeros.as_ptr().add(at).cast()) });
        let zeros: [[__m256; 16]; 2] = zeros.map(|zeros| {
            let zeros = _mm256_cvtepi32_ps(zeros);
            std::array::from_fn(|shift| {
                _mm256_fmadd_ps(zeros, _mm256_set1_ps(f32::from(1_u16 << shift)), _mm256_set1_ps(MAGIC))
            })
        });
        let ratios = load_ratios(&params.ratios);
        let mut sums = [[[_mm256_setzero_ps(); 2]; CHAINS]; ROWS];
        for index in tiles {
            // SAFETY: by the assertion, the tile lies in the bytes and its values in each row.
            unsafe {
                let tile = bytes.as_ptr().add(index * tile_bytes(SOURCE));
                let values = values.as_ptr().add(index * TILE_ROWS);
                macro_rules! add_row {
                    ($i:literal, $j:literal, $fields:ident) => {
                        let shift = const { field_shift(SOURCE, $i, $j) };
                        let mask = _mm256_set1_epi32(((1 << field_width(SOURCE)) - 1) << shift);
                        let weights: [__m256; 2] = std::array::from_fn(|half| {
                            let level = _mm256_or_si256(_mm256_and_si256($fields[half], mask), magic);
                            _mm256_sub_ps(_mm256_castsi256_ps(level), zeros[half][shift])
                        });
                        for row in 0..ROWS {
                            let value = _mm256_set1_ps(values.add(row * stride + 4 * $i + $j).read());
                            for half in 0..2 {
                                let sum = &mut sums[row][(4 * $i + $j) % CHAINS][half];
                                *sum = _mm256_fmadd_ps(value, weights[half], *sum);
                            }
                        }
                    };
                }
                macro_rules! add_quads {
                    ($($i:literal)*) => {$(
                        let low = [
                            fields::<SOURCE, $i, 0>(tile, ratios[0]),
                            fields::<SOURCE, $i, 1>(tile, ratios[1]),
                        ];
                        let high = low.map(|low| _mm256_srli_epi32::<16>(low));
                        add_row!($i, 0, low);
                        add_row!($i, 1, low);
                        add_row!($i, 2, high);
                        add_row!($i, 3, high);
                    )*};
                }
                add_quads!(0 1 2 3 4 5 6 7);
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

/// The vector that the codes of 8 columns of a quad are fields of.
///
/// # Safety
///
/// `tile` must be valid for reads of [`tile_bytes`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fields<const SOURCE: u8, const QUAD: usize, const HALF: usize>(tile: *const u8, ratios: __m256i) -> __m256i {
    // SAFETY: passed on to the caller; a plane of width 2 or 4 has 2 or 4 vectors.
    unsafe {
        match SOURCE {
            2 => _mm256_loadu_si256(tile.add(QUAD / 4 * VECTOR + HALF * VECTOR / 2).cast()),
            4 => _mm256_loadu_si256(tile.add(QUAD / 2 * VECTOR + HALF * VECTOR / 2).cast()),
            _ => half_quad::<SOURCE, QUAD, HALF>(tile, ratios),
        }
    }
}
