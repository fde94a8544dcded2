//! Activations as small integers, a scale for each row (token).
//!
//! ```text
//! s = max|x| / (2^(b−1) − 1)         1 for a row of zeros, NaN for a row with a NaN or an infinity
//! a = clamp(round(x / s), ±(2^(b−1) − 1))
//! ```
//!
//! Rounding is half to even and the division a true one, as everywhere in this crate. Where the largest level
//! would stand for infinity, the scale is a bit smaller.

use std::fmt;

use rayon::prelude::*;

use crate::{
    cpu::elementary::ROUNDER,
    error::{Error, Result},
    packed::{
        target::Target,
        tiles::{layout::TILE_ROWS, rows::IntegerRows, segments::Segment},
    },
    spec::{bit_width::BitWidth, formats::code_book::largest_scale},
};

/// The numbers that activations are in a product: integers of 2 to 8 bits, bf16, or f32, which leaves them as they are.
///
/// ```
/// use quant_kernels::{BitWidth, packed::product::activations::ActivationBits};
///
/// assert!(ActivationBits::new(BitWidth::B8).is_ok());
/// assert!(ActivationBits::new(BitWidth::B16).is_err());
/// assert_eq!(ActivationBits::default().width(), BitWidth::FULL);
/// assert_eq!(ActivationBits::BF16.width(), BitWidth::FULL);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActivationBits(Numbers);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Numbers {
    Integers(BitWidth),
    Bf16,
    F32,
}

impl ActivationBits {
    /// Activations stay floats.
    pub const FULL: Self = Self(Numbers::F32);
    /// Activations are rounded to bf16 and nothing else is: codes are exact in bf16, and sums are of f32.
    pub const BF16: Self = Self(Numbers::Bf16);

    /// Checks a number of bits.
    ///
    /// # Errors
    ///
    /// [`Error::ActivationBits`] unless it is 2 to 8, or 32.
    pub const fn new(bits: BitWidth) -> Result<Self> {
        match bits.bits() {
            2..=8 => Ok(Self(Numbers::Integers(bits))),
            32 => Ok(Self::FULL),
            _ => Err(Error::ActivationBits { bits }),
        }
    }

    /// The width of the integers, or full precision where they stay floats.
    pub const fn width(self) -> BitWidth {
        match self.0 {
            Numbers::Integers(bits) => bits,
            Numbers::Bf16 | Numbers::F32 => BitWidth::FULL,
        }
    }
}

impl Default for ActivationBits {
    fn default() -> Self {
        Self::FULL
    }
}

impl fmt::Debug for ActivationBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Numbers::Integers(bits) => bits.fmt(f),
            Numbers::Bf16 => f.write_str("bf16"),
            Numbers::F32 => BitWidth::FULL.fmt(f),
        }
    }
}

/// Rows of quantised activations.
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    /// As [`IntegerRows::quads`]; zeros after the last.
    quads: Vec<u32>,
    stride: usize,
    /// A scale for each row.
    pub(crate) scales: Vec<f32>,
    /// The sum of the integers of each segment, for each row.
    sums: Vec<i32>,
    segments: usize,
}

impl QuantizedRows {
    /// Quantises rows that are multiplied by codes of `code_bits` bits.
    ///
    /// # Shapes
    ///
    /// - `values`: `[rows, d_in]`
    pub(crate) fn quantize<T: Target>(
        target: T,
        code_bits: u8,
        values: &[f32],
        [rows, d_in]: [usize; 2],
        bits: BitWidth,
        segments: &[Segment],
    ) -> Self {
        let widened = T::widened_activations(code_bits);
        // A line more than whole tiles, so that rows whose length is a power of two do not
        // all fall into the same sets of the cache.
        let words = if widened { TILE_ROWS / 2 } else { TILE_ROWS / 4 };
        let stride = d_in.div_ceil(TILE_ROWS) * words + 16;
        let high = f32::from((1u8 << (bits.bits() - 1)) - 1);
        let mut quads = vec![0; rows * stride];
        let mut scales = vec![1.0; rows];
        let mut sums = vec![0; rows * segments.len()];
        if d_in > 0 {
            let quantize = |first: usize, quads: &mut [u32], scales: &mut [f32], sums: &mut [i32]| {
                let values = &values[first * d_in..][..scales.len() * d_in];
                let mut narrow = if widened { vec![0; d_in.next_multiple_of(TILE_ROWS)] } else { Vec::new() };
                for (row, (values, scale)) in values.chunks_exact(d_in).zip(scales).enumerate() {
                    let quads = &mut quads[row * stride..][..stride];
                    let sums = &mut sums[row * segments.len()..][..segments.len()];
                    target.compiled(
                        #[inline(always)]
                        || {
                            if widened {
                                narrow.fill(0);
                                quantize_row(values, high, segments, scale, &mut narrow, sums);
                                widen_row(&narrow, quads);
                            } else {
                                quantize_row(values, high, segments, scale, bytemuck::cast_slice_mut(quads), sums);
                            }
                        },
                    );
                }
            };
            // About 16 K values are worth handing to another thread.
            let block = (1_usize << 14).div_ceil(d_in);
            if rows <= block {
                quantize(0, &mut quads, &mut scales, &mut sums);
            } else {
                let blocks = quads.par_chunks_mut(block * stride).zip(scales.par_chunks_mut(block));
                let blocks = blocks.zip(sums.par_chunks_mut(block * segments.len()));
                blocks.enumerate().for_each(|(at, ((quads, scales), sums))| quantize(at * block, quads, scales, sums));
            }
        }
        Self { quads, stride, scales, sums, segments: segments.len() }
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(&self, first: usize, count: usize) -> IntegerRows<'_> {
        let (quads, sums) = (&self.quads[first * self.stride..], &self.sums[first * self.segments..]);
        IntegerRows { count, quads, stride: self.stride, sums }
    }
}

#[inline(always)]
fn quantize_row(values: &[f32], high: f32, segments: &[Segment], scale: &mut f32, codes: &mut [i8], sums: &mut [i32]) {
    // Without their sign, floats are ordered as their bits are; NaN and infinity come last.
    let largest = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        *scale = f32::NAN;
        return;
    }
    let step = largest / high;
    if step == 0.0 {
        return;
    }
    let step = step.min(largest_scale(high));
    *scale = step;
    for (code, value) in codes.iter_mut().zip(values) {
        let level = (value / step).max(-high).min(high);
        *code = (level + ROUNDER).to_bits() as i8;
    }
    for (sum, segment) in sums.iter_mut().zip(segments) {
        let codes = &codes[segment.tiles.start * TILE_ROWS..segment.tiles.end * TILE_ROWS];
        *sum = codes.iter().map(|code| i32::from(*code)).sum();
    }
}

/// Numbers of 16 bits: of every 32 first those at even places, then those at odd ones.
#[inline(always)]
fn widen_row(codes: &[i8], words: &mut [u32]) {
    let (tiles, _) = codes.as_chunks::<TILE_ROWS>();
    let (words, _) = bytemuck::cast_slice_mut::<u32, i16>(words).as_chunks_mut::<TILE_ROWS>();
    for (codes, words) in tiles.iter().zip(words) {
        let (pairs, _) = codes.as_chunks::<2>();
        let (even, odd) = words.split_at_mut(TILE_ROWS / 2);
        for ((pair, even), odd) in pairs.iter().zip(even).zip(odd) {
            *even = i16::from(pair[0]);
            *odd = i16::from(pair[1]);
        }
    }
}
