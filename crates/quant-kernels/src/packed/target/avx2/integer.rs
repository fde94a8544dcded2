//! Integer products with AVX2.
//!
//! ```text
//! u < 2^b ≤ 64     vpmaddubsw: |u₀·a₀ + u₁·a₁| ≤ 2·(2^b − 1)·127 in 16 bits, of which a few are added up before
//!                  vpmaddwd with ones widens them: 8 up to b = 4, 4 at b = 5, 2 at b = 6
//! u ≤ 255          even and odd codes apart as numbers of 16 bits, and so are the activations: vpmaddwd
//! ```
//!
//! At 7 bits and 8 one product of two bytes and its neighbour fills 16 bits or more, and each would have to be
//! widened alone. Numbers of 16 bits take as many multiplications and need neither that nor a sign.
#![allow(unsafe_code, reason = "vector instructions")]
#![allow(clippy::needless_range_loop, reason = "rows and halves count registers")]
#![allow(clippy::wildcard_imports, reason = "vector instructions have long names of their own")]

use std::arch::x86_64::*;

use crate::packed::{
    target::avx2::widen::{half_quad, load_ratios},
    tiles::{
        columns::{PackedStrip, Panel, SegmentParams},
        layout::QUADS,
        params::Params,
        quads::Quads,
        rows::IntegerRows,
        source::{source_bits, tile_bytes, with_source},
        sums::{PANEL_COLUMNS, Sums},
    },
};

/// The quads of a tile whose products of bytes are added up in 16 bits; 0 where not even two fit.
pub(crate) const fn quads_in_16_bits(bits: u8) -> usize {
    match bits {
        ..=4 => 8,
        5 => 4,
        6 => 2,
        _ => 0,
    }
}

/// Adds the products of up to 4 rows and a widened strip of codes of `bits` bits to sums: with more the sums of 16 bits
/// do not stay in registers.
#[target_feature(enable = "avx2")]
pub(crate) fn block(
    bits: u8,
    panel: Panel<'_, Quads>,
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    debug_assert_eq!(panel.strips, 1, "the kernel takes one strip");
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (rows.count, quads_in_16_bits(bits)) {
                $(
                    ($rows, 0) => block_of::<$rows, 0>(panel.parts, rows, params, sums),
                    ($rows, 2) => block_of::<$rows, 2>(panel.parts, rows, params, sums),
                    ($rows, 4) => block_of::<$rows, 4>(panel.parts, rows, params, sums),
                    ($rows, _) => block_of::<$rows, 8>(panel.parts, rows, params, sums),
                )*
                (count, _) => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
            }
        };
    }
    by_rows!(1 2 3 4);
}

#[target_feature(enable = "avx2")]
fn block_of<const ROWS: usize, const CHUNK: usize>(
    quads: &[Quads],
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    let IntegerRows { quads: values, stride, sums: activation_sums, .. } = rows;
    let segments = params.segments.len();
    let words = if CHUNK == 0 { 2 * QUADS } else { QUADS };
    for (at, (segment, [params, _])) in params.iter().enumerate() {
        let tiles = segment.tiles.clone();
        assert!(tiles.end <= quads.len() && (ROWS - 1) * stride + tiles.end * words <= values.len());
        let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
        for index in tiles {
            // SAFETY: by the assertion, the tile is one of the strip and its values lie in each row.
            unsafe {
                let codes: *const __m256i = quads.as_ptr().add(index).cast();
                let values = values.as_ptr().add(index * words);
                if CHUNK == 0 {
                    add_wide(&mut dots, codes, values, stride);
                } else {
                    for chunk in (0..QUADS).step_by(CHUNK.max(1)) {
                        add_bytes::<ROWS, CHUNK>(&mut dots, codes.add(2 * chunk), values.add(chunk), stride);
                    }
                }
            }
        }
        for row in 0..ROWS {
            add_segment(dots[row], activation_sums[row * segments + at], params, &mut sums.0[row]);
        }
    }
}

/// Adds the products of a tile and the values of rows, which lie as numbers of 16 bits.
///
/// # Safety
///
/// `codes` must be valid for the 8 quads of a tile, and `values` for the 16 words of a tile in each row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_wide<const ROWS: usize>(
    dots: &mut [[__m256i; 2]; ROWS],
    codes: *const __m256i,
    values: *const u32,
    stride: usize,
) {
    for quad in 0..QUADS {
        // SAFETY: passed on to the caller.
        let codes = unsafe { [_mm256_load_si256(codes.add(2 * quad)), _mm256_load_si256(codes.add(2 * quad + 1))] };
        for odd in 0..2 {
            let codes = if odd == 0 {
                codes.map(|codes| _mm256_and_si256(codes, _mm256_set1_epi16(0xff)))
            } else {
                codes.map(|codes| _mm256_srli_epi16::<8>(codes))
            };
            for row in 0..ROWS {
                // SAFETY: passed on to the caller.
                let value = unsafe { values.add(row * stride + QUADS * odd + quad).read() };
                let value = _mm256_set1_epi32(value.cast_signed());
                for half in 0..2 {
                    dots[row][half] = _mm256_add_epi32(dots[row][half], _mm256_madd_epi16(codes[half], value));
                }
            }
        }
    }
}

