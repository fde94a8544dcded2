//! Every sub-module runs at the precision that the plan gives it, and at no other.

use burn::backend::NdArray;
use burn::backend::ndarray::NdArrayDevice;

use llama_model::sub_modules::{DOWN_PROJ, O_PROJ};
use llama_model::{Llama, LlamaConfig};
use quant_kernels::spec::{bit_width::BitWidth, granularity::Granularity, quant_spec::QuantSpec};
use switchable_lora::{
    linear_settings::LinearSettings, lora_config::LoraConfig, precision_plan::PrecisionPlan,
    site_precision::SitePrecision,
};
use switchable_model::initial::InitialWeights;
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::support::{
    Fixture, LANGUAGE_MODELS, Plain, device, full, largest_difference, load, load_with, skip_without_device, values,
    width,
};

/// The two sides do the same arithmetic, but need not in the same order.
const SAME: f32 = 1e-5;

fn logits(model: &Llama<Plain>, plan: &SitePlan) -> Vec<f32> {
    let ids = Fixture::open("tiny").batch("input_ids");
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

fn sites(model: &Llama<Plain>) -> Vec<Site> {
    model.sites().iter().collect()
}

/// Puts the quantised weight of a site in the place of its weight.
fn replace_weight(model: &mut Llama<Plain>, site: Site, bits: BitWidth) {
    let linear = model.site_mut(site);
    let quantized = linear.quantized_weight(bits).expect("it quantises");
    *linear = linear.clone().with_parameters(quantized, linear.bias());
}

fn per_channel() -> ModelOptions {
    let weight = QuantSpec { granularity: Granularity::PerChannel, ..Default::default() };
    ModelOptions { linear: LinearSettings { weight, ..Default::default() }, ..Default::default() }
}

#[test]
fn each_site_alone_runs_at_its_own_weight_width() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let model = load_with::<Plain>(case, &per_channel());
        let unchanged = logits(&model, &full(&model));
        for site in sites(&model) {
            let name = model.sites().name(site);
            for bits in [2, 4, 8].map(width) {
                let plan = full(&model).with(site, SitePrecision::FULL.with_weights(bits));
                let got = logits(&model, &plan);
                assert!(largest_difference(&got, &unchanged) > 1e-3, "{name} does not run at {bits} bits");

                let mut replaced = model.clone();
                replace_weight(&mut replaced, site, bits);
                let want = logits(&replaced, &full(&replaced));
                let difference = largest_difference(&got, &want);
                assert!(difference <= SAME, "{case}, {name} at {bits} bits: {difference:e} from its quantised weight");
            }
        }
    }
}

/// A plan in which neighbours never have the same width.
fn mixed_plan(model: &Llama<Plain>) -> SitePlan {
    let widths = [3, 8, 4, 32, 2, 6, 16, 5].map(width);
    sites(model).into_iter().enumerate().fold(full(model), |plan, (i, site)| {
        plan.with(site, SitePrecision::FULL.with_weights(widths[i % widths.len()]))
    })
}

#[test]
fn uniform_and_mixed_plans_equal_fake_quantisation_by_hand() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let model = load::<Plain>(case);
        let uniform = |bits| model.uniform_plan(SitePrecision::FULL.with_weights(width(bits)));
        for plan in [uniform(2), uniform(3), uniform(4), uniform(5), uniform(6), uniform(8), mixed_plan(&model)] {
            let mut replaced = model.clone();
            for (site, precision) in plan.iter().filter(|(_, precision)| !precision.weights.is_full()) {
                replace_weight(&mut replaced, site, precision.weights);
            }
            let difference = largest_difference(&logits(&model, &plan), &logits(&replaced, &full(&replaced)));
            assert!(difference <= SAME, "{case}: {difference:e}");
        }
    }
}

#[test]
fn each_site_alone_quantises_its_activations() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let mut seen = vec![logits(&model, &full(&model))];
    for site in sites(&model) {
        let got = logits(&model, &full(&model).with(site, SitePrecision::FULL.with_activations(width(3))));
        for other in &seen {
            assert!(largest_difference(&got, other) > 1e-3, "{} does the same as another", model.sites().name(site));
        }
        seen.push(got);
    }
}

