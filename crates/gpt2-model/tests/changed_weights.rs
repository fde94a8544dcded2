//! What a model computes after its weights changed: never by what was derived from the ones before.

use burn::module::{AutodiffModule as _, Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, Optimizer as _, SgdConfig};
use burn::tensor::{Tensor, backend::Backend};

use gpt2_model::{
    BitWidth, Gpt2, LinearSettings, ModelOptions, PackModel, QuantizedCache, SitePlan, SitePrecision, SwitchableModel,
    next_token_loss,
};
use quant_kernels::packed::scales::ScaleFormat;
use switchable_lora::linear_settings::BasePolicy;

use crate::support::{Fixture, Plain, Train, load_with, skip_without_device, values};

fn trainable(cache: QuantizedCache) -> ModelOptions {
    let linear = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    ModelOptions { linear, cache, ..Default::default() }
}

fn at(model: &Gpt2<Plain>, bits: u8) -> SitePlan {
    model.uniform_plan(SitePrecision::uniform(BitWidth::new(bits).expect("a width")).without_adapter())
}

fn logits(model: &Gpt2<Plain>, bits: u8) -> Vec<f32> {
    values(model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, &at(model, bits))))
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

/// The same change of a model with a packed head, and of one whose head is packed after it.
fn assert_head_follows(what: &str, change: impl Fn(Gpt2<Train>) -> Gpt2<Train>) {
    let eight = |model: Gpt2<Plain>| model.with_packed_head(BitWidth::B8, ScaleFormat::F32).expect("it packs");
    let packed_before = load_with::<Train>("tiny", &trainable(QuantizedCache::default()));
    let plain = packed_before.clone();
    let packed_before = packed_before.with_packed_head(BitWidth::B8, ScaleFormat::F32).expect("it packs");
    let expected = logits(&eight(change(plain).valid()), 32);
    let changed = change(packed_before.clone()).valid();
    assert!(changed.packed_head().is_some(), "{what}: the packed head is lost");
    assert!(logits(&changed, 32) == expected, "{what}: the scores are those of another head");
    assert!(logits(&packed_before.valid(), 32) != expected, "{what}: nothing changed");
}

#[test]
fn a_packed_head_follows_the_token_embedding() {
    skip_without_device!();
    assert_head_follows("a mapper", |model| model.map(&mut Scale(1.25)));
    assert_head_follows("a training step", trained);
    assert_head_follows("a record", |model| {
        let record = model.clone().map(&mut Scale(0.5)).into_record();
        model.load_record(record)
    });
    assert_head_follows("another embedding", |mut model| {
        model.wte = model.wte.map(|table| (table * 2.0).set_require_grad(false).require_grad());
        model
    });
}
