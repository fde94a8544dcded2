//! Packed folders: what they compute, and what happens to those that lie.

use gpt2_model::names::MLP_C_FC;
use gpt2_model::{
    AdapterFolders, BitWidth, Generate, GenerateOptions, Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, LinearSettings,
    MissingHead, ModelConfig, ModelOptions, ModelWeights, PackModel, PackOptions, PackedForm, Site, SitePlan,
    SitePrecision, SwitchableModel,
};
use quant_kernels::{Rotation, packed::scales::ScaleFormat, spec::quant_spec::QuantSpec};
use switchable_lora::{
    linear_settings::{BasePolicy, Execution},
    lora_config::LoraConfig,
};
use switchable_model::named_plans::NamedPlans as _;

use crate::support::{Fixture, Folder, Plain, device, golden, load_with, skip_without_device, values};

const WIDTHS: [u8; 7] = [2, 3, 4, 5, 6, 7, 8];

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn options(weight: &str) -> ModelOptions {
    let weight: QuantSpec = weight.parse().expect("a quantiser");
    ModelOptions { linear: LinearSettings { weight, ..Default::default() }, ..Default::default() }
}

fn logits(model: &Gpt2<Plain>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, plan), plan))
}

/// `‖got − expected‖ / ‖expected‖`.
fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}

fn bare(bits: u8) -> SitePrecision {
    SitePrecision::uniform(width(bits)).without_adapter()
}

fn saved(
    model: &Gpt2<Plain>,
    form: PackedForm<'_>,
    pack: PackOptions,
    options: &ModelOptions,
) -> (Gpt2<Plain>, SitePlan) {
    let folder = Folder::empty();
    model.save_packed(folder.path(), form, &pack).expect("it packs");
    assert_eq!(folder.names(), ["config.json", "packed.safetensors"]);
    Gpt2::load_packed(folder.path(), options, &device()).expect("it loads")
}

#[test]
fn a_packed_model_gives_the_logits_of_its_fake_quantised_twin() {
    skip_without_device!();
    for spec in ["per-channel", "per-tensor,asymmetric", "per-group:32,asymmetric,mse", "per-channel,symmetric,mse"] {
        let options = options(spec);
        let model = load_with::<Plain>("tiny", &options);
        for bits in WIDTHS {
            let plan = model.uniform_plan(bare(bits));
            let (packed, packed_plan) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
            assert_eq!(packed_plan, plan);
            let error = relative_error(&logits(&packed, &plan), &logits(&model, &plan));
            assert!(error < 1e-5, "{spec} at {bits} bits: {error}");
            assert!(packed.site_bytes() < model.site_bytes());
        }
    }
}

#[test]
fn packed_models_take_adapters_and_quantised_activations() {
    skip_without_device!();
    let options = options("per-channel");
    let mut model = load_with::<Plain>("tiny", &options);
    let lora = LoraConfig::new(2, 4.0).unwrap().with_init(switchable_lora::LoraInit::LoftQ { iterations: 4 });
    model.init_adapters(width(3), &lora, 7).unwrap();
    let plan = model.uniform_plan(SitePrecision::uniform(width(3)));
    let adapters = Folder::empty();
    model.save_adapters(adapters.path(), "tiny").unwrap();
    let (mut packed, packed_plan) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
    assert!(packed.check_plan(&packed_plan).is_err(), "the adapters are not there yet");
    packed.load_adapters(adapters.path()).unwrap();
    assert!(relative_error(&logits(&packed, &plan), &logits(&model, &plan)) < 1e-5);

    // Activations of 8 bits may fall to either side of the middle between two levels.
    let plan = model.uniform_plan(SitePrecision::uniform(width(3)).with_activations(width(8)));
    let full = model.uniform_plan(SitePrecision::uniform(width(3)));
    let noise = relative_error(&logits(&model, &plan), &logits(&model, &full));
    let error = relative_error(&logits(&packed, &plan), &logits(&model, &plan));
    assert!(noise > 1e-4 && error < noise / 2.0, "{error} of {noise}");
}

