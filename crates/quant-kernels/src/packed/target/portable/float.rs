//! Float products in plain Rust.

use crate::packed::tiles::{columns::Panel, rows::FloatRows, strip::Strip, sums::Sums};

/// Adds the products of rows and a decoded strip of 16 columns to sums.
#[inline(always)]
pub(crate) fn block(panel: Panel<'_, Strip>, rows: FloatRows<'_>, sums: &mut Sums) {
    debug_assert_eq!(panel.strips, 1, "the kernel takes one strip");
    for (sums, values) in sums.0.iter_mut().zip(rows.values.chunks_exact(rows.stride)).take(rows.count) {
        for (value, strip) in values.iter().zip(panel.parts) {
            for (sum, weight) in sums.iter_mut().zip(&strip.0) {
                *sum += value * weight;
            }
        }
    }
}
