//! Keys and values at few bits: the whole model with a cache and without, training, and plans.

use burn::tensor::{Int, Tensor};

use gpt2_model::names::ATTN_C_ATTN;
use gpt2_model::{
    BitWidth, Generate, GenerateOptions, Gpt2, KvCache, LinearSettings, ModelOptions, PrecisionPlan, QuantBackend,
    Site, SitePlan, SitePrecision, SwitchableModel, next_token_loss,
};
use switchable_lora::linear_settings::BasePolicy;
use switchable_model::named_plans::NamedPlans as _;
use test_support::panics::assert_panics;

use crate::support::{
    Fixture, Plain, Train, assert_close, batch_of_one, full, largest_difference, load, load_with, on_every_backend,
    skip_without_device, values,
};

on_every_backend!(
    cached_steps_at_few_bits_give_the_whole_forward,
    greedy_generation_at_few_bits_takes_the_tokens_of_the_whole_forward,
    padding_on_the_left_changes_no_rounding,
);

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn logits<B: QuantBackend>(model: &Gpt2<B>, ids: Tensor<B, 2, Int>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

/// Logits of all tokens of a batch, read in pieces of the given sizes.
fn cached_logits<B: QuantBackend>(
    model: &Gpt2<B>,
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
    let model = load::<B>("tiny");
    let ids = Fixture::open("tiny").batch::<B>("input_ids");
    let tokens = ids.dims()[1];
    for bits in (2..=16).map(width) {
        let plan = full(&model).with_kv_cache(bits).with_block_kv_cache(1, width(4));
        let whole = logits(&model, ids.clone(), &plan);
        // A product of one row may differ from that of many by an ulp. Where levels are that close, one
        // may be taken for its neighbour; still a cache must be nearer to the whole forward at its bits
        // than that is to full precision.
        let unrounded = logits(&model, ids.clone(), &full(&model).with_block_kv_cache(1, width(4)));
        let harm = whole.iter().zip(&unrounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let tolerance = if bits.bits() <= 8 { 2e-5 } else { (0.5 * harm).max(2e-5) };
        for pieces in [vec![tokens], vec![1; tokens], vec![5, 1, tokens - 6]] {
            let got = cached_logits(&model, &ids, &pieces, &plan);
            assert_close(&format!("{bits} bits in pieces of {pieces:?}"), &got, &whole, tolerance);
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
    let vocab = model.config().vocab_size;
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
    let vocab = model.config().vocab_size;
    let real = |ids: &str, mask: &str| {
        let padding = fixture.padding::<B>(mask);
        let logits = values(model.next_token_scores(model.forward(fixture.batch(ids), Some(&padding), &plan), &plan));
        fixture.real_rows(mask, &logits, vocab)
    };
    let left = real("left_padded_input_ids", "left_padded_attention_mask");
    assert_close("logits padded on the left", &left, &real("input_ids", "attention_mask"), 2e-5);
}

#[test]
fn each_block_alone_rounds_its_keys_and_values() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let mut seen = vec![logits(&model, ids.clone(), &full(&model))];
    for block in 0..model.config().n_layer {
        let got = logits(&model, ids.clone(), &full(&model).with_block_kv_cache(block, width(3)));
        for other in &seen {
            assert!(largest_difference(&got, other) > 1e-3, "block {block} does the same as another");
        }
        seen.push(got);
    }
}

#[test]
fn fewer_bits_do_more_damage_and_full_precision_none() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let want = logits(&model, ids.clone(), &full(&model));
    let damage = |bits: u8| {
        let got = logits(&model, ids.clone(), &full(&model).with_kv_cache(width(bits)));
        let squares: f64 = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
        (squares / got.len() as f64).sqrt()
    };
    let damages = [32, 16, 8, 4, 2].map(damage);
    assert_eq!(damages[0].to_bits(), 0.0_f64.to_bits());
    assert!(damages.is_sorted(), "at 32, 16, 8, 4 and 2 bits: {damages:?}");
    assert!(damages[1] < 1e-3 && damages[3] > 10.0 * damages[2], "{damages:?}");
}

#[test]
fn gradients_reach_queries_keys_and_values_through_the_rounding() {
    skip_without_device!();
    let settings = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    let model = load_with::<Train>("tiny", &ModelOptions { linear: settings, ..Default::default() });
    let fixture = Fixture::open("tiny");
    let d = model.config().n_embd;
    for padding in [None, Some(fixture.padding::<Train>("attention_mask"))] {
        for bits in (2..=16).map(width) {
            let plan = full(&model).with_kv_cache(bits);
            let ids = fixture.batch::<Train>("input_ids");
            let logits = model.next_token_scores(model.forward(ids.clone(), padding.as_ref(), &plan), &plan);
            let gradients = next_token_loss(logits, ids, padding.clone()).backward();
            for block in 0..model.config().n_layer {
                let linear = model.site(Site::in_block(block, ATTN_C_ATTN));
                let gradient = linear.weight().grad(&gradients).expect("a gradient");
                for (part, name) in ["queries", "keys", "values"].iter().enumerate() {
                    let part = values(gradient.clone().narrow(1, part * d, d));
                    assert!(part.iter().all(|g| g.is_finite()), "{name} of block {block} at {bits} bits");
                    let largest = part.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
                    assert!(largest > 1e-6, "{name} of block {block} at {bits} bits: {largest:e}");
                }
            }
        }
    }
}

#[test]
fn a_plan_with_bits_of_keys_and_values_survives_its_named_form() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    for plan in [
        full(&model).with_kv_cache(width(8)),
        full(&model).with_block_kv_cache(2, width(4)),
        full(&model).with_kv_cache(width(3)).with_block_kv_cache(0, BitWidth::FULL),
    ] {
        let named = PrecisionPlan::from_json(&plan.to_precision_plan().to_json()).expect("its own JSON");
        assert_eq!(model.resolve(&named).expect("its own blocks"), plan);
        assert_ne!(plan, full(&model));
    }
    let named =
        PrecisionPlan::uniform(SitePrecision::FULL).with_kv_cache(width(8)).with_kv_cache_block("h.1", width(4));
    let plan = model.resolve(&named).expect("known blocks");
    assert_eq!([0, 1, 2].map(|block| plan.kv_cache(block).bits()), [8, 4, 8]);
}

#[test]
fn plans_that_differ_in_keys_and_values_share_what_stands_before_exactly() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let base = full(&model).with_kv_cache(width(8));
    assert_eq!(base.first_difference(&base), None);
    for block in 0..model.config().n_layer {
        let other = base.clone().with_block_kv_cache(block, width(3));
        assert_eq!(base.first_difference(&other), Some(block));
        let shared = model.forward_blocks(0..block, model.embed(ids.clone(), None, &base), None, &base);
        let resumed = values(model.next_token_scores(model.forward_from(block, shared, None, &other), &other));
        assert_eq!(resumed, logits(&model, ids.clone(), &other), "block {block}");
    }
}

