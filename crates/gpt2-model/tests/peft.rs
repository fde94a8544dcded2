//! Adapters exchanged with PEFT.

use std::process::Command;

use burn::backend::NdArray;
use burn::tensor::{Tensor, TensorData};
use safetensors::Dtype;

use gpt2_model::{
    AdapterFolders, BitWidth, Gpt2, Gpt2ForQuestionAnswering, MissingHead, ModelConfig, ModelOptions, QuantBackend,
    SitePlan, SitePrecision, SwitchableModel, next_token_loss,
};
use quant_kernels::spec::quant_spec::QuantSpec;
use switchable_lora::{
    linear_settings::LinearSettings, lora_config::LoraConfig, peft::load::AdapterBytes, precision_plan::PrecisionPlan,
};
use switchable_model::{adapters::LoadedAdapters, width_heads::HeadChoice};

use crate::support::{
    Fixture, Folder, Plain, StoredTensor, Train, assert_close, device, full, golden, largest_difference, load,
    skip_without_device, values,
};

const LOGITS_TOLERANCE: f32 = 2e-5;
const GRADIENT_TOLERANCE: f32 = 2e-5;

fn eight() -> BitWidth {
    BitWidth::new(8).expect("a width")
}

/// The full-precision base with the adapters of a width.
fn adapted<B: QuantBackend>(model: &Gpt2<B>, width: BitWidth) -> SitePlan {
    model.uniform_plan(SitePrecision::FULL.with_adapter(width))
}

/// What loading a folder says that tells what its adapters are for.
fn known(widths: impl Into<Vec<BitWidth>>) -> LoadedAdapters {
    LoadedAdapters { widths: widths.into(), unknown: Vec::new() }
}

fn with_golden_adapter<B: QuantBackend>() -> Gpt2<B> {
    let mut model = load::<B>("tiny");
    let loaded = model.load_adapter(golden("peft/adapter"), eight()).expect("PEFT's adapter loads");
    // PEFT does not say which quantiser an adapter is for.
    assert_eq!(loaded.unknown, [golden("peft/adapter")]);
    model
}

fn logits<B: QuantBackend>(model: &Gpt2<B>, fixture: &Fixture, plan: &SitePlan) -> Vec<f32> {
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    let vocab = model.config().vocab_size;
    fixture.real_rows(
        "attention_mask",
        &values(model.next_token_scores(model.forward(ids, Some(&padding), plan), plan)),
        vocab,
    )
}

fn check_logits<B: QuantBackend>() {
    let (model, fixture) = (with_golden_adapter::<B>(), Fixture::open("peft"));
    let want = fixture.real_rows("attention_mask", &fixture.floats("logits"), model.config().vocab_size);
    assert_close(
        "logits with PEFT's adapter",
        &logits(&model, &fixture, &adapted(&model, eight())),
        &want,
        LOGITS_TOLERANCE,
    );
    let without = logits(&model, &fixture, &full(&model));
    assert!(largest_difference(&without, &want) > 0.1, "the adapter changes nothing");
}

#[test]
fn an_adapter_of_peft_gives_its_logits_on_flex() {
    skip_without_device!();
    check_logits::<Plain>();
}

#[test]
fn an_adapter_of_peft_gives_its_logits_on_ndarray() {
    check_logits::<NdArray>();
}

#[test]
fn loss_and_every_adapter_gradient_equal_those_of_peft() {
    skip_without_device!();
    let (model, fixture) = (with_golden_adapter::<Train>(), Fixture::open("peft"));
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    let logits = model
        .next_token_scores(model.forward(ids, Some(&padding), &adapted(&model, eight())), &adapted(&model, eight()));
    let loss = next_token_loss(logits, fixture.batch("input_ids"), Some(padding));
    assert_close("loss", &values(loss.clone()), &fixture.floats("loss"), 5e-6);

    let gradients = loss.backward();
    let mut compared = 0;
    for site in model.config().sites().iter() {
        let pair = model.site(site).bank().get(eight()).expect("an adapter at every site");
        for (part, parameter) in [("lora_A", &pair.a), ("lora_B", &pair.b)] {
            let name = format!("grad.base_model.model.transformer.{}.{part}.weight", model.sites().name(site));
            let gradient = parameter.val().grad(&gradients).unwrap_or_else(|| panic!("{name}: none"));
            // PEFT holds nn.Linear matrices, [out, in].
            assert_close(&name, &values(gradient.transpose()), &fixture.floats(&name), GRADIENT_TOLERANCE);
            compared += 1;
        }
    }
    assert_eq!(compared, fixture.names("grad.").len(), "other adapters than PEFT's");
}

