//! Learned steps of a whole model: folders of adapters, packed folders, and plans.

use burn::tensor::{Tensor, f16};

use gpt2_model::{
    AdapterFolders, BitWidth, Gpt2, ModelConfig, ModelOptions, PackModel, PackOptions, PackedForm, SitePlan,
    SitePrecision, SwitchableModel,
};
use quant_kernels::{packed::scales::ScaleFormat, spec::quant_spec::QuantSpec, tensor::learned_step::LearnedStep};
use switchable_lora::{
    linear_settings::{Execution, LinearSettings},
    lora_config::{LoraConfig, LoraInit, WeightScales},
    peft::{learned_steps::LEARNED_STEPS_FILE, load::AdapterBytes, trained_for::TRAINED_FOR_FILE, width_folder},
    placement::Placement,
};

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
    refused(&model, PackedForm::Nested, "learned step for 2 bits");
    let merged = LinearSettings { placement: Placement::Merged, ..settings("per-channel") };
    let merged = model.clone().with_linear_settings(merged);
    let plan = uniform(&model, BitWidth::B4);
    refused(&merged, PackedForm::Plan(&plan), "has a learned step");
    merged
        .save_packed(folder.path(), PackedForm::Plan(&plan.without_adapters()), &PackOptions::default())
        .expect("no step is asked for");
}
