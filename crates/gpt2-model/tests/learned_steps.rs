//! Learned steps of a whole model: folders of adapters, packed folders, and plans.

use std::collections::HashSet;

use burn::tensor::{Tensor, f16};

use gpt2_model::{
    AdapterFolders, BitWidth, Gpt2, ModelConfig, ModelOptions, PackModel, PackOptions, PackedForm, SitePlan,
    SitePrecision, SwitchableModel, WidthScales,
};
use quant_kernels::{packed::scales::ScaleFormat, spec::quant_spec::QuantSpec, tensor::learned_step::LearnedStep};
use switchable_lora::{
    linear_settings::{Execution, LinearSettings},
    lora_config::{LoraConfig, LoraInit, WeightScales},
    peft::{learned_steps::LEARNED_STEPS_FILE, load::AdapterBytes, trained_for::TRAINED_FOR_FILE, width_folder},
    placement::Placement,
    precision_plan::PrecisionPlan,
    site_precision::SiteRounding,
};
use switchable_model::named_plans::NamedPlans as _;

use crate::support::{Fixture, Folder, Plain, device, largest_difference, load_with, skip_without_device, values};

const WIDTHS: [BitWidth; 4] = [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];
const SPECS: [&str; 3] = ["per-tensor", "per-channel", "per-group:32"];

fn settings(weight: &str) -> LinearSettings {
    let weight: QuantSpec = weight.parse().expect("a quantiser");
    LinearSettings { weight, ..Default::default() }
}

fn options(linear: LinearSettings) -> ModelOptions {
    ModelOptions { linear, ..Default::default() }
}

fn bare(linear: LinearSettings) -> Gpt2<Plain> {
    load_with::<Plain>("tiny", &options(linear))
}

/// Adapters whose scales are learned.
fn learned() -> LoraConfig {
    LoraConfig::new(2, 4.0).expect("a configuration").with_scales(WeightScales::Learned)
}

/// The model with a LoftQ adapter and a learned step at every site for each of `WIDTHS`; the steps are a
/// little off what any rule finds.
fn with_steps(linear: LinearSettings) -> Gpt2<Plain> {
    let mut model = bare(linear);
    let lora = learned().with_init(LoraInit::LoftQ { iterations: 2 });
    for width in WIDTHS {
        model.init_adapters(width, &lora, 7).expect("they fit");
        for (index, site) in model.config().clone().sites().iter().enumerate() {
            let layer = model.site_mut(site);
            let pair = layer.bank().get(width).expect("an adapter").clone();
            let step = pair.step().expect("a step");
            let moved = step.step.val() * (0.8 + 0.01 * index as f32);
            let step = LearnedStep::from_steps(moved, width, step.granularity()).expect("a step");
            layer.insert_adapter(width, pair.with_step(step)).expect("it fits");
        }
    }
    model
}

fn uniform(model: &Gpt2<Plain>, width: BitWidth) -> SitePlan {
    model.uniform_plan(SitePrecision::uniform(width))
}

fn logits(model: &Gpt2<Plain>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, plan), plan))
}

/// The largest difference of two models' logits, as a share of the largest logit.
fn difference(got: &Gpt2<Plain>, expected: &Gpt2<Plain>, plan: &SitePlan) -> f32 {
    let expected = logits(expected, plan);
    let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    largest_difference(&logits(got, plan), &expected) / largest
}

/// Takes the files away that say what the adapters were trained for.
fn as_of_peft_alone(folder: &Folder) {
    for width in WIDTHS {
        std::fs::remove_file(width_folder(folder.path(), width).join(TRAINED_FOR_FILE)).expect("it is there");
    }
}

fn saved(model: &Gpt2<Plain>) -> Folder {
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");
    folder
}

