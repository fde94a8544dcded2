//! The forward pass held against `transformers`.

use burn::tensor::Tensor;

use llama_model::Llama;
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::kv_cache::KvCache;
use switchable_model::model::SwitchableModel as _;

use crate::support::{Fixture, LANGUAGE_MODELS, assert_close, batch_of_one, full, load, on_every_backend, values};

/// Largest absolute difference allowed; the fixtures' own rounding is 6e-6.
const TOLERANCE: f32 = 3e-5;

on_every_backend!(
    logits_equal_those_of_transformers,
    left_padding_moves_no_token,
    half_precision_shards_with_scaled_rotations_are_understood,
    hidden_states_of_every_block_are_equal,
    forward_from_any_block_gives_the_whole_forward,
    cached_steps_of_any_size_give_the_whole_forward,
    greedy_generation_gives_the_same_tokens,
    every_greedy_step_has_the_same_scores,
);

fn logits<B: QuantBackend>(model: &Llama<B>, fixture: &Fixture, ids: &str, mask: Option<&str>) -> Vec<f32> {
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
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        // A batch padded on the right needs no mask.
        for mask in [Some("attention_mask"), None] {
            assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", mask), &format!("{case}, {mask:?}"));
        }
    }
}

fn left_padding_moves_no_token<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        let got = logits(&model, &fixture, "left_padded_input_ids", Some("left_padded_attention_mask"));
        assert_logits(&fixture, "left_padded_", &got, &format!("{case} padded on the left"));
        assert!(got.iter().all(|logit| !logit.is_nan()), "padding gives NaN");
    }
}

fn half_precision_shards_with_scaled_rotations_are_understood<B: QuantBackend>() {
    let case = "tiny_sharded_bf16";
    let (model, fixture) = (load::<B>(case), Fixture::open(case));
    assert_logits(&fixture, "", &logits(&model, &fixture, "input_ids", Some("attention_mask")), case);
}

fn hidden_states_of_every_block_are_equal<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        let (plan, d) = (full(&model), model.shape().width);
        let compare = |name: &str, got: Tensor<B, 3>| {
            let want = fixture.real_rows("attention_mask", &fixture.floats(name), d);
            let got = fixture.real_rows("attention_mask", &values(got), d);
            assert_close(&format!("{case}, {name}"), &got, &want, TOLERANCE);
        };
        let mut hidden = model.embed(fixture.batch("input_ids"), None, &full(&model));
        compare("hidden.0", hidden.clone());
        for block in 0..model.shape().blocks {
            hidden = model.forward_blocks(block..block + 1, hidden, None, &plan);
            compare(&format!("hidden.{}", block + 1), hidden.clone());
        }
        compare("hidden.norm", model.normalise(hidden));
    }
}

fn forward_from_any_block_gives_the_whole_forward<B: QuantBackend>() {
    let (model, fixture) = (load::<B>("tiny"), Fixture::open("tiny"));
    let plan = full(&model);
    for mask in [None, Some("left_padded_attention_mask")] {
        let padding = mask.map(|mask| fixture.padding::<B>(mask));
        let ids = fixture.batch::<B>("left_padded_input_ids");
        let whole = values(model.forward(ids.clone(), padding.as_ref(), &plan));
        for block in 0..=model.shape().blocks {
            let entered = model.embed(ids.clone(), padding.as_ref(), &plan);
            let entered = model.forward_blocks(0..block, entered, padding.as_ref(), &plan);
            let resumed = values(model.forward_from(block, entered, padding.as_ref(), &plan));
            assert_eq!(resumed, whole, "block {block}, {mask:?}");
        }
    }
}

fn cached_steps_of_any_size_give_the_whole_forward<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        let (ids, plan) = (fixture.batch::<B>("input_ids"), full(&model));
        let [batch, tokens] = ids.dims();
        let whole = values(model.forward(ids.clone(), None, &plan));
        for pieces in [vec![tokens], vec![1; tokens], vec![5, 1, tokens - 6]] {
            let mut cache = KvCache::new(&model.shape(), batch, tokens, &ids.device());
            let read = pieces.iter().map(|&size| {
                let piece = ids.clone().narrow(1, cache.len(), size);
                model.forward_cached(piece, &mut cache, &plan)
            });
            let got = values(Tensor::cat(read.collect(), 1));
            assert_eq!(cache.len(), tokens);
            assert_close(&format!("{case} in pieces of {pieces:?}"), &got, &whole, TOLERANCE);
        }
    }
}

fn greedy_generation_gives_the_same_tokens<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        let (prompt, expected) = (fixture.tokens("prompt_ids"), fixture.tokens("generated"));
        let options = GenerateOptions { max_new_tokens: expected.len() - prompt.len(), ..Default::default() };
        let generated = model.generate(&prompt, &options, &full(&model)).expect("generates");
        assert_eq!([prompt, generated].concat(), expected, "{case}");
    }
}

fn every_greedy_step_has_the_same_scores<B: QuantBackend>() {
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load::<B>(case), Fixture::open(case));
        let (text, prompt) = (fixture.tokens("generated"), fixture.tokens("prompt_ids").len());
        let [last, vocab] = [text.len() - 1, model.shape().vocabulary];
        let scores =
            model.next_token_scores(model.forward(batch_of_one(&text[..last]), None, &full(&model)), &full(&model));
        let got = values(scores.narrow(1, prompt - 1, last - prompt + 1));
        assert_eq!(got.len(), (text.len() - prompt) * vocab);
        assert_close(&format!("{case}, step_logits"), &got, &fixture.floats("step_logits"), TOLERANCE);
    }
}
