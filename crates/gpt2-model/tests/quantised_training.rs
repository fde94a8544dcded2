//! Which parameters learn: the adapters of the active width alone, or the base when it is trainable.

use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::backend::AutodiffBackend;

use gpt2_model::{
    BitWidth, Gpt2, LinearSettings, ModelConfig, ModelOptions, Site, SitePlan, SitePrecision, SwitchableModel,
    next_token_loss,
};
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig, placement::Placement};

use crate::support::{Fixture, Train, load_with, skip_without_device, values};

type Gradients = <Train as AutodiffBackend>::Gradients;

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn loss(model: &Gpt2<Train>, plan: &SitePlan) -> burn::tensor::Tensor<Train, 1> {
    let fixture = Fixture::open("tiny");
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    let logits = model.next_token_scores(model.forward(ids.clone(), Some(&padding), plan), plan);
    next_token_loss(logits, ids, Some(padding))
}

fn with_adapters(settings: LinearSettings, widths: &[BitWidth]) -> Gpt2<Train> {
    let mut model = load_with::<Train>("tiny", &ModelOptions { linear: settings, ..Default::default() });
    for &width in widths {
        model.init_adapters(width, &LoraConfig::new(2, 4.0).expect("a configuration"), 3).expect("adapters");
    }
    model
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, v| largest.max(v.abs()))
}

/// Largest gradient of A and of B of a site; `None` where there is none at all.
fn adapter_gradients(model: &Gpt2<Train>, site: Site, width: BitWidth, gradients: &Gradients) -> [Option<f32>; 2] {
    let pair = model.site(site).bank().get(width).expect("an adapter");
    [&pair.a, &pair.b].map(|p| p.val().grad(gradients).map(|g| largest(&values(g))))
}

#[test]
fn a_frozen_base_gets_no_gradient_and_only_the_active_width_does() {
    skip_without_device!();
    for placement in [Placement::Residual, Placement::Merged] {
        let widths = [4, 8, 32].map(width);
        let model = with_adapters(LinearSettings { placement, ..Default::default() }, &widths);
        for active in widths {
            let gradients = loss(&model, &model.uniform_plan(SitePrecision::uniform(active))).backward();
            for site in model.config().sites().iter() {
                let linear = model.site(site);
                assert!(linear.weight().grad(&gradients).is_none(), "{site:?}: the frozen weight has a gradient");
                let bias = linear.bias().expect("a bias");
                assert!(bias.grad(&gradients).is_none(), "{site:?}: the frozen bias has a gradient");
                for width in widths {
                    let [a, b] = adapter_gradients(&model, site, width, &gradients);
                    if width == active {
                        // B is zero, so nothing reaches A yet.
                        assert_eq!(a, Some(0.0), "{site:?}: A at {width} bits");
                        assert!(b.is_some_and(|b| b > 1e-6), "{site:?}: B at {width} bits: {b:?}");
                    } else {
                        assert_eq!([a, b], [None, None], "{site:?}: {width} bits learn from {active}");
                    }
                }
            }
        }
    }
}

#[test]
fn sites_of_one_plan_train_the_adapters_of_their_own_widths() {
    skip_without_device!();
    let [four, eight] = [4, 8].map(width);
    let model = with_adapters(LinearSettings::default(), &[four, eight]);
    let index = |site: Site| model.sites().module_index(site.module).expect("a sub-module");
    let width_of =
        |site: Site| if (site.block.unwrap_or_default() + index(site)).is_multiple_of(2) { four } else { eight };
    let plan = model.config().sites().iter().fold(model.uniform_plan(SitePrecision::FULL), |plan, site| {
        plan.with(site, SitePrecision::uniform(width_of(site)))
    });
    let gradients = loss(&model, &plan).backward();
    for site in model.config().sites().iter() {
        for width in [four, eight] {
            let [_, b] = adapter_gradients(&model, site, width, &gradients);
            assert_eq!(b.is_some(), width == width_of(site), "{site:?} at {width} bits");
        }
    }
}

#[test]
fn a_trainable_base_learns_through_its_quantisation() {
    skip_without_device!();
    let model = with_adapters(LinearSettings { base: BasePolicy::Trainable, ..Default::default() }, &[]);
    let plan = model.uniform_plan(SitePrecision::FULL.with_weights(width(4)).with_activations(width(8)));
    let gradients = loss(&model, &plan).backward();
    for (name, parameter) in model.named_parameters() {
        let gradient = parameter.gradient(&gradients).unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        assert!(largest(&gradient) > 1e-7, "{name}: the gradient is lost");
    }
}

/// Takes optimiser steps and returns the model with its losses.
fn train(mut model: Gpt2<Train>, plan: &SitePlan, steps: usize, rate: f64) -> (Gpt2<Train>, Vec<f32>) {
    let mut adamw = AdamWConfig::new().with_weight_decay(0.0).init::<Train, Gpt2<Train>>();
    let mut losses = Vec::new();
    for _ in 0..steps {
        let loss = loss(&model, plan);
        losses.extend(values(loss.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adamw.step(rate, model, gradients);
    }
    (model, losses)
}

#[test]
fn training_a_width_repairs_it_and_touches_neither_base_nor_other_widths() {
    skip_without_device!();
    let [three, eight] = [3, 8].map(width);
    let model = with_adapters(LinearSettings::default(), &[three, eight]);
    let plan = model.uniform_plan(SitePrecision::uniform(three));
    let (trained, losses) = train(model.clone(), &plan, 12, 1e-2);
    assert!(losses[11] < losses[0] - 0.1, "{losses:?}");
    for site in model.config().sites().iter() {
        assert_eq!(values(trained.site(site).weight()), values(model.site(site).weight()), "{site:?}: the base moved");
        let b = |model: &Gpt2<Train>, width| values(model.site(site).bank().get(width).expect("an adapter").b.val());
        assert_eq!(b(&trained, eight), b(&model, eight), "{site:?}: 8 bits moved");
        assert_ne!(b(&trained, three), b(&model, three), "{site:?}: 3 bits did not move");
    }
}

#[test]
fn a_trainable_base_is_quantised_afresh_after_every_step() {
    skip_without_device!();
    let settings = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    let model = with_adapters(settings, &[]);
    let plan = model.uniform_plan(SitePrecision::FULL.with_weights(width(4)));
    let (trained, losses) = train(model, &plan, 12, 1e-2);
    assert!(losses[11] < losses[0] - 0.1, "{losses:?}");
    for site in trained.config().sites().iter() {
        let linear = trained.site(site);
        let fresh = linear.clone().with_parameters(linear.weight(), linear.bias());
        let quantized = |linear: &switchable_lora::SwitchableLinear<Train>| {
            values(linear.quantized_weight(width(4)).expect("it quantises"))
        };
        assert_eq!(quantized(linear), quantized(&fresh), "{site:?}: an old quantised weight is kept");
    }
}

#[test]
fn the_model_without_gradients_gives_the_same_scores() {
    use burn::module::AutodiffModule as _;
    skip_without_device!();
    let model = with_adapters(LinearSettings::default(), &[width(4)]);
    let plan = model.uniform_plan(SitePrecision::uniform(width(4)));
    let (model, _) = train(model, &plan, 2, 1e-2);
    let valid = model.valid();
    let fixture = Fixture::open("tiny");
    let trained = values(model.next_token_scores(model.forward(fixture.batch("input_ids"), None, &plan), &plan));
    let scores = values(valid.next_token_scores(valid.forward(fixture.batch("input_ids"), None, &plan), &plan));
    let difference = crate::support::largest_difference(&scores, &trained);
    assert!(difference < 2e-5, "{difference:e}");
}
