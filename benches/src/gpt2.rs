//! GPT-2 small with random weights: forward pass, one-token decoding and training step.

use std::hint::black_box;

use switchable_quant::backend::{Autodiff, Flex, FlexDevice};
use switchable_quant::burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use switchable_quant::burn::tensor::{Int, Tensor, TensorData};
use switchable_quant::kernels::{BitWidth, Granularity, QuantSpec};
use switchable_quant::lora::{Execution, LinearSettings, LoraConfig};
use switchable_quant::model::{
    Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, KvCache, ModelOptions, PackOptions, PackedForm, SitePlan,
    SitePrecision, span_loss,
};

use crate::{Case, Unit};

const BATCH: usize = 4;
const TOKENS: usize = 256;
const CONTEXT: usize = 128;

pub(crate) fn ids() -> Vec<String> {
    let forward = PRECISIONS.map(|(name, _)| format!("gpt2_forward/{name}/4x256"));
    let decode = ["f32", "q8", "q4", "q4_head8", "q4_nested"].map(|name| format!("decode/{name}/1x128"));
    [&forward[..], &decode, &["train_step/rank8/q4/4x256".to_owned()]].concat()
}

/// Weights and activations of a forward pass; anything but `f32` runs from packed codes, `fake` in
/// floats rounded to their levels.
const PRECISIONS: [(&str, (u8, u8)); 6] =
    [("f32", (32, 32)), ("w4_fake", (4, 32)), ("w8", (8, 32)), ("w4", (4, 32)), ("w8a8", (8, 8)), ("w4a8", (4, 8))];

pub(crate) fn build(id: &str) -> Option<Case> {
    let tokens = (BATCH * TOKENS) as u64;
    let precision = |name: &str| PRECISIONS.into_iter().find(|(known, _)| *known == name);
    let parts: Vec<&str> = id.split('/').collect();
    let (amount, run): (u64, Box<dyn FnMut()>) = match parts.as_slice() {
        ["gpt2_forward", name, "4x256"] => (tokens, forward(precision(name)?)),
        ["decode", name @ ("f32" | "q8" | "q4" | "q4_head8" | "q4_nested"), "1x128"] => (1, decode(name)),
        ["train_step", "rank8", "q4", "4x256"] => (tokens, train_step()),
        _ => return None,
    };
    Some(Case { id: id.to_owned(), amount: (amount, Unit::Tokens), run })
}

fn options() -> ModelOptions {
    let weight = QuantSpec::default().with_granularity(Granularity::PerChannel);
    ModelOptions { linear: LinearSettings { weight, ..Default::default() }, ..Default::default() }
}

fn token_ids(batch: usize, tokens: usize) -> TensorData {
    let ids: Vec<i64> = (0..(batch * tokens) as i64).map(|i| (i * 7919) % 50_257).collect();
    TensorData::new(ids, [batch, tokens])
}

fn small() -> Gpt2<Flex> {
    Gpt2::random(&Gpt2Config::gpt2_small(), &options(), 1, &FlexDevice).expect("a valid configuration")
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

/// `‖got − expected‖ / ‖expected‖`.
fn relative_error(got: &Tensor<Flex, 3>, expected: &Tensor<Flex, 3>) -> f32 {
    let error = (got.clone() - expected.clone()).square().sum().into_scalar();
    (error / expected.clone().square().sum().into_scalar()).sqrt()
}

fn forward((name, (weights, activations)): (&str, (u8, u8))) -> Box<dyn FnMut()> {
    let mut model = small();
    let precision = SitePrecision::FULL.with_weights(width(weights)).with_activations(width(activations));
    let plan = model.uniform_plan(precision);
    let ids = Tensor::<Flex, 2, Int>::from_data(token_ids(BATCH, TOKENS), &FlexDevice);
    if !matches!(name, "f32" | "w4_fake") {
        let few = ids.clone().slice([0..1, 0..16]);
        let expected = model.forward(few.clone(), None, &plan);
        let full = model.forward(few.clone(), None, &model.uniform_plan(SitePrecision::FULL));
        let settings = LinearSettings { execution: Execution::Packed, ..options().linear };
        model = model.with_linear_settings(settings);
        let error = relative_error(&model.forward(few, None, &plan), &expected);
        // Activations between two levels fall to either side after another order of sums, and through
        // twelve blocks that grows to the size of the quantisation noise, which it must not exceed.
        let most = if activations < 32 { relative_error(&expected, &full) } else { 1e-5 };
        assert!(error < most, "{name}: the relative error is {error}, expected less than {most}");
    }
    Box::new(move || drop(black_box(model.forward(ids.clone(), None, &plan))))
}

fn decode(name: &str) -> Box<dyn FnMut()> {
    let mut model = small();
    let bits = if name == "q8" { 8 } else { 4 };
    let precision = SitePrecision::FULL.with_weights(if name == "f32" { BitWidth::FULL } else { width(bits) });
    let plan = model.uniform_plan(precision);
    if name != "f32" {
        let folder = tempfile::tempdir().expect("a folder");
        let head = (name == "q4_head8").then_some(BitWidth::B8);
        let form = if name == "q4_nested" { PackedForm::Nested } else { PackedForm::Plan(&plan) };
        let pack = PackOptions { lm_head: head, ..Default::default() };
        model.save_packed(folder.path(), form, &pack).expect("it packs");
        model = Gpt2::load_packed(folder.path(), &options(), &FlexDevice).expect("it loads").0;
    }
    let mut cache = KvCache::new(model.config(), 1, CONTEXT + 1, &FlexDevice);
    let prompt = Tensor::<Flex, 2, Int>::from_data(token_ids(1, CONTEXT), &FlexDevice);
    model.forward_cached(prompt, &mut cache, &plan);
    let next = Tensor::<Flex, 2, Int>::from_data(token_ids(1, 1), &FlexDevice);
    Box::new(move || {
        cache.truncate(CONTEXT);
        let hidden = model.forward_cached(next.clone(), &mut cache, &plan);
        drop(black_box(model.lm_logits(hidden)));
    })
}

fn train_step() -> Box<dyn FnMut()> {
    type B = Autodiff<Flex>;
    let config = Gpt2Config::gpt2_small();
    let bits = BitWidth::B4;
    let body = Gpt2::<B>::random(&config, &options(), 1, &FlexDevice).expect("a valid configuration");
    let mut model = Gpt2ForQuestionAnswering::with_random_head(body, 2, &FlexDevice);
    let lora = LoraConfig::new(8, 16.0).expect("a valid rank");
    model.transformer.init_adapters(bits, &lora, 3).expect("the adapters fit");
    let plan = SitePlan::uniform(&config, SitePrecision::uniform(bits));
    let mut optimizer = AdamWConfig::new().init::<B, Gpt2ForQuestionAnswering<B>>();
    let ids = Tensor::<B, 2, Int>::from_data(token_ids(BATCH, TOKENS), &FlexDevice);
    let target = |at: i64| Tensor::<B, 1, Int>::from_data(TensorData::new(vec![at; BATCH], [BATCH]), &FlexDevice);
    let (starts, ends) = (target(40), target(43));
    let mut model = Some(model);
    Box::new(move || {
        let current = model.take().expect("it is put back");
        let logits = current.forward(ids.clone(), None, &plan);
        let loss = span_loss(logits.start, logits.end, starts.clone(), ends.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        model = Some(optimizer.step(1e-4, current, gradients));
    })
}
