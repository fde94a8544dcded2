use burn::tensor::Distribution;

use quant_kernels::{backends::head_split::HeadSplit, spec::bit_width::BitWidth};
use switchable_lora::site_precision::SitePrecision;
use test_support::skip_without_device;
use test_support::test_device::{Plain, device};

use super::*;
use crate::kv_rounding::quantize_keys_and_values;
use crate::sites::{Sites, sub_module::SubModule};

const BATCH: usize = 2;
const TOKENS: usize = 7;
const HEADS: usize = 3;
const WIDTH: usize = 4;
const D: usize = HEADS * WIDTH;

const SHAPE: ModelShape = ModelShape {
    blocks: 2,
    width: D,
    positions: TOKENS,
    vocabulary: 11,
    heads: HEADS,
    kv_heads: HEADS,
    head_width: WIDTH,
};

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

#[test]
fn rows_that_enter_the_cache_in_pieces_are_those_of_one_piece_to_the_bit() {
    skip_without_device!();
    let split = HeadSplit { heads: HEADS, scale: 1.0 };
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let [_, keys, values_] = split.split(quantize_keys_and_values(qkv.clone(), HEADS, bits));
        for pieces in [vec![1; TOKENS], vec![3, 1, 3], vec![TOKENS]] {
            let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
            let mut held = None;
            for piece in pieces {
                let rows = qkv.clone().narrow(1, cache.len(), piece);
                let [_, k, v] = split.split(quantize_keys_and_values(rows, HEADS, bits));
                held = Some(cache.block(1).append(k, v));
                cache.advance(piece);
            }
            let [k, v] = held.expect("there are pieces");
            assert_eq!(bits_of(&values(k)), bits_of(&values(keys.clone())), "keys at {bits} bits");
            assert_eq!(bits_of(&values(v)), bits_of(&values(values_.clone())), "values at {bits} bits");
        }
    }
}

#[test]
fn bytes_are_those_of_the_buffers_and_packed_bytes_those_of_the_tokens_held() {
    skip_without_device!();
    let sites = Sites::new("h", SHAPE.blocks, [(SubModule::new("attn"), [D, D])]);
    let plan =
        SitePlan::uniform(&sites, SitePrecision::FULL).with_kv_cache(BitWidth::B8).with_block_kv_cache(1, BitWidth::B3);
    let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
    // 2 blocks, keys and values, 2 sequences of 7 tokens with 12 floats.
    assert_eq!(cache.bytes(), 2 * 2 * 2 * 7 * 12 * 4);
    assert_eq!(cache.packed_bytes(&plan), 0);
    cache.advance(5);
    // Keys and values of 2 sequences of 5 tokens, 3 heads of 4 codes: 4 bytes at 8 bits, 2 at 3 bits.
    assert_eq!(cache.packed_bytes(&plan), 2 * 2 * 5 * 3 * ((4 + 4) + (2 + 4)));
    assert_eq!(cache.packed_bytes(&plan), BATCH * 5 * plan.kv_cache_bytes_per_token(&SHAPE));
    cache.truncate(1);
    assert_eq!(cache.packed_bytes(&plan), 2 * 2 * 3 * ((4 + 4) + (2 + 4)));
}