/// A model with adapters at 4 and 8 bits that differ in rank, scaling and values, none of them zero.
fn with_two_widths() -> (Gpt2<Plain>, [BitWidth; 2]) {
    let mut model = with_golden_adapter::<Plain>();
    let four = BitWidth::new(4).expect("a width");
    model.init_adapters(four, &LoraConfig::new(3, 12.0).expect("a configuration"), 7).expect("adapters");
    for site in model.config().clone().sites().iter() {
        let linear = model.site_mut(site);
        let mut pair = linear.bank().get(four).expect("an adapter").clone();
        let [rank, d_out] = pair.b.val().dims();
        // Zero as initialised, so it would hide that it was lost.
        let values: Vec<f32> = (0..rank * d_out).map(|i| 0.1 * (i as f32).sin()).collect();
        pair.b = pair.b.map(|b| Tensor::from_data(TensorData::new(values, [rank, d_out]), &b.device()));
        linear.insert_adapter(four, pair).expect("the same shape");
    }
    (model, [four, eight()])
}

#[test]
fn saved_adapters_load_back_equal() {
    skip_without_device!();
    let (model, widths) = with_two_widths();
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");

    let mut loaded = load::<Plain>("tiny");
    assert_eq!(loaded.load_adapters(folder.path()).expect("loads"), known(widths));
    assert_eq!(loaded.adapter_widths(), widths);
    for site in model.config().sites().iter() {
        for width in widths {
            let pair = |model: &Gpt2<Plain>| {
                let pair = model.site(site).bank().get(width).expect("an adapter").clone();
                (pair.rank(), pair.alpha(), values(pair.a.val()), values(pair.b.val()))
            };
            assert_eq!(pair(&loaded), pair(&model), "{site:?} at {width}");
        }
    }
    let fixture = Fixture::open("peft");
    for width in widths {
        let plan = adapted(&model, width);
        // Equal factors may lie in memory in another order, in which products are summed.
        let difference = largest_difference(&logits(&loaded, &fixture, &plan), &logits(&model, &fixture, &plan));
        assert!(difference <= 1e-5, "{width} bits: {difference:e}");
    }
}

#[test]
fn an_adapter_is_not_used_under_another_quantiser_than_it_was_trained_for() {
    skip_without_device!();
    let (model, [four, _]) = with_two_widths();
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");
    let per_channel: QuantSpec = "per-channel".parse().expect("a quantiser");
    let settings = LinearSettings { weight: per_channel, ..LinearSettings::default() };
    let mut other = load::<Plain>("tiny").with_linear_settings(settings);
    let message = other.load_adapters(folder.path()).expect_err("another quantiser").to_string();
    let expected = "trained for another weight: per-tensor,symmetric,min-max, here it is per-channel,symmetric,min-max";
    assert!(message.contains("bits-4") && message.contains(expected), "{message}");

    // Neither by a plan, nor by later settings.
    let mut loaded = load::<Plain>("tiny");
    _ = loaded.load_adapters(folder.path()).expect("loads");
    let precision = SitePrecision::uniform(four);
    loaded.check_plan(&loaded.uniform_plan(precision)).expect("as it was trained");
    let message =
        loaded.check_plan(&loaded.uniform_plan(precision.with_quantizer(per_channel))).unwrap_err().to_string();
    assert!(message.contains("h.0.attn.c_attn") && message.contains(expected), "{message}");
    let message = loaded.clone().with_linear_settings(settings).check_plan(&loaded.uniform_plan(precision));
    assert!(message.unwrap_err().to_string().contains(expected));
    let rounds_nothing = SitePrecision::FULL.with_adapter(four).with_quantizer(per_channel);
    loaded.check_plan(&loaded.uniform_plan(rounds_nothing)).expect("nothing is rounded");
    // What is not known is not refused.
    model.check_plan(&model.uniform_plan(precision.with_quantizer(per_channel))).expect("made here");
}

