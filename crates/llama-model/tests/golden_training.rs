//! Losses, gradients and optimiser steps held against `transformers` and PyTorch.

use std::collections::BTreeMap;

use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::{Tensor, backend::AutodiffBackend};

use llama_model::{Llama, LlamaForQuestionAnswering};
use switchable_model::attention_mask::AttentionMask;
use switchable_model::loss::{next_token_loss, span_loss};
use switchable_model::model::SwitchableModel as _;
use switchable_model::parameters::ParameterRef;
use switchable_model::pass::Pass;
use switchable_model::positions::Positions;
use switchable_model::span_head::MissingHead;

use crate::support::{
    Fixture, LANGUAGE_MODELS, Train, assert_close, device, full, golden, load_with, skip_without_device, trainable,
    values,
};

/// Largest absolute difference of a loss; the fixtures' own rounding is 1.5e-6.
const LOSS_TOLERANCE: f32 = 5e-6;
/// The same after steps of Adam, which divides small gradients by their own size and so enlarges their
/// rounding.
const TRAINED_LOSS_TOLERANCE: f32 = 1e-5;
/// Largest absolute difference of a gradient; the fixtures' own rounding is 6e-6.
const GRADIENT_TOLERANCE: f32 = 2e-5;

fn loss(model: &Llama<Train>, fixture: &Fixture) -> Tensor<Train, 1> {
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    let logits = model.next_token_scores(model.forward(ids.clone(), Some(&padding), &full(model)), &full(model));
    next_token_loss(logits, ids, Some(padding))
}

/// Compares every gradient of a fixture, and finds none missing on either side.
fn assert_gradients(
    fixture: &Fixture,
    parameters: &[(String, ParameterRef<'_, Train>)],
    gradients: &<Train as AutodiffBackend>::Gradients,
) {
    let parameters: BTreeMap<&str, _> = parameters.iter().map(|(name, p)| (name.as_str(), p)).collect();
    assert_eq!(parameters.keys().copied().collect::<Vec<_>>(), fixture.names("grad."), "other parameters");
    for (name, parameter) in parameters {
        let expected = format!("grad.{name}");
        assert_eq!(parameter.shape(), fixture.shape(&expected), "{name}");
        let gradient = parameter.gradient(gradients).unwrap_or_else(|| panic!("{name} has no gradient"));
        assert_close(&expected, &gradient, &fixture.floats(&expected), GRADIENT_TOLERANCE);
    }
}

#[test]
fn loss_and_every_gradient_equal_those_of_transformers() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let (model, fixture) = (load_with::<Train>(case, &trainable()), Fixture::open(case));
        let loss = loss(&model, &fixture);
        assert_close("loss", &values(loss.clone()), &fixture.floats("loss"), LOSS_TOLERANCE);
        assert_gradients(&fixture, &model.named_parameters(), &loss.backward());
    }
}

#[test]
fn ten_steps_of_adamw_give_the_losses_of_pytorch() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let (mut model, fixture) = (load_with::<Train>(case, &trainable()), Fixture::open(case));
        let config = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8).with_weight_decay(0.01);
        let mut adamw = config.init::<Train, Llama<Train>>();
        let expected = fixture.floats("train_losses");
        let mut losses = Vec::new();
        for _ in &expected {
            let loss = loss(&model, &fixture);
            losses.extend(values(loss.clone()));
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = adamw.step(1e-3, model, gradients);
        }
        assert_close("train_losses", &losses, &expected, TRAINED_LOSS_TOLERANCE);
        let last = values(loss(&model, &fixture));
        assert_close("train_final_loss", &last, &fixture.floats("train_final_loss"), TRAINED_LOSS_TOLERANCE);
    }
}

#[test]
fn span_logits_loss_and_every_gradient_equal_those_of_transformers() {
    skip_without_device!();
    let fixture = Fixture::open("tiny_qa");
    let model =
        LlamaForQuestionAnswering::<Train>::load(golden("tiny_qa"), &trainable(), MissingHead::Refuse, &device())
            .expect("a golden folder loads");
    let padding = fixture.padding("attention_mask");
    let body = &model.transformer;
    let logits = model.forward(fixture.batch("input_ids"), Some(&padding), &full(body));
    for (name, got) in [("start_logits", &logits.start), ("end_logits", &logits.end)] {
        let want = fixture.real_rows("attention_mask", &fixture.floats(name), 1);
        let got = fixture.real_rows("attention_mask", &values(got.clone()), 1);
        assert_close(name, &got, &want, GRADIENT_TOLERANCE);
    }
    // The loss of transformers counts the scores at padding as well, where its positions go on.
    let ids = fixture.batch("input_ids");
    let [_, tokens] = ids.dims();
    let positions = Positions::Consecutive { first: 0, tokens };
    let (mask, terms) = (AttentionMask::causal_with_padding(&padding), body.position_terms(&positions));
    let plan = full(body);
    let mut hidden = body.embed_at(ids, &positions, &plan);
    for block in 0..body.shape().blocks {
        hidden = body.forward_block(hidden, &mut Pass::new(&plan).block(block, &mask, terms.as_ref()));
    }
    let logits = model.span_logits(body.normalise(hidden), &plan);
    let loss =
        span_loss(logits.start, logits.end, fixture.positions("start_positions"), fixture.positions("end_positions"));
    assert_close("loss", &values(loss.clone()), &[fixture.scalar("loss")], LOSS_TOLERANCE);
    assert_gradients(&fixture, &model.named_parameters(), &loss.backward());
}
