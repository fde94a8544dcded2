//! What the kernels are tried on.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use quant_kernels::spec::{
    bit_width::BitWidth,
    formats::format::Format,
    granularity::{Granularity, GroupSize},
    quant_spec::QuantSpec,
};

/// Shapes around the sizes at which kernels change their ways: a column more or less than a strip,
/// a row more or less than the units of a cube, more values than one cube takes.
pub(crate) const SHAPES: [[usize; 3]; 9] =
    [[1, 1, 1], [1, 7, 5], [3, 33, 31], [2, 257, 33], [1, 1, 300], [1, 700, 1], [2, 9, 64], [1, 300, 40], [1, 3, 9000]];

/// What the values are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    Noise,
    Zeros,
    NegativeZeros,
    /// Up to the largest number there is.
    Huge,
    Tiny,
    /// Below the smallest normal number.
    Subnormal,
    /// All above 0.
    Positive,
    /// All below 0.
    Negative,
    /// Multiples of half a level of the symmetric mapping.
    Ties,
    /// A NaN among noise.
    Nan,
    /// An infinity of either sign among noise.
    Infinity,
    NegativeInfinity,
}

impl Values {
    pub(crate) const ALL: [Self; 12] = [
        Self::Noise,
        Self::Zeros,
        Self::NegativeZeros,
        Self::Huge,
        Self::Tiny,
        Self::Subnormal,
        Self::Positive,
        Self::Negative,
        Self::Ties,
        Self::Nan,
        Self::Infinity,
        Self::NegativeInfinity,
    ];

    pub(crate) fn generate(self, shape: [usize; 3], bits: BitWidth) -> TensorData {
        let count: usize = shape.iter().product();
        let high = ((1u32 << bits.bits()) / 2).max(2) - 1;
        let mut state = 0x2545_f491_u32 ^ count as u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        // From −1 to 1, denser around 0.
        let mut noise = || {
            let uniform = next() as f32 / (u32::MAX as f32) * 2.0 - 1.0;
            uniform * uniform.abs()
        };
        let mut values: Vec<f32> = (0..count).map(|_| noise()).collect();
        for (index, value) in values.iter_mut().enumerate() {
            *value = match self {
                Self::Zeros => 0.0,
                Self::NegativeZeros => -0.0,
                Self::Huge => *value * f32::MAX,
                Self::Tiny => *value * 1e-25,
                Self::Subnormal => *value * 1e-38,
                Self::Positive => value.abs() + 0.25,
                Self::Negative => -value.abs() - 0.25,
                Self::Ties => {
                    let half_levels = (*value * (2 * high) as f32).round();
                    // The largest value makes the scale 2⁻³, by which division is exact.
                    let largest = index.is_multiple_of(3);
                    if largest { high as f32 * 0.125 } else { half_levels * 0.0625 }
                }
                Self::Noise | Self::Nan | Self::Infinity | Self::NegativeInfinity => *value,
            };
        }
        let broken = match self {
            Self::Nan => Some(f32::NAN),
            Self::Infinity => Some(f32::INFINITY),
            Self::NegativeInfinity => Some(f32::NEG_INFINITY),
            _ => None,
        };
        if let Some(broken) = broken {
            values[count / 2] = broken;
        }
        TensorData::new(values, shape)
    }
}

/// Every granularity, with groups that divide the rows, that do not, and that are longer.
pub(crate) fn granularities() -> impl Iterator<Item = Granularity> {
    let groups = [1, 3, 8, 64, 1000].map(|rows| Granularity::PerGroup(GroupSize::new(rows).unwrap()));
    [Granularity::PerTensor, Granularity::PerChannel, Granularity::PerToken].into_iter().chain(groups)
}

/// Every granularity and mapping with every width that it has, 1 to 16 bits.
pub(crate) fn specs() -> impl Iterator<Item = (BitWidth, QuantSpec)> {
    granularities().flat_map(|granularity| {
        [Format::Symmetric, Format::Asymmetric].into_iter().flat_map(move |format| {
            let spec = QuantSpec::default().with_granularity(granularity).with_format(format);
            BitWidth::quantised().filter(move |bits| spec.check(*bits, 2).is_ok()).map(move |bits| (bits, spec))
        })
    })
}

/// Values on a device.
pub(crate) fn on<B: Backend>(data: &TensorData, device: &B::Device) -> Tensor<B, 3> {
    Tensor::from_data(data.clone(), device)
}

/// Panics unless both are the same numbers to the bit; one NaN is as good as another.
///
/// A kernel may have −0 where the reference has 0: burn's flex rounds exactly −0.5 to 0, where
/// IEEE 754 has −0. `rounding.rs` holds the kernels to the latter.
#[track_caller]
pub(crate) fn assert_same(got: &TensorData, expected: &TensorData, case: &dyn std::fmt::Debug) {
    assert_eq!(got.shape, expected.shape, "{case:?}");
    let [got, expected] = [got, expected].map(|data| data.to_vec::<f32>().unwrap());
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let rounded_half = (got.to_bits(), expected.to_bits()) == ((-0.0_f32).to_bits(), 0.0_f32.to_bits());
        let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan() || rounded_half;
        assert!(same, "{case:?}: value {index} is {got:e}, the reference has {expected:e}");
    }
}
