//! Texts: those of `transformers`, and batches of different lengths.

use burn::tensor::{Int, Tensor};
use serde_json::Value;

use llama_model::{Llama, LlamaConfig};
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::kv_cache::{KvCache, KvStorage};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;

use crate::support::{Fixture, full, golden, load, on_every_backend, values, width};

on_every_backend!(
    greedy_texts_are_those_of_transformers,
    sequences_of_a_batch_get_the_tokens_that_they_get_alone,
    packed_keys_and_values_give_the_logits_of_floats_to_the_bit,
);

fn options(max_new_tokens: usize, stop: &[u32]) -> GenerateOptions {
    GenerateOptions { max_new_tokens, stop: stop.to_vec(), ..Default::default() }
}

fn greedy_texts_are_those_of_transformers<B: QuantBackend>() {
    let text = std::fs::read_to_string(golden("generation.json")).expect("a golden file");
    let golden: Value = serde_json::from_str(&text).expect("a golden file");
    let field = |name: &str| serde_json::from_value::<Vec<Vec<u32>>>(golden[name].clone()).expect("token ids");
    let prompts = field("prompts");
    let model = load::<B>("tiny");
    let plan = full(&model);
    let new = field("whole")[0].len();
    let generate = |options| model.generate_batch(&prompts, &options, &plan).expect("generates");
    assert_eq!(generate(options(new, &[])), field("whole"), "padded on the left");
    let stop = golden["stop"].as_u64().expect("a token") as u32;
    assert_eq!(generate(options(new, &[stop])), field("batch"), "with ends of their own");
    let penalty = golden["penalty"].as_f64().expect("a number") as f32;
    let penalised = GenerateOptions { repetition_penalty: penalty, ..options(new, &[]) };
    assert_eq!(generate(penalised), field("penalised"), "padding is not penalised");
}

fn sequences_of_a_batch_get_the_tokens_that_they_get_alone<B: QuantBackend>() {
    let positions = 24;
    let config = LlamaConfig {
        num_key_value_heads: 2,
        max_position_embeddings: positions,
        initializer_range: 0.6,
        ..LlamaConfig::new(97, 32, 3, 4)
    };
    let model = Llama::<B>::random(&config, &ModelOptions::default(), 3, &B::Device::default()).expect("a model");
    let w4a8 = SitePrecision::FULL.with_weights(width(4)).with_activations(width(8));
    let prompt = |(seed, &length): (usize, &usize)| -> Vec<u32> {
        (0..length).map(|i| ((seed * 31 + i * 37 + i * i * 11 + 5) % 97) as u32).collect()
    };
    let prompts: Vec<Vec<u32>> = [5, 1, positions, 11, 1].iter().enumerate().map(prompt).collect();
    for plan in [
        full(&model),
        full(&model).with_kv_cache(width(8)),
        full(&model).with_kv_cache(width(4)),
        model.uniform_plan(w4a8).with_kv_cache(width(8)),
    ] {
        let stop = model.generate(&prompts[0], &options(4, &[]), &plan).expect("generates")[3];
        for options in [options(10, &[]), options(10, &[stop]), options(usize::MAX, &[])] {
            let together = model.generate_batch(&prompts, &options, &plan).expect("generates");
            for (index, prompt) in prompts.iter().enumerate() {
                let alone = model.generate(prompt, &options, &plan).expect("generates");
                assert_eq!(together[index], alone, "sequence {index}, {options:?}");
            }
            assert_eq!(together[2].len(), 1, "the last position is one");
            assert!(options.stop.is_empty() || together[0].len() < 4, "the first ends early");
        }
    }
}

fn packed_keys_and_values_give_the_logits_of_floats_to_the_bit<B: QuantBackend>() {
    for case in ["tiny", "tiny_untied"] {
        let model = load::<B>(case);
        let ids = Fixture::open(case).batch::<B>("input_ids");
        let [batch, tokens] = ids.dims();
        let logits = |plan: &SitePlan, storage: KvStorage| {
            let mut cache = KvCache::new(&model.shape(), batch, tokens, &ids.device()).with_storage(storage);
            let mut all = Vec::new();
            for (first, size) in [(0, 6), (6, 3), (7, 1), (8, tokens - 8)] {
                cache.truncate(first);
                let piece: Tensor<B, 2, Int> = ids.clone().narrow(1, first, size);
                all.extend(values(model.next_token_scores(model.forward_cached(piece, &mut cache, plan), plan)));
            }
            if storage == KvStorage::Packed {
                let packed = plan.kv_cache_bytes_per_token(&model.shape()) * batch * tokens;
                assert_eq!([cache.bytes(), cache.packed_bytes(plan)], [packed; 2]);
            }
            all.iter().map(|logit| logit.to_bits()).collect::<Vec<u32>>()
        };
        for bits in (2..=16).map(width) {
            let plan = full(&model).with_kv_cache(bits).with_block_kv_cache(1, width(5));
            assert_eq!(logits(&plan, KvStorage::Packed), logits(&plan, KvStorage::Floats), "{case} at {bits} bits");
        }
    }
}
