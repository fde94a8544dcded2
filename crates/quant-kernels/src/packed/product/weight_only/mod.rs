//! Products of packed weights and floats.
//!
//! ```text
//! few rows    y = Σ_g s_g · Σ (u − z_g)·x      codes widened in registers, one sum a segment g
//! many rows   y = Σ ((u − z)·s)·x              a panel dequantised once for many rows
//! ```
//!
//! The sums are of floats, so that instruction sets and numbers of rows agree up to rounding.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::packed::product::{
    Product,
    schedule::{Schedule, pieces},
    scratch::{Params, Scratch},
    segments::{Segment, segments},
    tile::{Place, Tile},
};
use crate::{
    cpu::instruction_set::InstructionSet,
    packed::{
        dequantize::Strip,
        grid::Grid,
        layout::{TILE_COLUMNS, TILE_ROWS},
        view::View,
    },
};

/// Multiplies `values [rows, d_in]` by the weights.
pub(super) fn multiply(view: View, values: &[f32], rows: usize, product: &Product, output: &Grid) {
    let [d_in, d_out] = view.spec().shape;
    let set = product.instructions;
    if d_in > 0 && rows <= stream_rows(set) {
        multiply_few(view, values, rows, product, output);
        return;
    }
    let kernel_rows = kernel_rows(set);
    let panel_columns = kernel_strips(set) * TILE_COLUMNS;
    let schedule = Schedule { rows, d_in, d_out, row_bytes: 4 * d_in, kernel_rows, columns: panel_columns };
    schedule.run(|block, column| {
        let columns = panel_columns.min(d_out - column);
        let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
        Scratch::with(|scratch| {
            scratch.dequantize(view, set, first, strips);
            let panel = scratch.values[..strips * view.tiling().rows].as_flattened();
            for piece in pieces(block, kernel_rows) {
                let (row, rows) = (piece.start, piece.len());
                let mut tile = Tile::ZERO;
                if d_in > 0 {
                    let values = &values[row * d_in..][..rows * d_in];
                    block_kernel(set, panel, strips, [rows, d_in], values, &mut tile);
                }
                product.epilogue.finish(set, &mut tile, Place { row, rows, column, columns }, None, output);
            }
        });
    });
}

/// Multiplies few rows: the packed bytes are read once or twice and never widened to memory.
fn multiply_few(view: View, values: &[f32], rows: usize, product: &Product, output: &Grid) {
    let [d_in, d_out] = view.spec().shape;
    let set = product.instructions;
    let segments = segments(view.spec());
    // Rows are padded to whole tiles, so that the kernel need not look where they end.
    let stride = d_in.next_multiple_of(TILE_ROWS);
    let factors = row_factors(set, view.source);
    let mut padded = vec![0.0; rows * stride];
    for (padded, values) in padded.chunks_exact_mut(stride).zip(values.chunks_exact(d_in)) {
        for (padded, values) in padded.chunks_exact_mut(TILE_ROWS).zip(values.chunks(TILE_ROWS)) {
            for ((padded, value), factor) in padded.iter_mut().zip(values).zip(&factors) {
                *padded = value * factor;
            }
        }
    }
    let values = &padded;
    let schedule = Schedule { rows, d_in, d_out, row_bytes: 4 * d_in, kernel_rows: STREAM_ROWS, columns: TILE_COLUMNS };
    schedule.run(|block, column| {
        let columns = TILE_COLUMNS.min(d_out - column);
        let first = column / TILE_COLUMNS;
        Scratch::with(|scratch| {
            scratch.load_params(view, set, &segments, first, 1);
            let params = &scratch.params[..segments.len()];
            let tiles = view.tiles(first, 0, view.tiling().rows);
            for piece in pieces(block, STREAM_ROWS) {
                let (row, rows) = (piece.start, piece.len());
                let mut tile = Tile::ZERO;
                let values = &values[row * stride..][..rows * stride];
                stream(set, view.source, tiles, [rows, stride], values, (&segments, params), &mut tile);
                product.epilogue.finish(set, &mut tile, Place { row, rows, column, columns }, None, output);
            }
        });
    });
}

/// The rows that a streaming kernel takes at once.
const STREAM_ROWS: usize = 4;

/// The rows that a kernel on dequantised panels takes at once.
fn kernel_rows(set: InstructionSet) -> usize {
    match set {
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => 12,
        InstructionSet::Avx2 => 6,
        InstructionSet::Portable => 4,
    }
}

/// The strips that a kernel on dequantised panels takes at once.
fn kernel_strips(set: InstructionSet) -> usize {
    match set {
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => 2,
        _ => 1,
    }
}

/// The most rows for which the packed bytes are widened in registers.
fn stream_rows(set: InstructionSet) -> usize {
    if set == InstructionSet::Portable { 0 } else { 2 * STREAM_ROWS }
}

/// What the streaming kernel wants the values of the rows of a tile multiplied by: powers of two.
fn row_factors(set: InstructionSet, source: u8) -> [f32; TILE_ROWS] {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => avx512::row_factors(source),
        _ => [1.0; TILE_ROWS],
    }
}

fn stream(
    set: InstructionSet,
    source: u8,
    tiles: &[u8],
    [rows, stride]: [usize; 2],
    values: &[f32],
    columns: (&[Segment], &[Params]),
    tile: &mut Tile,
) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => {
            avx512::stream(source, tiles, [rows, stride], values, columns, tile);
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => avx2::stream(source, tiles, [rows, stride], values, columns, tile),
        _ => unreachable!("{set:?} has no streaming kernel"),
    }
}

fn block_kernel(
    set: InstructionSet,
    panel: &[Strip],
    strips: usize,
    shape: [usize; 2],
    values: &[f32],
    tile: &mut Tile,
) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni => avx512::block(panel, strips, shape, values, tile),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => avx2::block(panel, shape, values, tile),
        _ => portable::block(panel, shape, values, tile),
    }
}
