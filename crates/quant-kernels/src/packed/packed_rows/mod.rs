//! Rows of numbers as codes, each row with its own scale, written and read one row at a time.
//!
//! ```text
//! x̂ = ±m · s          m = min(⌊|x| / s⌉, L),   s = max |x| / L,   L = 2^(b−1) − 1
//! ```
//!
//! The values are those of the symmetric mapping per token, `QuantSpec::PER_TOKEN`, to the bit: `s` is 1 for a
//! row of zeros, and a row that holds a NaN or an infinity is NaN. A code is the sign in its highest bit and `m`
//! below: a negative number that is rounded to 0 stays −0. Codes are one stream of bits, the lowest first; each row
//! starts at a whole byte.
//!
//! [`PackedTensor`](crate::packed::packed_tensor::PackedTensor) is for weights that are multiplied; this is for what
//! grows while a model runs, such as keys and values.

use std::{mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

use crate::{
    cpu::instruction_set::InstructionSet,
    error::Result,
    packed::{
        grid::{as_uninit, collect},
        target::{Target, dispatch::dispatch},
    },
    spec::{bit_width::BitWidth, formats::code_book::largest_scale, quant_spec::QuantSpec},
};

/// Codes that are read together: they fill whole bytes at every width.
const GROUP: usize = 8;

/// Values that one thread takes at a time.
const RUN: usize = 1 << 14;

/// Rows of numbers as codes of 2 to 16 bits, with one f32 scale for each row.
///
/// ```
/// use quant_kernels::BitWidth;
/// use quant_kernels::packed::packed_rows::PackedRows;
///
/// let mut rows = PackedRows::zeros([2, 5], BitWidth::new(4)?)?;
/// rows.write(1, &[0.5, -3.5, 1.6, 0.0, -0.1]); // s = 0.5
/// let mut values = [0.0; 5];
/// rows.read(1..2, &mut values);
/// assert_eq!(values, [0.5, -3.5, 1.5, 0.0, 0.0]);
/// assert_eq!(rows.bytes(), 2 * (3 + 4)); // 20 bits in 3 bytes, and a scale
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PackedRows {
    bits: BitWidth,
    width: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl PackedRows {
    /// Rows of zeros.
    ///
    /// # Shapes
    ///
    /// - `shape`: rows and numbers in each
    ///
    /// # Errors
    ///
    /// Those of [`QuantSpec::check`]: at 1 bit, which has no symmetric levels.
    ///
    /// # Panics
    ///
    /// At full precision, or if a row has no numbers.
    pub fn zeros(shape: [usize; 2], bits: BitWidth) -> Result<Self> {
        let [rows, width] = shape;
        QuantSpec::PER_TOKEN.check(bits, shape.len())?;
        assert!(!bits.is_full() && width > 0, "rows of {width} numbers at {bits} bits have no codes");
        Ok(Self { bits, width, codes: vec![0; rows * code_bytes(width, bits)], scales: vec![0.0; rows] })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// The numbers in each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The width of the codes.
    pub fn bits(&self) -> BitWidth {
        self.bits
    }

    /// Bytes of codes and scales.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.scales.as_slice())
    }

    /// Bytes of one row of `width` numbers, with its scale.
    pub fn row_bytes(width: usize, bits: BitWidth) -> usize {
        code_bytes(width, bits) + size_of::<f32>()
    }

    /// Rounds consecutive rows and writes their codes in place of the rows from `first` on.
    ///
    /// # Shapes
    ///
    /// - `values`: `[rows, width]`
    ///
    /// # Panics
    ///
    /// If there are no such rows, or `values` are no whole ones.
    pub fn write(&mut self, first: usize, values: &[f32]) {
        let rows = values.len() / self.width;
        assert_eq!(values.len(), rows * self.width, "{} numbers are no rows of {}", values.len(), self.width);
        assert!(first + rows <= self.rows(), "rows to {} of {}", first + rows, self.rows());
        let (row_bytes, run) = (code_bytes(self.width, self.bits), (RUN / self.width).max(1));
        let (bits, width) = (self.bits.bits(), self.width);
        let codes = &mut self.codes[first * row_bytes..(first + rows) * row_bytes];
        let scales = &mut self.scales[first..first + rows];
        let work = |(values, codes, scales): (&[f32], &mut [u8], &mut [f32])| {
            let rows = Rows { width, row_bytes };
            dispatch!(InstructionSet::best(), target => target.compiled(
                #[inline(always)]
                || rows.write(bits, values, codes, scales),
            ));
        };
        if rows <= run {
            work((values, codes, scales));
        } else {
            let pieces = values.par_chunks(run * width).zip(codes.par_chunks_mut(run * row_bytes));
            pieces.zip(scales.par_chunks_mut(run)).for_each(|((values, codes), scales)| work((values, codes, scales)));
        }
    }

    /// The values of consecutive rows.
    ///
    /// # Shapes
    ///
    /// - `values`: `[rows, width]`
    ///
    /// # Panics
    ///
    /// If there are no such rows, or `values` has no room for exactly them.
    pub fn read(&self, rows: Range<usize>, values: &mut [f32]) {
        self.read_uninit(rows, as_uninit(values));
    }

    /// Writes all of `values`.
    fn read_uninit(&self, rows: Range<usize>, values: &mut [MaybeUninit<f32>]) {
        assert_eq!(values.len(), rows.len() * self.width, "room for {} rows of {}", rows.len(), self.width);
        let (bits, width, row_bytes) = (self.bits.bits(), self.width, code_bytes(self.width, self.bits));
        let codes = &self.codes[rows.start * row_bytes..rows.end * row_bytes];
        let scales = &self.scales[rows];
        let rows = Rows { width, row_bytes };
        dispatch!(InstructionSet::best(), target => target.compiled(
            #[inline(always)]
            || rows.read(bits, codes, scales, values),
        ));
    }

    /// The values of some rows of each block of `block` consecutive rows, on all cores.
    ///
    /// # Shapes
    ///
    /// - output: `[blocks, rows, width]`
    ///
    /// # Panics
    ///
    /// If a block has no such rows.
    pub fn blocks(&self, block: usize, blocks: Range<usize>, rows: &Range<usize>) -> Vec<f32> {
        assert!(
            rows.end <= block && blocks.end * block <= self.rows(),
            "rows {rows:?} of blocks {blocks:?} of {block}"
        );
        let size = rows.len() * self.width;
        collect(blocks.len() * size, |values| {
            let pieces = values.par_chunks_mut(size.max(1)).enumerate();
            pieces.with_min_len((RUN / size.max(1)).max(1)).for_each(|(index, values)| {
                let first = (blocks.start + index) * block;
                self.read_uninit(first + rows.start..first + rows.end, values);
            });
        })
    }

    /// Copies rows of another such memory in place of the rows from `first` on.
    ///
    /// # Panics
    ///
    /// If there are no such rows, or the two are of different widths.
    pub fn copy_from(&mut self, first: usize, other: &Self, rows: Range<usize>) {
        assert_eq!((self.bits, self.width), (other.bits, other.width), "rows of another kind");
        let row_bytes = code_bytes(self.width, self.bits);
        let (to, count) = (first + rows.len(), row_bytes * rows.len());
        self.codes[first * row_bytes..][..count].copy_from_slice(&other.codes[rows.start * row_bytes..][..count]);
        self.scales[first..to].copy_from_slice(&other.scales[rows]);
    }
}

fn code_bytes(width: usize, bits: BitWidth) -> usize {
    (width * usize::from(bits.bits())).div_ceil(8)
}

/// The sizes of rows that lie behind each other.
#[derive(Clone, Copy)]
struct Rows {
    width: usize,
    row_bytes: usize,
}

/// Evaluates an expression with the number of bits as a constant.
macro_rules! with_bits {
    (@ $bits:expr, $name:ident => $work:expr, $($number:literal)*) => {
        match $bits {
            $($number => { const $name: usize = $number; $work })*
            other => unreachable!("{other} bits were refused"),
        }
    };
    ($bits:expr, $name:ident => $work:expr) => {
        with_bits!(@ $bits, $name => $work, 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    };
}

impl Rows {
    #[inline(always)]
    fn write(self, bits: u8, values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
        let rows = values.chunks_exact(self.width).zip(codes.chunks_exact_mut(self.row_bytes));
        for ((values, codes), scale) in rows.zip(scales) {
            let most = ((1_u32 << (bits - 1)) - 1) as f32;
            *scale = scale_of(values, most);
            with_bits!(bits, BITS => write_row::<BITS>(values, *scale, codes));
        }
    }

    #[inline(always)]
    fn read(self, bits: u8, codes: &[u8], scales: &[f32], values: &mut [MaybeUninit<f32>]) {
        let Self { width, row_bytes } = self;
        with_bits!(bits, BITS => read_rows::<BITS>(codes, scales, values, [width, row_bytes]));
    }
}

/// The scale of a row, by the formula of `choose_params`.
#[inline(always)]
fn scale_of(values: &[f32], most: f32) -> f32 {
    // Magnitudes as their bits order as they do: NaN above infinity above all numbers.
    let magnitude = values.iter().fold(0, |most, value| (value.to_bits() & 0x7fff_ffff).max(most));
    if magnitude >= f32::INFINITY.to_bits() {
        return f32::NAN;
    }
    let scale = f32::from_bits(magnitude) / most;
    if scale == 0.0 { 1.0 } else { scale.min(largest_scale(most)) }
}

#[inline(always)]
fn write_row<const BITS: usize>(values: &[f32], scale: f32, codes: &mut [u8]) {
    let most = ((1_u32 << (BITS - 1)) - 1) as f32;
    for (values, codes) in values.chunks(GROUP).zip(codes.chunks_mut(BITS)) {
        let mut word = 0_u128;
        for (place, &value) in values.iter().enumerate() {
            let level = (value / scale).round_ties_even();
            let magnitude = level.abs();
            let magnitude = if magnitude > most { most } else { magnitude };
            let code = magnitude as u32 | u32::from(level.is_sign_negative()) << (BITS - 1);
            word |= u128::from(code) << (place * BITS);
        }
        codes.copy_from_slice(&word.to_le_bytes()[..codes.len()]);
    }
}

#[inline(always)]
fn read_rows<const BITS: usize>(
    codes: &[u8],
    scales: &[f32],
    values: &mut [MaybeUninit<f32>],
    [width, row_bytes]: [usize; 2],
) {
    for ((values, codes), &scale) in values.chunks_exact_mut(width).zip(codes.chunks_exact(row_bytes)).zip(scales) {
        match BITS {
            8 => {
                for (value, &code) in values.iter_mut().zip(codes) {
                    value.write(value_of::<8>(u32::from(code), scale));
                }
            }
            4 => {
                let mut pairs = values.chunks_exact_mut(2);
                for (pair, &byte) in (&mut pairs).zip(codes) {
                    pair[0].write(value_of::<4>(u32::from(byte & 15), scale));
                    pair[1].write(value_of::<4>(u32::from(byte >> 4), scale));
                }
                if let ([last], Some(&byte)) = (pairs.into_remainder(), codes.last()) {
                    last.write(value_of::<4>(u32::from(byte & 15), scale));
                }
            }
            _ => read_row::<BITS>(codes, scale, values),
        }
    }
}

#[inline(always)]
fn read_row<const BITS: usize>(codes: &[u8], scale: f32, values: &mut [MaybeUninit<f32>]) {
    for (values, codes) in values.chunks_mut(GROUP).zip(codes.chunks(BITS)) {
        let mut bytes = [0; 16];
        if let Ok(whole) = <&[u8; BITS]>::try_from(codes) {
            bytes[..BITS].copy_from_slice(whole);
        } else {
            bytes[..codes.len()].copy_from_slice(codes);
        }
        let word = u128::from_le_bytes(bytes);
        for (place, value) in values.iter_mut().enumerate() {
            // The lower half alone is shifted where it holds all of them.
            let code = if BITS <= 8 { (word as u64 >> (place * BITS)) as u32 } else { (word >> (place * BITS)) as u32 };
            value.write(value_of::<BITS>(code, scale));
        }
    }
}

/// The value of a code, which may have other bits above it.
#[inline(always)]
fn value_of<const BITS: usize>(code: u32, scale: f32) -> f32 {
    let magnitude = (code & ((1 << (BITS - 1)) - 1)) as i32 as f32 * scale;
    f32::from_bits(magnitude.to_bits() | ((code >> (BITS - 1)) & 1) << 31)
}

#[cfg(test)]
mod tests;
