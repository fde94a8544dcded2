//! Runs of rows whose integer products are summed before they become floats.
//!
//! ```text
//! |Σ (u − z)·a|  ≤  d · 255 · 127  <  2^31      for d ≤ 66 311
//! ```
//!
//! A segment is a group of rows that share a scale, cut where it is longer than 65 536 rows: the
//! largest multiple of a power of two for which no sum of 32 bits overflows.

use std::ops::Range;

use crate::packed::{
    packed_spec::PackedSpec,
    tiles::layout::{TILE_ROWS, Tiling},
};

/// The most rows of a segment.
pub(crate) const SEGMENT_ROWS_MAX: usize = 1 << 16;

/// Tiles under one another that share scales, and the row of their scales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) tiles: Range<usize>,
    pub(crate) scale_row: usize,
}

/// The segments of a matrix, from the top.
pub(crate) fn segments(spec: &PackedSpec) -> Vec<Segment> {
    let tiles = Tiling::of(spec.shape).rows;
    let group = spec.rows_per_scale().div_ceil(TILE_ROWS);
    let longest = SEGMENT_ROWS_MAX / TILE_ROWS;
    let mut segments = Vec::new();
    for (scale_row, start) in (0..tiles).step_by(group).enumerate() {
        let end = start.saturating_add(group).min(tiles);
        for start in (start..end).step_by(longest) {
            segments.push(Segment { tiles: start..end.min(start + longest), scale_row });
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        packed::scales::ScaleFormat,
        spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
    };

    fn of(d_in: usize, granularity: Granularity) -> Vec<(Range<usize>, usize)> {
        let (bits, format, scale_format) = (BitWidth::B8, Format::Symmetric, ScaleFormat::F32);
        let spec = PackedSpec { shape: [d_in, 1], bits, format, granularity, scale_format };
        segments(&spec).into_iter().map(|segment| (segment.tiles, segment.scale_row)).collect()
    }

    #[test]
    fn groups_are_segments_and_long_ones_are_cut() {
        let group = |rows| Granularity::per_group(rows).unwrap();
        assert_eq!(of(0, Granularity::PerChannel), []);
        assert_eq!(of(33, Granularity::PerTensor), [(0..2, 0)]);
        assert_eq!(of(100, group(64)), [(0..2, 0), (2..4, 1)]);
        assert_eq!(of(100, group(96)), [(0..3, 0), (3..4, 1)]);
        assert_eq!(of(70_000, Granularity::PerChannel), [(0..2048, 0), (2048..2188, 0)]);
        assert_eq!(of(70_000, group(69_984)), [(0..2048, 0), (2048..2187, 0), (2187..2188, 1)]);
    }

    #[test]
    fn the_longest_segment_does_not_overflow() {
        let largest = |rows: i64| rows * 255 * 127;
        assert!(largest(SEGMENT_ROWS_MAX as i64) <= i64::from(i32::MAX));
        assert!(largest(66_311) <= i64::from(i32::MAX) && largest(66_312) > i64::from(i32::MAX));
    }
}