#[test]
fn adapters_of_a_few_sites_are_saved_too() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let site = model.config().sites().iter().nth(5).expect("a site");
    let config = LoraConfig::new(2, 4.0).expect("a configuration");
    model.site_mut(site).init_adapter(eight(), &config, 1).expect("an adapter");
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");

    let mut loaded = load::<Plain>("tiny");
    assert_eq!(loaded.load_adapters(folder.path()).expect("loads"), known([eight()]));
    for other in model.config().sites().iter() {
        assert_eq!(loaded.site(other).bank().len(), usize::from(other == site), "{other:?}");
    }
}

#[test]
fn adapters_with_one_that_does_not_fit_leave_the_model_alone() {
    skip_without_device!();
    let (model, _) = with_two_widths();
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");
    let folder_of_width = switchable_lora::peft::width_folder(folder.path(), eight());
    let file = folder_of_width.join("adapter_model.safetensors");
    let last = "base_model.model.transformer.h.2.mlp.c_proj.lora_B.weight";
    folder.edit_tensors(file.to_str().expect("a path"), |tensors| {
        let b = tensors.get_mut(last).expect("the last site's B");
        b.bytes.truncate(b.bytes.len() / 2);
        b.shape[0] /= 2;
    });

    let mut loaded = load::<Plain>("tiny");
    let message = loaded.load_adapters(folder.path()).expect_err("does not fit").to_string();
    assert!(message.contains("h.2.mlp.c_proj"), "{message}");
    for site in loaded.config().sites().iter() {
        assert!(loaded.site(site).bank().is_empty(), "{site:?} holds an adapter of a bank that did not load");
    }
}

#[test]
fn an_adapter_from_bytes_is_that_of_its_folder() {
    skip_without_device!();
    let bytes = |file: &str| std::fs::read(golden("peft/adapter").join(file)).expect("a golden file");
    let (config, weights) = (bytes("adapter_config.json"), bytes("adapter_model.safetensors"));
    let from_folder = with_golden_adapter::<Plain>();
    let mut model = load::<Plain>("tiny");
    let bytes = |config, weights| AdapterBytes { config, weights, trained_for: None };
    _ = model.parse_adapter("embedded bank", bytes(&config, &weights), eight()).expect("PEFT's adapter");
    for site in model.config().sites().iter() {
        let pair = |model: &Gpt2<Plain>| {
            let pair = model.site(site).bank().get(eight()).expect("an adapter").clone();
            (pair.alpha(), values(pair.a.val()), values(pair.b.val()))
        };
        assert_eq!(pair(&model), pair(&from_folder), "{site:?}");
    }

    let mut bare = load::<Plain>("tiny");
    let cut = &weights[..weights.len() - 1];
    for (config, weights) in [(config.as_slice(), cut), (b"[]".as_slice(), weights.as_slice())] {
        let message =
            bare.parse_adapter("embedded bank", bytes(config, weights), eight()).expect_err("damaged").to_string();
        assert!(message.contains("embedded bank"), "{message}");
        assert!(bare.adapter_widths().is_empty());
    }
}

fn answering() -> Gpt2ForQuestionAnswering<Plain> {
    let (dir, options) = (golden("tiny_qa"), ModelOptions::default());
    Gpt2ForQuestionAnswering::load(dir, &options, MissingHead::Refuse, &device()).expect("a golden folder loads")
}

fn with_golden_head() -> Gpt2ForQuestionAnswering<Plain> {
    let mut model = answering();
    let loaded = model.load_adapter(golden("peft_qa/adapter"), eight()).expect("PEFT's adapter loads");
    assert_eq!(loaded.unknown, [golden("peft_qa/adapter")]);
    model
}

