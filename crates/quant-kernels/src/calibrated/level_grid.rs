//! The levels that the weights of a layer may take.

use crate::{
    cpu::range_search::Params,
    error::Result,
    packed::{coded::Coded, packed_spec::PackedSpec, scales::ScaleFormat},
    spec::formats::code_book::CodeBook,
};

/// The levels that the weights of a layer may take: scales as they are stored, and zero points.
pub(super) struct LevelGrid {
    spec: PackedSpec,
    book: CodeBook,
    offset: f32,
    /// As they are stored.
    scales: Vec<f32>,
    /// None where the format has none.
    zero_points: Vec<u8>,
}

impl LevelGrid {
    /// The levels under parameters; scales that the format cannot hold are kept in f32.
    pub(super) fn new(spec: PackedSpec, params: &[Params]) -> Result<Self> {
        let scales: Vec<f32> = params.iter().map(|params| params.scale).collect();
        let zeros = params.iter().map(|params| params.zero as u8);
        let spec = PackedSpec { scale_format: spec.scale_format.that_holds(&scales), ..spec };
        let stored = |scale: &f32| match spec.scale_format {
            ScaleFormat::F32 => *scale,
            ScaleFormat::F16 => half::f16::from_f32(*scale).to_f32(),
        };
        Ok(Self {
            spec,
            book: spec.code_book()?,
            offset: f32::from(spec.code_offset()),
            scales: scales.iter().map(stored).collect(),
            zero_points: if spec.format.has_zero_points() { zeros.collect() } else { Vec::new() },
        })
    }

    /// Each weight at its nearest level.
    pub(super) fn nearest(self, weights: &[f32]) -> Result<Coded> {
        Coded::nearest(self.spec, weights, &self.scales, &self.zero_points)
    }

    /// Codes that were found, `[d_in, d_out]`.
    pub(super) fn coded(self, codes: Vec<u8>) -> Result<Coded> {
        Coded::from_codes(self.spec, codes, &self.scales, &self.zero_points)
    }

    /// What the levels stand for, and what makes a code of a level.
    pub(super) fn levels(&self) -> (CodeBook, f32) {
        (self.book, self.offset)
    }

    /// Scales and zero points of a row, for the columns from `first` on.
    pub(super) fn row(&self, row: usize, first: usize, scales: &mut [f32], zeros: &mut [f32]) {
        for (column, (scale, zero)) in scales.iter_mut().zip(zeros).enumerate() {
            let index = self.spec.scale_index(row, first + column);
            *scale = self.scales[index];
            *zero = self.zero_points.get(index).copied().map_or(0.0, f32::from);
        }
    }
}
