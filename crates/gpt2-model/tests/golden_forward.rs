//! The forward pass held against `transformers`.

use burn::tensor::Tensor;

use gpt2_model::{Generate, GenerateOptions, Gpt2, KvCache, QuantBackend, SitePlan, SwitchableModel};

use crate::support::{
    Fixture, Plain, assert_close, batch_of_one, full, load, on_every_backend, skip_without_device, values,
};

/// Largest absolute difference allowed; the fixtures' own rounding is 5e-6.
const TOLERANCE: f32 = 2e-5;

on_every_backend!(
    logits_equal_those_of_transformers,
    right_padding_needs_no_mask,
    left_padding_moves_no_token,
    half_precision_weights_are_widened,
    shards_hold_the_same_model,
    the_hub_names_are_understood,
    hidden_states_of_every_block_are_equal,
    forward_from_any_block_gives_the_whole_forward,
    cached_steps_of_any_size_give_the_whole_forward,
    greedy_generation_gives_the_same_tokens,
    every_greedy_step_has_the_same_scores,
);

fn logits<B: QuantBackend>(model: &Gpt2<B>, fixture: &Fixture, ids: &str, mask: Option<&str>) -> Vec<f32> {
    let padding = mask.map(|mask| fixture.padding::<B>(mask));
    values(model.next_token_scores(model.forward(fixture.batch(ids), padding.as_ref(), &full(model)), &full(model)))
}

/// Compares the rows of real tokens with `{prefix}logits` of a fixture.
fn assert_logits(fixture: &Fixture, prefix: &str, got: &[f32], what: &str) {
    let (mask, expected) = (format!("{prefix}attention_mask"), format!("{prefix}logits"));
    let vocab = fixture.shape(&expected)[2];
    let want = fixture.real_rows(&mask, &fixture.floats(&expected), vocab);
    assert_close(what, &fixture.real_rows(&mask, got, vocab), &want, TOLERANCE);
}

fn logits_equal_those_of_transformers<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", Some("attention_mask")), "logits");
}

fn right_padding_needs_no_mask<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", None), "logits without a mask");
}

fn left_padding_moves_no_token<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let got = logits(&model, &fixture, "left_padded_input_ids", Some("left_padded_attention_mask"));
    assert_logits(&fixture, "left_padded_", &got, "logits of a batch padded on the left");
    assert!(got.iter().all(|logit| !logit.is_nan()), "padding gives NaN");
}

fn half_precision_weights_are_widened<B: QuantBackend>() {
    for case in ["tiny_f16", "tiny_bf16"] {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", Some("attention_mask")), case);
    }
}

fn the_hub_names_are_understood<B: QuantBackend>() {
    // The same weights as tiny_bf16 under the names of the published file.
    let (model, fixture) = (load::<B>("tiny_hub"), Fixture::open("tiny_bf16"));
    assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", Some("attention_mask")), "tiny_hub");
}

fn shards_hold_the_same_model<B: QuantBackend>() {
    let (sharded, whole) = (load::<B>("tiny_sharded"), load::<B>("tiny"));
    let (sharded, whole) = (sharded.named_parameters(), whole.named_parameters());
    assert_eq!(sharded.len(), whole.len());
    for ((name, shard), (expected_name, expected)) in sharded.iter().zip(&whole) {
        assert_eq!(name, expected_name);
        assert_eq!(shard.values(), expected.values(), "{name}");
    }
}

fn hidden_states_of_every_block_are_equal<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let (padding, plan) = (fixture.padding::<B>("attention_mask"), full(&model));
    let d = model.config().n_embd;
    let check = |name: &str, hidden: &Tensor<B, 3>| {
        let want = fixture.real_rows("attention_mask", &fixture.floats(name), d);
        assert_close(name, &fixture.real_rows("attention_mask", &values(hidden.clone()), d), &want, TOLERANCE);
    };
    let mut hidden = model.embed(fixture.batch("input_ids"), Some(&padding), &full(&model));
    check("hidden.0", &hidden);
    for block in 0..model.config().n_layer {
        hidden = model.forward_blocks(block..block + 1, hidden, Some(&padding), &plan);
        check(&format!("hidden.{}", block + 1), &hidden);
    }
    check("hidden.ln_f", &model.ln_f.forward(hidden));
}

