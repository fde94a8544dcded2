//! Weights in bf16, in the order in which products read them.
//!
//! ```text
//! y = h(x)·h(W)        h: to bf16, the nearest, to even where two are;  sums of f32
//! ```
//!
//! Weights of full precision, and those that were rounded to few levels, which are not exact in bf16 any more: their
//! scale is in them. Both factors are rounded by a part in 2⁸ at most.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::{
    cpu::bf16::{bf16_bits, of_bf16_bits, rounded},
    packed::{
        grid::{Grid, collect},
        packed_tensor::assert_len,
        product::{
            epilogue::Epilogue, half::HalfRows, options::Product, pieces::Pieces, schedule::Schedule, scratch::Scratch,
        },
        target::{Target, dispatch::dispatch},
        tiles::{
            columns::{Panel, SegmentParams},
            layout::{TILE_COLUMNS, TILE_ROWS, Tiling},
            pairs::{Pair, TILE_PAIRS},
            params::Params,
            rows::FloatRows,
            segments::Segment,
            strip::Strip,
            sums::PANEL_STRIPS,
        },
    },
};

/// A matrix in bf16 that products read as it is. A clone is another handle to the same numbers.
///
/// ```
/// use quant_kernels::packed::half_weight::HalfWeight;
///
/// let weight = HalfWeight::new(&[1.0, 2.0, 3.0, 4.0], [2, 2]);
/// assert_eq!(weight.matmul(&[1.0, 10.0], 1, &Default::default()), [31.0, 42.0]);
/// assert_eq!(weight.matmul_transposed(&[1.0, 10.0], 1, &Default::default()), [21.0, 43.0]);
/// ```
#[derive(Debug, Clone)]
pub struct HalfWeight {
    there: Arc<Strips>,
    /// The transpose, which is made when it is first wanted.
    back: Arc<OnceLock<Strips>>,
}

impl HalfWeight {
    /// Rounds values.
    ///
    /// # Shapes
    ///
    /// - `values`: `[d_in, d_out]`, row-major
    ///
    /// # Panics
    ///
    /// If `values` has another length.
    pub fn new(values: &[f32], [d_in, d_out]: [usize; 2]) -> Self {
        assert_len("values", values.len(), [d_in, d_out]);
        let there = Strips::of([d_in, d_out], |row, column| bf16_bits(values[row * d_out + column]));
        Self { there: Arc::new(there), back: Arc::default() }
    }

    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.there.shape
    }

    /// The bytes of the numbers that are held, padding and a transpose that was made included.
    pub fn bytes(&self) -> usize {
        self.there.bytes() + self.back.get().map_or(0, Strips::bytes)
    }

    /// The bytes of both, the transpose made or not.
    pub fn bytes_both_ways(&self) -> usize {
        let [d_in, d_out] = self.shape();
        let of = |shape| {
            let Tiling { rows, columns } = Tiling::of(shape);
            rows * TILE_PAIRS * columns * size_of::<Pair>()
        };
        of([d_in, d_out]) + of([d_out, d_in])
    }

    /// The rounded values.
    ///
    /// # Shapes
    ///
    /// - output: `[d_in, d_out]`, row-major
    pub fn values(&self) -> Vec<f32> {
        let [d_in, d_out] = self.shape();
        let all = (0..d_in).flat_map(|row| (0..d_out).map(move |column| (row, column)));
        all.map(|(row, column)| of_bf16_bits(self.there.bits(row, column))).collect()
    }

    /// `f(h(x)·W + …)`: what [`Product::epilogue`] says is done to each output; [`Product::activations`] is not looked at.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, d_in]`, row-major
    /// - output: `[rows, d_out]`
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape, or the processor lacks the instructions.
    pub fn matmul(&self, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        self.there.matmul(x, rows, product)
    }

    /// `f(h(g)·Wᵀ + …)`, otherwise as [`matmul`](Self::matmul).
    ///
    /// # Shapes
    ///
    /// - `g`: `[rows, d_out]`, row-major
    /// - output: `[rows, d_in]`
    ///
    /// # Panics
    ///
    /// As [`matmul`](Self::matmul).
    pub fn matmul_transposed(&self, g: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        let [d_in, d_out] = self.shape();
        // Made before it is set: a thread that makes it may take up another product of the same weight meanwhile.
        let back = self.back.get().unwrap_or_else(|| {
            let made = Strips::of([d_out, d_in], |row, column| self.there.bits(column, row));
            self.back.get_or_init(|| made)
        });
        back.matmul(g, rows, product)
    }
}

/// Strips of 16 columns, one after the other, each of the pairs of its rows, padded to whole tiles by zeros.
#[derive(Debug)]
struct Strips {
    shape: [usize; 2],
    pairs: Vec<Pair>,
}

