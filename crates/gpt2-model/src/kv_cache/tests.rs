use burn::backend::{Flex, NdArray};
use burn::tensor::{Bool, Distribution, TensorData, activation::softmax};
use quant_kernels::HeadSplit;
use switchable_lora::SitePrecision;

use super::*;
use crate::attention::AttentionMask;
use crate::support::{Plain, Training, device, skip_without_device};
use crate::{Gpt2, ModelOptions};

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

fn config() -> Gpt2Config {
    Gpt2Config::new(11, TOKENS, D, 2, HEADS).with_initializer_range(0.5)
}

#[test]
fn rows_that_enter_the_cache_in_pieces_are_those_of_one_piece_to_the_bit() {
    skip_without_device!();
    let split = HeadSplit { heads: HEADS, scale: 1.0 };
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let [_, keys, values_] = split.split(quantize_keys_and_values(qkv.clone(), HEADS, bits));
        for pieces in [vec![1; TOKENS], vec![3, 1, 3], vec![TOKENS]] {
            let mut cache = KvCache::<Plain>::new(&config(), BATCH, TOKENS, &device());
            let mut held = None;
            for piece in pieces {
                let rows = qkv.clone().narrow(1, cache.len(), piece);
                let [_, k, v] = split.split(quantize_keys_and_values(rows, HEADS, bits));
                let (layer, len) = cache.layer(1);
                held = Some(layer.append(len, k, v));
                cache.advance(piece);
            }
            let (k, v) = held.expect("there are pieces");
            assert_eq!(bits_of(&values(k)), bits_of(&values(keys.clone())), "keys at {bits} bits");
            assert_eq!(bits_of(&values(v)), bits_of(&values(values_.clone())), "values at {bits} bits");
        }
    }
}

/// Attention written out, to keys and values rounded by hand.
fn attention_by_hand(model: &Gpt2<Plain>, x: &Tensor<Plain, 3>, bits: BitWidth) -> Vec<f32> {
    let attn = &model.h[0].attn;
    let qkv = values(attn.c_attn.forward(x.clone(), &SitePrecision::FULL));
    let qkv = TensorData::new(rounded_by_hand(&qkv, bits), [BATCH, TOKENS, 3, HEADS, WIDTH]);
    let qkv = Tensor::<Plain, 5>::from_data(qkv, &device());
    let part = |i: usize| qkv.clone().narrow(2, i, 1).reshape([BATCH, TOKENS, HEADS, WIDTH]).swap_dims(1, 2);
    let future = Tensor::<Plain, 2, Bool>::tril_mask([TOKENS, TOKENS], 0, &device()).unsqueeze::<4>();
    let scores = part(0).matmul(part(1).transpose()) / (WIDTH as f32).sqrt();
    let scores = scores.mask_fill(future.expand([BATCH, HEADS, TOKENS, TOKENS]), f32::NEG_INFINITY);
    let context = softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([BATCH, TOKENS, D]);
    values(attn.c_proj.forward(context, &SitePrecision::FULL))
}

#[test]
fn every_kind_of_attention_reads_rounded_keys_and_values() {
    skip_without_device!();
    let config = config();
    let model = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 5, &device()).expect("a model");
    let attn = &model.h[0].attn;
    let x = Tensor::<Plain, 3>::random([BATCH, TOKENS, D], Distribution::Normal(0.0, 1.0), &device());
    let hidden = AttentionMask::causal_with_padding(&Tensor::from_data([[false; TOKENS]; BATCH], &device()));
    let sites = [&SitePrecision::FULL; 2];
    let unrounded = attention_by_hand(&model, &x, BitWidth::FULL);
    for bits in widths() {
        let want = attention_by_hand(&model, &x, bits);
        let mut cache = KvCache::new(&config, BATCH, TOKENS, &device());
        let passes = [
            ("causal", attn.forward(x.clone(), sites, bits, &AttentionMask::Causal, None)),
            ("masked", attn.forward(x.clone(), sites, bits, &hidden, None)),
            ("cached", attn.forward(x.clone(), sites, bits, &AttentionMask::Causal, Some(cache.layer(0)))),
        ];
        for (kind, got) in passes {
            let difference = largest_difference(&values(got), &want);
            assert!(difference < 2e-6, "{kind} at {bits} bits: {difference:e}");
        }
        // Below 9 bits the rounding is far above the tolerance: unrounded rows would have failed.
        let rounding = largest_difference(&unrounded, &want);
        assert!(bits > BitWidth::B8 || rounding > 1e-4, "{bits} bits change attention by {rounding:e}");
    }
}

fn largest_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0, |largest, (g, w)| if (g - w).abs() <= largest { largest } else { (g - w).abs() })
}

#[test]
fn rows_start_at_whole_bytes_and_have_a_scale_below_full_precision() {
    let bytes = |width, bits: u8| packed_row_bytes(width, BitWidth::new(bits).expect("a width"));
    assert_eq!([2, 3, 4, 8, 16, 32].map(|bits| bytes(64, bits)), [16 + 4, 24 + 4, 32 + 4, 64 + 4, 128 + 4, 256]);
    assert_eq!([2, 3, 4, 8, 16, 32].map(|bits| bytes(5, bits)), [2 + 4, 2 + 4, 3 + 4, 5 + 4, 10 + 4, 20]);
}

#[test]
fn bytes_are_those_of_the_buffers_and_packed_bytes_those_of_the_tokens_held() {
    skip_without_device!();
    let config = config();
    let plan = SitePlan::uniform(&config, SitePrecision::FULL)
        .with_kv_cache(BitWidth::B8)
        .with_block_kv_cache(1, BitWidth::B3);
    let mut cache = KvCache::<Plain>::new(&config, BATCH, TOKENS, &device());
    // 2 blocks, keys and values, 2 sequences of 7 tokens with 12 floats.
    assert_eq!(cache.bytes(), 2 * 2 * 2 * 7 * 12 * 4);
    assert_eq!(cache.packed_bytes(&plan), 0);
    cache.advance(5);
    // Keys and values of 2 sequences of 5 tokens, 3 heads of 4 codes: 4 bytes at 8 bits, 2 at 3 bits.
    assert_eq!(cache.packed_bytes(&plan), 2 * 2 * 5 * 3 * ((4 + 4) + (2 + 4)));
    assert_eq!(cache.packed_bytes(&plan), BATCH * 5 * plan.kv_cache_bytes_per_token(&config));
    cache.truncate(1);
    assert_eq!(cache.packed_bytes(&plan), 2 * 2 * 3 * ((4 + 4) + (2 + 4)));
}