#[test]
fn rotations_are_packed_where_the_plan_has_them() {
    skip_without_device!();
    let [plain, rotated] = [Rotation::None, Rotation::Hadamard(5)].map(|rotation| {
        let options = options("per-channel");
        let linear = LinearSettings { rotation, ..options.linear };
        ModelOptions { linear, ..options }
    });
    for (options, other) in [(&plain, Rotation::Hadamard(5)), (&rotated, Rotation::None)] {
        let model = load_with::<Plain>("tiny", options);
        for bits in [2, 4, 8] {
            let uniform = model.uniform_plan(bare(bits));
            let mixed = uniform.clone().with(Site::in_block(1, MLP_C_FC), bare(bits).with_rotation(other));
            for plan in [&uniform, &mixed] {
                let (packed, packed_plan) = saved(&model, PackedForm::Plan(plan), PackOptions::default(), options);
                assert_eq!(&model.resolve(&packed.named_plan(&packed_plan)).expect("it fits"), plan);
                let error = relative_error(&logits(&packed, &packed_plan), &logits(&model, plan));
                assert!(error < 1e-5, "{bits} bits: {error}");
                let in_memory = model.clone().pack(PackedForm::Plan(plan), &PackOptions::default()).expect("it packs");
                let error = relative_error(&logits(&in_memory, &in_memory.implicit_plan(plan)), &logits(&model, plan));
                assert!(error < 1e-5, "{bits} bits in memory: {error}");
            }
            assert_ne!(logits(&model, &uniform), logits(&model, &mixed), "the rotation does something");
        }
    }
    // What a folder does not say is not rotated, whatever it is opened with.
    let model = load_with::<Plain>("tiny", &plain);
    let uniform = model.uniform_plan(bare(4));
    let (opened, plan) = saved(&model, PackedForm::Plan(&uniform), PackOptions::default(), &rotated);
    assert!(relative_error(&logits(&opened, &plan), &logits(&model, &uniform)) < 1e-5);
    let turned = load_with::<Plain>("tiny", &rotated);
    let said = turned.resolve(&model.named_plan(&uniform)).expect("it fits");
    assert!(relative_error(&logits(&turned, &said), &logits(&model, &uniform)) < 1e-5, "a plan says all of it");
    let model = load_with::<Plain>("tiny", &rotated);
    let (nested, _) = saved(&model, PackedForm::Nested, PackOptions::default(), &rotated);
    let eight = model.uniform_plan(bare(8));
    assert!(relative_error(&logits(&nested, &eight), &logits(&model, &eight)) < 1e-5);
    // The codes are of rotated inputs, whatever a plan says.
    let refused = nested.uniform_plan(bare(8).with_rotation(Rotation::None));
    let error = nested.check_plan(&refused).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("rotation `hadamard:5`"), "{error}");
}

#[test]
fn one_nested_folder_serves_every_width() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let (nested, plan) = saved(&model, PackedForm::Nested, PackOptions::default(), &options);
    let eight = model.uniform_plan(bare(8));
    assert_eq!(plan, eight);
    assert!(relative_error(&logits(&nested, &eight), &logits(&model, &eight)) < 1e-5);
    let mut errors = Vec::new();
    let full = logits(&model, &model.uniform_plan(SitePrecision::FULL));
    for bits in WIDTHS {
        let plan = model.uniform_plan(bare(bits));
        nested.check_plan(&plan).expect("every width is there");
        // The same values in floats.
        let mut twin = model.clone();
        for site in model.config().sites().iter() {
            let weight = nested.site(site).quantized_weight(width(bits)).unwrap();
            let linear = twin.site_mut(site);
            *linear = linear.clone().with_parameters(weight, linear.bias());
        }
        let expected = logits(&twin, &model.uniform_plan(SitePrecision::FULL));
        let error = relative_error(&logits(&nested, &plan), &expected);
        assert!(error < 1e-5, "{bits} bits: {error}");
        errors.push(relative_error(&expected, &full));
    }
    assert!(errors.windows(2).all(|pair| pair[0] > pair[1]), "more bits are not closer: {errors:?}");
    assert!(nested.check_plan(&model.uniform_plan(SitePrecision::FULL)).is_err());
}

