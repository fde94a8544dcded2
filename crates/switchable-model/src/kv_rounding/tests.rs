use burn::backend::{Flex, NdArray};
use burn::tensor::{Distribution, backend::Backend};

use test_support::skip_without_device;
use test_support::test_device::{Plain, Training, device};

use super::*;

const BATCH: usize = 2;
const TOKENS: usize = 7;
const HEADS: usize = 3;
const WIDTH: usize = 4;
const D: usize = HEADS * WIDTH;

/// Every width that a symmetric mapping has, and full precision.
fn widths() -> impl Iterator<Item = BitWidth> {
    BitWidth::quantised().skip(1).chain([BitWidth::FULL])
}

fn values<B: Backend, const N: usize>(x: Tensor<B, N>) -> Vec<f32> {
    x.into_data().to_vec().expect("floats")
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Random queries, keys and values, the last token's all zero.
fn qkv<B: Backend>() -> Tensor<B, 3> {
    let device = B::Device::default();
    B::seed(&device, 8);
    let random = Tensor::<B, 3>::random([BATCH, TOKENS - 1, 3 * D], Distribution::Normal(0.0, 2.0), &device);
    Tensor::cat(vec![random, Tensor::zeros([BATCH, 1, 3 * D], &device)], 1)
}

/// The rounding of keys and values written out, one row after another.
fn rounded_by_hand(qkv: &[f32], bits: BitWidth) -> Vec<f32> {
    if bits.is_full() {
        return qkv.to_vec();
    }
    let most = ((1_i32 << (bits.bits() - 1)) - 1) as f32;
    let round_row = |row: &[f32]| -> Vec<f32> {
        let largest = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = if largest > 0.0 { largest / most } else { 1.0 };
        row.iter().map(|x| (x / scale).round_ties_even().clamp(-most, most) * scale).collect()
    };
    let token = |token: &[f32]| -> Vec<f32> {
        let (queries, rest) = token.split_at(D);
        queries.iter().copied().chain(rest.chunks(WIDTH).flat_map(round_row)).collect()
    };
    qkv.chunks(3 * D).flat_map(token).collect()
}

fn assert_rounded_by_hand<B: QuantBackend>() {
    let qkv = qkv::<B>();
    for bits in widths() {
        let got = values(quantize_keys_and_values(qkv.clone(), HEADS, bits));
        assert_eq!(bits_of(&got), bits_of(&rounded_by_hand(&values(qkv.clone()), bits)), "{bits} bits");
    }
}

#[test]
fn every_width_rounds_keys_and_values_row_by_row_and_leaves_queries() {
    skip_without_device!();
    assert_rounded_by_hand::<Plain>();
    assert_rounded_by_hand::<NdArray>();
    assert_rounded_by_hand::<Training>();
}

#[test]
fn the_gradient_passes_straight_through_to_queries_keys_and_values() {
    skip_without_device!();
    let weight = Tensor::<Training, 3>::random([BATCH, TOKENS, 3 * D], Distribution::Default, &device());
    for bits in widths() {
        let qkv = qkv::<Training>().require_grad();
        let loss = (quantize_keys_and_values(qkv.clone(), HEADS, bits) * weight.clone()).sum();
        let gradient = qkv.grad(&loss.backward()).expect("a gradient");
        assert_eq!(values(gradient), values(weight.clone()), "{bits} bits");
    }
}

#[test]
#[should_panic(expected = "kv cache: ")]
fn one_bit_has_no_levels_and_panics() {
    quantize_keys_and_values(qkv::<Flex>(), HEADS, BitWidth::B1);
}

#[test]
fn rows_start_at_whole_bytes_and_have_a_scale_below_full_precision() {
    let bytes = |width, bits: u8| packed_row_bytes(width, BitWidth::new(bits).expect("a width"));
    assert_eq!([2, 3, 4, 8, 16, 32].map(|bits| bytes(64, bits)), [16 + 4, 24 + 4, 32 + 4, 64 + 4, 128 + 4, 256]);
    assert_eq!([2, 3, 4, 8, 16, 32].map(|bits| bytes(5, bits)), [2 + 4, 2 + 4, 3 + 4, 5 + 4, 10 + 4, 20]);
}