#[test]
fn what_stands_before_the_first_difference_of_two_plans_is_shared_exactly() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let base = mixed_plan(&model);
    for site in sites(&model) {
        let other = base.clone().with(site, SitePrecision::FULL.with_weights(width(7)));
        let block = base.first_difference(&other).expect("they differ");
        assert_eq!(Some(block), site.block);
        let shared = model.forward_blocks(0..block, model.embed(ids.clone(), None, &base), None, &base);
        let resumed = model.next_token_scores(model.forward_from(block, shared, None, &other), &other);
        assert_eq!(values(resumed), logits(&model, &other), "{}", model.sites().name(site));
    }
}

#[test]
fn plans_name_sites_as_hugging_face_does() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let plan = mixed_plan(&model);
    let named = PrecisionPlan::from_json(&plan.to_precision_plan().to_json()).expect("its own JSON");
    assert_eq!(model.resolve(&named).expect("its own sites"), plan);

    let [two, four] = [2, 4].map(|bits| SitePrecision::FULL.with_weights(width(bits)));
    let mut named = PrecisionPlan::uniform(SitePrecision::FULL);
    for block in 0..model.shape().blocks {
        named.set(format!("layers.{block}.mlp.down_proj"), four);
    }
    named.set("layers.1.self_attn.o_proj", two);
    for (site, precision) in model.resolve(&named).expect("known sites").iter() {
        let expected = match (site.block, site.module) {
            (_, DOWN_PROJ) => four,
            (Some(1), O_PROJ) => two,
            _ => SitePrecision::FULL,
        };
        assert_eq!(precision, expected, "{}", model.sites().name(site));
    }
    for site in ["layers.3.self_attn.q_proj", "layers.0.attn.c_attn", "lm_head", "model.layers.0.mlp.up_proj"] {
        let message = model.resolve(&PrecisionPlan::uniform(SitePrecision::FULL).with_site(site, four)).unwrap_err();
        assert!(message.to_string().contains(site), "{message}");
    }
}

#[test]
fn fresh_adapters_change_nothing_and_each_width_has_its_own() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let config = LoraConfig::new(2, 4.0).expect("a configuration");
    let bits = [4, 8].map(width);
    for width in bits {
        model.init_adapters(width, &config, 5).expect("adapters");
    }
    let plans = bits.map(|width| model.uniform_plan(SitePrecision::uniform(width)));
    let bare = bits.map(|width| model.uniform_plan(SitePrecision::uniform(width).without_adapter()));
    for (plan, bare) in plans.iter().zip(&bare) {
        assert_eq!(logits(&model, plan), logits(&model, bare), "B starts at zero");
    }
    let [four, eight] = [&plans[0], &plans[1]];
    let (at_four, at_eight) = (logits(&model, four), logits(&model, eight));
    for site in sites(&model) {
        let linear = model.site_mut(site);
        let mut pair = linear.bank().get(width(4)).expect("an adapter").clone();
        pair.b = pair.b.map(|b| b + 0.1);
        linear.insert_adapter(width(4), pair).expect("the same shape");
    }
    assert!(largest_difference(&logits(&model, four), &at_four) > 1e-2, "the adapter of 4 bits is not used");
    assert_eq!(logits(&model, eight), at_eight, "8 bits use the adapter of 4");
}

#[test]
fn a_model_from_a_seed_is_the_same_on_every_backend() {
    skip_without_device!();
    let config = LlamaConfig { num_key_value_heads: 1, attention_bias: true, ..LlamaConfig::new(31, 12, 2, 3) };
    let options = ModelOptions::default();
    let plain = Llama::<Plain>::random(&config, &options, 9, &device()).expect("a model");
    let ndarray = Llama::<NdArray>::random(&config, &options, 9, &NdArrayDevice::Cpu).expect("a model");
    for ((name, a), (_, b)) in plain.named_parameters().iter().zip(&ndarray.named_parameters()) {
        assert_eq!(a.values(), b.values(), "{name}");
    }
    let other = Llama::<Plain>::random(&config, &options, 10, &device()).expect("a model");
    let embedding = |model: &Llama<Plain>| values(model.embed_tokens.weight());
    assert_ne!(embedding(&other), embedding(&plain));
    let parameters = plain.named_parameters().iter().map(|(_, parameter)| parameter.values().len()).sum::<usize>();
    assert_eq!(parameters, switchable_model::config::ModelConfig::parameters(&config));

    let matching = ModelOptions { initial: InitialWeights::Matching, ..Default::default() };
    let message = Llama::<Plain>::random(&config, &matching, 9, &device()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("matching"), "{message}");
}