/// Start and end scores of the real tokens of the golden batch.
fn spans(model: &Gpt2ForQuestionAnswering<Plain>, precision: SitePrecision) -> [Vec<f32>; 2] {
    let fixture = Fixture::open("peft_qa");
    let plan = model.transformer.uniform_plan(precision);
    let logits = model.forward(fixture.batch("input_ids"), Some(&fixture.padding("attention_mask")), &plan);
    [logits.start, logits.end].map(|scores| fixture.real_rows("attention_mask", &values(scores), 1))
}

/// The patterns of its configuration overlap, and the keys are expressions.
#[test]
fn an_adapter_of_peft_for_question_answering_brings_its_head() {
    skip_without_device!();
    let (model, fixture) = (with_golden_head(), Fixture::open("peft_qa"));
    assert_eq!(model.head_widths(), [eight()]);
    // It has nothing at `mlp.c_fc`.
    assert_eq!(model.transformer.adapter_widths(), [eight()]);
    assert!(model.transformer.adapter_sites(eight()) < model.config().sites().len());
    let got = spans(&model, SitePrecision::FULL.with_adapter(eight()));
    for (name, got) in ["start_logits", "end_logits"].into_iter().zip(&got) {
        let want = fixture.real_rows("attention_mask", &fixture.floats(name), 1);
        assert_close(name, got, &want, LOGITS_TOLERANCE);
    }
    // Without the adapter the base head answers.
    assert_eq!(spans(&model, SitePrecision::FULL), spans(&answering(), SitePrecision::FULL));
    // A language model has no place for the head.
    let mut body = model.transformer.clone();
    let message = body.load_adapter(golden("peft_qa/adapter"), eight()).expect_err("a head").to_string();
    assert!(message.contains("adapter_config.json: field `modules_to_save` is qa_outputs"), "{message}");
}

#[test]
fn a_language_model_answers_with_the_head_that_an_adapter_brings_and_without_it_not() {
    skip_without_device!();
    let (folder, options) = (Folder::copy_of("tiny_qa"), ModelOptions::default());
    folder.edit_tensors("model.safetensors", |tensors| tensors.retain(|name, _| !name.starts_with("qa_outputs.")));
    let load = |missing| Gpt2ForQuestionAnswering::<Plain>::load(folder.path(), &options, missing, &device());
    assert!(load(MissingHead::Refuse).is_err());
    let mut model = load(MissingHead::OfAdapters).expect("a golden folder loads");
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let message = model.check_plan(&full).expect_err("no head").to_string();
    assert!(message.contains("no span head") && message.contains("--base-steps"), "{message}");
    let out = tempfile::tempdir().expect("a folder").path().join("model");
    assert!(model.export(&out).is_err() && !out.exists());

    let loaded = model.load_adapter(golden("peft_qa/adapter"), eight()).expect("PEFT's adapter loads");
    assert_eq!(loaded.widths, [eight()]);
    let adapted = model.transformer.uniform_plan(SitePrecision::uniform(eight()));
    assert_eq!(model.head_of(&adapted).ok(), Some(HeadChoice::Width(eight())));
    model.check_plan(&full).expect_err("the base still has none");
}