#[test]
fn a_bank_with_steps_is_saved_and_loaded() {
    skip_without_device!();
    for spec in SPECS {
        let model = with_steps(settings(spec));
        let folder = saved(&model);
        let mut loaded = bare(settings(spec));
        assert_eq!(loaded.load_adapters(folder.path()).expect("loads").widths, WIDTHS);
        for site in model.config().sites().iter() {
            for width in WIDTHS {
                let step = |model: &Gpt2<Plain>| {
                    let step = model.site(site).bank().get(width).and_then(|pair| pair.step()).expect("a step");
                    (step.bits(), step.granularity(), step.step.dims(), values(step.step.val()))
                };
                assert_eq!(step(&loaded), step(&model), "{spec} {site:?} {width}");
            }
        }
        for width in WIDTHS {
            let plan = uniform(&model, width);
            // Equal factors may lie in memory in another order, in which products are summed.
            let error = difference(&loaded, &model, &plan);
            assert!(error < 1e-5, "{spec} {width}: {error}");
            // Without the third file the weights are quantised otherwise.
            std::fs::remove_file(width_folder(folder.path(), width).join(LEARNED_STEPS_FILE)).expect("it is there");
        }
        let mut without = bare(settings(spec));
        let message = without.load_adapters(folder.path()).expect_err("the third file is gone").to_string();
        let expected = [TRAINED_FOR_FILE, "`learned_steps` is true", LEARNED_STEPS_FILE];
        assert!(expected.iter().all(|word| message.contains(word)), "{message}");
        as_of_peft_alone(&folder);
        without.load_adapters(folder.path()).expect("PEFT's files are whole");
        let plan = uniform(&model, BitWidth::B2);
        assert!(difference(&without, &model, &plan) > 1e-2, "{spec}");
    }
}

#[test]
fn steps_from_bytes_are_those_of_their_folder() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let folder = saved(&model);
    let read = |file: &str| std::fs::read(width_folder(folder.path(), BitWidth::B3).join(file)).expect("a file");
    let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    let steps = read(LEARNED_STEPS_FILE);

    let mut parsed = bare(settings("per-channel"));
    let message = parsed.parse_learned_steps("embedded", &steps, BitWidth::B3).expect_err("no adapters").to_string();
    assert!(message.contains("embedded") && message.contains("h.0.attn.c_attn.step"), "{message}");
    let bytes = AdapterBytes { config: &config, weights: &weights, trained_for: None };
    _ = parsed.parse_adapter("embedded", bytes, BitWidth::B3).expect("whole");
    let plan = uniform(&model, BitWidth::B3);
    assert!(difference(&parsed, &model, &plan) > 1e-3, "the steps change nothing");
    let cut = &steps[..steps.len() - 1];
    let message = parsed.parse_learned_steps("embedded", cut, BitWidth::B3).expect_err("damaged").to_string();
    assert!(message.contains("embedded"), "{message}");
    parsed.parse_learned_steps("embedded", &steps, BitWidth::B3).expect("whole");
    assert!(difference(&parsed, &model, &plan) < 1e-5);
}

#[test]
fn steps_that_do_not_fit_leave_the_model_alone_and_name_file_and_site() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let folder = saved(&model);
    let refused = |settings: LinearSettings, words: &[&str]| {
        let mut loaded = bare(settings);
        let message = loaded.load_adapters(folder.path()).expect_err("does not fit").to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not in: {message}");
        assert!(
            loaded.config().sites().iter().all(|site| loaded.site(site).bank().is_empty()),
            "half of it was loaded"
        );
    };
    let reason = "trained for another weight: per-channel,symmetric,min-max, here it is per-tensor,symmetric,min-max";
    refused(settings("per-tensor"), &[TRAINED_FOR_FILE, "bits-2", reason]);
    as_of_peft_alone(&folder);
    for (spec, reason) in [("per-tensor", "a learned step per-channel"), ("per-channel,asymmetric", "symmetric")] {
        refused(settings(spec), &[LEARNED_STEPS_FILE, "bits-2", "h.0.attn.c_attn", reason]);
    }
    // The last width's last step is 0: everything before it was fine.
    let path = width_folder(folder.path(), BitWidth::B8).join(LEARNED_STEPS_FILE);
    let whole = std::fs::read(&path).expect("a file");
    let zero = [&whole[..whole.len() - 4], &[0; 4]].concat();
    std::fs::write(&path, zero).expect("a file");
    refused(settings("per-channel"), &[LEARNED_STEPS_FILE, "bits-8", "h.2.mlp.c_proj.step", "holds 0"]);

    // The steps of one width in the folder of another.
    let other = width_folder(folder.path(), BitWidth::B4).join(LEARNED_STEPS_FILE);
    std::fs::copy(other, &path).expect("a file");
    refused(settings("per-channel"), &[LEARNED_STEPS_FILE, "bits-8", "h.0.attn.c_attn", "a learned step for 4 bits"]);
}

