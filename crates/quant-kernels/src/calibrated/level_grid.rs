//! The levels that the weights of a layer may take.

use crate::{
    error::Result,
    packed::{packed_spec::PackedSpec, scales::ScaleFormat},
    spec::formats::code_book::CodeBook,
};

/// The levels that the weights of a layer may take: scales as they are stored, and zero points.
pub(super) struct LevelGrid {
    spec: PackedSpec,
    book: CodeBook,
    offset: f32,
    scales: Vec<f32>,
    zero_points: Vec<u8>,
}

impl LevelGrid {
    pub(super) fn new(spec: PackedSpec, scales: &[f32], zero_points: &[u8]) -> Result<Self> {
        let stored = |scale: &f32| match spec.scale_format {
            ScaleFormat::F32 => *scale,
            ScaleFormat::F16 => half::f16::from_f32(*scale).to_f32(),
        };
        Ok(Self {
            spec,
            book: spec.code_book()?,
            offset: f32::from(spec.code_offset()),
            scales: scales.iter().map(stored).collect(),
            zero_points: zero_points.to_vec(),
        })
    }

    /// The code nearest to a value, and what it stands for.
    #[inline]
    pub(super) fn round(&self, row: usize, column: usize, value: f64) -> (u8, f64) {
        let index = self.spec.scale_index(row, column);
        let (scale, zero) = (self.scales[index], self.zero_points.get(index).copied().map_or(0.0, f32::from));
        let level = self.book.nearest(value as f32 / scale, zero);
        ((level + self.offset) as u8, f64::from(self.book.value(level, zero) * scale))
    }
}