#[test]
fn sites_above_eight_bits_stay_in_floats_and_the_head_may_be_packed() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let site = Site::in_block(1, MLP_C_FC);
    let plan = model.uniform_plan(bare(4)).with(site, bare(16));
    let pack = PackOptions { embeddings: Some(width(8)), scale_format: ScaleFormat::F32, ..PackOptions::default() };
    let (packed, saved_plan) = saved(&model, PackedForm::Plan(&plan), pack, &options);
    assert!(packed.site(site).packed_weights().is_none());
    assert!(packed.check_plan(&packed.uniform_plan(bare(4))).is_ok(), "floats serve every width");
    let eight = model.with_embedding_bits(plan.clone(), width(8));
    assert_eq!(saved_plan, eight);
    let error = relative_error(&logits(&packed, &eight), &logits(&model, &plan));
    assert!(error > 1e-6 && error < 2e-2, "embeddings at 8 bits: {error}");

    let (plain, _) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
    let generate = |model: &Gpt2<Plain>| model.generate(&[5, 6, 7], &GenerateOptions::default(), &plan).unwrap();
    assert_eq!(generate(&plain), generate(&model));
}

#[test]
fn embeddings_are_sites_of_the_plan_at_every_width_and_in_either_execution() {
    skip_without_device!();
    for spec in ["per-channel", "per-tensor"] {
        let options = options(spec);
        let model = load_with::<Plain>("tiny", &options);
        let packs = LinearSettings { execution: Execution::Packed, ..options.linear };
        let from_codes = load_with::<Plain>("tiny", &ModelOptions { linear: packs, ..options.clone() });
        let full = logits(&model, &model.uniform_plan(SitePrecision::FULL));
        let mut errors = Vec::new();
        for bits in WIDTHS {
            let plan = model.with_embedding_bits(model.uniform_plan(SitePrecision::FULL), width(bits));
            let expected = logits(&model, &plan);
            // Rows are looked up to the bit; scores are summed in another order.
            let embed =
                |model: &Gpt2<Plain>| values(model.embed(Fixture::open("tiny").batch("input_ids"), None, &plan));
            let (packed, saved_plan) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
            assert_eq!(saved_plan, plan);
            assert!(packed.wte.param().is_none() && packed.wpe.param().is_none());
            for other in [&packed, &from_codes] {
                assert_eq!(embed(other), embed(&model), "{bits} bits");
                let error = relative_error(&logits(other, &plan), &expected);
                assert!(error < 1e-5, "{bits} bits: {error}");
            }
            errors.push(relative_error(&expected, &full));
        }
        assert!(errors.windows(2).all(|pair| pair[0] > pair[1]), "more bits are not closer: {errors:?}");
        let four = model.with_embedding_bits(model.uniform_plan(bare(4)), width(4));
        let named = model.named_plan(&four);
        assert_eq!(named.embedding("wte").weights, width(4));
        assert_eq!(model.resolve(&named).expect("its own plan"), four);
    }
}

#[test]
fn one_nested_embedding_serves_the_lower_widths() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let pack = PackOptions { embeddings: Some(width(8)), ..PackOptions::default() };
    let (nested, plan) = saved(&model, PackedForm::Nested, pack, &options);
    let expected = logits(&model, &model.uniform_plan(SitePrecision::FULL));
    let mut errors = Vec::new();
    for bits in [8, 6, 4, 2] {
        let plan = nested.with_embedding_bits(plan.clone(), width(bits));
        errors.push(relative_error(&logits(&nested, &plan), &expected));
    }
    assert!(errors.windows(2).all(|pair| pair[0] < pair[1]), "fewer bits are closer: {errors:?}");
}

#[test]
fn what_an_embedding_cannot_be_is_refused_by_name() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let full = model.uniform_plan(SitePrecision::FULL);
    let wte = Site::embedding(gpt2_model::names::WTE);
    let message = |model: &Gpt2<Plain>, plan: &SitePlan| model.check_plan(plan).unwrap_err().to_string();
    let adapter = full.clone().with(wte, SitePrecision::uniform(width(8)));
    assert_eq!(message(&model, &adapter), "site `wte`: embeddings have no adapters and no learned steps");
    let one = full.clone().with(wte, bare(1));
    assert!(message(&model, &one).starts_with("site `wte`: "), "{}", message(&model, &one));
    let (packed, _) =
        saved(&model, PackedForm::Plan(&full.clone().with(wte, bare(6))), PackOptions::default(), &options);
    assert!(message(&packed, &full).starts_with("site `wte`: "), "{}", message(&packed, &full));
}

