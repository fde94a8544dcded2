//! The weights of the columns that a kernel takes at once.

use crate::packed::tiles::{params::Params, segments::Segment, sums::PANEL_STRIPS};

/// Weights that were widened or decoded to memory, one strip of 16 columns after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel<'a, T> {
    /// The parts of all strips.
    pub(crate) parts: &'a [T],
    /// The number of strips.
    pub(crate) strips: usize,
}

/// A strip of 16 columns in packed tiles.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no kernel in plain Rust streams"))]
pub(crate) struct PackedStrip<'a> {
    /// What the tiles hold, and which codes are wanted of them.
    pub(crate) source: u8,
    /// The tiles from the top.
    pub(crate) tiles: &'a [u8],
}

/// What the sums over a segment are turned into floats with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentParams<'a> {
    /// The segments from the top.
    pub(crate) segments: &'a [Segment],
    /// Those of the strips of each segment.
    pub(crate) params: &'a [[Params; PANEL_STRIPS]],
}

impl<'a> SegmentParams<'a> {
    /// Each segment with the parameters of its strips.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a Segment, &'a [Params; PANEL_STRIPS])> {
        self.segments.iter().zip(self.params)
    }
}
