//! GPT-2 small with random weights: forward pass, one-token decoding and training step.

use switchable_quant::burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use switchable_quant::burn::tensor::backend::Backend;
use switchable_quant::burn::tensor::{ElementConversion as _, Int, Tensor, TensorData};
use switchable_quant::kernels::{BitWidth, Granularity, QuantAutodiffBackend, QuantBackend, QuantSpec};
use switchable_quant::lora::{Compute, Execution, LinearSettings, LoraConfig};
use switchable_quant::model::{
    Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, KvCache, KvStorage, ModelConfig, ModelOptions, ModelWeights, PackModel,
    PackOptions, PackedForm, SitePlan, SitePrecision, SwitchableModel, span_loss,
};

use crate::answer::{assert_close, finish, relative_error, token_ids, width};
use crate::case::{Case, Unit};

const BATCH: usize = 4;
const TOKENS: usize = 256;
const CONTEXT: usize = 128;
const LONG_CONTEXT: usize = 256;
const VOCABULARY: usize = 50_257;

/// Weights and activations of a forward pass; anything but `f32` runs from packed codes, `fake` in
/// floats rounded to their levels, `bf16` in products of it.
const PRECISIONS: [(&str, u8, u8); 8] = [
    ("f32", 32, 32),
    ("bf16", 32, 32),
    ("w4_fake", 4, 32),
    ("w8", 8, 32),
    ("w4", 4, 32),
    ("w4_bf16", 4, 32),
    ("w8a8", 8, 8),
    ("w4a8", 4, 8),
];
/// What rounding activations and weights to bf16 may change, as a share of the largest output.
const OF_BF16: f32 = 0.03;

/// Widths of the weights, of the activations and of the head, whose activations stay floats.
const DECODERS: [(&str, [u8; 3], Storage); 7] = [
    ("f32", [32, 32, 32], Storage::Floats),
    ("q8", [8, 32, 32], Storage::Fixed),
    ("q4", [4, 32, 32], Storage::Fixed),
    ("q4_head8", [4, 32, 8], Storage::Fixed),
    ("q4a8_head8", [4, 8, 8], Storage::Fixed),
    ("q8a8_head8", [8, 8, 8], Storage::Fixed),
    ("q4_nested", [4, 32, 32], Storage::Nested),
];

/// Bits of keys and values, and how they are held, behind a longer context.
const CACHES: [(&str, u8, KvStorage); 4] = [
    ("kv32", 32, KvStorage::Floats),
    ("kv8_floats", 8, KvStorage::Floats),
    ("kv8", 8, KvStorage::Packed),
    ("kv4", 4, KvStorage::Packed),
];

#[derive(Clone, Copy, PartialEq)]
enum Storage {
    Floats,
    Fixed,
    Nested,
}

pub(crate) fn cases<B: QuantAutodiffBackend>(device: &B::Device) -> Vec<Case> {
    let mut all: Vec<Case> = PRECISIONS.map(|precision| forward::<B::InnerBackend>(precision, device)).into();
    all.extend(DECODERS.map(|decoder| decode::<B::InnerBackend>(decoder, device)));
    all.extend(CACHES.map(|cache| decode_behind_codes::<B::InnerBackend>(cache, device)));
    all.extend([("q4", Compute::F32), ("q4_bf16", Compute::Bf16)].map(|kind| train_step::<B>(kind, device)));
    all
}

fn options() -> ModelOptions {
    let weight = QuantSpec::default().with_granularity(Granularity::PerChannel);
    ModelOptions { linear: LinearSettings { weight, ..Default::default() }, ..Default::default() }
}

fn small<B: QuantBackend>(device: &B::Device) -> Gpt2<B> {
    Gpt2::random(&Gpt2Config::gpt2_small(), &options(), 1, device).expect("a valid configuration")
}

