//! Weights of every kind, and what they are worth by the formulas alone.

use quant_kernels::{
    packed::{packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

#[cfg(not(miri))]
pub(crate) const SHAPES: [[usize; 2]; 9] =
    [[1, 1], [1, 17], [31, 1], [32, 16], [33, 17], [100, 50], [768, 48], [0, 5], [5, 0]];
/// Miri is a thousand times slower.
#[cfg(miri)]
pub(crate) const SHAPES: [[usize; 2]; 4] = [[1, 1], [33, 17], [0, 5], [5, 0]];

pub(crate) fn widths() -> impl Iterator<Item = BitWidth> {
    // Those of one plane, of two, and of three.
    let taken = |bits: u8| !cfg!(miri) || [2, 3, 7, 8].contains(&bits);
    BitWidth::quantised().filter(move |bits| (2..=8).contains(&bits.bits()) && taken(bits.bits()))
}

pub(crate) fn granularities() -> [Granularity; 5] {
    let group = |rows| Granularity::per_group(rows).unwrap();
    [Granularity::PerTensor, Granularity::PerChannel, group(32), group(64), group(128)]
}

/// Every kind of weights of a shape.
pub(crate) fn specs(shape: [usize; 2]) -> impl Iterator<Item = PackedSpec> {
    let mappings = [Format::Symmetric, Format::Asymmetric];
    let formats = [ScaleFormat::F16, ScaleFormat::F32];
    widths().flat_map(move |bits| {
        granularities().into_iter().flat_map(move |granularity| {
            mappings.into_iter().flat_map(move |format| {
                formats.map(move |scale_format| PackedSpec { shape, bits, format, granularity, scale_format })
            })
        })
    })
}

/// Numbers that look random and are the same in each run: a linear congruential generator.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(end)) >> 32) as u32
    }

    /// From −1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Weights with all that went into them.
pub(crate) struct Case {
    pub(crate) spec: PackedSpec,
    pub(crate) weights: Vec<f32>,
    pub(crate) zero_points: Vec<u8>,
    pub(crate) packed: PackedTensor,
}

impl Case {
    /// Weights whose range is that of the levels, some of them past it.
    pub(crate) fn new(spec: PackedSpec, numbers: &mut Numbers) -> Self {
        let [rows, columns] = spec.scale_shape().unwrap();
        let levels = spec.format.levels(spec.bits).unwrap();
        let scales: Vec<f32> = (0..rows * columns).map(|_| 0.01 + numbers.float().abs() / 7.0).collect();
        let zero_points = match spec.format {
            Format::Symmetric | Format::Nf4 => Vec::new(),
            Format::Asymmetric => scales.iter().map(|_| numbers.below(levels.high as u32 + 1) as u8).collect(),
        };
        let [d_in, d_out] = spec.shape;
        let mut weights = Vec::new();
        for row in 0..d_in {
            for column in 0..d_out {
                let scale = scales[scale_index(&spec, row, column)];
                weights.push(numbers.float() * scale * levels.high as f32 * 1.1);
            }
        }
        let packed = PackedTensor::from_weights(spec, &weights, &scales, &zero_points).unwrap();
        Self { spec, weights, zero_points, packed }
    }

    /// The level of a weight, by the formula, with the stored scale.
    pub(crate) fn level(&self, row: usize, column: usize) -> i32 {
        let levels = self.spec.format.levels(self.spec.bits).unwrap();
        let (scale, zero) = self.params(row, column);
        let level = (self.weights[row * self.spec.shape[1] + column] / scale).round_ties_even();
        (level as i32 + zero).clamp(levels.low, levels.high)
    }

    /// The scale and the zero point of a weight.
    pub(crate) fn params(&self, row: usize, column: usize) -> (f32, i32) {
        let index = scale_index(&self.spec, row, column);
        (self.packed.scales()[index], self.zero_points.get(index).map_or(0, |zero| i32::from(*zero)))
    }

    /// The values, by the formula.
    pub(crate) fn values(&self) -> Vec<f32> {
        let scales = self.packed.scales();
        let [d_in, d_out] = self.spec.shape;
        let mut values = Vec::new();
        for row in 0..d_in {
            for column in 0..d_out {
                let index = scale_index(&self.spec, row, column);
                let zero = self.zero_points.get(index).map_or(0, |zero| i32::from(*zero));
                let levels = self.spec.format.levels(self.spec.bits).unwrap();
                let level = (self.weights[row * d_out + column] / scales[index]).round_ties_even() as i32 + zero;
                values.push((level.clamp(levels.low, levels.high) - zero) as f32 * scales[index]);
            }
        }
        values
    }
}

pub(crate) fn scale_index(spec: &PackedSpec, row: usize, column: usize) -> usize {
    // Not divided in the arm of the groups: see `PackedSpec::scale_index`.
    let rows = if let Granularity::PerGroup(rows) = spec.granularity { rows.get() } else { spec.shape[0].max(1) };
    match spec.granularity {
        Granularity::PerTensor | Granularity::PerToken => 0,
        _ => row / rows * spec.shape[1] + column,
    }
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
