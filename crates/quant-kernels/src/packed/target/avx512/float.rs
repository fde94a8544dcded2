//! Float products with AVX-512.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::{
    target::{
        avx512::widen::{load_ratios, quad},
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

/// Adds the products of up to 12 rows and one or two decoded strips to sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn block(panel: Panel<'_, Strip>, rows: FloatRows<'_>, sums: &mut Sums) {
    let FloatRows { count, values, stride } = rows;
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (count, panel.strips) {
                $(
                    ($rows, 1) => block_of::<$rows, 1>(panel.parts, stride, values, sums),
                    ($rows, 2) => block_of::<$rows, 2>(panel.parts, stride, values, sums),
                )*
                (_, strips) => {
                    unreachable!("the kernel takes 1 to 12 rows and 1 or 2 strips, got {count} and {strips}")
                }
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn block_of<const ROWS: usize, const STRIPS: usize>(panel: &[Strip], d_in: usize, values: &[f32], total: &mut Sums) {
    let rows_per_strip = panel.len() / STRIPS;
    assert!(d_in <= rows_per_strip && ROWS * d_in <= values.len());
    let mut sums = [[_mm512_setzero_ps(); STRIPS]; ROWS];
    // SAFETY: by the assertion, `d_in` rows lie in each strip and `d_in` values in each row.
    unsafe {
        let weights: [*const f32; STRIPS] =
            std::array::from_fn(|strip| panel.as_ptr().add(strip * rows_per_strip).cast());
        for index in 0..d_in {
            let weights = weights.map(|weights| _mm512_load_ps(weights.add(index * 16)));
            for row in 0..ROWS {
                let value = _mm512_set1_ps(values.as_ptr().add(row * d_in + index).read());
                for strip in 0..STRIPS {
                    sums[row][strip] = _mm512_fmadd_ps(value, weights[strip], sums[row][strip]);
                }
            }
        }
        for row in 0..ROWS {
            for strip in 0..STRIPS {
                _mm512_storeu_ps(total.0[row].as_mut_ptr().add(16 * strip), sums[row][strip]);
            }
        }
    }
}

/// Adds the products of up to 4 rows and a strip of packed tiles to sums. The values are those of the
/// activations times [`row_factors`](crate::packed::target::fields::row_factors).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn stream(strip: PackedStrip<'_>, rows: FloatRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    let PackedStrip { source, tiles } = strip;
    match rows.count {
        1 => with_source!(source, stream_of::<1, 8>(tiles, rows, params, sums)),
        2 => with_source!(source, stream_of::<2, 4>(tiles, rows, params, sums)),
        3 => with_source!(source, stream_of::<3, 2>(tiles, rows, params, sums)),
        4 => with_source!(source, stream_of::<4, 2>(tiles, rows, params, sums)),
        count => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

/// A code of a half is never shifted to the lowest bits: masked where it stands and put into the
/// low bits of 2^23, it makes the number 2^23 + u·2^shift, of which 2^23 + z·2^shift is taken
/// away. All of this is exact: the numbers are integers of less than 24 bits. `CHAINS` sums a row
/// are kept apart, so that none waits for the one before.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn stream_of<const SOURCE: u8, const ROWS: usize, const CHAINS: usize>(
    bytes: &[u8],
    rows: FloatRows<'_>,
    params: SegmentParams<'_>,
    total: &mut Sums,
) {
    const MAGIC: f32 = 8_388_608.0;
    let FloatRows { values, stride, .. } = rows;
    let magic = _mm512_castps_si512(_mm512_set1_ps(MAGIC));
    for (segment, [params, _]) in params.iter() {
        let tiles = segment.tiles.clone();
        assert!(
            tiles.end * tile_bytes(SOURCE) <= bytes.len()
                && (ROWS - 1) * stride + tiles.end * TILE_ROWS <= values.len()
        );
        // SAFETY: the array holds 16 numbers.
        let zeros = _mm512_cvtepi32_ps(unsafe { _mm512_loadu_si512(params.zeros.as_ptr().cast()) });
        let zeros: [__m512; 16] = std::array::from_fn(|shift| {
            _mm512_fmadd_ps(zeros, _mm512_set1_ps(f32::from(1_u16 << shift)), _mm512_set1_ps(MAGIC))
        });
        let ratios = load_ratios(&params.ratios);
        let mut sums = [[_mm512_setzero_ps(); CHAINS]; ROWS];
        for index in tiles {
            // SAFETY: by the assertion, the tile lies in the bytes and its values in each row.
            unsafe {
                let tile = bytes.as_ptr().add(index * tile_bytes(SOURCE));
                let values = values.as_ptr().add(index * TILE_ROWS);
                macro_rules! add_row {
                    ($i:literal, $j:literal, $fields:ident) => {
                        let shift = field_shift(SOURCE, $i, $j);
                        let mask = _mm512_set1_epi32(((1 << field_width(SOURCE)) - 1) << shift);
                        // 2^23 | (fields & mask)
                        let level = _mm512_ternarylogic_epi32::<0xf8>(magic, $fields, mask);
                        let weight = _mm512_sub_ps(_mm512_castsi512_ps(level), zeros[shift]);
                        for row in 0..ROWS {
                            let value = _mm512_set1_ps(values.add(row * stride + 4 * $i + $j).read());
                            let sum = &mut sums[row][(4 * $i + $j) % CHAINS];
                            *sum = _mm512_fmadd_ps(value, weight, *sum);
                        }
                    };
                }
                macro_rules! add_quads {
                    ($($i:literal)*) => {$(
                        let low = fields::<SOURCE, $i>(tile, ratios);
                        let high = _mm512_srli_epi32::<16>(low);
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
            let mut chains = sums[row];
            let mut width = CHAINS;
            while width > 1 {
                width /= 2;
                for chain in 0..width {
                    chains[chain] = _mm512_add_ps(chains[chain], chains[chain + width]);
                }
            }
            // SAFETY: the arrays hold 16 numbers or more.
            unsafe {
                let place = total.0[row].as_mut_ptr();
                let scales = _mm512_loadu_ps(params.scales.as_ptr());
                _mm512_storeu_ps(place, _mm512_fmadd_ps(scales, chains[0], _mm512_loadu_ps(place)));
            }
        }
    }
}

/// The vector that the codes of a quad are fields of.
///
/// # Safety
///
/// `tile` must be valid for reads of [`tile_bytes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn fields<const SOURCE: u8, const QUAD: usize>(tile: *const u8, ratios: __m512i) -> __m512i {
    // SAFETY: passed on to the caller; a plane of width 2 or 4 has 2 or 4 vectors.
    unsafe {
        match SOURCE {
            2 => _mm512_loadu_si512(tile.add(QUAD / 4 * VECTOR).cast()),
            4 => _mm512_loadu_si512(tile.add(QUAD / 2 * VECTOR).cast()),
            _ => quad::<SOURCE, QUAD>(tile, ratios),
        }
    }
}
