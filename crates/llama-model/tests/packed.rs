//! Packed models: what they compute, and what happens to folders that lie.

use llama_model::sub_modules::UP_PROJ;
use llama_model::{Llama, LlamaForQuestionAnswering};
use quant_kernels::{packed::scales::ScaleFormat, spec::quant_spec::QuantSpec};
use switchable_lora::{
    linear_settings::{Execution, LinearSettings},
    lora_config::{LoraConfig, LoraInit},
    site_precision::SitePrecision,
};
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::packed::PackModel as _;
use switchable_model::packed::form::{PackOptions, PackedForm};
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::{LM_HEAD, Site};
use switchable_model::span_head::MissingHead;

use crate::support::{
    Fixture, Folder, LANGUAGE_MODELS, Plain, device, full, golden, load_with, relative_error, skip_without_device,
    values, width,
};

const WIDTHS: [u8; 7] = [2, 3, 4, 5, 6, 7, 8];

fn options(weight: &str) -> ModelOptions {
    let weight: QuantSpec = weight.parse().expect("a quantiser");
    ModelOptions { linear: LinearSettings { weight, ..Default::default() }, ..Default::default() }
}

fn logits(model: &Llama<Plain>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, plan), plan))
}

fn bare(bits: u8) -> SitePrecision {
    SitePrecision::uniform(width(bits)).without_adapter()
}

fn saved(
    model: &Llama<Plain>,
    form: PackedForm<'_>,
    pack: PackOptions,
    options: &ModelOptions,
) -> (Llama<Plain>, SitePlan) {
    let folder = Folder::empty();
    model.save_packed(folder.path(), form, &pack).expect("it packs");
    assert_eq!(folder.names(), ["config.json", "packed.safetensors"]);
    Llama::load_packed(folder.path(), options, &device()).expect("it loads")
}

#[test]
fn a_packed_model_gives_the_logits_of_its_fake_quantised_twin() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        for spec in ["per-channel", "per-tensor,asymmetric", "per-group:32,asymmetric,mse"] {
            let options = options(spec);
            let model = load_with::<Plain>(case, &options);
            for bits in WIDTHS {
                let plan = model.uniform_plan(bare(bits));
                let (packed, packed_plan) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
                assert_eq!(packed_plan, plan);
                let twin = logits(&model, &plan);
                let error = relative_error(&logits(&packed, &plan), &twin);
                assert!(error < 1e-5, "{case}, {spec} at {bits} bits: {error}");
                assert!(packed.site_bytes() < model.site_bytes());
                let in_memory = model.clone().pack(PackedForm::Plan(&plan), &PackOptions::default()).expect("packs");
                assert_eq!(logits(&in_memory, &plan), logits(&packed, &plan), "{case}, {spec} at {bits} bits");
            }
        }
    }
}

#[test]
fn packed_models_take_adapters() {
    skip_without_device!();
    let options = options("per-channel");
    let mut model = load_with::<Plain>("tiny", &options);
    let lora = LoraConfig::new(2, 4.0).unwrap().with_init(LoraInit::LoftQ { iterations: 4 });
    model.init_adapters(width(3), &lora, 7).unwrap();
    let plan = model.uniform_plan(SitePrecision::uniform(width(3)));
    let adapters = Folder::empty();
    model.save_adapters(adapters.path(), "tiny").unwrap();
    let (mut packed, packed_plan) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
    assert!(packed.check_plan(&packed_plan).is_err(), "the adapters are not there yet");
    packed.load_adapters(adapters.path()).unwrap();
    assert!(relative_error(&logits(&packed, &plan), &logits(&model, &plan)) < 1e-5);
}

#[test]
fn one_nested_folder_serves_every_width() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny_untied", &options);
    let (nested, plan) = saved(&model, PackedForm::Nested, PackOptions::default(), &options);
    assert_eq!(plan, model.uniform_plan(bare(8)));
    for bits in WIDTHS {
        let plan = model.uniform_plan(bare(bits));
        nested.check_plan(&plan).expect("every width is there");
        let mut twin = model.clone();
        for site in model.sites().iter() {
            let weight = nested.site(site).quantized_weight(width(bits)).unwrap();
            let linear = twin.site_mut(site);
            *linear = linear.clone().with_parameters(weight, linear.bias());
        }
        let error = relative_error(&logits(&nested, &plan), &logits(&twin, &full(&twin)));
        assert!(error < 1e-5, "{bits} bits: {error}");
    }
    assert!(nested.check_plan(&full(&model)).is_err());
}

