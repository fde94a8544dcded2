//! Texts: those of `transformers`, batches of different lengths, streams, and requests that cannot be met.

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor};
use serde_json::Value;

use gpt2_model::{
    BitWidth, DrawOptions, Error, Generate, GenerateOptions, Gpt2, Gpt2Config, KvCache, KvStorage, LinearSettings,
    ModelOptions, ModelWeights, NewToken, QuantBackend, Sampling, SitePlan, SitePrecision, SwitchableModel,
};
use quant_kernels::{Granularity, QuantSpec};
use switchable_lora::linear_settings::Execution;

use crate::support::{
    Fixture, Plain, device, full, golden, load, load_with, on_every_backend, skip_without_device, values,
};

on_every_backend!(
    what_prompts_begin_with_is_read_once_and_continued_by_each,
    greedy_texts_are_those_of_transformers,
    sequences_of_a_batch_get_the_tokens_that_they_get_alone,
    packed_keys_and_values_give_the_logits_of_floats_to_the_bit,
);

const POSITIONS: usize = 32;

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn options(max_new_tokens: usize, stop: &[u32]) -> GenerateOptions {
    GenerateOptions { max_new_tokens, stop: stop.to_vec(), ..Default::default() }
}

/// A model whose scores lie far apart.
fn random<B: QuantBackend>() -> Gpt2<B> {
    let config = Gpt2Config::new(97, POSITIONS, 20, 3, 4).with_initializer_range(0.6);
    Gpt2::random(&config, &ModelOptions::default(), 4, &B::Device::default()).expect("a model")
}

/// Full precision, keys and values at few bits, weights and activations too.
fn plans<B: QuantBackend>(model: &Gpt2<B>) -> Vec<SitePlan> {
    let w4a8 = SitePrecision::FULL.with_weights(width(4)).with_activations(width(8));
    vec![
        full(model),
        full(model).with_kv_cache(width(8)),
        full(model).with_kv_cache(width(4)).with_block_kv_cache(1, width(3)),
        model.uniform_plan(w4a8).with_kv_cache(width(8)),
    ]
}

/// Prompts of one token, of all positions, and in between.
fn prompts() -> Vec<Vec<u32>> {
    [1, 9, 4, POSITIONS, 1, 17].iter().enumerate().map(|(i, &length)| prompt(i, length)).collect()
}

fn prompt(seed: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((seed * 31 + i * 37 + i * i * 11 + 5) % 97) as u32).collect()
}

fn greedy_texts_are_those_of_transformers<B: QuantBackend>() {
    let text = std::fs::read_to_string(golden("generation.json")).expect("a golden file");
    let golden: Value = serde_json::from_str(&text).expect("a golden file");
    let field = |name: &str| serde_json::from_value::<Vec<Vec<u32>>>(golden[name].clone()).expect("token ids");
    let prompts = field("prompts");
    let model = load::<B>("tiny");
    let plan = full(&model);
    let new = field("whole")[0].len();
    let whole = model.generate_batch(&prompts, &options(new, &[]), &plan).expect("generates");
    assert_eq!(whole, field("whole"), "padded on the left");
    let stop = golden["stop"].as_u64().expect("a token") as u32;
    let batch = model.generate_batch(&prompts, &options(new, &[stop]), &plan).expect("generates");
    assert_eq!(batch, field("batch"), "with ends of their own");
    let penalty = golden["penalty"].as_f64().expect("a number") as f32;
    let penalised = GenerateOptions { repetition_penalty: penalty, ..options(new, &[]) };
    for (prompt, expected) in prompts.iter().zip(field("penalised")) {
        assert_eq!(model.generate(prompt, &penalised, &plan).expect("generates"), expected, "{prompt:?}");
    }
    let penalised = model.generate_batch(&prompts, &penalised, &plan).expect("generates");
    assert_eq!(penalised, field("penalised"), "padding is not penalised");
}

