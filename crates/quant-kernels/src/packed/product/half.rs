//! Products of packed weights and activations in bf16.
//!
//! ```text
//! y = Σ_g s_g · Σ (u − z_g)·h(x)        h: to bf16, the nearest, to even where two are
//! ```
//!
//! `u − z` is an integer of less than 9 bits and exact in bf16, so that activations are all that is rounded: each by a
//! part in 2⁸ at most. Sums are of f32. Few rows, and codes that are positions in a table, are multiplied as
//! f32 after rounding, and so is everything where the processor has no products of bf16: the same up to the
//! order of sums, and to activations below 2⁻¹²⁶, which `vdpbf16ps` takes for 0.

use crate::{
    cpu::bf16::{pairs_of_row, rounded},
    packed::{
        grid::Grid,
        packed_view::PackedView,
        product::{options::Product, pieces::Pieces, schedule::Schedule, scratch::Scratch, weight_only},
        target::Target,
        tiles::{
            columns::{Panel, SegmentParams},
            layout::{TILE_COLUMNS, TILE_ROWS},
            pairs::TILE_PAIRS,
            rows::PairRows,
            segments::segments,
        },
    },
    spec::formats::code_book::CodeBook,
};

use rayon::prelude::*;

/// Multiplies `values [rows, d_in]`, rounded to bf16, by the weights.
pub(crate) fn multiply<T: Target>(
    target: T,
    view: PackedView,
    values: &[f32],
    rows: usize,
    product: &Product,
    output: &Grid,
) {
    let [d_in, d_out] = view.spec().shape;
    let uniform = matches!(view.code_book(), CodeBook::Uniform(_));
    if !T::MULTIPLIES_BF16 || !uniform || d_in == 0 || rows <= T::FLOATS.streamed {
        let values = rounded(values);
        weight_only::multiply(target, view, &values, rows, product, output);
        return;
    }
    let segments = segments(view.spec());
    let activations = HalfRows::round(target, values, [rows, d_in]);
    let kernel_rows = T::FLOATS.rows;
    let panel_columns = T::FLOATS.strips * TILE_COLUMNS;
    let all = Pieces { target, kernel_rows, epilogue: &product.epilogue, row_scales: None, output };
    let schedule = Schedule { rows, d_in, d_out, row_bytes: 2 * d_in, kernel_rows, columns: panel_columns };
    schedule.run(|block, column| {
        let columns = panel_columns.min(d_out - column);
        let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
        Scratch::with(|scratch| {
            scratch.load_params(target, view, &segments, first, strips);
            scratch.pair(target, view, &segments, first, strips);
            let sums = &mut scratch.sums;
            let parts = scratch.pairs[..strips * view.tiling().rows].as_flattened();
            let params = SegmentParams { segments: &segments, params: &scratch.params[..segments.len()] };
            all.compute(block, [column, columns], sums, |row, rows, sums| {
                target.bf16_block(Panel { parts, strips }, activations.rows(row, rows), params, sums);
            });
        });
    });
}

/// Rows of activations in bf16.
#[derive(Debug)]
pub(crate) struct HalfRows {
    /// As [`PairRows::pairs`]; zeros after the last.
    pairs: Vec<u32>,
    stride: usize,
}

impl HalfRows {
    /// # Shapes
    ///
    /// - `values`: `[rows, d_in]`
    pub(crate) fn round<T: Target>(target: T, values: &[f32], [rows, d_in]: [usize; 2]) -> Self {
        // A line more than whole tiles, so that rows whose length is a power of two do not all fall into the same sets
        // of the cache.
        let stride = d_in.div_ceil(TILE_ROWS) * TILE_PAIRS + 16;
        let mut pairs = vec![0; rows * stride];
        let rows = pairs.par_chunks_exact_mut(stride).zip(values.par_chunks_exact(d_in.max(1))).with_min_len(8);
        rows.for_each(|(pairs, values)| {
            target.compiled(
                #[inline(always)]
                || pairs_of_row(values, pairs),
            );
        });
        Self { pairs, stride }
    }

    pub(crate) fn rows(&self, first: usize, count: usize) -> PairRows<'_> {
        PairRows { count, pairs: &self.pairs[first * self.stride..], stride: self.stride }
    }
}