#[test]
fn sites_above_eight_bits_stay_in_floats_and_the_head_may_be_packed() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let options = options("per-channel");
        let model = load_with::<Plain>(case, &options);
        let site = Site::in_block(1, UP_PROJ);
        let plan = model.uniform_plan(bare(4)).with(site, bare(16));
        let pack = PackOptions { embeddings: Some(width(8)), scale_format: ScaleFormat::F32, ..PackOptions::default() };
        let (packed, _) = saved(&model, PackedForm::Plan(&plan), pack, &options);
        assert!(packed.site(site).packed_weights().is_none());
        assert!(packed.embed_tokens.param().is_none() && packed.lm_head.param().is_none());
        assert!(packed.check_plan(&packed.uniform_plan(bare(4))).is_ok(), "floats serve every width");
        let eight = model.with_embedding_bits(plan.clone(), width(8));
        let error = relative_error(&logits(&packed, &eight), &logits(&model, &eight));
        assert!(error < 1e-5, "{case}, embeddings at 8 bits: {error}");
        let error = relative_error(&logits(&packed, &eight), &logits(&model, &plan));
        assert!(error > 1e-6 && error < 2e-2, "{case}, embeddings at 8 bits against floats: {error}");
        let (plain, _) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
        let generate = |model: &Llama<Plain>| model.generate(&[5, 6, 7], &GenerateOptions::default(), &plan).unwrap();
        assert_eq!(generate(&plain), generate(&model), "{case}");
    }
}

#[test]
fn an_output_matrix_of_its_own_is_packed_without_a_float_copy() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny_untied", &options);
    let eight = SitePrecision::FULL.with_weights(width(8));
    let plan = full(&model).with(Site::embedding(LM_HEAD), eight);
    let (packed, _) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
    let in_memory = model.clone().pack(PackedForm::Plan(&plan), &PackOptions::default()).expect("packs");
    let expected = logits(&packed, &plan);
    assert!(relative_error(&expected, &logits(&model, &plan)) < 1e-5);
    assert!(relative_error(&expected, &logits(&model, &full(&model))) > 1e-6);
    for packed in [&packed, &in_memory] {
        assert!(packed.lm_head.param().is_none() && packed.embed_tokens.param().is_some());
        assert_eq!(logits(packed, &plan), expected);
        // Saved again the codes are the same, and exported what they stand for.
        let (again, _) = saved(packed, PackedForm::Plan(&plan), PackOptions::default(), &options);
        assert_eq!(logits(&again, &plan), expected);
        let folder = Folder::empty();
        packed.export(folder.path()).expect("exports");
        let exported = Llama::<Plain>::load(folder.path(), &options, &device()).expect("it loads");
        assert!(exported.lm_head.param().is_some());
        assert!(relative_error(&logits(&exported, &full(&exported)), &expected) < 1e-5);
    }
}

#[test]
fn a_packed_model_exports_what_its_codes_stand_for() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let options = options("per-channel");
        let model = load_with::<Plain>(case, &options);
        let plan = model.uniform_plan(bare(4));
        let (packed, _) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
        let folder = Folder::empty();
        packed.export(folder.path()).unwrap();
        let exported = Llama::<Plain>::load(folder.path(), &options, &device()).unwrap();
        let error = relative_error(&logits(&exported, &full(&exported)), &logits(&model, &plan));
        assert!(error < 1e-5, "{case}: {error}");
    }
}

