//! Losses, gradients and optimisation held against those of `transformers`.

use std::collections::BTreeMap;

use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::Tensor;

use gpt2_model::{
    Gpt2, Gpt2ForQuestionAnswering, LinearSettings, MissingHead, ModelOptions, ParameterRef, SwitchableModel,
    next_token_loss, span_loss,
};
use switchable_lora::linear_settings::BasePolicy;

use crate::support::{Fixture, Train, assert_close, device, full, golden, load_with, skip_without_device, values};

/// Largest absolute difference of a loss; the fixtures' own rounding is 1.5e-6.
const LOSS_TOLERANCE: f32 = 5e-6;
/// Largest absolute difference of a gradient; the fixtures' own rounding is 5e-6.
const GRADIENT_TOLERANCE: f32 = 2e-5;

fn trainable() -> ModelOptions {
    let linear = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    ModelOptions { linear, ..Default::default() }
}

fn loss(model: &Gpt2<Train>, fixture: &Fixture) -> Tensor<Train, 1> {
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    let logits = model.next_token_scores(model.forward(ids.clone(), Some(&padding), &full(model)), &full(model));
    next_token_loss(logits, ids, Some(padding))
}

/// Compares every gradient of a fixture, and finds none missing on either side.
fn assert_gradients(
    fixture: &Fixture,
    parameters: &[(String, ParameterRef<'_, Train>)],
    gradients: &<Train as burn::tensor::backend::AutodiffBackend>::Gradients,
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
    let (model, fixture) = (load_with::<Train>("tiny", &trainable()), Fixture::open("tiny"));
    let loss = loss(&model, &fixture);
    assert_close("loss", &values(loss.clone()), &fixture.floats("loss"), LOSS_TOLERANCE);
    assert_gradients(&fixture, &model.named_parameters(), &loss.backward());
}

#[test]
fn ten_steps_of_adamw_give_the_losses_of_pytorch() {
    skip_without_device!();
    let (mut model, fixture) = (load_with::<Train>("tiny", &trainable()), Fixture::open("tiny"));
    let config = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8).with_weight_decay(0.01);
    let mut adamw = config.init::<Train, Gpt2<Train>>();
    let expected = fixture.floats("train_losses");
    let mut losses = Vec::new();
    for _ in &expected {
        let loss = loss(&model, &fixture);
        losses.extend(values(loss.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adamw.step(1e-3, model, gradients);
    }
    assert_close("train_losses", &losses, &expected, LOSS_TOLERANCE);
    let last = values(loss(&model, &fixture));
    assert_close("train_final_loss", &last, &fixture.floats("train_final_loss"), LOSS_TOLERANCE);
}

#[test]
fn a_padded_target_does_not_count() {
    skip_without_device!();
    let (model, fixture) = (load_with::<Train>("tiny", &trainable()), Fixture::open("tiny"));
    let padding = fixture.padding::<Train>("attention_mask");
    let ids = fixture.batch::<Train>("input_ids");
    // Other tokens at the padding.
    let noise = ids.clone().mask_fill(padding.clone(), 3);
    assert_ne!(noise.to_data(), ids.to_data());
    let loss = |ids: Tensor<Train, 2, burn::tensor::Int>| {
        let logits = model.next_token_scores(model.forward(ids.clone(), Some(&padding), &full(&model)), &full(&model));
        values(next_token_loss(logits, ids, Some(padding.clone())))
    };
    assert_eq!(loss(noise), loss(ids));
}

#[test]
fn span_logits_loss_and_every_gradient_equal_those_of_transformers() {
    skip_without_device!();
    let fixture = Fixture::open("tiny_qa");
    let model =
        Gpt2ForQuestionAnswering::<Train>::load(golden("tiny_qa"), &trainable(), MissingHead::Refuse, &device())
            .expect("a golden folder loads");
    let padding = fixture.padding("attention_mask");
    let logits = model.forward(fixture.batch("input_ids"), Some(&padding), &full(&model.transformer));
    for (name, got) in [("start_logits", &logits.start), ("end_logits", &logits.end)] {
        let want = fixture.real_rows("attention_mask", &fixture.floats(name), 1);
        let got = fixture.real_rows("attention_mask", &values(got.clone()), 1);
        assert_close(name, &got, &want, GRADIENT_TOLERANCE);
    }
    // The loss of transformers counts the scores at padding as well, where its positions go on.
    let (body, plan) = (&model.transformer, full(&model.transformer));
    let embedded = body.embed(fixture.batch("input_ids"), None, &full(body));
    let logits = model.span_logits(body.forward_from(0, embedded, Some(&padding), &plan), &plan);
    let loss =
        span_loss(logits.start, logits.end, fixture.positions("start_positions"), fixture.positions("end_positions"));
    assert_close("loss", &values(loss.clone()), &[fixture.scalar("loss")], LOSS_TOLERANCE);
    assert_gradients(&fixture, &model.named_parameters(), &loss.backward());
}
