//! Factors folded into a model: the same function at full precision.

use llama_model::Llama;
use quant_kernels::ScalingMethod;
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::{LoraConfig, LoraInit, SitePrecision};
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::calibration::Calibrate as _;
use switchable_model::config::ModelConfig as _;
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::scaling::{ChooseScaling as _, FoldScaling as _, ScaledPair, ScalingChoice};
use switchable_model::site_plan::SitePlan;
use test_support::numbers::numbers;

use crate::support::{
    Fixture, Folder, LANGUAGE_MODELS, Plain, device, full, load, relative_error, skip_without_device, values, width,
};

/// Every pair of every block with random factors from a quarter to four.
fn random_pairs<B: QuantBackend>(model: &Llama<B>) -> Vec<ScaledPair> {
    let mut scaled = Vec::new();
    for block in 0..model.sites().blocks() {
        for pair in model.config().foldable_pairs() {
            let factors = numbers(pair.factors, 7 + scaled.len() as u64).iter().map(|x| (2.0 * x).exp2()).collect();
            scaled.push(ScaledPair { block, pair, factors });
        }
    }
    scaled
}

fn logits(model: &Llama<Plain>, case: &'static str, plan: &SitePlan) -> Vec<f32> {
    let ids = Fixture::open(case).batch("input_ids");
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

#[test]
fn a_folded_model_is_the_same_function_with_grouped_heads_too() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let model = load::<Plain>(case);
        assert!(model.config().num_attention_heads > model.config().num_key_value_heads);
        let plan = full(&model);
        let before = logits(&model, case, &plan);
        for pair in random_pairs(&model) {
            let folded = model.clone().folded(std::slice::from_ref(&pair)).unwrap();
            let error = relative_error(&logits(&folded, case, &plan), &before);
            assert!(error < 1e-5, "{case}, {:?}: {error:e}", pair.pair);
            for site in pair.consumers() {
                let weight = |model: &Llama<Plain>| values(model.site(site).weight());
                assert_ne!(weight(&folded), weight(&model), "{}", model.sites().name(site));
            }
        }
        let folded = model.clone().folded(&random_pairs(&model)).unwrap();
        let error = relative_error(&logits(&folded, case, &plan), &before);
        assert!(error < 1e-5, "{case}: {error:e}");
    }
}

#[test]
fn adapters_stay_the_same_function_saved_and_loaded() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let mut model = load::<Plain>(case);
        let lora = LoraConfig::new(3, 6.0).unwrap().with_init(LoraInit::LoftQ { iterations: 4 });
        model.init_adapters(width(4), &lora, 5).unwrap();
        let plan = model.uniform_plan(SitePrecision::FULL.with_adapter(width(4)));
        let before = logits(&model, case, &plan);
        assert!(relative_error(&before, &logits(&model, case, &full(&model))) > 1e-2, "the adapters add nothing");
        let folded = model.clone().folded(&random_pairs(&model)).unwrap();
        let error = relative_error(&logits(&folded, case, &plan), &before);
        assert!(error < 1e-5, "{case}: {error:e}");

        let (folder, adapters) = (Folder::empty(), Folder::empty());
        folded.export(folder.path()).unwrap();
        folded.save_adapters(adapters.path(), case).unwrap();
        let mut loaded = Llama::<Plain>::load(folder.path(), &ModelOptions::default(), &device()).unwrap();
        loaded.load_adapters(adapters.path()).unwrap();
        let error = relative_error(&logits(&loaded, case, &plan), &before);
        assert!(error < 1e-5, "{case}, loaded: {error:e}");
    }
}

#[test]
fn chosen_factors_keep_the_function() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let model = load::<Plain>(case);
        let windows: Vec<Vec<u32>> = (0..4).map(|w| (0..20).map(|at| (w * 23 + at * at) % 97).collect()).collect();
        let moments = model.collect_moments(&windows, &mut |_| Ok(())).unwrap();
        let model = moments.given_to(model).unwrap();
        let plan = full(&model);
        let before = logits(&model, case, &plan);
        for method in [ScalingMethod::Awq, "smooth:0.3".parse().unwrap()] {
            let choice = ScalingChoice { method, bits: width(4) };
            let (folded, chosen) = model.clone().scaled_by(choice, &mut |_| Ok(())).unwrap();
            assert_eq!(chosen.len(), 4 * model.sites().blocks());
            assert!(chosen.iter().any(|pair| pair.alpha > 0.0), "{case}, {choice}");
            let error = relative_error(&logits(&folded, case, &plan), &before);
            assert!(error < 1e-5, "{case}, {choice}: {error:e}");
        }
    }
}