#[test]
fn a_packed_model_exports_what_its_codes_stand_for() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let plan = model.uniform_plan(bare(4));
    let (packed, _) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &options);
    let folder = Folder::empty();
    packed.export(folder.path()).unwrap();
    let exported = Gpt2::<Plain>::load(folder.path(), &options, &device()).unwrap();
    assert!(
        relative_error(&logits(&exported, &model.uniform_plan(SitePrecision::FULL)), &logits(&model, &plan)) < 1e-5
    );
}

#[test]
fn span_models_pack_with_their_head() {
    skip_without_device!();
    let options = options("per-channel");
    let model =
        Gpt2ForQuestionAnswering::<Plain>::load(golden("tiny_qa"), &options, MissingHead::Refuse, &device()).unwrap();
    let plan = model.transformer.uniform_plan(bare(5));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let (packed, _) =
        Gpt2ForQuestionAnswering::<Plain>::load_packed(folder.path(), &options, MissingHead::Refuse, &device())
            .unwrap();
    let ids = Fixture::open("tiny_qa").batch("input_ids");
    let spans = |model: &Gpt2ForQuestionAnswering<Plain>| {
        let logits = model.forward(ids.clone(), None, &plan);
        [values(logits.start), values(logits.end)].concat()
    };
    assert!(relative_error(&spans(&packed), &spans(&model)) < 1e-5);
    assert!(Gpt2ForQuestionAnswering::<Plain>::load(folder.path(), &options, MissingHead::Refuse, &device()).is_err());
}

#[test]
fn packed_execution_of_a_float_model_equals_fake_quantisation() {
    skip_without_device!();
    let fake = load_with::<Plain>("tiny", &options("per-channel,asymmetric"));
    let settings = LinearSettings { execution: Execution::Packed, ..options("per-channel,asymmetric").linear };
    let packed = load_with::<Plain>("tiny", &ModelOptions { linear: settings, ..Default::default() });
    // 16 bits, and 1 bit, have no packed form and run as they did.
    for bits in [1, 2, 4, 8, 16] {
        let plan = fake.uniform_plan(bare(bits));
        let error = relative_error(&logits(&packed, &plan), &logits(&fake, &plan));
        assert!(error < 1e-5, "{bits} bits: {error}");
    }
}

#[test]
fn damaged_folders_are_errors_that_name_file_and_tensor() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let plan = model.uniform_plan(bare(4));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let load = || Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).map(|_| ());
    let refused = |words: &[&str]| {
        let error = load().expect_err("it is damaged").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in: {error}");
    };
    let (config, file) = (folder.path().join("config.json"), folder.path().join("packed.safetensors"));
    let (whole_config, whole) = (std::fs::read_to_string(&config).unwrap(), std::fs::read(&file).unwrap());

    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused(&["packed.safetensors"]);
    std::fs::write(&file, &whole).unwrap();
    load().expect("it is whole again");

    // A plan that names a site which the model does not have.
    let named = b"h.0.attn.c_attn\\\"";
    let at = whole.windows(named.len()).position(|bytes| bytes == named).expect("the plan names it");
    let mut bytes = whole.clone();
    bytes[at + 2] = b'7';
    std::fs::write(&file, bytes).unwrap();
    refused(&["packed.safetensors", "h.7.attn.c_attn"]);

    let n_layer = model.config().n_layer;
    let blocks = format!("\"n_layer\": {n_layer}");
    assert!(whole_config.contains(&blocks));
    // The same in the file's metadata, where it stands as JSON in a JSON string.
    let noted = format!("\\\"n_layer\\\":{n_layer}");
    let at = whole.windows(noted.len()).position(|bytes| bytes == noted.as_bytes()).expect("it is noted");
    let with_blocks = |n: usize| {
        std::fs::write(&config, whole_config.replace(&blocks, &format!("\"n_layer\": {n}"))).unwrap();
        let mut bytes = whole.clone();
        bytes[at + noted.len() - 1] = b'0' + n as u8;
        std::fs::write(&file, bytes).unwrap();
    };
    with_blocks(1);
    refused(&["packed.safetensors", "transformer.h.1", "n_layer"]);
    with_blocks(9);
    refused(&["packed.safetensors", "transformer.h."]);
    std::fs::write(&file, &whole).unwrap();
    std::fs::remove_file(&config).unwrap();
    refused(&["config.json"]);

    // A width that the codes do not have is refused before anything runs.
    std::fs::write(&config, &whole_config).unwrap();
    let (packed, _) = Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).unwrap();
    let error = packed.check_plan(&model.uniform_plan(bare(8))).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("8 bits, available: 4"), "{error}");
}

