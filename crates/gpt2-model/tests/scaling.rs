//! Factors folded into a model: the same function at full precision.

use burn::module::AutodiffModule as _;
use gpt2_model::{
    AdapterFolders as _, BitWidth, Gpt2, ModelOptions, ModelWeights as _, PackModel as _, PackOptions, PackedForm,
    QuantBackend, Site, SitePlan, SitePrecision, SwitchableModel,
};
use quant_kernels::{Granularity, ScalingMethod};
use switchable_lora::{LinearSettings, LoraConfig, LoraInit, Placement, WeightScales};
use switchable_model::calibration::{Calibrate as _, ModelMoments};
use switchable_model::config::ModelConfig as _;
use switchable_model::scaling::{
    ChooseScaling as _, ChosenPair, FoldScaling as _, Producer, ScaledPair, ScalingChoice,
};
use test_support::compare::relative_error;
use test_support::numbers::numbers;

use crate::support::{Fixture, Folder, Plain, Train, device, full, load, load_with, skip_without_device, values};

/// Every pair of every block with random factors from a quarter to four.
fn random_pairs<B: QuantBackend>(model: &Gpt2<B>) -> Vec<ScaledPair> {
    let pairs = model.config().foldable_pairs();
    let scaled = |(index, (block, pair)): (usize, (usize, _))| {
        let pair: switchable_model::scaling::FoldablePair = pair;
        let factors = numbers(pair.factors, 7 + index as u64).iter().map(|x| (2.0 * x).exp2()).collect();
        ScaledPair { block, pair, factors }
    };
    let all = (0..model.sites().blocks()).flat_map(|block| pairs.iter().map(move |&pair| (block, pair)));
    all.enumerate().map(scaled).collect()
}

fn logits<B: QuantBackend>(model: &Gpt2<B>, plan: &SitePlan) -> Vec<f32> {
    let ids = Fixture::open("tiny").batch("input_ids");
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

/// A model with an adapter of 4 bits at every site that adds something.
fn with_adapters<B: QuantBackend>(options: &ModelOptions) -> Gpt2<B> {
    let mut model = load_with::<B>("tiny", options);
    let lora = LoraConfig::new(3, 6.0).expect("a configuration").with_init(LoraInit::LoftQ { iterations: 4 });
    model.init_adapters(BitWidth::B4, &lora, 5).expect("adapters");
    model
}

fn adapted<B: QuantBackend>(model: &Gpt2<B>) -> SitePlan {
    model.uniform_plan(SitePrecision::FULL.with_adapter(BitWidth::B4))
}

#[test]
fn a_folded_model_is_the_same_function() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let before = logits(&model, &full(&model));
    let folded = model.clone().folded(&random_pairs(&model)).unwrap();
    let error = relative_error(&logits(&folded, &full(&folded)), &before);
    assert!(error < 1e-5, "{error:e}");
    for site in model.sites().iter() {
        let weight = |model: &Gpt2<Plain>| values(model.site(site).weight());
        let changed = weight(&model) != weight(&folded);
        assert_eq!(changed, site.module.name() != "mlp.c_proj", "{}", model.sites().name(site));
    }
}

#[test]
fn adapters_stay_the_same_function_saved_and_loaded() {
    skip_without_device!();
    for placement in [Placement::Residual, Placement::Merged] {
        let linear = LinearSettings { placement, ..LinearSettings::default() };
        let options = ModelOptions { linear, ..ModelOptions::default() };
        let model = with_adapters::<Plain>(&options);
        let (plan, plain) = (adapted(&model), full(&model));
        let before = logits(&model, &plan);
        assert!(relative_error(&before, &logits(&model, &plain)) > 1e-2, "the adapters add nothing");
        let folded = model.clone().folded(&random_pairs(&model)).unwrap();
        let error = relative_error(&logits(&folded, &plan), &before);
        assert!(error < 1e-5, "{placement:?}: {error:e}");

        let (folder, adapters) = (Folder::empty(), Folder::empty());
        folded.export(folder.path()).unwrap();
        folded.save_adapters(adapters.path(), "tiny").unwrap();
        let mut loaded = Gpt2::<Plain>::load(folder.path(), &options, &device()).unwrap();
        loaded.load_adapters(adapters.path()).unwrap();
        let error = relative_error(&logits(&loaded, &plan), &before);
        assert!(error < 1e-5, "{placement:?}, loaded: {error:e}");
    }
}