fn sequences_of_a_batch_get_the_tokens_that_they_get_alone<B: QuantBackend>() {
    let (model, prompts) = (random::<B>(), prompts());
    let draws = DrawOptions { temperature: 2.0, top_k: Some(20), top_p: Some(0.95), seed: 9 };
    for (number, plan) in plans(&model).iter().enumerate() {
        // One that ends its own sequence after some tokens, and others where they come to it.
        let stop = model.generate(&prompts[1], &options(6, &[]), plan).expect("generates")[5];
        for options in [
            options(12, &[]),
            options(12, &[stop]),
            options(usize::MAX, &[]),
            GenerateOptions { sampling: Sampling::Draws(draws), repetition_penalty: 1.2, ..options(12, &[stop]) },
        ] {
            let together = model.generate_batch(&prompts, &options, plan).expect("generates");
            for (index, prompt) in prompts.iter().enumerate() {
                let alone = model.generate(prompt, &options, plan).expect("generates");
                assert_eq!(together[index], alone, "sequence {index}, plan {number}, {options:?}");
            }
            let lengths: Vec<usize> = together.iter().map(Vec::len).collect();
            assert_eq!(lengths[3], 1, "the last position is one");
            if options.max_new_tokens == usize::MAX {
                let ends = lengths.iter().zip(&prompts).map(|(new, prompt)| new + prompt.len());
                assert!(ends.into_iter().all(|end| end == POSITIONS + 1), "{lengths:?}");
            } else if options.stop.is_empty() {
                assert_eq!(lengths, [12, 12, 12, 1, 12, 12]);
            }
        }
    }
}

/// Logits of a batch that is read in pieces; behind the second, tokens are forgotten and read again.
fn cached_logits<B: QuantBackend>(model: &Gpt2<B>, plan: &SitePlan, storage: KvStorage) -> Vec<u32> {
    let ids = Fixture::open("tiny").batch::<B>("input_ids");
    let [batch, tokens] = ids.dims();
    let mut cache = KvCache::new(&model.shape(), batch, tokens, &ids.device()).with_storage(storage);
    let mut all = Vec::new();
    let mut read = |cache: &mut KvCache<B>, size: usize| {
        let piece: Tensor<B, 2, Int> = ids.clone().narrow(1, cache.len(), size);
        all.extend(values(model.next_token_scores(model.forward_cached(piece, cache, plan), plan)));
    };
    read(&mut cache, 6);
    read(&mut cache, 3);
    cache.truncate(7);
    read(&mut cache, 1);
    read(&mut cache, tokens - 8);
    let packed = plan.kv_cache_bytes_per_token(&model.shape()) * batch * tokens;
    match storage {
        KvStorage::Packed => assert_eq!([cache.bytes(), cache.packed_bytes(plan)], [packed; 2]),
        KvStorage::Floats => assert_eq!(cache.bytes(), 2 * 3 * batch * tokens * 20 * 4),
    }
    all.iter().map(|logit| logit.to_bits()).collect()
}

fn packed_keys_and_values_give_the_logits_of_floats_to_the_bit<B: QuantBackend>() {
    let model = load::<B>("tiny");
    for bits in (2..=16).map(width).chain([BitWidth::FULL]) {
        let plan = full(&model).with_kv_cache(bits).with_block_kv_cache(2, width(5));
        let packed = cached_logits(&model, &plan, KvStorage::Packed);
        assert_eq!(packed, cached_logits(&model, &plan, KvStorage::Floats), "{bits} bits");
    }
}