#[test]
fn weights_beside_the_configuration_of_another_model_are_refused() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let other = Gpt2Config { layer_norm_epsilon: 1e-3, ..model.config().clone() };
    let other = Gpt2::<Plain>::random(&other, &options, 5, &device()).unwrap();
    let folder = Folder::empty();
    let plan = model.uniform_plan(bare(4));
    let save = |model: &Gpt2<Plain>| model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default());
    let load = || Gpt2::<Plain>::load_packed(folder.path(), &options, &device()).map(|_| ());

    // A write that ends after its first file leaves the configuration that was there before.
    save(&other).unwrap();
    let config = folder.path().join("config.json");
    let before = std::fs::read(&config).unwrap();
    save(&model).unwrap();
    let after = std::fs::read(&config).unwrap();
    std::fs::write(&config, before).unwrap();
    let error = load().expect_err("the files are of two models").to_string();
    let all = ["config.json: field `layer_norm_epsilon` is 0.001", "packed.safetensors was packed with 0.00001"];
    assert!(all.iter().all(|words| error.contains(words)), "{error}");

    std::fs::write(&config, after).unwrap();
    load().expect("the files are of one model");
}

#[test]
fn a_model_packed_in_memory_is_that_of_the_folder_and_keeps_its_adapters() {
    skip_without_device!();
    let options = options("per-channel");
    let mut model = load_with::<Plain>("tiny", &options);
    model.init_adapters(width(4), &LoraConfig::new(2, 4.0).unwrap(), 7).unwrap();
    let plan = model.uniform_plan(bare(4));
    let pack = PackOptions { embeddings: Some(width(8)), scale_format: ScaleFormat::F16, ..PackOptions::default() };
    for form in [PackedForm::Plan(&plan), PackedForm::Nested] {
        let packed = model.clone().pack(form, &pack).expect("it packs");
        let (loaded, loaded_plan) = saved(&model, form, pack, &options);
        assert_eq!(logits(&packed, &loaded_plan), logits(&loaded, &loaded_plan), "{form:?}");
        assert_eq!(packed.site_bytes(), loaded.site_bytes());
        assert_eq!(packed.adapter_widths(), [width(4)]);
        assert!(loaded.adapter_widths().is_empty());
        packed
            .check_plan(&packed.uniform_plan(SitePrecision::uniform(width(4))))
            .expect("codes and adapters of 4 bits");
    }
    let missing = model.uniform_plan(SitePrecision::uniform(width(3)));
    assert!(model.pack(PackedForm::Plan(&missing), &pack).is_err(), "there are no adapters of 3 bits");
}

#[test]
fn packed_weights_are_packed_again_from_their_codes_or_refused() {
    skip_without_device!();
    let options = options("per-channel");
    let model = load_with::<Plain>("tiny", &options);
    let pack = PackOptions::default();
    let four = model.uniform_plan(bare(4));
    let fixed = model.clone().pack(PackedForm::Plan(&four), &pack).unwrap();
    let nested = model.clone().pack(PackedForm::Nested, &pack).unwrap();

    assert_eq!(logits(&fixed.clone().pack(PackedForm::Plan(&four), &pack).unwrap(), &four), logits(&fixed, &four));
    let message = fixed.pack(PackedForm::Nested, &pack).unwrap_err().to_string();
    assert!(message.contains("h.0.attn.c_attn") && message.contains("8 bits"), "{message}");

    for bits in WIDTHS {
        let plan = model.uniform_plan(bare(bits));
        let cut = nested.clone().pack(PackedForm::Plan(&plan), &pack).unwrap();
        assert!(relative_error(&logits(&cut, &plan), &logits(&nested, &plan)) < 1e-5, "{bits} bits");
        let again = nested.clone().pack(PackedForm::Nested, &pack).unwrap();
        assert_eq!(logits(&again, &plan), logits(&nested, &plan), "{bits} bits");
    }
}

