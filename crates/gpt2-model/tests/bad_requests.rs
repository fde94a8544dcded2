//! Prompts, plans and adapters that do not fit the model: an error that names what, no panic.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use gpt2_model::names::{ATTN_C_PROJ, MLP_C_FC};
use gpt2_model::{
    AdapterFolders, BitWidth, DrawOptions, Generate, GenerateOptions, Gpt2, Gpt2Config, Gpt2ForQuestionAnswering,
    KvCache, ModelConfig, ModelOptions, ModelWeights, PrecisionPlan, Sampling, Site, SitePlan, SitePrecision, Sites,
    SubModule, SwitchableModel,
};
use switchable_lora::{lora_config::LoraConfig, peft::width_folder};
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::positions::Positions;

use crate::support::{Folder, Plain, batch_of_one, device, full, golden, load, skip_without_device};

#[track_caller]
fn assert_names<T>(result: gpt2_model::Result<T>, parts: &[&str]) {
    let message = result.map(|_| ()).expect_err("a bad request").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn generate(prompt: &[u32], options: &GenerateOptions) -> gpt2_model::Result<Vec<u32>> {
    let model = load::<Plain>("tiny");
    model.generate(prompt, options, &full(&model))
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    skip_without_device!();
    for id in [97, u32::MAX] {
        assert_names(generate(&[1, 2, id], &GenerateOptions::default()), &[&id.to_string(), "position 2", "97"]);
    }
}

#[test]
fn prompts_that_are_empty_or_too_long_are_refused() {
    skip_without_device!();
    assert_names(generate(&[], &GenerateOptions::default()), &["0 tokens", "32"]);
    assert_names(generate(&[1; 33], &GenerateOptions::default()), &["33 tokens", "32"]);
    assert_eq!(generate(&[1; 32], &GenerateOptions::default()).expect("the last position is one").len(), 1);
}

#[test]
fn nothing_is_generated_where_nothing_is_asked_for() {
    skip_without_device!();
    let options = GenerateOptions { max_new_tokens: 0, ..Default::default() };
    assert!(generate(&[1], &options).expect("nothing").is_empty());
}

#[test]
fn sampling_options_out_of_range_are_refused() {
    skip_without_device!();
    for (top_k, temperature, field) in [(0, 1.0, "top_k"), (3, -1.0, "temperature"), (3, f32::INFINITY, "temperature")]
    {
        let sampling = Sampling::Draws(DrawOptions { top_k: Some(top_k), temperature, ..Default::default() });
        assert_names(generate(&[1], &GenerateOptions { sampling, ..Default::default() }), &[field]);
    }
}

#[test]
fn configs_that_do_not_fit_together_are_refused() {
    skip_without_device!();
    for (config, field) in
        [(Gpt2Config::new(97, 32, 20, 3, 3), "n_embd"), (Gpt2Config::new(0, 32, 20, 3, 4), "vocab_size")]
    {
        assert_names(Gpt2::<Plain>::random(&config, &ModelOptions::default(), 1, &device()), &[field]);
    }
}

#[test]
fn a_plan_that_names_an_unknown_site_is_refused() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    for site in ["h.3.attn.c_attn", "h.0.attn.c_fc", "lm_head", "transformer.h.0.mlp.c_fc"] {
        let plan =
            PrecisionPlan::uniform(SitePrecision::FULL).with_site(site, SitePrecision::FULL.with_weights(width(4)));
        assert_names(model.resolve(&plan), &[site]);
    }
}

#[test]
fn a_plan_that_asks_for_a_missing_adapter_is_refused() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let site = Site::in_block(1, MLP_C_FC);
    let config = LoraConfig::new(2, 4.0).expect("a configuration");
    model.site_mut(site).init_adapter(width(4), &config, 1).expect("an adapter");
    let four = SitePrecision::uniform(width(4));
    let plan = full(&model).with(site, four);
    model.check_plan(&plan).expect("this site has the adapter");

    let other = Site::in_block(2, ATTN_C_PROJ);
    assert_names(model.check_plan(&plan.clone().with(other, four)), &["h.2.attn.c_proj", "4"]);
    assert_names(model.check_plan(&plan.with(site, SitePrecision::uniform(width(3)))), &["h.1.mlp.c_fc", "3"]);
    assert_names(model.resolve(&PrecisionPlan::uniform(four)), &["h.0.attn.c_attn", "4"]);
}