#[test]
fn sites_that_cannot_have_a_step_are_named() {
    skip_without_device!();
    for (spec, width) in [("per-tensor,asymmetric", BitWidth::B4), ("per-token", BitWidth::B4), ("", BitWidth::FULL)] {
        let linear = if spec.is_empty() { LinearSettings::default() } else { settings(spec) };
        let mut model = bare(linear);
        let message = model.init_adapters(width, &learned(), 1).expect_err("it cannot").to_string();
        assert!(message.contains("h.0.attn.c_attn"), "{message}");
    }
    let model = with_steps(settings("per-channel")).with_linear_settings(settings("per-tensor"));
    let message = model.check_plan(&uniform(&model, BitWidth::B4)).expect_err("other settings").to_string();
    assert!(message.contains("h.0.attn.c_attn") && message.contains("per-channel"), "{message}");
    let without = uniform(&model, BitWidth::B4).without_adapters();
    assert!(model.check_plan(&without).is_ok());
}

#[test]
fn packed_execution_uses_the_steps() {
    skip_without_device!();
    for spec in ["per-tensor", "per-channel", "per-group:32", "per-group:8"] {
        let fake = with_steps(settings(spec));
        let packed = with_steps(LinearSettings { execution: Execution::Packed, ..settings(spec) });
        for width in WIDTHS {
            for plan in [uniform(&fake, width), uniform(&fake, width).without_adapters()] {
                let error = difference(&packed, &fake, &plan);
                assert!(error < 1e-5, "{spec} {width}: {error}");
            }
        }
    }
}

#[test]
fn a_packed_folder_has_the_steps_as_its_scales() {
    skip_without_device!();
    for spec in SPECS {
        let model = with_steps(settings(spec));
        let adapters = saved(&model);
        for width in WIDTHS {
            // One site without its adapter: its scales are those of the range.
            let site = model.config().sites().iter().nth(6).expect("a site");
            let plan = uniform(&model, width).with(site, SitePrecision::uniform(width).without_adapter());
            let folder = Folder::empty();
            model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
            let options = options(settings(spec));
            let (mut packed, packed_plan) =
                Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads");
            assert_eq!(packed_plan, plan);
            // The adapter of the site that was packed without it has a step that its codes do not.
            let message = packed.load_adapters(adapters.path()).expect_err("other codes").to_string();
            let expected = [LEARNED_STEPS_FILE, &model.sites().name(site), "not the scale of the packed weight"];
            assert!(expected.iter().all(|word| message.contains(word)), "{message}");
            for other in model.config().sites().iter().filter(|&other| other != site) {
                let pair = model.site(other).bank().get(width).expect("an adapter").clone();
                packed.site_mut(other).insert_adapter(width, pair).expect("the codes are those of the step");
            }
            let error = difference(&packed, &model, &plan);
            assert!(error < 1e-5, "{spec} {width}: {error}");
        }
    }
}

#[test]
fn scales_of_half_precision_are_the_nearest_to_the_steps() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let adapters = saved(&model);
    let pack = PackOptions { scale_format: ScaleFormat::F16, ..PackOptions::default() };
    for width in WIDTHS {
        // What f16 makes of the steps, in floats.
        let mut rounded = model.clone();
        for site in model.config().sites().iter() {
            let pair = model.site(site).bank().get(width).expect("an adapter").clone();
            let step = pair.step().expect("a step");
            let steps = step.step.val().into_data().convert::<f16>().convert::<f32>();
            let steps = Tensor::from_data(steps, &device());
            let step = LearnedStep::from_steps(steps, width, step.granularity()).expect("a step");
            rounded.site_mut(site).insert_adapter(width, pair.with_step(step)).expect("it fits");
        }
        let (folder, plan) = (Folder::empty(), uniform(&model, width));
        model.save_packed(folder.path(), PackedForm::Plan(&plan), &pack).expect("it packs");
        let options = options(settings("per-channel"));
        let (mut packed, _) = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads");
        packed.load_adapters(adapters.path()).expect("the codes are those of the steps");
        let error = difference(&packed, &rounded, &plan);
        assert!(error < 1e-5, "{width}: {error}");
    }
}

