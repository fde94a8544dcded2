//! Integer products in plain Rust.

use crate::packed::product::integer::{Columns, Rows, Segment, TILE_COLUMNS, Tile};
use crate::packed::{layout::QUADS, widen::Quads};

/// Adds the products of `rows` rows and a strip of 16 columns to a tile.
pub(super) fn block(quads: &[Quads], activations: Rows, rows: usize, columns: Columns, tile: &mut Tile) {
    for row in 0..rows {
        let values = &activations.quads[row * activations.stride..];
        let sums = &activations.sums[row * columns.segments.len()..];
        for ((Segment { tiles, .. }, params), sum) in columns.segments.iter().zip(columns.params).zip(sums) {
            let mut dots = [0; TILE_COLUMNS];
            let values = values[tiles.start * QUADS..].chunks_exact(QUADS);
            for (quads, values) in quads[tiles.clone()].iter().zip(values) {
                add_tile(&mut dots, quads, values);
            }
            for (c, dot) in dots.iter().enumerate() {
                let centred = dot.wrapping_sub(params.zeros[c].wrapping_mul(*sum));
                tile.0[row][c] += params.scales[c] * centred as f32;
            }
        }
    }
}

#[inline]
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