#[test]
fn span_models_pack_with_their_head() {
    skip_without_device!();
    let options = options("per-channel");
    let refuse = MissingHead::Refuse;
    let model = LlamaForQuestionAnswering::<Plain>::load(golden("tiny_qa"), &options, refuse, &device()).unwrap();
    let plan = model.transformer.uniform_plan(bare(5));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let (packed, _) =
        LlamaForQuestionAnswering::<Plain>::load_packed(folder.path(), &options, MissingHead::Refuse, &device())
            .unwrap();
    let ids = Fixture::open("tiny_qa").batch("input_ids");
    let spans = |model: &LlamaForQuestionAnswering<Plain>| {
        let logits = model.forward(ids.clone(), None, &plan);
        [values(logits.start), values(logits.end)].concat()
    };
    assert!(relative_error(&spans(&packed), &spans(&model)) < 1e-5);
    assert!(LlamaForQuestionAnswering::<Plain>::load(folder.path(), &options, refuse, &device()).is_err());
}

#[test]
fn packed_execution_of_a_float_model_equals_fake_quantisation() {
    skip_without_device!();
    let fake = load_with::<Plain>("tiny_untied", &options("per-channel,asymmetric"));
    let settings = LinearSettings { execution: Execution::Packed, ..options("per-channel,asymmetric").linear };
    let packed = load_with::<Plain>("tiny_untied", &ModelOptions { linear: settings, ..Default::default() });
    // 16 bits, and 1 bit, have no packed form and run as they did.
    for bits in [1, 2, 4, 8, 16] {
        let plan = fake.uniform_plan(bare(bits));
        let error = relative_error(&logits(&packed, &plan), &logits(&fake, &plan));
        assert!(error < 1e-5, "{bits} bits: {error}");
    }
}

#[test]
fn folders_that_lie_are_errors_that_name_file_and_tensor() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let plan = model.uniform_plan(bare(4));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let refused = |words: &[&str]| {
        let loaded = Llama::<Plain>::load_packed(folder.path(), &options, &device());
        let error = loaded.map(|_| ()).expect_err("it is damaged").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in: {error}");
    };
    let whole = folder.read("packed.safetensors");
    folder.write("packed.safetensors", &whole[..whole.len() / 2]);
    refused(&["packed.safetensors"]);

    // A plan that names a site which the model does not have.
    let named = b"layers.0.self_attn.q_proj\\\"";
    let at = whole.windows(named.len()).position(|bytes| bytes == named).expect("the plan names it");
    let mut bytes = whole.clone();
    bytes[at + 7] = b'7';
    folder.write("packed.safetensors", bytes);
    refused(&["packed.safetensors", "layers.7.self_attn.q_proj"]);

    folder.write("packed.safetensors", &whole);
    folder.edit_json("config.json", |config| config["rope_theta"] = 400.0.into());
    refused(&["config.json: field `rope_theta` is 400.0", "packed.safetensors was packed with 500.0"]);
}

#[test]
fn an_output_matrix_that_contradicts_the_tie_is_kept() {
    skip_without_device!();
    let options = ModelOptions::default();
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors("model.safetensors", |tensors| {
        let mut head = tensors["model.embed_tokens.weight"].clone();
        let row = head.bytes.len() / head.shape[0];
        head.bytes = head.bytes.chunks(row).rev().flatten().copied().collect();
        tensors.insert("lm_head.weight".into(), head);
    });
    let tied = load_with::<Plain>("tiny", &options);
    assert!(tied.config().tie_word_embeddings);
    let model = Llama::<Plain>::load(folder.path(), &options, &device()).expect("it loads");
    assert!(!model.config().tie_word_embeddings);
    let vocabulary = model.config().vocab_size;
    let reversed = |logits: Vec<f32>| -> Vec<f32> {
        logits.chunks(vocabulary).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect()
    };
    assert_eq!(logits(&model, &full(&model)), reversed(logits(&tied, &full(&tied))));
    // A packed folder of a tied model holds one matrix for both.
    let pack = PackOptions { embeddings: Some(width(8)), scale_format: ScaleFormat::F32, ..PackOptions::default() };
    let (packed, _) = saved(&tied, PackedForm::Plan(&full(&tied)), pack, &options);
    assert!(packed.config().tie_word_embeddings && packed.embed_tokens.param().is_none());
}
