//! Every sub-module runs at the precision that the plan gives it, and at no other.

use gpt2_model::names::{ATTN_C_PROJ, MLP_C_PROJ};
use gpt2_model::{
    BitWidth, Gpt2, Gpt2Config, LinearSettings, ModelConfig, ModelOptions, ModelWeights, PrecisionPlan, QuantizedCache,
    Site, SitePlan, SitePrecision, SwitchableModel,
};
use quant_kernels::spec::{granularity::Granularity, quant_spec::QuantSpec};
use switchable_lora::lora_config::LoraConfig;
use switchable_model::named_plans::NamedPlans as _;

use crate::support::{
    Fixture, Folder, Plain, device, full, largest_difference, load, load_with, skip_without_device, values,
};

/// The two sides do the same arithmetic, but need not in the same order.
const SAME: f32 = 1e-5;

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn logits(model: &Gpt2<Plain>, plan: &SitePlan) -> Vec<f32> {
    let ids = Fixture::open("tiny").batch("input_ids");
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

fn sites(model: &Gpt2<Plain>) -> Vec<Site> {
    model.config().sites().iter().collect()
}

/// Puts the quantised weight of a site in the place of its weight.
fn replace_weight(model: &mut Gpt2<Plain>, site: Site, bits: BitWidth) {
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
    for options in [ModelOptions::default(), per_channel()] {
        let model = load_with::<Plain>("tiny", &options);
        let unchanged = logits(&model, &full(&model));
        for site in sites(&model) {
            for bits in [2, 3, 4, 8].map(width) {
                let plan = full(&model).with(site, SitePrecision::FULL.with_weights(bits));
                let got = logits(&model, &plan);
                assert!(largest_difference(&got, &unchanged) > 1e-3, "{site:?} does not run at {bits} bits");

                let mut replaced = load_with::<Plain>("tiny", &options);
                replace_weight(&mut replaced, site, bits);
                let want = logits(&replaced, &full(&replaced));
                let difference = largest_difference(&got, &want);
                assert!(difference <= SAME, "{site:?} at {bits} bits: {difference:e} from its quantised weight");
            }
        }
    }
}

/// A plan in which neighbours never have the same width.
fn mixed_plan(model: &Gpt2<Plain>) -> SitePlan {
    let widths = [3, 8, 4, 32, 2, 6, 16, 5].map(width);
    sites(model).into_iter().enumerate().fold(full(model), |plan, (i, site)| {
        plan.with(site, SitePrecision::FULL.with_weights(widths[i % widths.len()]))
    })
}

#[test]
fn a_mixed_plan_runs_every_site_at_its_own_width() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let plan = mixed_plan(&model);
    let mut replaced = load::<Plain>("tiny");
    for (site, precision) in plan.iter().filter(|(_, precision)| !precision.weights.is_full()) {
        replace_weight(&mut replaced, site, precision.weights);
    }
    let difference = largest_difference(&logits(&model, &plan), &logits(&replaced, &full(&replaced)));
    assert!(difference <= SAME, "{difference:e}");
}

/// Root mean square of the change of the logits.
fn damage(model: &Gpt2<Plain>, plan: &SitePlan) -> f64 {
    let (got, want) = (logits(model, plan), logits(model, &full(model)));
    let squares: f64 = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    (squares / got.len() as f64).sqrt()
}

/// Gives a precision another width.
type Change = fn(SitePrecision, BitWidth) -> SitePrecision;

#[test]
fn fewer_bits_do_more_damage_and_sixteen_do_next_to_none() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let kinds: [(&str, Change); 2] =
        [("weights", SitePrecision::with_weights), ("activations", SitePrecision::with_activations)];
    for (kind, change) in kinds {
        let damages =
            [16, 8, 4, 2].map(|bits| damage(&model, &model.uniform_plan(change(SitePrecision::FULL, width(bits)))));
        assert!(damages.is_sorted(), "{kind} at 16, 8, 4 and 2 bits: {damages:?}");
        assert!(damages[0] > 0.0 && damages[0] < 1e-3, "{kind} at 16 bits: {damages:?}");
        assert!(damages[2] > 10.0 * damages[1], "{kind}: 4 bits have steps 16 times those of 8: {damages:?}");
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
            assert!(largest_difference(&got, other) > 1e-3, "{site:?} does the same as another");
        }
        seen.push(got);
    }
}

#[test]
fn the_order_of_switching_and_the_cache_change_nothing() {
    skip_without_device!();
    let plans = |model: &Gpt2<Plain>| {
        let uniform = [2, 4, 8, 16, 32].map(|bits| model.uniform_plan(SitePrecision::FULL.with_weights(width(bits))));
        [uniform.to_vec(), vec![mixed_plan(model)]].concat()
    };
    let fresh = |plan: usize| {
        let model = load::<Plain>("tiny");
        logits(&model, &plans(&model)[plan])
    };
    let expected: Vec<Vec<f32>> = (0..6).map(fresh).collect();
    // Room for everything, for a few matrices, and for none.
    for cache in [QuantizedCache::default(), QuantizedCache::new(20_000), QuantizedCache::disabled()] {
        let model = load_with::<Plain>("tiny", &ModelOptions { cache: cache.clone(), ..Default::default() });
        let plans = plans(&model);
        for plan in [0, 5, 4, 1, 5, 3, 2, 0, 0, 4, 5, 1, 3, 2] {
            assert_eq!(
                logits(&model, &plans[plan]),
                expected[plan],
                "plan {plan}, {} bytes of cache",
                cache.cap_bytes()
            );
            assert!(cache.used_bytes() <= cache.cap_bytes());
        }
    }
}

