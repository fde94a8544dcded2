//! Products of packed weights and floats.
//!
//! ```text
//! few rows    y = Σ_g s_g · Σ (u − z_g)·x      codes widened in registers, one sum a segment g
//! many rows   y = Σ ((u − z)·s)·x              a panel decoded once for many rows
//! ```
//!
//! The sums are of floats, so that targets and numbers of rows agree up to rounding.

use crate::{
    packed::{
        grid::Grid,
        packed_view::PackedView,
        product::{options::Product, pieces::Pieces, schedule::Schedule, scratch::Scratch},
        target::Target,
        tiles::{
            columns::{PackedStrip, Panel, SegmentParams},
            layout::{TILE_COLUMNS, TILE_ROWS},
            rows::FloatRows,
            segments::segments,
        },
    },
    spec::formats::code_book::CodeBook,
};

/// Multiplies `values [rows, d_in]` by the weights.
pub(crate) fn multiply<T: Target>(
    target: T,
    view: PackedView,
    values: &[f32],
    rows: usize,
    product: &Product,
    output: &Grid,
) {
    let [d_in, d_out] = view.spec().shape;
    // Kernels that stream widen codes in registers, and look nothing up.
    let uniform = matches!(view.code_book(), CodeBook::Uniform(_));
    if uniform && d_in > 0 && rows <= T::FLOATS.streamed {
        multiply_few(target, view, values, rows, product, output);
        return;
    }
    let kernel_rows = T::FLOATS.rows;
    let panel_columns = T::FLOATS.strips * TILE_COLUMNS;
    let all = Pieces { target, kernel_rows, epilogue: &product.epilogue, row_scales: None, output };
    let schedule = Schedule { rows, d_in, d_out, row_bytes: 4 * d_in, kernel_rows, columns: panel_columns };
    schedule.run(|block, column| {
        let columns = panel_columns.min(d_out - column);
        let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
        Scratch::with(|scratch| {
            scratch.decode(target, view, first, strips);
            let sums = &mut scratch.sums;
            let parts = scratch.values[..strips * view.tiling().rows].as_flattened();
            all.compute(block, [column, columns], sums, |row, rows, sums| {
                if d_in > 0 {
                    let values = &values[row * d_in..][..rows * d_in];
                    let rows = FloatRows { count: rows, values, stride: d_in };
                    target.float_block(Panel { parts, strips }, rows, sums);
                }
            });
        });
    });
}

/// Multiplies few rows: the packed bytes are read once or twice and never widened to memory.
fn multiply_few<T: Target>(target: T, view: PackedView, values: &[f32], rows: usize, product: &Product, output: &Grid) {
    let [d_in, d_out] = view.spec().shape;
    let segments = segments(view.spec());
    // Rows are padded to whole tiles, so that the kernel need not look where they end.
    let stride = d_in.next_multiple_of(TILE_ROWS);
    let factors = target.row_factors(view.source);
    let mut padded = vec![0.0; rows * stride];
    for (padded, values) in padded.chunks_exact_mut(stride).zip(values.chunks_exact(d_in)) {
        for (padded, values) in padded.chunks_exact_mut(TILE_ROWS).zip(values.chunks(TILE_ROWS)) {
            for ((padded, value), factor) in padded.iter_mut().zip(values).zip(&factors) {
                *padded = value * factor;
            }
        }
    }
    let values = &padded;
    let kernel_rows = T::FLOATS.stream_rows;
    let all = Pieces { target, kernel_rows, epilogue: &product.epilogue, row_scales: None, output };
    let schedule = Schedule { rows, d_in, d_out, row_bytes: 4 * d_in, kernel_rows, columns: TILE_COLUMNS };
    schedule.run(|block, column| {
        let columns = TILE_COLUMNS.min(d_out - column);
        let first = column / TILE_COLUMNS;
        Scratch::with(|scratch| {
            scratch.load_params(target, view, &segments, first, 1);
            let sums = &mut scratch.sums;
            let params = SegmentParams { segments: &segments, params: &scratch.params[..segments.len()] };
            let strip = PackedStrip { source: view.source, tiles: view.tiles(first, 0, view.tiling().rows) };
            all.compute(block, [column, columns], sums, |row, rows, sums| {
                let values = FloatRows { count: rows, values: &values[row * stride..][..rows * stride], stride };
                target.float_stream(strip, values, params, sums);
            });
        });
    });
}
