//! Integer products in plain Rust.

use crate::packed::tiles::{
    columns::{Panel, SegmentParams},
    layout::{QUADS, TILE_COLUMNS},
    quads::Quads,
    rows::IntegerRows,
    sums::Sums,
};

/// Adds the products of rows and a widened strip of 16 columns to sums.
#[inline(always)]
pub(crate) fn block(panel: Panel<'_, Quads>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
    debug_assert_eq!(panel.strips, 1, "the kernel takes one strip");
    for row in 0..rows.count {
        let values = &rows.quads[row * rows.stride..];
        let activation_sums = &rows.sums[row * params.segments.len()..];
        for ((segment, [params, _]), sum) in params.iter().zip(activation_sums) {
            let mut dots = [0; TILE_COLUMNS];
            let values = values[segment.tiles.start * QUADS..].chunks_exact(QUADS);
            for (quads, values) in panel.parts[segment.tiles.clone()].iter().zip(values) {
                add_tile(&mut dots, quads, values);
            }
            for (c, dot) in dots.iter().enumerate() {
                let centred = dot.wrapping_sub(params.zeros[c].wrapping_mul(*sum));
                sums.0[row][c] += params.scales[c] * centred as f32;
            }
        }
    }
}

#[inline(always)]
fn add_tile(dots: &mut [i32; TILE_COLUMNS], quads: &Quads, values: &[u32]) {
    let (codes, _) = quads.0.as_chunks::<4>();
    for (codes, quad) in codes.chunks_exact(TILE_COLUMNS).zip(values) {
        let values = quad.to_le_bytes().map(|value| i32::from(value as i8));
        for (dot, codes) in dots.iter_mut().zip(codes) {
            for (code, value) in codes.iter().zip(values) {
                *dot += i32::from(*code) * value;
            }
        }
    }
}