impl Strips {
    fn of([d_in, d_out]: [usize; 2], bits: impl Fn(usize, usize) -> u16 + Sync) -> Self {
        let tiling = Tiling::of([d_in, d_out]);
        let mut pairs = vec![Pair::ZERO; tiling.rows * TILE_PAIRS * tiling.columns];
        pairs.par_chunks_exact_mut((tiling.rows * TILE_PAIRS).max(1)).enumerate().for_each(|(strip, pairs)| {
            let columns = strip * TILE_COLUMNS..d_out.min((strip + 1) * TILE_COLUMNS);
            for (pair, row) in pairs.iter_mut().zip((0..d_in).step_by(2)) {
                for (both, column) in pair.0.iter_mut().zip(columns.clone()) {
                    let lower = if row + 1 < d_in { bits(row + 1, column) } else { 0 };
                    *both = u32::from(bits(row, column)) | u32::from(lower) << 16;
                }
            }
        });
        Self { shape: [d_in, d_out], pairs }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.pairs.as_slice())
    }

    fn pairs_per_strip(&self) -> usize {
        Tiling::of(self.shape).rows * TILE_PAIRS
    }

    fn bits(&self, row: usize, column: usize) -> u16 {
        let Pair(pair) = &self.pairs[column / TILE_COLUMNS * self.pairs_per_strip() + row / 2];
        (pair[column % TILE_COLUMNS] >> (16 * (row % 2))) as u16
    }

    fn matmul(&self, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        let [d_in, d_out] = self.shape;
        assert_len("activations", x.len(), [rows, d_in]);
        product.epilogue.check(rows, d_out);
        let len = rows.checked_mul(d_out);
        let len = len.unwrap_or_else(|| panic!("a product of {rows} rows does not fit the address space"));
        collect(len, |output| {
            let output = Grid::new(output, d_out);
            dispatch!(product.instructions, target => {
                if len > 0 {
                    self.multiply(target, x, rows, &product.epilogue, &output);
                }
            });
        })
    }

    fn multiply<T: Target>(&self, target: T, x: &[f32], rows: usize, epilogue: &Epilogue, output: &Grid) {
        let [d_in, d_out] = self.shape;
        let per_strip = self.pairs_per_strip();
        let mut params = Params::ZERO;
        params.scales.fill(1.0);
        let (whole, params) = ([Segment { tiles: 0..per_strip / TILE_PAIRS, scale_row: 0 }], [[params; PANEL_STRIPS]]);
        let params = SegmentParams { segments: &whole, params: &params };
        let activations = if T::MULTIPLIES_BF16 {
            Activations::Half(HalfRows::round(target, x, [rows, d_in]))
        } else {
            Activations::Rounded(rounded(x))
        };
        let (kernel_rows, columns) = (T::FLOATS.rows, T::FLOATS.strips * TILE_COLUMNS);
        let all = Pieces { target, kernel_rows, epilogue, row_scales: None, output };
        let row_bytes = if T::MULTIPLIES_BF16 { 2 } else { 4 } * d_in;
        Schedule { rows, d_in, d_out, row_bytes, kernel_rows, columns }.run(|block, column| {
            let columns = columns.min(d_out - column);
            let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
            let pairs = &self.pairs[first * per_strip..][..strips * per_strip];
            Scratch::with(|scratch| {
                if !T::MULTIPLIES_BF16 {
                    scratch.values.resize(scratch.values.len().max(pairs.len() / TILE_PAIRS), [Strip::ZERO; TILE_ROWS]);
                    target.compiled(
                        #[inline(always)]
                        || decode(pairs, scratch.values.as_flattened_mut()),
                    );
                }
                let Scratch { values: decoded, sums, .. } = scratch;
                all.compute(block, [column, columns], sums, |row, rows, sums| match &activations {
                    _ if d_in == 0 => {}
                    Activations::Half(activations) => {
                        target.bf16_block(Panel { parts: pairs, strips }, activations.rows(row, rows), params, sums);
                    }
                    Activations::Rounded(values) => {
                        let parts = &decoded.as_flattened()[..2 * pairs.len()];
                        let values = &values[row * d_in..][..rows * d_in];
                        let rows = FloatRows { count: rows, values, stride: d_in };
                        target.float_block(Panel { parts, strips }, rows, sums);
                    }
                });
            });
        });
    }
}

/// Activations as the kernels of a target take them.
enum Activations {
    Half(HalfRows),
    Rounded(Vec<f32>),
}

#[inline(always)]
fn decode(pairs: &[Pair], strips: &mut [Strip]) {
    let (rows, _) = strips.as_chunks_mut::<2>();
    for (Pair(pair), [Strip(upper), Strip(lower)]) in pairs.iter().zip(rows) {
        for ((both, upper), lower) in pair.iter().zip(upper).zip(lower) {
            *upper = f32::from_bits(both << 16);
            *lower = f32::from_bits(both & 0xffff_0000);
        }
    }
}