#[test]
fn a_model_in_training_stays_the_same_function_and_in_training() {
    skip_without_device!();
    let model = with_adapters::<Train>(&ModelOptions::default());
    let before = logits(&model, &adapted(&model));
    let folded = model.clone().folded(&random_pairs(&model)).unwrap();
    let error = relative_error(&logits(&folded.valid(), &adapted(&folded)), &before);
    assert!(error < 1e-5, "{error:e}");
    let site = Site::in_block(1, gpt2_model::names::MLP_C_FC);
    let trained = |model: &Gpt2<Train>| model.site(site).bank().get(BitWidth::B4).unwrap().a.val().is_require_grad();
    assert!(trained(&folded) && trained(&model));
}

#[test]
fn moments_follow_the_factors() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let moments = collected(&model);
    let pairs = random_pairs(&model);
    let folded = moments.given_to(model).unwrap().folded(&pairs).unwrap();
    let anew = collected(&folded);
    for site in folded.sites().iter() {
        let (name, known) = (folded.sites().name(site), folded.site(site).moments().unwrap());
        let again = anew.get(&name).unwrap();
        for (what, got, want) in [
            ("second", known.second(), again.second()),
            ("mean", known.mean(), again.mean()),
            ("largest", known.largest(), again.largest()),
        ] {
            let error = relative_error(got, want);
            assert!(error < 1e-5, "{name}, {what}: {error:e}");
        }
    }
}

fn collected(model: &Gpt2<Plain>) -> ModelMoments {
    let windows: Vec<Vec<u32>> =
        (0..4).map(|window| (0..20).map(|at| (window * 23 + at * at) % 97).collect()).collect();
    model.collect_moments(&windows, &mut |_| Ok(())).expect("moments")
}

#[test]
fn a_site_behind_gelu_is_refused_by_name() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let error = model.foldable_pair(Site::in_block(1, gpt2_model::names::MLP_C_PROJ)).unwrap_err().to_string();
    assert_eq!(
        error,
        "no factors fold into the inputs of site `h.1.mlp.c_proj`, expected one of attn.c_attn, attn.c_proj, mlp.c_fc \
         of a block"
    );
    let found = model.foldable_pair(Site::in_block(0, gpt2_model::names::ATTN_C_PROJ)).unwrap();
    assert_eq!(found, model.config().foldable_pairs()[1]);
}

#[test]
fn behind_relu_the_mlp_folds_too() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.edit_json("config.json", |json| json["activation_function"] = "relu".into());
    let model = Gpt2::<Plain>::load(folder.path(), &ModelOptions::default(), &device()).unwrap();
    let pairs = random_pairs(&model);
    assert_eq!(pairs.len(), 4 * model.sites().blocks());
    let before = logits(&model, &full(&model));
    let folded = model.folded(&pairs).unwrap();
    let error = relative_error(&logits(&folded, &full(&folded)), &before);
    assert!(error < 1e-5, "{error:e}");
}

#[test]
fn what_cannot_be_folded_is_refused_before_anything_changes() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let pairs = random_pairs(&model);
    let message = |pair: ScaledPair| model.clone().folded(&[pair]).unwrap_err().to_string();
    let short = ScaledPair { factors: vec![1.0; 3], ..pairs[0].clone() };
    assert_eq!(message(short), "site `h.0.attn.c_attn`: 3 factors, expected 20");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut pair = pairs[1].clone();
        pair.factors[2] = bad;
        let expected = format!("site `h.0.attn.c_proj`: factor 2 is {bad}, expected a finite number above 0");
        assert_eq!(message(pair), expected);
    }
    let beyond = ScaledPair { block: 3, ..pairs[0].clone() };
    assert!(message(beyond).contains("site `h.3.attn.c_attn`, expected one of the pairs of the 3 blocks"));

    let mut stepped = model.clone();
    let lora = LoraConfig::new(2, 4.0).unwrap().with_scales(WeightScales::Learned);
    stepped.init_adapters(BitWidth::B3, &lora, 1).unwrap();
    let error = stepped.folded(&pairs[..1]).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("3 bits has a learned step"), "{error}");

    let four = model.uniform_plan(SitePrecision::FULL.with_weights(BitWidth::B4));
    let packed = model.pack(PackedForm::Plan(&four), &PackOptions::default()).unwrap();
    let error = packed.folded(&pairs[..1]).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("before packing"), "{error}");
}

