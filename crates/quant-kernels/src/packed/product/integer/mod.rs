//! Products of packed weights and quantised activations.
//!
//! ```text
//! y = s_a · Σ_g s_g · (Σ u·a − z_g · Σ a)        the inner sums over the rows of a segment g, exact
//! ```
//!
//! `u` is a code of 0 to 255 and `a` an activation of −127 to 127. Inner sums are integers of 32
//! bits ([`segments`](super::segments) says why they do not overflow), and the rest is the same
//! products and sums of floats in the same order everywhere, so that every instruction set, number
//! of rows and number of threads gives the same bits.
//!
//! With many rows the codes of a panel are widened to bytes once and multiplied by blocks of rows;
//! with few rows the packed bytes are read once and widened in registers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::packed::product::{
    Product,
    activations::{QuantizedRows, Rows},
    schedule::{Schedule, pieces},
    scratch::{Params, Scratch},
    segments::{Segment, segments},
    tile::{PANEL_COLUMNS, Place, Tile},
};
use crate::{
    cpu::instruction_set::InstructionSet,
    packed::{
        grid::Grid,
        layout::TILE_COLUMNS,
        view::View,
        widen::{Quads, source_bits},
    },
    spec::bit_width::BitWidth,
};

/// What a kernel turns its sums into floats with.
#[derive(Debug, Clone, Copy)]
struct Columns<'a> {
    segments: &'a [Segment],
    /// Those of each segment.
    params: &'a [Params],
}

/// Multiplies `values [rows, d_in]`, quantised to `bits` per row, by the weights.
pub(super) fn multiply(view: View, values: &[f32], rows: usize, bits: BitWidth, product: &Product, output: &Grid) {
    let [d_in, d_out] = view.spec().shape;
    let set = product.instructions;
    let segments = segments(view.spec());
    let quantized = QuantizedRows::quantize(values, [rows, d_in], bits, &segments, set);
    let streamed = rows <= stream_rows(set);
    let strips = if streamed || kernel_rows(set) < 12 { 1 } else { 2 };
    let columns = strips * TILE_COLUMNS;
    let schedule = Schedule { rows, d_in, d_out, row_bytes: d_in, kernel_rows: kernel_rows(set), columns };
    schedule.run(|block, column| {
        let columns = columns.min(d_out - column);
        let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
        Scratch::with(|scratch| {
            scratch.load_params(view, set, &segments, first, strips);
            if !streamed {
                scratch.widen(view, set, first, strips);
            }
            let params = Columns { segments: &segments, params: &scratch.params[..segments.len()] };
            for piece in pieces(block, kernel_rows(set)) {
                let (row, rows) = (piece.start, piece.len());
                let mut tile = Tile::ZERO;
                if !segments.is_empty() {
                    let activations = quantized.after(row);
                    if streamed {
                        stream(set, view, first, activations, rows, params, &mut tile);
                    } else {
                        let quads = &scratch.quads[..strips * view.tiling().rows];
                        block_kernel(set, view, (quads, strips), activations, rows, params, &mut tile);
                    }
                }
                let place = Place { row, rows, column, columns };
                product.epilogue.finish(set, &mut tile, place, Some(&quantized.scales), output);
            }
        });
    });
}

/// The rows that a kernel takes at once.
fn kernel_rows(set: InstructionSet) -> usize {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni => avx512::ROWS,
        _ => 4,
    }
}

/// The most rows for which the packed bytes are widened in registers.
fn stream_rows(set: InstructionSet) -> usize {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni => avx512::STREAM_ROWS,
        _ => 0,
    }
}

fn stream(
    set: InstructionSet,
    view: View,
    column: usize,
    activations: Rows,
    rows: usize,
    columns: Columns,
    tile: &mut Tile,
) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni => {
            let tiles = view.tiles(column, 0, view.tiling().rows);
            avx512::stream(view.source, tiles, activations, rows, columns, tile);
        }
        _ => unreachable!("{set:?} has no streaming kernel"),
    }
}

fn block_kernel(
    set: InstructionSet,
    view: View,
    (quads, strips): (&[Quads], usize),
    activations: Rows,
    rows: usize,
    columns: Columns,
    tile: &mut Tile,
) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni => avx512::block(quads, strips, activations, rows, columns, tile),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx2 => {
            avx2::block(source_bits(view.source), quads, activations, rows, columns, tile);
        }
        _ => portable::block(quads, activations, rows, columns, tile),
    }
}