#[test]
fn a_plan_of_adapters_with_different_heads_needs_a_word() {
    skip_without_device!();
    let mut model = with_golden_head();
    let four = BitWidth::new(4).expect("a width");
    model.transformer.init_adapters(four, &LoraConfig::new(3, 12.0).expect("a configuration"), 7).expect("adapters");
    let site = model.config().sites().iter().next().expect("a site");
    let uniform = model.transformer.uniform_plan(SitePrecision::FULL.with_adapter(eight()));
    let mixed = uniform.clone().with(site, SitePrecision::FULL.with_adapter(four));
    let one_without = uniform.clone().with(site, SitePrecision::FULL);
    for (plan, head) in [
        (&uniform, HeadChoice::Width(eight())),
        (&one_without, HeadChoice::Width(eight())),
        (&model.transformer.uniform_plan(SitePrecision::FULL.with_adapter(four)), HeadChoice::Base),
    ] {
        assert_eq!(model.head_of(plan).expect("one head"), head);
    }
    let message = model.check_plan(&mixed).expect_err("two heads").to_string();
    assert!(message.contains("different span heads (base, 8)"), "{message}");
    for (choice, head) in [("base", HeadChoice::Base), ("8", HeadChoice::Width(eight()))] {
        let model = model.clone().with_mixed_head(Some(choice.parse().expect("a choice")));
        assert_eq!(model.head_of(&mixed).expect("chosen"), head);
        model.check_plan(&mixed).expect("chosen");
        // The word is for plans that need it.
        assert_eq!(model.head_of(&uniform).expect("one head"), HeadChoice::Width(eight()));
    }
    // A plan may say its head, whatever the model says; what is saved says it where it does not follow.
    let of_model = model.clone().with_mixed_head(Some(HeadChoice::Base));
    assert_eq!(of_model.named_plan(&mixed).span_head(), Some(HeadChoice::Base));
    assert_eq!(of_model.named_plan(&uniform).span_head(), None);
    let said = mixed.clone().with_span_head(Some(HeadChoice::Width(eight())));
    let named = of_model.named_plan(&said);
    assert_eq!(named.span_head(), Some(HeadChoice::Width(eight())));
    assert_eq!(model.resolve(&named).expect("the head is there"), said);
    let ids = Fixture::open("peft_qa").batch("input_ids");
    let starts =
        |model: &Gpt2ForQuestionAnswering<Plain>, plan: &SitePlan| values(model.forward(ids.clone(), None, plan).start);
    let eighth = model.clone().with_mixed_head(Some(HeadChoice::Width(eight())));
    assert_eq!(starts(&of_model, &said), starts(&eighth, &mixed));
    assert_ne!(starts(&of_model, &said), starts(&of_model, &mixed));
    let message = answering().resolve(&PrecisionPlan::default().with_span_head(Some(HeadChoice::Width(four))));
    assert_eq!(message.expect_err("no such head").to_string(), "no span head of 4 bits, available: base");
    let other = model.clone().with_mixed_head(Some(HeadChoice::Width(four)));
    let message = other.check_plan(&mixed).expect_err("no such head").to_string();
    assert_eq!(message, "no span head of 4 bits, available: base, 8");
}

#[test]
fn heads_are_saved_with_their_adapters_and_go_with_them() {
    skip_without_device!();
    let model = with_golden_head();
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny_qa").expect("saves");
    let mut loaded = answering();
    assert_eq!(loaded.load_adapters(folder.path()).expect("loads"), known([eight()]));
    let precision = SitePrecision::FULL.with_adapter(eight());
    for (got, want) in spans(&loaded, precision).iter().zip(spans(&model, precision)) {
        // Equal factors may lie in memory in another order, in which products are summed.
        assert!(largest_difference(got, &want) <= 1e-5);
    }
    // An adapter without a head in the place of one with a head leaves none behind.
    let mut without = loaded.clone();
    without.transformer.init_adapters(eight(), &LoraConfig::new(1, 1.0).expect("one"), 1).expect("adapters");
    let bare = Folder::empty();
    without.transformer.save_adapters(bare.path(), "tiny_qa").expect("saves");
    _ = loaded.load_adapters(bare.path()).expect("loads");
    assert!(loaded.head_widths().is_empty());
    let mut dropped = model.clone();
    dropped.drop_adapters();
    assert!(dropped.head_widths().is_empty() && dropped.transformer.adapter_widths().is_empty());

    // A head of another size is refused, and nothing of the folder is taken.
    let file = switchable_lora::peft::width_folder(folder.path(), eight()).join("adapter_model.safetensors");
    folder.edit_tensors(file.to_str().expect("a path"), |tensors| {
        let weight = tensors.get_mut("base_model.model.qa_outputs.weight").expect("the head");
        weight.bytes.truncate(weight.bytes.len() / 2);
        weight.shape = vec![1, 20];
    });
    let mut refused = answering();
    let message = refused.load_adapters(folder.path()).expect_err("another size").to_string();
    assert!(message.contains("bits-8") && message.contains("`qa_outputs.weight` has shape [1, 20]"), "{message}");
    assert!(refused.transformer.adapter_widths().is_empty() && refused.head_widths().is_empty());
}