/// Adds the products of `CHUNK` quads and the values of rows.
///
/// # Safety
///
/// `codes` must be valid for the quads, and `values` for as many words in each row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_bytes<const ROWS: usize, const CHUNK: usize>(
    dots: &mut [[__m256i; 2]; ROWS],
    codes: *const __m256i,
    values: *const u32,
    stride: usize,
) {
    let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
    for quad in 0..CHUNK {
        // SAFETY: passed on to the caller.
        let codes = unsafe { [_mm256_load_si256(codes.add(2 * quad)), _mm256_load_si256(codes.add(2 * quad + 1))] };
        for row in 0..ROWS {
            // SAFETY: passed on to the caller.
            let value = unsafe { values.add(row * stride + quad).read() };
            let value = _mm256_set1_epi32(value.cast_signed());
            for half in 0..2 {
                let pair = _mm256_maddubs_epi16(codes[half], value);
                pairs[row][half] = if quad == 0 { pair } else { _mm256_add_epi16(pairs[row][half], pair) };
            }
        }
    }
    for row in 0..ROWS {
        for half in 0..2 {
            let sum = _mm256_madd_epi16(pairs[row][half], _mm256_set1_epi16(1));
            dots[row][half] = _mm256_add_epi32(dots[row][half], sum);
        }
    }
}

/// Turns the sums of a segment into floats and adds them to a row of sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_segment(dots: [__m256i; 2], sum: i32, params: &Params, row: &mut [f32; PANEL_COLUMNS]) {
    let sum = _mm256_set1_epi32(sum);
    for half in 0..2 {
        // SAFETY: the pointers are those of 8 numbers of arrays of 16 or more, half is 0 or 1.
        unsafe {
            let zeros = _mm256_loadu_si256(params.zeros.as_ptr().add(8 * half).cast());
            let scales = _mm256_loadu_ps(params.scales.as_ptr().add(8 * half));
            let centred = _mm256_sub_epi32(dots[half], _mm256_mullo_epi32(zeros, sum));
            let term = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(centred));
            let place = row.as_mut_ptr().add(8 * half);
            _mm256_storeu_ps(place, _mm256_add_ps(_mm256_loadu_ps(place), term));
        }
    }
}

/// Adds the products of up to 4 rows and a strip of packed tiles to sums.
#[target_feature(enable = "avx2")]
pub(crate) fn stream(strip: PackedStrip<'_>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    let PackedStrip { source, tiles } = strip;
    match rows.count {
        1 => with_source!(source, stream_of::<1>(tiles, rows, params, sums)),
        2 => with_source!(source, stream_of::<2>(tiles, rows, params, sums)),
        3 => with_source!(source, stream_of::<3>(tiles, rows, params, sums)),
        4 => with_source!(source, stream_of::<4>(tiles, rows, params, sums)),
        count => unreachable!("the kernel takes 1 to 4 rows, got {count}"),
    }
}

/// The codes are widened in registers, half a quad, 8 columns, at a time.
#[target_feature(enable = "avx2")]
fn stream_of<const SOURCE: u8, const ROWS: usize>(
    bytes: &[u8],
    rows: IntegerRows<'_>,
    params: SegmentParams<'_>,
    sums: &mut Sums,
) {
    let IntegerRows { quads: values, stride, sums: activation_sums, .. } = rows;
    let segments = params.segments.len();
    let chunk = const { quads_in_16_bits(source_bits(SOURCE)) };
    let words = if chunk == 0 { 2 * QUADS } else { QUADS };
    for (at, (segment, [params, _])) in params.iter().enumerate() {
        let tiles = segment.tiles.clone();
        assert!(
            tiles.end * tile_bytes(SOURCE) <= bytes.len() && (ROWS - 1) * stride + tiles.end * words <= values.len()
        );
        let ratios = load_ratios(&params.ratios);
        let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
        for index in tiles {
            // SAFETY: by the assertion, the tile lies in the bytes and its values in each row.
            unsafe {
                let tile = bytes.as_ptr().add(index * tile_bytes(SOURCE));
                let values = values.as_ptr().add(index * words);
                let value =
                    |row: usize, word: usize| _mm256_set1_epi32(values.add(row * stride + word).read().cast_signed());
                let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
                macro_rules! add_half {
                    ($i:literal, $half:literal) => {
                        let codes = half_quad::<SOURCE, $i, $half>(tile, ratios[$half]);
                        if chunk == 0 {
                            let even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
                            let odd = _mm256_srli_epi16::<8>(codes);
                            for row in 0..ROWS {
                                let even = _mm256_madd_epi16(even, value(row, $i));
                                let odd = _mm256_madd_epi16(odd, value(row, QUADS + $i));
                                dots[row][$half] = _mm256_add_epi32(dots[row][$half], _mm256_add_epi32(even, odd));
                            }
                        } else {
                            for row in 0..ROWS {
                                let pair = _mm256_maddubs_epi16(codes, value(row, $i));
                                let first = $i % chunk == 0;
                                let sum = if first { pair } else { _mm256_add_epi16(pairs[row][$half], pair) };
                                pairs[row][$half] = sum;
                                if $i % chunk == chunk - 1 {
                                    let sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
                                    dots[row][$half] = _mm256_add_epi32(dots[row][$half], sum);
                                }
                            }
                        }
                    };
                }
                macro_rules! add_quads {
                    ($($i:literal)*) => {$(
                        add_half!($i, 0);
                        add_half!($i, 1);
                    )*};
                }
                add_quads!(0 1 2 3 4 5 6 7);
            }
        }
        for row in 0..ROWS {
            add_segment(dots[row], activation_sums[row * segments + at], params, &mut sums.0[row]);
        }
    }
}
