//! Integer products with AVX-512 VNNI: `vpdpbusd` multiplies four unsigned codes of a column by
//! four signed activations and adds them to the column's sum.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and strips count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::{
    target::avx512::widen::{load_ratios, quad},
    tiles::{
        columns::{PackedStrip, Panel, SegmentParams},
        layout::{QUADS, TILE_COLUMNS},
        params::Params,
        quads::Quads,
        rows::IntegerRows,
        source::{tile_bytes, with_source},
        sums::{PANEL_COLUMNS, Sums},
    },
};

/// Adds the products of rows and one or two widened strips of 16 columns to sums.
///
/// 12 rows fill the registers: 12 · 2 sums, 2 vectors of codes and one of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn block(panel: Panel<'_, Quads>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn block_of<const ROWS: usize, const STRIPS: usize>(
    quads: &[Quads],
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    let tiles_per_strip = quads.len() / STRIPS;
    let IntegerRows { quads: values, stride, sums: activation_sums, .. } = rows;
    let segments = params.segments.len();
    for (at, (segment, params)) in params.iter().enumerate() {
        let tiles = segment.tiles.clone();
        assert!(tiles.end <= tiles_per_strip && (ROWS - 1) * stride + tiles.end * QUADS <= values.len());
        let mut dots = [[_mm512_setzero_si512(); STRIPS]; ROWS];
        // SAFETY: by the assertion, all tiles of the segment lie in each strip, and their values
        // in each row.
        unsafe {
            let codes: [*const u8; STRIPS] =
                std::array::from_fn(|strip| quads.as_ptr().add(strip * tiles_per_strip + tiles.start).cast());
            let values = values.as_ptr().add(tiles.start * QUADS);
            for index in 0..tiles.len() * QUADS {
                let codes = codes.map(|codes| _mm512_load_si512(codes.add(index * 64).cast()));
                for row in 0..ROWS {
                    let value = _mm512_set1_epi32(values.add(row * stride + index).read().cast_signed());
                    for strip in 0..STRIPS {
                        dots[row][strip] = _mm512_dpbusd_epi32(dots[row][strip], codes[strip], value);
                    }
                }
            }
        }
        for row in 0..ROWS {
            let sum = activation_sums[row * segments + at];
            for strip in 0..STRIPS {
                add_segment(dots[row][strip], sum, &params[strip], strip, &mut sums.0[row]);
            }
        }
    }
}

/// Turns the sums of a segment into floats and adds them to a row of sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_segment(dots: __m512i, sum: i32, params: &Params, strip: usize, row: &mut [f32; PANEL_COLUMNS]) {
    debug_assert!(strip < 2);
    // SAFETY: the parameters are 16 numbers each, the row is 32, and the strip is 0 or 1.
    unsafe {
        let zeros = _mm512_loadu_si512(params.zeros.as_ptr().cast());
        let scales = _mm512_loadu_ps(params.scales.as_ptr());
        let centred = _mm512_sub_epi32(dots, _mm512_mullo_epi32(zeros, _mm512_set1_epi32(sum)));
        let term = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(centred));
        let place = row.as_mut_ptr().add(strip * TILE_COLUMNS);
        _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), term));
    }
}

/// Adds the products of up to 4 rows and a strip of packed tiles to sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn stream(strip: PackedStrip<'_>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    let PackedStrip { source, tiles } = strip;
    match rows.count {
        1 => with_source!(source, stream_of::<1, 8>(tiles, rows, params, sums)),
        2 => with_source!(source, stream_of::<2, 4>(tiles, rows, params, sums)),
        3 => with_source!(source, stream_of::<3, 2>(tiles, rows, params, sums)),
        4 => with_source!(source, stream_of::<4, 2>(tiles, rows, params, sums)),
        count => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

/// `CHAINS` sums a row are kept apart, so that none waits for the one before.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn stream_of<const SOURCE: u8, const ROWS: usize, const CHAINS: usize>(
    bytes: &[u8],
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    let IntegerRows { quads: values, stride, sums: activation_sums, .. } = rows;
    let segments = params.segments.len();
    for (at, (segment, params)) in params.iter().enumerate() {
        let tiles = segment.tiles.clone();
        assert!(
            tiles.end * tile_bytes(SOURCE) <= bytes.len() && (ROWS - 1) * stride + tiles.end * QUADS <= values.len()
        );
        let ratios = load_ratios(&params[0].ratios);
        let mut dots = [[_mm512_setzero_si512(); CHAINS]; ROWS];
        for index in tiles.clone() {
            // SAFETY: by the assertion, the tile lies in the bytes and its values in each row.
            unsafe {
                let tile = bytes.as_ptr().add(index * tile_bytes(SOURCE));
                let values = values.as_ptr().add(index * QUADS);
                macro_rules! add_quads {
                    ($($i:literal)*) => {$(
                        let codes = quad::<SOURCE, $i>(tile, ratios);
                        for row in 0..ROWS {
                            let value = _mm512_set1_epi32(values.add(row * stride + $i).read().cast_signed());
                            let dot = &mut dots[row][$i % CHAINS];
                            *dot = _mm512_dpbusd_epi32(*dot, codes, value);
                        }
                    )*};
                }
                add_quads!(0 1 2 3 4 5 6 7);
            }
        }
        for row in 0..ROWS {
            let dots = dots[row].into_iter().fold(_mm512_setzero_si512(), |sum, dot| _mm512_add_epi32(sum, dot));
            add_segment(dots, activation_sums[row * segments + at], &params[0], 0, &mut sums.0[row]);
        }
    }
}