#[test]
fn peft_loads_a_head_that_is_saved() {
    skip_without_device!();
    let Some(python) = std::env::var_os("PEFT_PYTHON") else {
        eprintln!("skipped: PEFT_PYTHON is not set");
        return;
    };
    let folder = Folder::empty();
    with_golden_head().save_adapters(folder.path(), "tiny_qa").expect("saves");
    let output = Command::new(&python)
        .arg(golden("check_peft_loads_ours.py"))
        .arg("--base")
        .arg(golden("tiny_qa"))
        .arg("--adapter")
        .arg(switchable_lora::peft::width_folder(folder.path(), eight()))
        .arg("--expected")
        .arg(golden("peft_qa/expected.safetensors"))
        .output()
        .expect("PEFT_PYTHON runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_pickle_is_read_once_it_is_converted_as_the_error_says() {
    skip_without_device!();
    let Some(python) = std::env::var_os("PEFT_PYTHON") else {
        eprintln!("skipped: PEFT_PYTHON is not set");
        return;
    };
    let folder = Folder::copy_of("peft/adapter");
    let run = |script: &str| {
        let output = Command::new(&python).arg("-c").arg(script).current_dir(folder.path()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("import torch, os; from safetensors.torch import load_file\n\
         torch.save(load_file('adapter_model.safetensors'), 'adapter_model.bin'); os.remove('adapter_model.safetensors')");
    let mut model = load::<Plain>("tiny");
    let message = model.load_adapter(folder.path(), eight()).expect_err("a pickle").to_string();
    let (_, script) = message.split_once('\n').expect("two lines of Python");
    run(script);
    _ = model.load_adapter(folder.path(), eight()).expect("it is converted");
    let (plan, fixture) = (adapted(&model, eight()), Fixture::open("peft"));
    assert_eq!(logits(&model, &fixture, &plan), logits(&with_golden_adapter::<Plain>(), &fixture, &plan));
}

#[test]
fn peft_loads_what_is_saved() {
    skip_without_device!();
    let Some(python) = std::env::var_os("PEFT_PYTHON") else {
        eprintln!("skipped: PEFT_PYTHON is not set");
        return;
    };
    let (model, widths) = with_two_widths();
    let fixture = Fixture::open("tiny");
    let folder = Folder::empty();
    model.save_adapters(folder.path(), "tiny").expect("saves");
    for width in widths {
        let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
        let logits = model
            .next_token_scores(model.forward(ids, Some(&padding), &adapted(&model, width)), &adapted(&model, width));
        let integers = |name: &str| StoredTensor {
            dtype: Dtype::I64,
            shape: fixture.shape(name),
            bytes: fixture.integers(name).into_iter().flat_map(i64::to_le_bytes).collect(),
        };
        let expected = [
            ("input_ids".to_string(), integers("input_ids")),
            ("attention_mask".to_string(), integers("attention_mask")),
            (
                "logits".to_string(),
                StoredTensor {
                    dtype: Dtype::F32,
                    shape: logits.dims().to_vec(),
                    bytes: values(logits).into_iter().flat_map(f32::to_le_bytes).collect(),
                },
            ),
        ];
        folder.write_tensors("expected.safetensors", &expected.into());
        let output = Command::new(&python)
            .arg(golden("check_peft_loads_ours.py"))
            .arg("--base")
            .arg(golden("tiny"))
            .arg("--adapter")
            .arg(switchable_lora::peft::width_folder(folder.path(), width))
            .arg("--expected")
            .arg(folder.join("expected.safetensors"))
            .output()
            .expect("PEFT_PYTHON runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{width}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}
