//! Packed weights, unpacked on the device.
//!
//! ```text
//! w = (u − z) · s                                        u: the code of b bits, from 0 to 2^b − 1
//! w = (max(⌊u / 2^c⌉, 1) − 2^(b−c−1)) · s · 2^c          cut to b − c bits, symmetric
//! ```
//!
//! A cut code is rounded half to even and saturates at `2^(b−c) − 1`, as nested weights are.
//!
//! Codes lie in tiles of 32 rows × 16 columns, all tiles of the first 16 columns before those of the
//! next; rows are padded to whole tiles, and columns too. A tile is a plane for each power of two in
//! b, the widest first, which holds the topmost bits that are left of each code. A plane of width p
//! is p vectors of 16 little-endian words, and word c of vector v holds these bits of column c:
//!
//! ```text
//! bits 8j + p·i .. 8j + p·(i + 1)  ←  row 4·(v·8/p + i) + j        i = 0 .. 8/p,  j = 0 .. 4
//! ```
//!
//! A unit unpacks four rows of one column, which come from one word of each plane. Neighbouring
//! units read neighbouring words and write neighbouring columns.

use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use crate::cube::{DeviceParams, address_type, choose_params::empty_like};

const TILE_ROWS: usize = 32;
const TILE_COLUMNS: usize = 16;
/// Rows that share the words of a unit.
const QUAD: usize = 4;

/// A packed matrix `[rows, columns]`, apart from its codes and scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedShape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Bits of a code, 2 to 8.
    pub(crate) bits: usize,
    /// Bits that are kept of a code, 2 to `bits`.
    pub(crate) kept: usize,
    /// Rows that share a scale: all of them unless scales are per group.
    pub(crate) group: usize,
}

impl PackedShape {
    /// The number of 32-bit words.
    pub(crate) fn words(self) -> usize {
        self.rows.div_ceil(TILE_ROWS) * self.columns.div_ceil(TILE_COLUMNS) * TILE_COLUMNS * self.bits
    }
}

/// The weight that packed codes stand for, computed in f32 and rounded once to `dtype`.
///
/// Without zero points, 0 is the code `2^(kept − 1)`.
///
/// # Shapes
///
/// - `words`: `[shape.words()]`, 32-bit integers of either sign
/// - `params`: `[⌈rows / group⌉, columns]`, or `[1, 1]`
/// - output: `[rows, columns]`, not empty
pub(crate) fn unpack<R: CubeRuntime>(
    words: CubeTensor<R>,
    params: DeviceParams<R>,
    shape: PackedShape,
    dtype: DType,
) -> CubeTensor<R> {
    let PackedShape { rows, columns, bits, kept, group } = shape;
    assert!((2..=8).contains(&bits), "codes of {bits} bits are not packed; 2 to 8 are");
    assert!((2..=bits).contains(&kept), "codes of {bits} bits are not cut to {kept}");
    assert!(matches!(words.dtype, DType::I32 | DType::U32), "packed codes are 32-bit integers, not {:?}", words.dtype);
    assert_eq!(words.meta.num_elements(), shape.words(), "the words are those of the shape");
    let words = into_contiguous(words);
    let DeviceParams { scale, zero_point } = params.into_contiguous();
    assert!(kept == bits || zero_point.is_none(), "codes with zero points are not cut");
    let scales = scale.meta.num_elements();
    let groups = rows.div_ceil(group);
    assert!(scales == 1 || scales == groups * columns, "{scales} scales for {groups} groups of {columns} columns");
    let stride = if scales == 1 { [0, 0] } else { [columns, 1] };
    let weight = empty_like(&scale, [rows, columns].into(), dtype);
    let units = rows.div_ceil(QUAD) * columns;
    let cube_dim = CubeDim::new(&weight.client, units);
    let dtypes = [dtype.into(), scale.dtype.into()];
    // SAFETY: units past the last column and rows past the last are left out, and the words and
    // scales were counted above.
    #[expect(unsafe_code, reason = "bounds are checked once per unit instead of once per access")]
    unsafe {
        weight_of_words::launch_unchecked::<R>(
            &weight.client,
            calculate_cube_count_elemwise(&weight.client, units, cube_dim),
            cube_dim,
            address_type([&words, &weight]),
            words.into_array_arg(),
            scale.into_array_arg(),
            zero_point.map(CubeTensor::into_array_arg).into(),
            weight.clone().into_array_arg(),
            PackedMatrixLaunch::new(rows, columns, group, stride[0], stride[1]),
            bits,
            kept,
            dtypes,
        );
    }
    weight
}