#[test]
fn a_whole_plan_is_packed_saved_and_run_with_its_adapters() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let (adapters, folder) = (saved(&model), Folder::empty());
    let plan = uniform(&model, BitWidth::B3);
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let options = options(settings("per-channel"));
    let (mut packed, _) = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads");
    packed.load_adapters(adapters.path()).expect("the codes are those of the steps");
    packed.check_plan(&plan).expect("everything is there");
    assert!(difference(&packed, &model, &plan) < 1e-5);
    // Saved again from its codes.
    let again = Folder::empty();
    packed.save_packed(again.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let (mut again, _) = Gpt2::<Plain>::load_packed(again.path(), &options, &device()).expect("it loads");
    again.load_adapters(adapters.path()).expect("the codes are those of the steps");
    assert!(difference(&again, &model, &plan) < 1e-5);
}

#[test]
fn what_would_lose_a_step_is_refused_and_names_the_site() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let folder = Folder::empty();
    let refused = |model: &Gpt2<Plain>, form: PackedForm<'_>, word: &str| {
        let error = model.save_packed(folder.path(), form, &PackOptions::default()).expect_err("it loses the step");
        let message = error.to_string();
        assert!(message.contains("h.0.attn.c_attn") && message.contains(word), "{message}");
        assert!(folder.names().is_empty(), "a file was left");
    };
    // Half of the scale of 8 bits: the codes are as coarse as that.
    let mut narrow = model.clone();
    let site = model.config().sites().iter().next().expect("a site");
    let pair = |width| model.site(site).bank().get(width).expect("an adapter").clone();
    let half = pair(BitWidth::B8).step().expect("a step").step.val() * 0.5;
    let step = LearnedStep::from_steps(half, BitWidth::B2, "per-channel".parse().expect("it is one")).expect("a step");
    let pair = pair(BitWidth::B2).with_step(step);
    narrow.site_mut(site).insert_adapter(BitWidth::B2, pair).expect("it fits");
    refused(&narrow, PackedForm::Nested, "scale 0 of 2 bits is");
    let merged = LinearSettings { placement: Placement::Merged, ..settings("per-channel") };
    let merged = model.clone().with_linear_settings(merged);
    let plan = uniform(&model, BitWidth::B4);
    refused(&merged, PackedForm::Plan(&plan), "has a learned step");
    merged
        .save_packed(folder.path(), PackedForm::Plan(&plan.without_adapters()), &PackOptions::default())
        .expect("no step is asked for");
}

/// The model with the weights in floats that nested codes stand for at a width.
fn twin(model: &Gpt2<Plain>, nested: &Gpt2<Plain>, width: BitWidth) -> Gpt2<Plain> {
    let mut twin = model.clone();
    for site in model.config().sites().iter() {
        let weight = nested.site(site).quantized_weight(width).expect("a width");
        let layer = twin.site_mut(site);
        *layer = layer.clone().with_parameters(weight, layer.bias());
    }
    twin
}

