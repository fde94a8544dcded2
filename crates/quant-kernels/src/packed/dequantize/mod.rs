//! From packed weights back to numbers.
//!
//! ```text
//! w = (u − z) · s
//! ```
//!
//! The difference is an exact small integer, so that every instruction set gives the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::{mem::MaybeUninit, slice};

use rayon::prelude::*;

use crate::cpu::instruction_set::InstructionSet;
use crate::packed::{
    grid::Grid,
    layout::{TILE_COLUMNS, TILE_ROWS},
    packed_tensor::PackedTensor,
    view::View,
    widen::{Quads, widen},
};

/// Values of consecutive rows of 16 columns.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Strip(pub(super) [f32; TILE_COLUMNS]);

impl Strip {
    pub(super) const ZERO: Self = Self([0.0; TILE_COLUMNS]);
}

impl PackedTensor {
    /// The values of the weights.
    ///
    /// # Shapes
    ///
    /// - output: `[d_in, d_out]`, row-major
    pub fn dequantize(&self) -> Vec<f32> {
        let len = self.spec.shape.iter().product();
        super::grid::collect(len, |values| dequantize(View::whole(self), InstructionSet::best(), values))
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
    pub fn dequantize_into(&self, values: &mut [f32]) {
        dequantize(View::whole(self), InstructionSet::best(), super::grid::as_uninit(values));
    }
}

pub(super) fn dequantize(view: View, set: InstructionSet, values: &mut [MaybeUninit<f32>]) {
    let [d_in, d_out] = view.spec().shape;
    super::packed_tensor::assert_len("values", values.len(), [d_in, d_out]);
    let grid = Grid::new(values, d_out);
    let tiling = view.tiling();
    (0..tiling.rows * tiling.columns).into_par_iter().with_min_len(32).for_each(|at| {
        let (column, tile) = (at / tiling.rows, at % tiling.rows);
        let mut strip = [Strip::ZERO; TILE_ROWS];
        widen_strip(view, set, column, tile, slice::from_mut(&mut strip));
        let columns = (d_out - column * TILE_COLUMNS).min(TILE_COLUMNS);
        for (row, values) in (tile * TILE_ROWS..d_in).zip(&strip) {
            grid.write(row, column * TILE_COLUMNS, &values.0[..columns]);
        }
    });
}

/// Dequantises consecutive tiles of a column of tiles to rows of 16 values.
pub(super) fn widen_strip(
    view: View,
    set: InstructionSet,
    column: usize,
    first: usize,
    strip: &mut [[Strip; TILE_ROWS]],
) {
    let rows_per_scale = view.spec().rows_per_scale();
    let mut params = Params { scales: [0.0; TILE_COLUMNS], zeros: [0; TILE_COLUMNS] };
    let mut loaded = usize::MAX;
    for (tile, values) in (first..).zip(strip) {
        let row = tile * TILE_ROWS / rows_per_scale;
        if row != loaded {
            view.scales(column, row, &mut params.scales);
            view.zeros(column, row, &mut params.zeros);
            loaded = row;
        }
        let mut quads = Quads::ZERO;
        widen(set, view.source, view.tiles(column, tile, 1), slice::from_mut(&mut quads));
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Vnni => avx512::tile_to_values(&quads, &params, values),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::tile_to_values(&quads, &params, values),
            _ => tile_to_values(&quads, &params, values),
        }
    }
}

/// Scales and codes of 0 of the columns of a tile.
#[repr(align(64))]
struct Params {
    scales: [f32; TILE_COLUMNS],
    zeros: [i32; TILE_COLUMNS],
}

fn tile_to_values(quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
    let (codes, _) = quads.0.as_chunks::<4>();
    for (row, Strip(values)) in values.iter_mut().enumerate() {
        let codes = &codes[row / 4 * TILE_COLUMNS..][..TILE_COLUMNS];
        for (c, value) in values.iter_mut().enumerate() {
            *value = (i32::from(codes[c][row % 4]) - params.zeros[c]) as f32 * params.scales[c];
        }
    }
}
