//! Products of packed weights and quantised activations.
//!
//! ```text
//! y = s_a · Σ_g s_g · (Σ u·a − z_g · Σ a)        the inner sums over the rows of a segment g, exact
//! ```
//!
//! `u` is a code of 0 to 255 and `a` an activation of −127 to 127. Inner sums are integers of 32
//! bits ([`segments`](crate::packed::tiles::segments) says why they do not overflow), and the rest is the same
//! products and sums of floats in the same order everywhere, so that every target, number
//! of rows and number of threads gives the same bits.
//!
//! With many rows the codes of a panel are widened to bytes once and multiplied by blocks of rows;
//! with few rows the packed bytes are read once and widened in registers.

use crate::{
    packed::{
        grid::Grid,
        packed_view::PackedView,
        product::{activations::QuantizedRows, options::Product, pieces::Pieces, schedule::Schedule, scratch::Scratch},
        target::Target,
        tiles::{
            columns::{PackedStrip, Panel, SegmentParams},
            layout::TILE_COLUMNS,
            segments::segments,
            source::source_bits,
        },
    },
    spec::bit_width::BitWidth,
};

/// Multiplies `values [rows, d_in]`, quantised to `bits` per row, by the weights.
pub(crate) fn multiply<T: Target>(
    target: T,
    view: PackedView,
    values: &[f32],
    rows: usize,
    bits: BitWidth,
    product: &Product,
    output: &Grid,
) {
    let [d_in, d_out] = view.spec().shape;
    let segments = segments(view.spec());
    let code_bits = source_bits(view.source);
    let quantized = QuantizedRows::quantize(target, code_bits, values, [rows, d_in], bits, &segments);
    let streamed = rows <= T::INTEGERS.streamed;
    let columns = TILE_COLUMNS * if streamed { 1 } else { T::INTEGERS.strips };
    let kernel_rows = T::INTEGERS.rows;
    let row_scales = Some(quantized.scales.as_slice());
    let all = Pieces { target, kernel_rows, epilogue: &product.epilogue, row_scales, output };
    let schedule = Schedule { rows, d_in, d_out, row_bytes: d_in, kernel_rows, columns };
    schedule.run(|block, column| {
        let columns = columns.min(d_out - column);
        let (first, strips) = (column / TILE_COLUMNS, columns.div_ceil(TILE_COLUMNS));
        Scratch::with(|scratch| {
            scratch.load_params(target, view, &segments, first, strips);
            if !streamed {
                scratch.widen(target, view, &segments, first, strips);
            }
            let sums = &mut scratch.sums;
            let params = SegmentParams { segments: &segments, params: &scratch.params[..segments.len()] };
            all.compute(block, [column, columns], sums, |row, rows, sums| {
                if !segments.is_empty() {
                    let activations = quantized.rows(row, rows);
                    if streamed {
                        let tiles = view.tiles(first, 0, view.tiling().rows);
                        let strip = PackedStrip { source: view.source, tiles };
                        target.integer_stream(strip, activations, params, sums);
                    } else {
                        let parts = &scratch.quads[..strips * view.tiling().rows];
                        target.integer_block(code_bits, Panel { parts, strips }, activations, params, sums);
                    }
                }
            });
        });
    });
}