#[test]
fn every_token_is_handed_out_when_it_is_there_and_in_turns() {
    skip_without_device!();
    let (model, prompts) = (random::<Plain>(), prompts());
    let plan = full(&model);
    let mut streamed: Vec<NewToken> = Vec::new();
    let texts = model.generate_streaming(&prompts, &options(5, &[]), &plan, |token| {
        streamed.push(token);
        ControlFlow::Continue(())
    });
    let texts = texts.expect("generates");
    for (sequence, text) in texts.iter().enumerate() {
        let of_sequence = streamed.iter().filter(|token| token.sequence == sequence).map(|token| token.token);
        assert_eq!(&of_sequence.collect::<Vec<_>>(), text, "sequence {sequence}");
    }
    let first: Vec<usize> = streamed[..prompts.len()].iter().map(|token| token.sequence).collect();
    assert_eq!(first, [0, 1, 2, 3, 4, 5], "the first token of each");
    assert_eq!(streamed.len(), texts.iter().map(Vec::len).sum::<usize>());

    for end in [1, 4, prompts.len() + 2] {
        let mut seen = 0;
        let stopped = model.generate_streaming(&prompts, &options(5, &[]), &plan, |_| {
            seen += 1;
            if seen == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let stopped = stopped.expect("generates");
        assert_eq!((seen, stopped.iter().map(Vec::len).sum::<usize>()), (end, end));
        assert!(stopped.iter().zip(&texts).all(|(part, whole)| whole.starts_with(part)), "{stopped:?}");
    }
}

#[test]
fn activations_with_a_scale_of_all_rows_are_generated_with_one_after_the_other() {
    skip_without_device!();
    let activation = QuantSpec::default().with_granularity(Granularity::PerTensor);
    let settings = LinearSettings { activation, ..Default::default() };
    let model = load_with::<Plain>("tiny", &ModelOptions { linear: settings, ..Default::default() });
    let plan = model.uniform_plan(SitePrecision::FULL.with_activations(width(4)));
    let prompts: Vec<Vec<u32>> = prompts();
    let together = model.generate_batch(&prompts, &options(8, &[]), &plan).expect("generates");
    for (index, prompt) in prompts.iter().enumerate() {
        assert_eq!(together[index], model.generate(prompt, &options(8, &[]), &plan).expect("generates"), "{index}");
    }
    let mut seen = 0;
    let broken = model.generate_streaming(&prompts, &options(8, &[]), &plan, |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let broken: Vec<usize> = broken.expect("generates").iter().map(Vec::len).collect();
    assert_eq!(broken, [3, 0, 0, 0, 0, 0], "a break ends all of them");
}

fn what_prompts_begin_with_is_read_once_and_continued_by_each<B: QuantBackend>() {
    let model = random::<B>();
    for plan in plans(&model) {
        assert!(model.reads_tokens_alone(&plan));
        let shared = prompt(3, 9);
        let mut cache = KvCache::<B>::new(&model.shape(), 1, 24, &B::Device::default());
        let ids: Vec<i64> = shared.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<B, 1, Int>::from_data(ids.as_slice(), &B::Device::default()).unsqueeze();
        drop(model.forward_cached(ids, &mut cache, &plan));
        for (seed, own) in [(5, 1), (6, 4), (7, 15)] {
            let whole: Vec<u32> = shared.iter().copied().chain(prompt(seed, own)).collect();
            let alone = model.generate(&whole, &options(12, &[]), &plan).expect("generates");
            let mut streamed = Vec::new();
            let next = &whole[shared.len()..];
            let behind = model.generate_cached(&mut cache, next, &options(12, &[]), &plan, |new| {
                streamed.push(new.token);
                ControlFlow::Continue(())
            });
            let behind = behind.expect("generates");
            // Where the cache is full the text ends; its last token takes no room.
            let most = 24 + 1 - whole.len();
            assert_eq!(behind, alone[..alone.len().min(most)], "{own} tokens of its own");
            assert_eq!(streamed, behind);
            assert_eq!(cache.len(), whole.len() + behind.len() - 1, "all but the last are held");
            cache.truncate(shared.len());
        }
        let nothing = model.generate_cached(&mut cache, &[1], &options(0, &[]), &plan, |_| ControlFlow::Continue(()));
        assert!(nothing.expect("generates nothing").is_empty() && cache.len() == shared.len());
        let outside = model.generate_cached(&mut cache, &[97], &options(1, &[]), &plan, |_| ControlFlow::Continue(()));
        assert!(matches!(outside, Err(Error::TokenId { id: 97, .. })), "{outside:?}");
    }
}

#[test]
fn a_batch_of_nothing_is_nothing() {
    skip_without_device!();
    let model = random::<Plain>();
    let none: [&[u32]; 0] = [];
    assert_eq!(model.generate_batch(&none, &options(5, &[]), &full(&model)).expect("nothing"), Vec::<Vec<u32>>::new());
    let nothing = model.generate_batch(&prompts(), &options(0, &[]), &full(&model)).expect("nothing");
    assert_eq!(nothing, vec![Vec::<u32>::new(); 6]);
}

#[test]
fn a_prompt_that_cannot_be_continued_is_named_before_anything_is_generated() {
    skip_without_device!();
    let model = random::<Plain>();
    for (bad, words) in [
        (vec![], "prompt 1: sequence of 0 tokens, expected 1 to 32"),
        (vec![1; POSITIONS + 1], "prompt 1: sequence of 33 tokens, expected 1 to 32"),
        (vec![1, 97], "prompt 1: token id 97 at position 1 is outside the vocabulary of 97"),
    ] {
        let error = model.generate_streaming(&[vec![1], bad], &options(3, &[]), &full(&model), |token| {
            panic!("{token:?} was generated");
        });
        assert_eq!(error.expect_err("a bad prompt").to_string(), words);
    }
    let short = GenerateOptions { max_length: Some(4), ..options(9, &[]) };
    assert_eq!(model.generate(&[1, 2], &short, &full(&model)).expect("generates").len(), 2);
    let error = model.generate(&[1, 2, 3, 4], &short, &full(&model)).expect_err("no room");
    assert!(error.to_string().starts_with("max_length is 4 with a prompt of 4 tokens"), "{error}");
    let error = model.generate(&[1], &options(3, &[5, 97]), &full(&model)).expect_err("no such token");
    assert!(error.to_string().starts_with("stop is 97"), "{error}");
}

#[test]
fn scores_that_are_not_numbers_end_a_text_with_an_error() {
    skip_without_device!();
    for broken in [f32::NAN, f32::INFINITY] {
        let mut model = random::<Plain>();
        model.ln_f.gamma = model.ln_f.gamma.map(|gamma| gamma * broken);
        for sampling in [Sampling::Greedy, Sampling::Draws(DrawOptions::default())] {
            let options = GenerateOptions { sampling, ..options(usize::MAX, &[]) };
            let error = model.generate_batch(&[vec![1, 2], vec![3]], &options, &full(&model)).expect_err("no scores");
            assert!(matches!(error, Error::Scores { sequence: 0, tokens: 2, .. }), "{error}");
        }
    }
    let _ = device();
}

/// Time of a token with keys and values in codes and in floats, on the clock and of the processors: the latter says
/// more on a machine that does other work.
///
/// ```text
/// cargo test --release --workspace --test model -- --ignored --nocapture time_of_a_token
/// ```
#[test]
#[ignore = "a measurement"]
fn time_of_a_token() {
    let config = Gpt2Config::new(8000, 512, 768, 6, 12);
    let linear = LinearSettings { execution: Execution::Packed, ..Default::default() };
    let build = ModelOptions { linear, ..Default::default() };
    let model = Gpt2::<Plain>::random(&config, &build, 4, &device()).expect("a model");
    // Bits of weights, of keys and values, and how these are held.
    let kinds = [
        (32, 32, KvStorage::Floats),
        (32, 8, KvStorage::Packed),
        (32, 4, KvStorage::Packed),
        (4, 32, KvStorage::Floats),
        (4, 8, KvStorage::Floats),
        (4, 8, KvStorage::Packed),
        (4, 4, KvStorage::Packed),
        (4, 3, KvStorage::Packed),
    ];
    let mut times = vec![Vec::new(); kinds.len()];
    for _ in 0..5 {
        for (&(weights, bits, storage), times) in kinds.iter().zip(&mut times) {
            let plan = model.uniform_plan(SitePrecision::FULL.with_weights(width(weights)));
            let plan = plan.with_kv_cache(width(bits));
            let mut cache = KvCache::new(&model.shape(), 1, 257, &device()).with_storage(storage);
            let step = |cache: &mut KvCache<Plain>| {
                let ids = Tensor::<Plain, 2, Int>::ones([1, 1], &device());
                drop(values(model.forward_cached(ids, cache, &plan)));
            };
            step(&mut cache);
            let (clock, processors) = (std::time::Instant::now(), processor_seconds());
            for _ in 0..256 {
                step(&mut cache);
            }
            times.push([processor_seconds() - processors, clock.elapsed().as_secs_f64()].map(|s| s / 256.0 * 1e3));
        }
    }
    for (&(weights, bits, storage), times) in kinds.iter().zip(&times) {
        let median = |of: usize| {
            let mut times: Vec<f64> = times.iter().map(|time| time[of]).collect();
            times.sort_by(f64::total_cmp);
            format!("{:.2} [{:.2}, {:.2}]", times[2], times[0], times[4])
        };
        let [processors, clock] = [median(0), median(1)];
        let kind = format!("weights {weights}, keys and values {bits}, {storage:?}");
        println!("{kind}: {processors} ms of the processors, {clock} ms on the clock");
    }
}

/// Time that the processors have spent on this process, in steps of a hundredth; 0 where there is no `/proc`.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ').skip(11).take(2));
    let ticks = fields.into_iter().flatten().filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