#[test]
fn a_packed_folder_whose_plan_names_what_the_model_has_not_is_refused() {
    skip_without_device!();
    let model = load_with::<Plain>("tiny", &options("per-channel"));
    let plan = model.uniform_plan(bare(4)).with_block_kv_cache(1, width(8));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let file = folder.path().join("packed.safetensors");
    let whole = std::fs::read(&file).unwrap();
    // The plan is JSON in the JSON of the header.
    for (from, to, expected) in [
        (r#"\"h.1.mlp.c_fc\""#, r#"\"h.9.mlp.c_fc\""#, "unknown site `h.9.mlp.c_fc`, expected a block (`h.0`, `h.1`"),
        (r#"\"h.1\":"#, r#"\"h.9\":"#, "kv cache of unknown block `h.9`, expected `h.0`"),
        (
            "per-channel,symmetric,min-max",
            "per-group:1,symmetric,min-max",
            "the plan names per-group:1,symmetric,min-max",
        ),
        ("per-channel,symmetric,min-max", "per-channel,symmetric,mon-max", "range estimator `mon-max`"),
    ] {
        let at: Vec<usize> =
            (0..whole.len() - from.len()).filter(|&at| whole[at..].starts_with(from.as_bytes())).collect();
        assert!(!at.is_empty(), "{from} is not in the file");
        let mut changed = whole.clone();
        for at in at {
            changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
        std::fs::write(&file, changed).unwrap();
        let message =
            Gpt2::<Plain>::load_packed(folder.path(), &ModelOptions::default(), &device()).expect_err(from).to_string();
        assert!(message.contains("packed.safetensors") && message.contains(expected), "{message}");
    }
}

#[test]
fn codes_of_one_quantiser_refuse_a_plan_of_another() {
    skip_without_device!();
    let model = load_with::<Plain>("tiny", &options("per-channel"));
    let plan = model.uniform_plan(bare(4));
    // Opened under other settings: the codes tell what they are.
    let (packed, own) = saved(&model, PackedForm::Plan(&plan), PackOptions::default(), &ModelOptions::default());
    assert_eq!(own, plan);
    assert_eq!(packed.settings().weight, "per-channel".parse().unwrap());
    let named = model.named_plan(&plan);
    assert_eq!(packed.resolve(&named).expect("its own quantiser"), plan);
    let other = load_with::<Plain>("tiny", &options("per-tensor")).named_plan(&plan);
    let message = packed.resolve(&other).expect_err("another quantiser").to_string();
    assert!(
        message.starts_with("site `h.0.attn.c_attn`: ")
            && message.contains("packed by per-channel,symmetric,min-max, the plan names per-tensor"),
        "{message}"
    );
}

#[test]
fn sites_of_different_quantisers_are_packed_each_by_its_own() {
    skip_without_device!();
    let options = options("per-channel,symmetric,mse");
    let load = |options: &ModelOptions| {
        let folder = golden("tiny_qa");
        Gpt2ForQuestionAnswering::<Plain>::load(folder, options, MissingHead::Refuse, &device()).expect("it loads")
    };
    let hidden = |model: &Gpt2ForQuestionAnswering<Plain>, plan: &SitePlan| {
        values(model.transformer.forward(Fixture::open("tiny_qa").batch("input_ids"), None, plan))
    };
    let model = load(&options);
    let [asymmetric, tensor] = ["per-channel,asymmetric", "per-tensor"].map(|text| text.parse::<QuantSpec>().unwrap());
    let plan = model
        .transformer
        .uniform_plan(bare(4))
        .with(Site::in_block(0, MLP_C_FC), bare(3).with_quantizer(asymmetric))
        // Floats that are rounded in each call, by another quantiser than the codes around them.
        .with(Site::in_block(1, MLP_C_FC), bare(10).with_quantizer(tensor));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    // Opened under other settings, frozen or trained.
    let (packed, own) = Gpt2ForQuestionAnswering::<Plain>::load_packed(
        folder.path(),
        &ModelOptions::default(),
        MissingHead::Refuse,
        &device(),
    )
    .expect("it loads");
    assert_eq!(packed.transformer.settings().quantisation(), model.transformer.settings().quantisation());
    let expected = hidden(&model, &plan);
    for packed in [packed.clone(), packed.with_policy(BasePolicy::Trainable)] {
        packed.transformer.check_plan(&own).expect("its own plan");
        let error = relative_error(&hidden(&packed, &own), &expected);
        assert!(error < 1e-5, "{error}");
        assert_eq!(packed.transformer.named_plan(&own).entries().count(), 9);
    }
    assert!(relative_error(&hidden(&load(&ModelOptions::default()), &plan), &expected) > 1e-3);
}
