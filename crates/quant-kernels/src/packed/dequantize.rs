//! From packed weights back to numbers.
//!
//! ```text
//! w = (u − z) · s          evenly spaced
//! w = entry(u) · s         by a table
//! ```
//!
//! The difference is an exact small integer, so that every target gives the same bits.

use std::{mem::MaybeUninit, slice};

use rayon::prelude::*;

use crate::{
    cpu::instruction_set::InstructionSet,
    packed::{
        grid::{Grid, as_uninit, collect},
        packed_tensor::{PackedTensor, assert_len},
        packed_view::PackedView,
        target::{Target, dispatch::dispatch},
        tiles::{
            layout::{TILE_COLUMNS, TILE_ROWS},
            params::Params,
            quads::Quads,
            strip::Strip,
        },
    },
    spec::formats::code_book::CodeBook,
};

impl PackedView<'_> {
    /// The values of the weights.
    ///
    /// # Shapes
    ///
    /// - output: `[d_in, d_out]`, row-major
    pub fn dequantize(self) -> Vec<f32> {
        let len = self.shape().iter().product();
        collect(len, |values| dequantize(self, values))
    }

    /// The values of some columns, one after another: rows of an embedding, whose packed weights are its
    /// transpose.
    ///
    /// # Shapes
    ///
    /// - `columns`: `[n]`
    /// - output: `[n, d_in]`, row-major
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn columns(self, columns: &[usize]) -> Vec<f32> {
        let [d_in, d_out] = self.shape();
        if let Some(column) = columns.iter().find(|&&column| column >= d_out) {
            panic!("there is no column {column} in weights of {d_out} columns");
        }
        let mut values = vec![0.0; columns.len() * d_in];
        dispatch!(InstructionSet::best(), target => columns_by(target, self, columns, &mut values));
        values
    }

    /// The values of the weights, written to a slice.
    ///
    /// # Shapes
    ///
    /// - `values`: `[d_in, d_out]`, row-major
    ///
    /// # Panics
    ///
    /// If `values` has another length than `[d_in, d_out]`.
    pub fn dequantize_into(self, values: &mut [f32]) {
        dequantize(self, as_uninit(values));
    }
}

impl PackedTensor {
    /// [`PackedView::dequantize`] of the whole.
    pub fn dequantize(&self) -> Vec<f32> {
        self.view().dequantize()
    }

    /// [`PackedView::dequantize_into`] of the whole.
    ///
    /// # Panics
    ///
    /// The same.
    pub fn dequantize_into(&self, values: &mut [f32]) {
        self.view().dequantize_into(values);
    }
}

fn dequantize(view: PackedView, values: &mut [MaybeUninit<f32>]) {
    dispatch!(InstructionSet::best(), target => dequantize_by(target, view, values));
}

fn dequantize_by<T: Target>(target: T, view: PackedView, values: &mut [MaybeUninit<f32>]) {
    let [d_in, d_out] = view.spec().shape;
    assert_len("values", values.len(), [d_in, d_out]);
    let grid = Grid::new(values, d_out);
    let tiling = view.tiling();
    (0..tiling.rows * tiling.columns).into_par_iter().with_min_len(32).for_each(|at| {
        let (column, tile) = (at / tiling.rows, at % tiling.rows);
        let mut strip = [Strip::ZERO; TILE_ROWS];
        decode_strip(target, view, column, tile, slice::from_mut(&mut strip));
        let columns = (d_out - column * TILE_COLUMNS).min(TILE_COLUMNS);
        for (row, values) in (tile * TILE_ROWS..d_in).zip(&strip) {
            grid.write(row, column * TILE_COLUMNS, &values.0[..columns]);
        }
    });
}

fn columns_by<T: Target>(target: T, view: PackedView, columns: &[usize], values: &mut [f32]) {
    let ([d_in, _], tiles) = (view.shape(), view.tiling().rows);
    let rows = values.par_chunks_exact_mut(d_in.max(1)).zip(columns).with_min_len(16);
    rows.for_each(|(values, &column)| {
        let (strip_column, lane) = (column / TILE_COLUMNS, column % TILE_COLUMNS);
        let mut strip = [Strip::ZERO; TILE_ROWS];
        for (tile, values) in (0..tiles).zip(values.chunks_mut(TILE_ROWS)) {
            decode_strip(target, view, strip_column, tile, slice::from_mut(&mut strip));
            for (value, row) in values.iter_mut().zip(&strip) {
                *value = row.0[lane];
            }
        }
    });
}

/// Decodes consecutive tiles of a column of tiles, from the `first` on.
pub(crate) fn decode_strip<T: Target>(
    target: T,
    view: PackedView,
    column: usize,
    first: usize,
    strip: &mut [[Strip; TILE_ROWS]],
) {
    let (book, rows_per_scale) = (view.code_book(), view.spec().rows_per_scale());
    let mut params = Params::ZERO;
    let mut loaded = usize::MAX;
    for (tile, values) in (first..).zip(strip) {
        let row = tile * TILE_ROWS / rows_per_scale;
        if row != loaded {
            view.scales(column, row, &mut params.scales);
            view.zeros(column, row, &mut params.zeros);
            view.ratios(column, row, &mut params.ratios);
            loaded = row;
        }
        let mut quads = Quads::ZERO;
        target.widen(view.source, &params.ratios, view.tiles(column, tile, 1), slice::from_mut(&mut quads));
        match book {
            CodeBook::Uniform(_) => target.decode(&quads, &params, values),
            CodeBook::Table(table) => target.decode_table(table, &quads, &params, values),
        }
    }
}
