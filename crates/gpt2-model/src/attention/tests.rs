use burn::tensor::{Bool, Distribution, TensorData, activation::softmax};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::kv_cache::KvCache;
use switchable_model::pass::Pass;
use switchable_model::prelude::*;
use test_support::skip_without_device;
use test_support::test_device::{Plain, device};

use super::*;
use crate::config::Gpt2Config;
use crate::model::Gpt2;

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

fn config() -> Gpt2Config {
    Gpt2Config::new(11, TOKENS, D, 2, HEADS).with_initializer_range(0.5)
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
    let model = Gpt2::<Plain>::random(&config(), &ModelOptions::default(), 5, &device()).expect("a model");
    let attn = &model.h[0].attn;
    let x = Tensor::<Plain, 3>::random([BATCH, TOKENS, D], Distribution::Normal(0.0, 1.0), &device());
    let hidden = AttentionMask::causal_with_padding(&Tensor::from_data([[false; TOKENS]; BATCH], &device()));
    let unrounded = attention_by_hand(&model, &x, BitWidth::FULL);
    for bits in widths() {
        let want = attention_by_hand(&model, &x, bits);
        let plan = model.uniform_plan(SitePrecision::FULL).with_kv_cache(bits);
        let mut cache = KvCache::new(&model.shape(), BATCH, TOKENS, &device());
        let forward = |mut pass: Pass<'_, Plain>, mask| attn.forward(x.clone(), &mut pass.block(0, mask, None));
        let passes = [
            ("causal", forward(Pass::new(&plan), &AttentionMask::Causal)),
            ("masked", forward(Pass::new(&plan), &hidden)),
            ("cached", forward(Pass::new(&plan).with_cache(&mut cache), &AttentionMask::Causal)),
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