#[test]
fn one_nested_folder_serves_a_bank_with_steps_at_every_width() {
    skip_without_device!();
    for (spec, scale_format) in
        SPECS.into_iter().flat_map(|spec| [ScaleFormat::F32, ScaleFormat::F16].map(|format| (spec, format)))
    {
        let model = with_steps(settings(spec));
        let (adapters, folder) = (saved(&model), Folder::empty());
        let pack = PackOptions { scale_format, ..PackOptions::default() };
        model.save_packed(folder.path(), PackedForm::Nested, &pack).expect("it packs");
        let options = options(settings(spec));
        let (mut nested, plan) = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads");
        nested.load_adapters(adapters.path()).expect("the scales are the steps");
        assert_eq!(plan, uniform(&model, BitWidth::B8), "the codes are those of the step of 8 bits");
        nested.check_plan(&plan).expect("everything is there");
        let in_memory = model.clone().pack(PackedForm::Nested, &pack).expect("it packs");
        for width in WIDTHS {
            let plan = uniform(&model, width);
            // Equal factors may lie in memory in another order, in which products are summed.
            assert!(difference(&nested, &in_memory, &plan) < 1e-5, "{spec} {width}");
            let weights_in_floats =
                model.uniform_plan(SitePrecision { weights: BitWidth::FULL, ..plan.iter().next().expect("a site").1 });
            let error =
                difference_of(&logits(&nested, &plan), &logits(&twin(&model, &nested, width), &weights_in_floats));
            assert!(error < 1e-5, "{spec} {width}: {error}");
            // What is lost beside codes of that width alone is less than what the width loses.
            let by_step = logits(&model, &plan);
            let full = logits(&model, &model.uniform_plan(SitePrecision::FULL.without_adapter()));
            let (lost, of) = (difference_of(&logits(&nested, &plan), &by_step), difference_of(&by_step, &full));
            assert!(lost < of.max(1e-3), "{spec} {width}: {lost} of {of}");
        }
        // The widths between those of the bank are cut.
        nested
            .check_plan(&uniform(&model, BitWidth::new(5).expect("a width")).without_adapters())
            .expect("it is there");
        // Packed again from its codes, whole and as one width.
        let again = nested.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("it packs");
        let three = uniform(&model, BitWidth::B3);
        assert_eq!(logits(&again, &three), logits(&nested, &three));
        let fixed = nested.clone().pack(PackedForm::Plan(&three), &PackOptions::default()).expect("it packs");
        assert!(difference_of(&logits(&fixed, &three), &logits(&nested, &three)) < 1e-5);
        // The bank of another training.
        let other = saved(&with_other_steps(&model));
        let (mut fresh, _) = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads");
        let message = fresh.load_adapters(other.path()).expect_err("other steps").to_string();
        let expected = [LEARNED_STEPS_FILE, "h.0.attn.c_attn", "not the scale of the packed weight"];
        assert!(expected.iter().all(|word| message.contains(word)), "{message}");
    }
}

fn difference_of(got: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    largest_difference(got, expected) / largest
}

/// The same bank with the steps of 3 bits a little larger.
fn with_other_steps(model: &Gpt2<Plain>) -> Gpt2<Plain> {
    let mut other = model.clone();
    for site in model.config().sites().iter() {
        let pair = model.site(site).bank().get(BitWidth::B3).expect("an adapter").clone();
        let step = pair.step().expect("a step");
        let moved = step.step.val() * 1.01;
        let step = LearnedStep::from_steps(moved, BitWidth::B3, step.granularity()).expect("a step");
        other.site_mut(site).insert_adapter(BitWidth::B3, pair.with_step(step)).expect("it fits");
    }
    other
}