#[test]
fn replaced_weights_are_quantised_afresh() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let plan = model.uniform_plan(SitePrecision::FULL.with_weights(width(4)));
    let site = sites(&model)[2];
    let before = logits(&model, &plan);
    let mut changed = model.clone();
    let linear = changed.site_mut(site);
    *linear = linear.clone().with_parameters(linear.weight() * 2.0, linear.bias());
    assert!(largest_difference(&logits(&changed, &plan), &before) > 1e-3, "the old quantised weight is still used");
    assert_eq!(logits(&model, &plan), before, "the original uses the copy's quantised weight");
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
        assert_eq!(values(resumed), logits(&model, &other), "{site:?}");
    }
}

#[test]
fn a_plan_survives_its_named_form() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let plan = mixed_plan(&model);
    let named = PrecisionPlan::from_json(&plan.to_precision_plan().to_json()).expect("its own JSON");
    assert_eq!(model.resolve(&named).expect("its own sites"), plan);
}

#[test]
fn a_plan_can_name_blocks_and_sub_modules() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let [two, four] = [2, 4].map(|bits| SitePrecision::FULL.with_weights(width(bits)));
    let mut named = PrecisionPlan::uniform(SitePrecision::FULL);
    for block in 0..model.config().n_layer {
        named.set(model.sites().name(Site::in_block(block, MLP_C_PROJ)), four);
    }
    named.set("h.1.attn.c_proj", two);
    let plan = model.resolve(&named).expect("known sites");
    for (site, precision) in plan.iter() {
        let expected = match (site.block, site.module) {
            (_, MLP_C_PROJ) => four,
            (Some(1), ATTN_C_PROJ) => two,
            _ => SitePrecision::FULL,
        };
        assert_eq!(precision, expected, "{site:?}");
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
    let config = Gpt2Config::new(31, 16, 12, 2, 3);
    let flex = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 9, &device()).expect("a model");
    let ndarray = Gpt2::<burn::backend::NdArray>::random(
        &config,
        &ModelOptions::default(),
        9,
        &burn::backend::ndarray::NdArrayDevice::Cpu,
    )
    .expect("a model");
    for ((name, a), (_, b)) in flex.named_parameters().iter().zip(&ndarray.named_parameters()) {
        assert_eq!(a.values(), b.values(), "{name}");
    }
    let other = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 10, &device()).expect("a model");
    let wte = |model: &Gpt2<Plain>| values(model.token_embedding());
    assert_ne!(wte(&other), wte(&flex));
}

#[test]
fn a_saved_plan_means_the_same_under_any_settings_and_sites_may_differ() {
    skip_without_device!();
    let with = |weight: &str| {
        let linear = LinearSettings { weight: weight.parse().expect("a quantiser"), ..LinearSettings::default() };
        load_with::<Plain>("tiny", &ModelOptions { linear, ..ModelOptions::default() })
    };
    let [per_channel, per_tensor] = ["per-channel", "per-tensor"].map(with);
    let plan = per_channel.uniform_plan(SitePrecision::FULL.with_weights(width(3)));
    let named = PrecisionPlan::from_json(&per_channel.named_plan(&plan).to_json()).expect("its own JSON");
    assert!(named.is_explicit());
    let elsewhere = per_tensor.resolve(&named).expect("its own sites");
    assert_eq!(logits(&per_tensor, &elsewhere), logits(&per_channel, &plan));
    assert_ne!(logits(&per_tensor, &plan), logits(&per_channel, &plan));
    assert_eq!(per_channel.resolve(&named).expect("its own sites"), plan);

    // One site in blocks of 4 rows, one by a table, the rest as the model has them.
    let [blocks, table] = ["per-group:4,asymmetric", "per-group:4,nf4"].map(|text| text.parse().unwrap());
    let at = |block, module| Site::in_block(block, module);
    let four = SitePrecision::FULL.with_weights(width(4));
    let mixed = plan
        .clone()
        .with(at(1, MLP_C_PROJ), four.with_quantizer(blocks))
        .with(at(2, ATTN_C_PROJ), four.with_quantizer(table));
    assert_eq!(plan.first_difference(&mixed), Some(1));
    let other = mixed.clone().with(at(2, ATTN_C_PROJ), four.with_quantizer(blocks));
    assert_eq!(mixed.first_difference(&other), Some(2), "the quantiser alone differs");
    let named = PrecisionPlan::from_json(&per_channel.named_plan(&mixed).to_json()).expect("its own JSON");
    let elsewhere = per_tensor.resolve(&named).expect("its own sites");
    assert_eq!(logits(&per_tensor, &elsewhere), logits(&per_channel, &mixed));
    assert_ne!(logits(&per_channel, &mixed), logits(&per_channel, &other));
}

#[test]
fn a_plan_in_a_file_is_refused_with_its_path() {
    skip_without_device!();
    let (model, dir) = (load::<Plain>("tiny"), Folder::empty());
    let path = dir.path().join("plan.json");
    PrecisionPlan::uniform(SitePrecision::FULL).with_sub_module("mlp", SitePrecision::FULL).save(&path).unwrap();
    let message = model.load_plan(&path).expect_err("no such sub-module").to_string();
    let expected = "sub-module `mlp` matches no site, expected `attn.c_attn`, `attn.c_proj`, `mlp.c_fc`, `mlp.c_proj`";
    assert_eq!(message, format!("{}: {expected}", path.display()));
    PrecisionPlan::uniform(SitePrecision::uniform(width(4))).save(&path).unwrap();
    let message = model.load_plan(&path).expect_err("no adapters").to_string();
    assert!(message.contains("plan.json") && message.contains("no adapter for 4 bits"), "{message}");
}
