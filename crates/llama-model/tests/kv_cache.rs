//! Keys and values at few bits: the whole model with a cache and without, and in training.

use burn::tensor::{Int, Tensor};

use llama_model::Llama;
use llama_model::sub_modules::{K_PROJ, Q_PROJ, V_PROJ};
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::{precision_plan::PrecisionPlan, site_precision::SitePrecision};
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::kv_cache::KvCache;
use switchable_model::loss::next_token_loss;
use switchable_model::model::SwitchableModel as _;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::support::{
    Fixture, LANGUAGE_MODELS, Plain, Train, assert_close, batch_of_one, device, full, largest_difference, load,
    load_with, on_every_backend, skip_without_device, trainable, values, width,
};

on_every_backend!(
    cached_steps_at_few_bits_give_the_whole_forward,
    greedy_generation_at_few_bits_takes_the_tokens_of_the_whole_forward,
    padding_on_the_left_changes_no_rounding,
);

fn logits<B: QuantBackend>(model: &Llama<B>, ids: Tensor<B, 2, Int>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

/// Logits of all tokens of a batch, read in pieces of the given sizes.
fn cached_logits<B: QuantBackend>(
    model: &Llama<B>,
    ids: &Tensor<B, 2, Int>,
    pieces: &[usize],
    plan: &SitePlan,
) -> Vec<f32> {
    let [batch, tokens] = ids.dims();
    let mut cache = KvCache::new(&model.shape(), batch, tokens, &ids.device());
    let pieces = pieces.iter().map(|&size| {
        let piece = ids.clone().narrow(1, cache.len(), size);
        model.next_token_scores(model.forward_cached(piece, &mut cache, plan), plan)
    });
    let logits = Tensor::cat(pieces.collect(), 1);
    assert_eq!(cache.len(), tokens);
    values(logits)
}

fn cached_steps_at_few_bits_give_the_whole_forward<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let model = load::<B>(case);
        let ids = Fixture::open(case).batch::<B>("input_ids");
        let tokens = ids.dims()[1];
        for bits in [2, 3, 4, 8].map(width) {
            let plan = full(&model).with_kv_cache(bits).with_block_kv_cache(1, width(4));
            let whole = logits(&model, ids.clone(), &plan);
            for pieces in [vec![tokens], vec![1; tokens], vec![5, 1, tokens - 6]] {
                let got = cached_logits(&model, &ids, &pieces, &plan);
                assert_close(&format!("{case}, {bits} bits in pieces of {pieces:?}"), &got, &whole, 3e-5);
            }
        }
    }
}

fn greedy_generation_at_few_bits_takes_the_tokens_of_the_whole_forward<B: QuantBackend>() {
    let model = load::<B>("tiny");
    let plan = full(&model).with_kv_cache(width(2));
    let mut text = Fixture::open("tiny").tokens("prompt_ids");
    let options = GenerateOptions { max_new_tokens: 12, ..Default::default() };
    let generated = model.generate(&text, &options, &plan).expect("generates");
    assert_ne!(generated, model.generate(&text, &options, &full(&model)).expect("generates"), "2 bits do no harm");
    let vocab = model.shape().vocabulary;
    for token in generated {
        let scores = logits(&model, batch_of_one(&text), &plan);
        let last = &scores[scores.len() - vocab..];
        let best = (0..vocab).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a vocabulary");
        assert_eq!(token as usize, best, "after {} tokens", text.len());
        text.push(token);
    }
}

fn padding_on_the_left_changes_no_rounding<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let plan = full(&model).with_kv_cache(width(4));
    let vocab = model.shape().vocabulary;
    let real = |ids: &str, mask: &str| {
        let padding = fixture.padding::<B>(mask);
        let logits = values(model.next_token_scores(model.forward(fixture.batch(ids), Some(&padding), &plan), &plan));
        fixture.real_rows(mask, &logits, vocab)
    };
    let left = real("left_padded_input_ids", "left_padded_attention_mask");
    assert_close("logits padded on the left", &left, &real("input_ids", "attention_mask"), 3e-5);
}

#[test]
fn each_block_alone_rounds_its_keys_and_values() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let mut seen = vec![logits(&model, ids.clone(), &full(&model))];
    for block in 0..model.shape().blocks {
        let got = logits(&model, ids.clone(), &full(&model).with_block_kv_cache(block, width(3)));
        for other in &seen {
            assert!(largest_difference(&got, other) > 1e-3, "block {block} does the same as another");
        }
        seen.push(got);
    }
}

#[test]
fn the_cache_holds_the_heads_of_keys_and_values_alone() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = || Tensor::<Plain, 2, Int>::ones([2, 5], &device());
    let read = |plan: &SitePlan| {
        let mut cache = KvCache::<Plain>::new(&model.shape(), 2, 7, &device());
        model.forward_cached(ids(), &mut cache, plan);
        cache
    };
    // 3 blocks, keys and values, 2 sequences of 7 tokens with 2 heads of 6 floats.
    assert_eq!(read(&full(&model)).bytes(), 3 * 2 * 2 * 7 * 2 * 6 * 4);
    let plan = full(&model).with_kv_cache(width(4));
    let cache = read(&plan);
    // 6 codes of 4 bits and a scale.
    assert_eq!(cache.bytes(), 3 * 2 * 2 * 7 * 2 * (3 + 4));
    assert_eq!(cache.packed_bytes(&plan), 3 * 2 * 2 * 5 * 2 * (3 + 4));
    assert_eq!(plan.kv_cache_bytes_per_token(&model.shape()), 3 * 2 * 2 * (3 + 4));
}

#[test]
fn gradients_reach_queries_keys_and_values_through_the_rounding() {
    skip_without_device!();
    let (model, fixture) = (load_with::<Train>("tiny", &trainable()), Fixture::open("tiny"));
    for padding in [None, Some(fixture.padding::<Train>("attention_mask"))] {
        for bits in [2, 4, 8].map(width) {
            let plan = full(&model).with_kv_cache(bits);
            let ids = fixture.batch::<Train>("input_ids");
            let logits = model.next_token_scores(model.forward(ids.clone(), padding.as_ref(), &plan), &plan);
            let gradients = next_token_loss(logits, ids, padding.clone()).backward();
            for block in 0..model.shape().blocks {
                for module in [Q_PROJ, K_PROJ, V_PROJ] {
                    let linear = model.site(Site::in_block(block, module));
                    let gradient = values(linear.weight().grad(&gradients).expect("a gradient"));
                    assert!(gradient.iter().all(|g| g.is_finite()), "{module} of block {block} at {bits} bits");
                    let largest = gradient.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
                    assert!(largest > 1e-6, "{module} of block {block} at {bits} bits: {largest:e}");
                }
            }
        }
    }
}

#[test]
fn plans_name_blocks_as_hugging_face_does() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let named = |block: &str, bits| PrecisionPlan::uniform(SitePrecision::FULL).with_kv_cache_block(block, width(bits));
    let plan = model.resolve(&named("layers.1", 4)).expect("a known block");
    assert_eq!([0, 1, 2].map(|block| plan.kv_cache(block).bits()), [32, 4, 32]);
    for block in ["layers.3", "layers", "h.0", "model.layers.0"] {
        let message = model.resolve(&named(block, 8)).expect_err("no such block").to_string();
        let known = "`layers.0`, `layers.1`, `layers.2`";
        assert_eq!(message, format!("kv cache of unknown block `{block}`, expected {known}"));
    }
    let message = model.resolve(&named("layers.1", 1)).expect_err("one bit").to_string();
    assert!(message.starts_with("kv cache of block `layers.1`: ") && message.contains('1'), "{message}");
}
