//! GPT-2 small with random weights: forward pass, one-token decoding and training step.

use std::hint::black_box;

use switchable_quant::backend::{Autodiff, Flex, FlexDevice};
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use switchable_quant::burn::tensor::{Int, Tensor, TensorData};
use switchable_quant::kernels::{BitWidth, Granularity, QuantSpec};
use switchable_quant::lora::{LinearSettings, LoraConfig};
use switchable_quant::model::{
    Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, KvCache, ModelOptions, SitePlan, SitePrecision, span_loss,
};

use crate::{Case, Unit};

const BATCH: usize = 4;
const TOKENS: usize = 256;
const CONTEXT: usize = 128;

pub(crate) fn ids() -> Vec<String> {
    ["gpt2_forward/f32/4x256", "decode/f32/1x128", "train_step/rank8/q4/4x256"].map(str::to_owned).to_vec()
}

pub(crate) fn build(id: &str) -> Option<Case> {
    let tokens = (BATCH * TOKENS) as u64;
    let (amount, run): (u64, Box<dyn FnMut()>) = match id {
        "gpt2_forward/f32/4x256" => (tokens, forward(SitePrecision::FULL)),
        "decode/f32/1x128" => (1, decode(SitePrecision::FULL)),
        "train_step/rank8/q4/4x256" => (tokens, train_step()),
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

fn forward(precision: SitePrecision) -> Box<dyn FnMut()> {
    let model = small();
    let plan = model.uniform_plan(precision);
    let ids = Tensor::<Flex, 2, Int>::from_data(token_ids(BATCH, TOKENS), &FlexDevice);
    Box::new(move || drop(black_box(model.forward(ids.clone(), None, &plan))))
}

fn decode(precision: SitePrecision) -> Box<dyn FnMut()> {
    let model = small();
    let plan = model.uniform_plan(precision);
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
    let _ = model.as_ref().map(|model| model.valid());
    Box::new(move || {
        let current = model.take().expect("it is put back");
        let logits = current.forward(ids.clone(), None, &plan);
        let loss = span_loss(logits.start, logits.end, starts.clone(), ends.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        model = Some(optimizer.step(1e-4, current, gradients));
    })
}
