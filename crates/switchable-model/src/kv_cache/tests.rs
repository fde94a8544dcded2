use burn::tensor::{Distribution, Tensor};

use quant_kernels::backends::head_split::HeadSplit;
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
    context_reads: 1,
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

const SPLIT: HeadSplit = HeadSplit { heads: HEADS, scale: 0.7 };

/// Reads pieces of tokens, each at its bits, and gives the contexts of all.
fn attended(cache: &mut KvCache<Plain>, qkv: &Tensor<Plain, 3>, pieces: &[(usize, BitWidth)]) -> Vec<f32> {
    let pieces = pieces.iter().map(|&(piece, bits)| {
        let rows = qkv.clone().narrow(1, cache.len(), piece);
        let context = cache.block(1, bits).attend(SPLIT.split(rows), SPLIT.scale);
        cache.advance(piece);
        context
    });
    values(Tensor::cat(pieces.collect(), 1))
}

/// Keys and values that one block holds.
fn held(cache: &mut KvCache<Plain>) -> [Vec<u32>; 2] {
    let len = cache.len();
    cache.block(1, BitWidth::FULL).read(0..BATCH, 0..len).map(|rows| bits_of(&values(rows)))
}

#[test]
fn rows_that_enter_the_cache_in_pieces_are_those_of_one_piece_to_the_bit() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let [_, keys, values_] = SPLIT.split(quantize_keys_and_values(qkv.clone(), HEADS, bits));
        for storage in [KvStorage::Packed, KvStorage::Floats] {
            for pieces in [vec![1; TOKENS], vec![3, 1, 3], vec![TOKENS]] {
                let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device()).with_storage(storage);
                let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece, bits)).collect();
                attended(&mut cache, &qkv, &pieces);
                let [k, v] = held(&mut cache);
                assert_eq!(k, bits_of(&values(keys.clone())), "keys at {bits} bits, {storage:?}");
                assert_eq!(v, bits_of(&values(values_.clone())), "values at {bits} bits, {storage:?}");
            }
        }
    }
}

#[test]
fn attention_to_codes_is_attention_to_rounded_floats_to_the_bit() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    for bits in widths() {
        for pieces in [vec![1; TOKENS], vec![3, 1, 3], vec![TOKENS]] {
            let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece, bits)).collect();
            let [codes, floats] = [KvStorage::Packed, KvStorage::Floats].map(|storage| {
                let cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
                bits_of(&attended(&mut cache.with_storage(storage), &qkv, &pieces))
            });
            assert_eq!(codes, floats, "{bits} bits, {pieces:?}");
        }
    }
}

#[test]
fn tokens_stay_at_the_bits_that_they_were_read_at() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    let pieces = [(2, BitWidth::B8), (1, BitWidth::B4), (2, BitWidth::FULL), (2, BitWidth::B4)];
    let [codes, floats] = [KvStorage::Packed, KvStorage::Floats].map(|storage| {
        let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device()).with_storage(storage);
        let contexts = bits_of(&attended(&mut cache, &qkv, &pieces));
        (contexts, held(&mut cache))
    });
    assert_eq!(codes, floats);
    // Every token on its own at its bits.
    let mut first = 0;
    for (piece, bits) in pieces {
        let rows = quantize_keys_and_values(qkv.clone(), HEADS, bits).narrow(1, first, piece);
        let [_, keys, _] = SPLIT.split(rows);
        let of_head = |values: &[u32], tokens: usize, at: usize| values[at * WIDTH..][..tokens * WIDTH].to_vec();
        let expected = bits_of(&values(keys));
        for head in 0..BATCH * HEADS {
            let got = of_head(&floats.1[0], piece, head * TOKENS + first);
            assert_eq!(got, of_head(&expected, piece, head * piece), "tokens from {first} at {bits} bits");
        }
        first += piece;
    }
}

#[test]
fn tokens_that_are_forgotten_can_be_read_again_at_any_bits() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let mut fresh = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
        let expected = attended(&mut fresh, &qkv, &[(2, bits), (TOKENS - 2, bits)]);
        for (len, before) in [(0, BitWidth::B4), (0, BitWidth::FULL), (2, bits)] {
            let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
            attended(&mut cache, &qkv, &[(5, before), (1, BitWidth::B3)]);
            cache.truncate(len);
            let rest = if len == 0 { vec![(2, bits), (TOKENS - 2, bits)] } else { vec![(TOKENS - 2, bits)] };
            let got = attended(&mut cache, &qkv, &rest);
            let tail = |values: &[f32]| {
                let rows: Vec<&[f32]> = values.chunks(D).collect();
                let per_sequence = rows.len() / BATCH;
                let last = |sequence: usize| {
                    rows[sequence * per_sequence + per_sequence - (TOKENS - 2)..][..TOKENS - 2].concat()
                };
                bits_of(&(0..BATCH).flat_map(last).collect::<Vec<f32>>())
            };
            assert_eq!(tail(&got), tail(&expected), "{bits} bits after {len} tokens, at {before} bits before");
            assert_eq!(held(&mut cache), held(&mut fresh), "{bits} bits after {len} tokens");
            assert_eq!(cache.bytes(), fresh.bytes(), "{bits} bits after {len} tokens");
        }
    }
}