/// `tr((W − Ŵ)ᵀ H (W − Ŵ))` of a site before and after factors, at 3 bits, by loops.
fn output_error(before: &Gpt2<Plain>, after: &Gpt2<Plain>, site: Site) -> f64 {
    let [layer, scaled] = [before, after].map(|model| model.site(site));
    let (weight, changed) = (values(layer.weight()), values(scaled.weight()));
    let [d_in, d_out] = before.sites().shape(site);
    let rounded = scaled.rounding_at(&SitePrecision::FULL.with_weights(BitWidth::B3)).expect("a rounding");
    let rounded = values(rounded.apply(scaled.weight(), quant_kernels::GradientRule::default()).expect("rounds"));
    let error = |i: usize, o: usize| {
        let at = i * d_out + o;
        f64::from(weight[at]) - f64::from(rounded[at] / (changed[at] / weight[at]))
    };
    let second = layer.moments().expect("moments").second();
    let mut sum = 0.0;
    for o in 0..d_out {
        for i in 0..d_in {
            sum += (0..d_in).map(|j| f64::from(second[i * d_in + j]) * error(i, o) * error(j, o)).sum::<f64>();
        }
    }
    sum
}

/// The errors of a pair's consumer and, where its columns share a scale, of its producer, with factors.
fn errors_with(model: &Gpt2<Plain>, pair: &ScaledPair, factors: Vec<f32>) -> f64 {
    let after = model.clone().folded(&[ScaledPair { factors, ..pair.clone() }]).expect("a pair");
    let share = |site| output_error(model, &after, site) / output_error(model, model, site);
    let consumer = share(pair.consumers().next().expect("a consumer"));
    match pair.pair.producer {
        Producer::Outputs { module, .. } if model.settings().weight.granularity == Granularity::PerTensor => {
            consumer + share(Site::in_block(pair.block, module))
        }
        _ => consumer,
    }
}

#[test]
fn awq_takes_the_exponent_of_least_error_of_the_outputs() {
    skip_without_device!();
    for spec in ["per-tensor", "per-channel,asymmetric,importance", "per-group:5,symmetric,mse"] {
        let linear = LinearSettings { weight: spec.parse().unwrap(), ..LinearSettings::default() };
        let model = load_with::<Plain>("tiny", &ModelOptions { linear, ..ModelOptions::default() });
        let mut model = collected(&model).given_to(model).unwrap();
        let choice = ScalingChoice { method: ScalingMethod::Awq, bits: BitWidth::B3 };
        let (scaled, chosen) = model.clone().scaled_by(choice, &mut |_| Ok(())).unwrap();
        assert_eq!(chosen.len(), 9);
        for ChosenPair { scaled: pair, .. } in &chosen {
            let site = pair.consumers().next().unwrap();
            let root: Vec<f32> = model.site(site).moments().unwrap().importance().map(f32::sqrt).collect();
            let powers = |step: u8| root.iter().map(|x| x.powf(f32::from(step) / 20.0)).collect();
            let least = (0..=20).map(|step| errors_with(&model, pair, powers(step))).fold(f64::INFINITY, f64::min);
            let found = errors_with(&model, pair, pair.factors.clone());
            assert!(found < 1.001 * least, "{spec}, {}: {found} of {least}", model.sites().name(site));
            // Each is chosen with those before it in the model.
            model = model.folded(std::slice::from_ref(pair)).unwrap();
        }
        assert!(chosen.iter().any(|pair| pair.alpha > 0.0), "{spec}: every exponent is 0");
        assert_eq!(logits(&scaled, &full(&scaled)), logits(&model, &full(&model)));
    }
}

#[test]
fn smooth_lets_inputs_and_weights_meet() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let mut model = collected(&model).given_to(model).unwrap();
    let choice = ScalingChoice { method: "smooth".parse().unwrap(), bits: BitWidth::B8 };
    let (_, chosen) = model.clone().scaled_by(choice, &mut |_| Ok(())).unwrap();
    for ChosenPair { scaled: pair, .. } in &chosen {
        // Later ones divide outputs of its consumers.
        model = model.folded(std::slice::from_ref(pair)).unwrap();
        let layer = model.site(pair.consumers().next().unwrap());
        let rows = values(layer.weight().abs().max_dim(1));
        let ratios: Vec<f32> = layer.moments().unwrap().largest().iter().zip(&rows).map(|(x, w)| x / w).collect();
        let (low, high) = ratios.iter().fold((f32::MAX, 0.0_f32), |(low, high), &r| (low.min(r), high.max(r)));
        assert!(high / low < 1.001, "{low} to {high}");
    }
}