#[test]
fn a_plan_on_nested_codes_says_that_a_width_rounds_by_its_step_with_and_without_its_adapter() {
    skip_without_device!();
    let model = with_steps(settings("per-channel"));
    let nested = model.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("it packs");
    let five = BitWidth::new(5).expect("a width");
    for (width, learned) in [(BitWidth::B3, true), (BitWidth::B8, true), (five, false)] {
        let bare = uniform(&model, width).without_adapters();
        let named = nested.named_plan(&bare);
        let roundings = |named: &PrecisionPlan| {
            model.sites().iter().map(|site| named.get(&model.sites().name(site)).rounding).collect::<HashSet<_>>()
        };
        let expected = if learned { SiteRounding::LearnedStep } else { SiteRounding::Nearest };
        assert_eq!(roundings(&named), [Some(expected)].into(), "{width}");
        assert_eq!(nested.resolve(&named).expect("its own plan"), bare);
        // The same plan on the floats: rounded by a step that is not there without its adapter.
        assert_eq!(model.resolve(&named).is_err(), learned, "{width}");
        // The plan of the floats says nearest, which the codes are not.
        let nearest = nested.resolve(&model.named_plan(&bare));
        assert_eq!(nearest.is_err(), learned, "{width}");
    }
    let with_adapter = nested.named_plan(&uniform(&model, BitWidth::B3));
    assert_eq!(model.resolve(&with_adapter).expect("a step of the floats"), uniform(&model, BitWidth::B3));

    // Without adapters the codes do not tell whether the scales of a width were learned, and the plan does not say.
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    let (alone, _) =
        Gpt2::<Plain>::load_packed(folder.path(), &options(settings("per-channel")), &device()).expect("it loads");
    let named = alone.named_plan(&uniform(&model, BitWidth::B3).without_adapters());
    assert!(model.sites().iter().all(|site| named.get(&model.sites().name(site)).rounding.is_none()));
    assert!(alone.resolve(&named).is_ok());
}

#[test]
fn widths_without_steps_have_the_scales_that_were_asked_for() {
    skip_without_device!();
    for (spec, scale_format) in [("per-channel", ScaleFormat::F32), ("per-group:32,symmetric,mse", ScaleFormat::F16)] {
        let model = bare(settings(spec));
        let options = options(settings(spec));
        let save = |width_scales| {
            let (folder, pack) =
                (Folder::empty(), PackOptions { scale_format, width_scales, ..PackOptions::default() });
            model.save_packed(folder.path(), PackedForm::Nested, &pack).expect("it packs");
            let bytes = std::fs::read(folder.path().join("packed.safetensors")).expect("a file");
            (Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect("it loads").0, bytes)
        };
        let (cut, cut_bytes) = save(WidthScales::PowersOfTwo);
        let (own, own_bytes) = save(WidthScales::Quantizer);
        let contains = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        assert!(contains(&cut_bytes, r#""version":"1""#) && !contains(&cut_bytes, "width_scales"));
        assert!(contains(&own_bytes, r#""version":"2""#) && contains(&own_bytes, "c_attn.weight.scales.bits-7"));
        let scales: usize = model
            .config()
            .sites()
            .iter()
            .map(|site| own.site(site).packed_weights().unwrap().stored().scales().len())
            .sum();
        assert_eq!(own.site_bytes() - cut.site_bytes(), 6 * scales * scale_format.bytes());
        let of_floats = |width| model.uniform_plan(SitePrecision::uniform(width).without_adapter());
        for bits in [2, 3, 4, 5, 6, 7] {
            let plan = of_floats(BitWidth::new(bits).expect("a width"));
            let alone = logits(&model, &plan);
            let [cut, own] = [&cut, &own].map(|nested| difference_of(&logits(nested, &plan), &alone));
            assert!(own < cut, "{spec} {bits} bits: {own} from codes of that width alone, {cut} where they are cut");
        }
        let eight = of_floats(BitWidth::B8);
        assert_eq!(logits(&own, &eight), logits(&cut, &eight));
    }
}

#[test]
fn a_folder_that_says_it_is_not_nested_and_has_scales_of_several_widths_is_refused() {
    skip_without_device!();
    let (model, folder) = (with_steps(settings("per-channel")), Folder::empty());
    model.save_packed(folder.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    let path = folder.path().join("packed.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    let (from, to) = (br#""user.nested":"true" "#, br#""user.nested":"false""#);
    let word = &from[..from.len() - 1];
    let at = bytes.windows(word.len()).position(|bytes| bytes == word).expect("it says so");
    // The header ends in spaces: one of them makes room.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    assert_eq!(bytes[header - 1], b' ');
    bytes.copy_within(at + word.len()..header - 1, at + to.len());
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(&path, bytes).expect("a file");
    let options = options(settings("per-channel"));
    let message = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).expect_err("it lies").to_string();
    assert!(
        ["packed.safetensors", "`nested`", "`false`", "c_attn.weight"].iter().all(|word| message.contains(word)),
        "{message}"
    );
}
