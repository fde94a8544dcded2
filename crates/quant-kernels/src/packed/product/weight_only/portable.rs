//! Float products in plain Rust.

use crate::packed::product::weight_only::{Strip, Tile};

/// Adds the products of `rows` rows and a dequantised strip of 16 columns to a tile.
pub(super) fn block(panel: &[Strip], [rows, d_in]: [usize; 2], values: &[f32], tile: &mut Tile) {
    for (sums, values) in tile.0.iter_mut().zip(values.chunks_exact(d_in)).take(rows) {
        for (value, strip) in values.iter().zip(panel) {
            for (sum, weight) in sums.iter_mut().zip(&strip.0) {
                *sum += value * weight;
            }
        }
    }
}