#[test]
fn a_width_that_the_quantiser_cannot_do_is_refused() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let site = Site::in_block(1, MLP_C_FC);
    // One symmetric bit has no level but zero.
    for precision in [SitePrecision::FULL.with_weights(width(1)), SitePrecision::FULL.with_activations(width(1))] {
        let plan = full(&model).with(site, precision);
        assert_names(model.check_plan(&plan), &["h.1.mlp.c_fc", "1"]);
        assert_names(model.resolve(&plan.to_precision_plan()), &["h.1.mlp.c_fc", "1"]);
    }
}

#[test]
fn a_plan_of_another_model_is_refused() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let four = SitePrecision::FULL.with_weights(width(4));
    for blocks in [2, 4] {
        let other = Gpt2Config::new(97, 32, 20, blocks, 4);
        for precision in [four, SitePrecision::FULL] {
            let plan = SitePlan::uniform(&other.sites(), precision);
            assert_names(model.check_plan(&plan), &[&format!("{blocks} blocks"), "3"]);
        }
    }
}

#[test]
fn an_adapter_of_an_unknown_site_is_refused() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let folder = Folder::empty();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        folder.write(file, std::fs::read(golden("peft/adapter").join(file)).expect("a golden file"));
    }
    folder.edit_tensors("adapter_model.safetensors", |tensors| {
        let of_block_2: Vec<String> = tensors.keys().filter(|name| name.contains(".h.2.")).cloned().collect();
        assert!(!of_block_2.is_empty());
        for name in of_block_2 {
            let tensor = tensors.remove(&name).expect("it is there");
            tensors.insert(name.replace(".h.2.", ".h.7."), tensor);
        }
    });
    let path = folder.path().to_str().expect("a path");
    assert_names(model.load_adapter(folder.path(), width(4)), &[path, "h.7."]);
    assert!(model.adapter_widths().is_empty(), "part of the adapter was taken");
}

#[test]
fn folders_without_adapters_are_refused() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let folder = Folder::empty();
    let path = folder.path().to_str().expect("a path");
    assert_names(model.load_adapters(folder.path()), &[path, "bits-"]);
    assert_names(model.load_adapters(folder.join("nowhere")), &[path, "nowhere"]);
    assert_names(model.load_adapter(folder.path(), width(4)), &[path, "adapter_config.json"]);
    std::fs::create_dir(width_folder(folder.path(), width(4))).expect("a folder");
    assert_names(model.load_adapters(folder.path()), &[path, "bits-4"]);
}

#[test]
fn an_adapter_with_weights_that_are_not_finite_is_refused() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let folder = Folder::empty();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        folder.write(file, std::fs::read(golden("peft/adapter").join(file)).expect("a golden file"));
    }
    let name = "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight";
    folder.edit_tensors("adapter_model.safetensors", |tensors| {
        tensors.get_mut(name).expect("it is there").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_names(model.load_adapter(folder.path(), width(4)), &["adapter_model.safetensors", "h.1.attn.c_attn"]);
}

#[test]
fn a_plan_of_another_family_is_refused() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let sites = Sites::new("layers", 3, [(SubModule::new("self_attn.q_proj"), [20, 20])]);
    let plan = SitePlan::uniform(&sites, SitePrecision::FULL);
    assert_names(model.check_plan(&plan), &["self_attn.q_proj", "attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj"]);
}

