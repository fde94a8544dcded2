//! What a model computes after its weights changed: never by what was derived from the ones before.

use burn::module::{AutodiffModule as _, Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, Optimizer as _, SgdConfig};
use burn::tensor::{Tensor, backend::Backend};

use gpt2_model::{
    BitWidth, Gpt2, LinearSettings, ModelOptions, QuantizedCache, SitePlan, SitePrecision, SwitchableModel,
    next_token_loss,
};
use switchable_lora::linear_settings::{BasePolicy, Execution};

use crate::support::{Fixture, Plain, Train, load_with, skip_without_device, values};

fn trainable(cache: QuantizedCache) -> ModelOptions {
    let linear = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    ModelOptions { linear, cache, ..Default::default() }
}

fn at(model: &Gpt2<Plain>, bits: u8) -> SitePlan {
    model.uniform_plan(SitePrecision::uniform(BitWidth::new(bits).expect("a width")).without_adapter())
}

fn logits(model: &Gpt2<Plain>, bits: u8) -> Vec<f32> {
    values(model.next_token_scores(
        model.forward(Fixture::open("tiny").batch("input_ids"), None, &at(model, bits)),
        &at(model, bits),
    ))
}

/// One step of training on the fixture's tokens.
fn trained(model: Gpt2<Train>) -> Gpt2<Train> {
    let fixture = Fixture::open("tiny");
    let ids = fixture.batch::<Train>("input_ids");
    let plan = model.uniform_plan(SitePrecision::uniform(BitWidth::B4).without_adapter());
    // By the float matrix: a packed head has no gradient.
    let scores = model.forward(ids.clone(), None, &plan).matmul(model.token_embedding().transpose().unsqueeze());
    let gradients = next_token_loss(scores, ids, None).backward();
    let gradients = GradientsParams::from_grads(gradients, &model);
    SgdConfig::new().init().step(0.5, model, gradients)
}

/// Multiplies every float parameter.
struct Scale(f32);

impl<B: Backend> ModuleMapper<B> for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| {
            let train = tensor.is_require_grad();
            (tensor * self.0).set_require_grad(false).set_require_grad(train)
        })
    }
}

#[test]
fn a_trained_copy_runs_with_its_own_weights() {
    skip_without_device!();
    for first in [0, 1] {
        let run = |cache: QuantizedCache| {
            let model = load_with::<Train>("tiny", &trainable(cache));
            let copy = model.valid();
            let models = [copy, trained(model).valid()];
            let mut got = [Vec::new(), Vec::new()];
            for index in [first, 1 - first] {
                got[index] = logits(&models[index], 4);
            }
            got
        };
        let expected = run(QuantizedCache::disabled());
        assert_ne!(expected[0], expected[1], "the step did nothing");
        assert!(run(QuantizedCache::default()) == expected, "{first} ran first");
    }
}

#[test]
fn a_loaded_record_runs_with_its_own_weights() {
    skip_without_device!();
    let model = load_with::<Plain>("tiny", &ModelOptions::default());
    let scaled = |model: &Gpt2<Plain>| model.clone().map(&mut Scale(1.25));
    let expected = logits(
        &scaled(&load_with("tiny", &ModelOptions { cache: QuantizedCache::disabled(), ..Default::default() })),
        4,
    );
    let loaded = model.clone().load_record(scaled(&model).into_record());
    let before = logits(&model, 4);
    assert_eq!(logits(&loaded, 4), expected);
    assert_eq!(logits(&model, 4), before);
}

/// The same change of a model that keeps codes of its embeddings, and of one that has none yet.
fn assert_embeddings_follow(what: &str, change: impl Fn(Gpt2<Train>) -> Gpt2<Train>) {
    for execution in [Execution::Packed, Execution::FakeQuantized] {
        let embedded_at = |model: &Gpt2<Plain>| {
            let plan = model.with_embedding_bits(at(model, 32), BitWidth::B8);
            let ids = Fixture::open("tiny").batch("input_ids");
            values(model.next_token_scores(model.forward(ids, None, &plan), &plan))
        };
        let load = || {
            let options = trainable(QuantizedCache::default());
            let linear = LinearSettings { execution, ..options.linear };
            load_with::<Train>("tiny", &ModelOptions { linear, ..options })
        };
        let (used, fresh) = (load(), load());
        let before = embedded_at(&used.valid());
        let expected = embedded_at(&change(fresh).valid());
        assert!(embedded_at(&change(used).valid()) == expected, "{what}: the scores are those of other embeddings");
        assert!(before != expected, "{what}: nothing changed");
    }
}

#[test]
fn codes_of_embeddings_follow_their_values() {
    skip_without_device!();
    assert_embeddings_follow("a mapper", |model| model.map(&mut Scale(1.25)));
    assert_embeddings_follow("a training step", trained);
    assert_embeddings_follow("a record", |model| {
        let record = model.clone().map(&mut Scale(0.5)).into_record();
        model.load_record(record)
    });
    assert_embeddings_follow("another embedding", |mut model| {
        model.wte = model.wte.map_values(|table| (table * 2.0).set_require_grad(false).require_grad());
        model
    });
}
