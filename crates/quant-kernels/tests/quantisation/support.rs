//! Numbers to quantise and ways to compare them.

use burn::{
    backend::{Autodiff, Flex, NdArray},
    tensor::{Tensor, TensorData, backend::Backend},
};

use quant_kernels::spec::{
    bit_width::BitWidth, formats::format::Format, granularity::Granularity, quant_spec::QuantSpec,
};

pub(crate) type Plain = Flex;
pub(crate) type Other = NdArray;
pub(crate) type Tracked = Autodiff<Flex>;

/// Numbers of mixed size and sign, the same for the same seed.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (next() - 0.5) * 4.0 * next().powi(3)).collect()
}

pub(crate) fn tensor<B: Backend, const D: usize>(values: &[f32], dims: [usize; D]) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), &B::Device::default())
}

pub(crate) fn values<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
    tensor.to_data().to_vec().expect("the tensors of these tests are f32")
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Bit for bit, the signs of zeros included.
#[track_caller]
pub(crate) fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    if let Some(index) = bits(got).iter().zip(&bits(expected)).position(|(got, expected)| got != expected) {
        panic!("{what}: element {index} is {:?}, expected {:?}", got[index], expected[index]);
    }
    assert_eq!(got.len(), expected.len(), "{what}: lengths differ");
}

/// Every granularity, with groups that divide most sizes, leave a rest, and exceed all of them.
pub(crate) fn granularities() -> Vec<Granularity> {
    let groups = [1, 4, 5, 1000].map(|rows| Granularity::per_group(rows).expect("groups are not empty"));
    [Granularity::PerTensor, Granularity::PerChannel, Granularity::PerToken].into_iter().chain(groups).collect()
}

/// Every pair of width and mapping that exists.
pub(crate) fn widths_and_mappings() -> impl Iterator<Item = (BitWidth, Format)> {
    BitWidth::quantised()
        .flat_map(|bits| [Format::Symmetric, Format::Asymmetric].map(|format| (bits, format)))
        .filter(|(bits, format)| format.levels(*bits).is_ok())
}

/// Every pair of width and format that exists, tables included.
pub(crate) fn widths_and_formats() -> impl Iterator<Item = (BitWidth, Format)> {
    widths_and_mappings().chain([(BitWidth::B4, Format::Nf4)])
}

pub(crate) fn spec(granularity: Granularity, format: Format) -> QuantSpec {
    QuantSpec::default().with_granularity(granularity).with_format(format)
}