/// [`PackedShape`] on the device.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct PackedMatrix {
    rows: usize,
    columns: usize,
    group: usize,
    /// Scales between one group and the next.
    group_stride: usize,
    /// Scales between one column and the next.
    column_stride: usize,
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn weight_of_words<F: Float, S: Float>(
    words: &Array<u32>,
    scale: &Array<S>,
    zero_point: &ComptimeOption<Array<S>>,
    weight: &mut Array<F>,
    matrix: PackedMatrix,
    #[comptime] bits: usize,
    #[comptime] kept: usize,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let column = ABSOLUTE_POS % matrix.columns;
    let first_row = ABSOLUTE_POS / matrix.columns * QUAD;
    if first_row >= matrix.rows {
        terminate!();
    }
    let row_tiles = matrix.rows.div_ceil(TILE_ROWS);
    let tile = column / TILE_COLUMNS * row_tiles + first_row / TILE_ROWS;
    let tile_words = comptime!(bits * TILE_COLUMNS);
    let word_of_column = tile * tile_words + column % TILE_COLUMNS;
    let quad = first_row % TILE_ROWS / QUAD;

    // The codes of four rows, in a byte each: a plane's bits of all four lie at the same place of
    // their bytes.
    let mut codes = 0u32;
    #[unroll]
    for index in 0..comptime!(planes(bits).len()) {
        let plane = comptime!(planes(bits)[index]);
        let per_byte = comptime!(8 / plane.width);
        let word = words[word_of_column + (comptime!(plane.first_vector) + quad / per_byte) * TILE_COLUMNS];
        let shift = (quad % per_byte) as u32 * comptime!(plane.width as u32);
        let bits_of_plane = (word >> shift) & comptime!(plane.mask());
        codes |= bits_of_plane << comptime!(plane.lowest_bit);
    }

    #[unroll]
    for index in 0..comptime!(QUAD) {
        let row = first_row + comptime!(index);
        if row < matrix.rows {
            let param = row / matrix.group * matrix.group_stride + column * matrix.column_stride;
            let middle = f32::cast_from(comptime!(1u32 << (kept - 1)));
            let given: ComptimeOption<f32> = zero_point.as_ref().map(|zero_point| f32::cast_from(zero_point[param]));
            let zero_point = given.unwrap_or(middle);
            let code = cut((codes >> comptime!(8 * index as u32)) & 255u32, bits, kept);
            // A power of two: the product is exact.
            let scale = f32::cast_from(scale[param]) * f32::cast_from(comptime!(1u32 << (bits - kept)));
            let value = (f32::cast_from(code) - zero_point) * scale;
            weight[row * matrix.columns + column] = F::cast_from(value);
        }
    }
}

/// The topmost bits of a code, rounded half to even, 1 to `2^kept − 1`.
#[cube]
fn cut(code: u32, #[comptime] bits: usize, #[comptime] kept: usize) -> u32 {
    if comptime!(kept == bits) {
        code
    } else {
        let below = comptime!((bits - kept) as u32);
        let half = comptime!((1u32 << (bits - kept - 1)) - 1);
        let highest = comptime!((1u32 << kept) - 1);
        let rounded = (code + half + ((code >> below) & 1u32)) >> below;
        clamp(rounded, 1u32, highest)
    }
}

/// Some bits of every code of a tile.
#[derive(Debug, Clone, Copy)]
struct Plane {
    width: usize,
    /// Vectors of the tile before this plane's.
    first_vector: usize,
    /// The place of its bits in the code.
    lowest_bit: u32,
}

impl Plane {
    /// The plane's bits at the bottom of each byte of a word.
    fn mask(self) -> u32 {
        ((1 << self.width) - 1) * 0x0101_0101
    }
}

/// The planes of a tile, topmost bits first.
fn planes(bits: usize) -> Vec<Plane> {
    let widths = [8, 4, 2, 1].into_iter().filter(|width| bits & width != 0);
    let place = |first_vector, width| Plane { width, first_vector, lowest_bit: (bits - first_vector - width) as u32 };
    let place_next = |first_vector: &mut usize, width: usize| {
        let plane = place(*first_vector, width);
        *first_vector += width;
        Some(plane)
    };
    widths.scan(0, place_next).collect()
}

#[cfg(test)]
mod tests;