#[test]
fn plans_that_keep_keys_and_values_of_no_block_or_in_one_bit_are_refused_by_name() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let named = |block: &str, bits| PrecisionPlan::uniform(SitePrecision::FULL).with_kv_cache_block(block, width(bits));
    for block in ["h.3", "h", "h.0.attn", "h.00", "transformer.h.0"] {
        let message = model.resolve(&named(block, 8)).expect_err("no such block").to_string();
        assert_eq!(message, format!("kv cache of unknown block `{block}`, expected `h.0`, `h.1`, `h.2`"));
    }
    for message in [
        model.resolve(&named("h.1", 1)).expect_err("one bit").to_string(),
        model.check_plan(&full(&model).with_block_kv_cache(1, width(1))).expect_err("one bit").to_string(),
    ] {
        assert!(message.starts_with("kv cache of block `h.1`: ") && message.contains('1'), "{message}");
    }
}

#[test]
fn tokens_that_a_cache_has_no_room_for_leave_it_as_it_was() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let [batch, tokens] = ids.dims();
    let plan = full(&model);
    let piece = |first: usize, size: usize| ids.clone().narrow(1, first, size);
    let mut cache = KvCache::new(&model.shape(), batch, tokens - 1, &ids.device());
    model.forward_cached(piece(0, tokens - 2), &mut cache, &plan);
    let expected = values(model.forward_cached(piece(tokens - 2, 1), &mut cache.clone(), &plan));
    let mut refused = |expected: &str, ids: Tensor<Plain, 2, Int>, plan: &SitePlan| {
        assert_panics(expected, || drop(model.forward_cached(ids, &mut cache, plan)));
    };
    refused(&format!("kv cache of {} tokens cannot hold {tokens}", tokens - 1), piece(tokens - 2, 2), &plan);
    let fewer = piece(tokens - 2, 1).narrow(0, 0, 1);
    refused(&format!("1 sequences, the kv cache is for {batch}"), fewer, &plan);
    let missing = model.uniform_plan(SitePrecision::uniform(width(4)));
    refused("site `h.0.attn.c_attn`: no adapter for 4 bits", piece(tokens - 2, 1), &missing);
    assert_eq!(values(model.forward_cached(piece(tokens - 2, 1), &mut cache, &plan)), expected);
}