fn forward<B: QuantBackend>((name, weights, activations): (&'static str, u8, u8), device: &B::Device) -> Case {
    let id = format!("gpt2_forward/{name}/{BATCH}x{TOKENS}");
    let (packed, device) = (!matches!(name, "f32" | "w4_fake"), device.clone());
    Case::new(id.clone(), ((BATCH * TOKENS) as u64, Unit::Tokens), move || {
        let mut model = small::<B>(&device);
        let precision = SitePrecision::FULL.with_weights(width(weights)).with_activations(width(activations));
        let plan = model.uniform_plan(precision);
        let ids = token_ids::<B>([BATCH, TOKENS], VOCABULARY, &device);
        let few = ids.clone().slice([0..1, 0..16]);
        let expected = model.forward(few.clone(), None, &plan);
        // Activations between two levels fall to either side after another order of sums, and through
        // twelve blocks that grows to the size of the quantisation noise, which it must not exceed.
        let halves = name.ends_with("bf16");
        let limit = match activations {
            32 if halves => OF_BF16,
            32 => 1e-5,
            _ => relative_error(&expected, &model.forward(few, None, &model.uniform_plan(SitePrecision::FULL))),
        };
        if packed {
            let compute = if halves { Compute::Bf16 } else { Compute::F32 };
            let settings = LinearSettings { execution: Execution::Packed, compute, ..options().linear };
            model = model.with_linear_settings(settings);
        }
        // A token sees none that come after it.
        let got = model.forward(ids.clone(), None, &plan).slice([0..1, 0..16]);
        assert_close(&got, &expected, limit, &id);
        move || finish::<B>(model.forward(ids.clone(), None, &plan), &device)
    })
}

fn decode<B: QuantBackend>((name, widths, storage): (&str, [u8; 3], Storage), device: &B::Device) -> Case {
    let [weights, activations, head] = widths;
    let id = format!("decode/{name}/1x{CONTEXT}");
    let device = device.clone();
    Case::new(id.clone(), (1, Unit::Tokens), move || {
        let mut model = small::<B>(&device);
        let precision = SitePrecision::FULL.with_weights(width(weights)).with_activations(width(activations));
        let plan = model.uniform_plan(precision);
        let plan = if head < 32 { model.with_embedding_bits(plan, width(head)) } else { plan };
        let ids = token_ids::<B>([1, CONTEXT + 1], VOCABULARY, &device);
        let fake = model.forward(ids.clone(), None, &plan);
        // Activations between two levels: see `forward`.
        let limit = match activations {
            32 => 1e-4,
            _ => relative_error(&fake, &model.forward(ids.clone(), None, &model.uniform_plan(SitePrecision::FULL))),
        };
        if storage != Storage::Floats {
            let form = if storage == Storage::Nested { PackedForm::Nested } else { PackedForm::Plan(&plan) };
            let pack = PackOptions { embeddings: (head < 32).then(|| width(head)), ..Default::default() };
            model = model.pack(form, &pack).expect("it packs");
        }
        let mut cache = KvCache::new(&model.shape(), 1, CONTEXT + 1, &device);
        let [prompt, next] = [0..CONTEXT, CONTEXT..CONTEXT + 1].map(|tokens| ids.clone().slice([0..1, tokens]));
        model.forward_cached(prompt, &mut cache, &plan);

        // Nested codes have values of their own at 4 bits, so there it is the cache alone that is checked.
        let expected = if storage == Storage::Nested { model.forward(ids, None, &plan) } else { fake };
        let expected = expected.slice([0..1, CONTEXT..CONTEXT + 1]);
        assert_close(&model.forward_cached(next.clone(), &mut cache, &plan), &expected, limit, &id);
        move || {
            cache.truncate(CONTEXT);
            let hidden = model.forward_cached(next.clone(), &mut cache, &plan);
            finish::<B>(model.next_token_scores(hidden, &plan), &device);
        }
    })
}

fn decode_behind_codes<B: QuantBackend>((name, bits, storage): (&str, u8, KvStorage), device: &B::Device) -> Case {
    let id = format!("decode/{name}/1x{LONG_CONTEXT}");
    let device = device.clone();
    Case::new(id.clone(), (1, Unit::Tokens), move || {
        let model = small::<B>(&device);
        let plan = model.uniform_plan(SitePrecision::FULL).with_kv_cache(width(bits));
        let ids = token_ids::<B>([1, LONG_CONTEXT + 1], VOCABULARY, &device);
        let last =
            |plan: &SitePlan| model.forward(ids.clone(), None, plan).slice([0..1, LONG_CONTEXT..LONG_CONTEXT + 1]);
        let (full, expected) = (last(&model.uniform_plan(SitePrecision::FULL)), last(&plan));
        // Numbers between two levels fall to either side after another order of sums.
        let limit = if bits == 32 { 1e-4 } else { relative_error(&expected, &full) };
        let mut cache = KvCache::new(&model.shape(), 1, LONG_CONTEXT + 1, &device).with_storage(storage);
        let [prompt, next] =
            [0..LONG_CONTEXT, LONG_CONTEXT..LONG_CONTEXT + 1].map(|tokens| ids.clone().slice([0..1, tokens]));
        model.forward_cached(prompt, &mut cache, &plan);
        assert_close(&model.forward_cached(next.clone(), &mut cache, &plan), &expected, limit, &id);
        move || {
            cache.truncate(LONG_CONTEXT);
            let hidden = model.forward_cached(next.clone(), &mut cache, &plan);
            finish::<B>(model.next_token_scores(hidden, &plan), &device);
        }
    })
}

fn train_step<B: QuantAutodiffBackend>((name, compute): (&str, Compute), device: &B::Device) -> Case {
    let id = format!("train_step/rank8/{name}/{BATCH}x{TOKENS}");
    let device = device.clone();
    Case::new(id.clone(), ((BATCH * TOKENS) as u64, Unit::Tokens), move || {
        let config = Gpt2Config::gpt2_small();
        let bits = BitWidth::B4;
        let model = small::<B>(&device).with_linear_settings(LinearSettings { compute, ..options().linear });
        let mut model = Gpt2ForQuestionAnswering::with_random_head(model, 2, &device);
        let lora = LoraConfig::new(8, 16.0).expect("a valid rank");
        model.transformer.init_adapters(bits, &lora, 3).expect("the adapters fit");
        let plan = SitePlan::uniform(&config.sites(), SitePrecision::uniform(bits));
        let mut optimizer = AdamWConfig::new().init::<B, Gpt2ForQuestionAnswering<B>>();
        let ids = token_ids::<B>([BATCH, TOKENS], VOCABULARY, &device);
        let (starts, ends) = (targets::<B>(40, &device), targets::<B>(43, &device));
        let mut model = Some(model);
        let mut step = move || {
            let current = model.take().expect("it is put back");
            let logits = current.forward(ids.clone(), None, &plan);
            let loss = span_loss(logits.start, logits.end, starts.clone(), ends.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &current);
            model = Some(optimizer.step(1e-4, current, gradients));
            loss.inner()
        };
        let [first, second] = [step(), step()].map(|loss| loss.into_scalar().elem::<f32>());
        // A random head finds every position about as likely.
        assert!((first - (TOKENS as f32).ln()).abs() < 0.5, "{id}: a loss of {first} before training");
        assert!(second < first, "{id}: a step takes the loss from {first} to {second}");
        move || finish::<B::InnerBackend>(step(), &device)
    })
}

fn targets<B: Backend>(position: i64, device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::new(vec![position; BATCH], [BATCH]), device)
}