#[test]
fn padding_on_the_left_is_not_attended_to_and_changes_no_bit() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    let padding = vec![3, 0];
    for bits in widths() {
        for storage in [KvStorage::Packed, KvStorage::Floats] {
            for pieces in [vec![TOKENS], vec![2, 2, 3], vec![1; TOKENS]] {
                let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece, bits)).collect();
                let cache = KvCache::<Plain>::left_padded(&SHAPE, padding.clone(), TOKENS, &device());
                let got = attended(&mut cache.with_storage(storage), &qkv, &pieces);
                for (sequence, &padding) in padding.iter().enumerate() {
                    let alone = qkv.clone().slice([sequence..sequence + 1, padding..TOKENS, 0..3 * D]);
                    let mut cache = KvCache::<Plain>::new(&SHAPE, 1, TOKENS, &device());
                    let want = attended(&mut cache, &alone, &[(TOKENS - padding, bits)]);
                    let got = &got[sequence * TOKENS * D..(sequence + 1) * TOKENS * D];
                    assert!(got[..padding * D].iter().all(|&x| x == 0.0), "padding of sequence {sequence}");
                    let difference = test_support::compare::largest_difference(&got[padding * D..], &want);
                    assert!(difference < 1e-6, "sequence {sequence} at {bits} bits: {difference:e}");
                }
            }
        }
    }
}

#[test]
fn a_sequence_that_leaves_takes_its_memory_with_it_and_changes_no_other() {
    skip_without_device!();
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let mut both = KvCache::<Plain>::left_padded(&SHAPE, vec![1, 2], TOKENS, &device());
        attended(&mut both, &qkv, &[(4, bits)]);
        let (mut second, bytes) = (both.clone(), both.bytes());
        second.keep_sequences(&[1]);
        assert_eq!(second.bytes() * 2, bytes, "{bits} bits");
        let expected = attended(&mut both, &qkv, &[(3, bits)]);
        let rest = qkv.clone().slice([1..2, 0..TOKENS, 0..3 * D]);
        assert_eq!(bits_of(&attended(&mut second, &rest, &[(3, bits)])), bits_of(&expected[3 * D..]), "{bits} bits");
    }
}

#[test]
fn a_full_cache_holds_the_bytes_that_its_plan_needs() {
    skip_without_device!();
    let sites = Sites::new("h", SHAPE.blocks, [(SubModule::new("attn"), [D, D])]);
    let qkv = qkv::<Plain>();
    for bits in widths() {
        let plan =
            SitePlan::uniform(&sites, SitePrecision::FULL).with_kv_cache(bits).with_block_kv_cache(1, BitWidth::B3);
        let mut cache = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device());
        assert_eq!((cache.bytes(), cache.packed_bytes(&plan)), (0, 0), "nothing is read");
        let read = |cache: &mut KvCache<Plain>, tokens: usize| {
            for block in 0..SHAPE.blocks {
                let rows = qkv.clone().narrow(1, cache.len(), tokens);
                cache.block(block, plan.kv_cache(block)).attend(SPLIT.split(rows), SPLIT.scale);
            }
            cache.advance(tokens);
        };
        read(&mut cache, 5);
        let all = BATCH * TOKENS * plan.kv_cache_bytes_per_token(&SHAPE);
        assert_eq!(cache.bytes(), all, "room for all tokens at {bits} bits");
        assert_eq!(cache.packed_bytes(&plan), BATCH * 5 * plan.kv_cache_bytes_per_token(&SHAPE));
        read(&mut cache, TOKENS - 5);
        assert_eq!((cache.bytes(), cache.packed_bytes(&plan)), (all, all), "{bits} bits");
        cache.truncate(1);
        assert_eq!(cache.packed_bytes(&plan), all / TOKENS);
        // Keys and values of 2 sequences of 7 tokens, 3 heads of 4 codes in 2 bytes and a scale at 3 bits.
        let of_block = 2 * BATCH * TOKENS * HEADS;
        let first = if bits.is_full() { 16 } else { (4 * usize::from(bits.bits())).div_ceil(8) + 4 };
        assert_eq!(all, of_block * (first + (2 + 4)), "{bits} bits");
    }
    let mut floats = KvCache::<Plain>::new(&SHAPE, BATCH, TOKENS, &device()).with_storage(KvStorage::Floats);
    attended(&mut floats, &qkv, &[(1, BitWidth::B4)]);
    assert_eq!(floats.bytes(), 2 * BATCH * TOKENS * D * 4);
}