#[test]
fn generation_at_a_plan_that_does_not_fit_is_refused() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let generate = |plan: &SitePlan| model.generate(&[1, 2], &GenerateOptions::default(), plan);
    let short = SitePlan::uniform(&Gpt2Config::new(97, 32, 20, 2, 4).sites(), SitePrecision::FULL);
    assert_names(generate(&short), &["2 blocks", "3"]);
    assert_names(generate(&model.uniform_plan(SitePrecision::uniform(width(4)))), &["h.0.attn.c_attn", "4 bits"]);
    assert_names(generate(&full(&model).with_kv_cache(width(1))), &["h.0"]);
}

/// The message of a panic.
fn panic_of(work: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).expect_err("it cannot be computed");
    panic.downcast_ref::<String>().cloned().expect("a message")
}

#[test]
fn a_pass_at_a_plan_that_does_not_fit_says_so_before_it_starts() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = || batch_of_one::<Plain>(&[1, 2]);
    let sites = |blocks| Gpt2Config::new(97, 32, 20, blocks, 4).sites();
    let span = Gpt2ForQuestionAnswering::with_random_head(model.clone(), 1, &device());
    let adapter = model.uniform_plan(SitePrecision::uniform(width(4)));
    for (plan, words) in [
        (SitePlan::uniform(&sites(2), SitePrecision::FULL), "plan of 2 blocks, the model has 3"),
        (SitePlan::uniform(&sites(4), SitePrecision::FULL), "plan of 4 blocks, the model has 3"),
        (adapter.clone(), "h.0.attn.c_attn"),
        (full(&model).with_kv_cache(width(1)), "h.0"),
    ] {
        let mut visited = 0;
        let hidden = model.embed(ids(), None, &full(&model));
        for message in [
            panic_of(|| drop(model.forward(ids(), None, &plan))),
            panic_of(|| drop(model.forward_from(1, hidden.clone(), None, &plan))),
            panic_of(|| drop(model.forward_cached(ids(), &mut KvCache::new(&model.shape(), 1, 4, &device()), &plan))),
            panic_of(|| drop(model.observe(ids(), None, &plan, &mut |_, _| visited += 1))),
            panic_of(|| drop(span.forward(ids(), None, &plan))),
        ] {
            assert!(message.contains(words), "`{words}` is not in: {message}");
        }
        assert_eq!(visited, 0, "{words}");
    }
    assert!(
        panic_of(|| drop(model.forward_blocks(2..4, model.embed(ids(), None, &full(&model)), None, &full(&model))))
            .contains('4')
    );
}

/// A batch of 40 tokens, of which the last `real` are.
fn padded(real: usize) -> Tensor<Plain, 2, Bool> {
    let padding: Vec<bool> = (0..80).map(|i| i % 40 < 40 - real).collect();
    Tensor::from_data(TensorData::new(padding, [2, 40]), &device())
}

#[test]
fn more_real_tokens_than_positions_are_refused_with_both_numbers() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = || Tensor::<Plain, 2, Int>::ones([2, 40], &device());
    let plan = full(&model);
    let span = Gpt2ForQuestionAnswering::with_random_head(model.clone(), 1, &device());
    let fits = padded(32);
    assert_eq!(model.forward(ids(), Some(&fits), &plan).dims(), [2, 40, 20]);
    model.check_tokens(40, Some(&fits)).expect("32 of them are real");
    let too_many = padded(33);
    assert_names(model.check_tokens(40, Some(&too_many)), &["33 tokens", "1 to 32"]);
    assert_names(model.check_tokens(33, None), &["33 tokens", "1 to 32"]);
    for message in [
        panic_of(|| drop(model.embed(ids(), Some(&too_many), &full(&model)))),
        panic_of(|| drop(model.forward(ids(), Some(&too_many), &plan))),
        panic_of(|| drop(model.observe(ids(), Some(&too_many), &plan, &mut |_, _| {}))),
        panic_of(|| drop(span.forward(ids(), Some(&too_many), &plan))),
        panic_of(|| drop(model.embed_at(ids(), &Positions::of_sequences(40, Some(&too_many)), &full(&model)))),
    ] {
        assert!(message.contains("33 tokens") && message.contains("32"), "{message}");
    }
    assert!(panic_of(|| drop(model.forward(ids(), None, &plan))).contains("40 tokens"));
}