fn forward_from_any_block_gives_the_whole_forward<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let plan = full(&model);
    let padding = fixture.padding::<B>("attention_mask");
    for padding in [None, Some(&padding)] {
        let ids = fixture.batch::<B>("input_ids");
        let whole = values(model.forward(ids.clone(), padding, &plan));
        for block in 0..=model.config().n_layer {
            let entering = model.forward_blocks(0..block, model.embed(ids.clone(), padding, &plan), padding, &plan);
            let got = values(model.forward_from(block, entering, padding, &plan));
            assert_eq!(got, whole, "from block {block}");
        }
    }
}

/// Logits of all tokens of a batch, read in pieces of the given sizes.
fn cached_logits<B: QuantBackend>(model: &Gpt2<B>, fixture: &Fixture, pieces: &[usize], plan: &SitePlan) -> Vec<f32> {
    let ids = fixture.batch::<B>("input_ids");
    let [batch, tokens] = ids.dims();
    assert_eq!(pieces.iter().sum::<usize>(), tokens);
    let mut cache = KvCache::new(&model.shape(), batch, tokens, &ids.device());
    let mut from = 0;
    let pieces = pieces.iter().map(|size| {
        let piece = ids.clone().slice([0..batch, from..from + size]);
        from += size;
        let logits = model.next_token_scores(model.forward_cached(piece, &mut cache, plan), plan);
        assert_eq!(cache.len(), from);
        logits
    });
    values(Tensor::cat(pieces.collect(), 1))
}

fn cached_steps_of_any_size_give_the_whole_forward<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let tokens = fixture.shape("input_ids")[1];
    for pieces in [vec![tokens], vec![1; tokens], vec![5, 1, 3, tokens - 9], vec![tokens - 1, 1]] {
        let got = cached_logits(&model, &fixture, &pieces, &full(&model));
        assert_logits(&fixture, "", &got, &format!("logits read in pieces of {pieces:?}"));
    }
}

fn greedy_generation_gives_the_same_tokens<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let (prompt, expected) = (fixture.tokens("prompt_ids"), fixture.tokens("generated"));
    let new = &expected[prompt.len()..];
    let options = GenerateOptions { max_new_tokens: new.len(), ..Default::default() };
    let generated = |options: &GenerateOptions| model.generate(&prompt, options, &full(&model)).expect("generates");
    assert_eq!(generated(&options), new);

    let first = new.iter().position(|id| *id == new[7]).expect("it is there");
    let stopped = GenerateOptions { stop: vec![new[7]], ..options };
    assert_eq!(generated(&stopped), new[..first], "ends before the stop token");
}

fn every_greedy_step_has_the_same_scores<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let (prompt, generated) = (fixture.tokens("prompt_ids"), fixture.tokens("generated"));
    let plan = full(&model);
    let vocab = model.config().vocab_size;
    let mut cache = KvCache::new(&model.shape(), 1, generated.len(), &B::Device::default());
    let mut scores = Vec::new();
    let mut next = prompt.as_slice();
    for step in prompt.len()..generated.len() {
        let logits =
            values(model.next_token_scores(model.forward_cached(batch_of_one(next), &mut cache, &plan), &plan));
        scores.extend_from_slice(&logits[logits.len() - vocab..]);
        next = &generated[step..=step];
    }
    assert_close("step_logits", &scores, &fixture.floats("step_logits"), TOLERANCE);
}

#[test]
fn generation_ends_where_the_positions_end() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let prompt = Fixture::open("tiny").tokens("prompt_ids");
    let options = GenerateOptions { max_new_tokens: usize::MAX, ..Default::default() };
    let generated = model.generate(&prompt, &options, &full(&model)).expect("generates");
    // The last token is chosen from the last position and is not read itself.
    assert_eq!(prompt.len() + generated.len(), model.config().n_positions + 1);
}
