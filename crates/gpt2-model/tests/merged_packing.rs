//! Packed forms of models whose adapters are merged into the weights.

use gpt2_model::names::MLP_C_FC;
use gpt2_model::{
    AdapterFolders, BitWidth, Gpt2, Gpt2ForQuestionAnswering, LinearSettings, MissingHead, ModelConfig, ModelOptions,
    PackModel, PackOptions, PackedForm, Site, SitePlan, SitePrecision, SwitchableModel,
};
use switchable_lora::{
    linear_settings::Execution,
    lora_config::{LoraConfig, LoraInit},
    placement::Placement,
};

use crate::support::{Fixture, Folder, Plain, device, golden, load_with, skip_without_device, values};

fn options(placement: Placement) -> ModelOptions {
    let linear =
        LinearSettings { weight: "per-channel".parse().expect("a quantiser"), placement, ..Default::default() };
    ModelOptions { linear, ..Default::default() }
}

/// A model with adapters of 4 and 16 bits that change a lot.
fn merged() -> Gpt2<Plain> {
    let mut model = load_with::<Plain>("tiny", &options(Placement::Merged));
    let lora = LoraConfig::new(4, 8.0).expect("a configuration").with_init(LoraInit::LoftQ { iterations: 4 });
    for bits in [BitWidth::B2, BitWidth::B4] {
        model.init_adapters(bits, &lora, 7).expect("adapters");
    }
    for site in model.sites().clone().iter() {
        let linear = model.site_mut(site);
        let pair = linear.bank().get(BitWidth::B2).expect("adapters").clone();
        linear.insert_adapter(BitWidth::B16, pair).expect("it fits");
    }
    model
}

fn logits(model: &Gpt2<Plain>, plan: &SitePlan) -> Vec<f32> {
    values(model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, plan), plan))
}

fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}

/// A plan that names adapters of several widths, some of them at sites that stay in floats, and none at one.
fn plan(model: &Gpt2<Plain>) -> SitePlan {
    let site = |block| Site::in_block(block, MLP_C_FC);
    let four = SitePrecision::uniform(BitWidth::B4);
    model
        .uniform_plan(four)
        .with(site(0), SitePrecision::uniform(BitWidth::B16))
        .with(site(1), four.with_adapter(BitWidth::B2))
        .with(site(2), four.without_adapter())
}

#[test]
fn the_merged_weights_are_packed() {
    skip_without_device!();
    let model = merged();
    let plan = plan(&model);
    let (expected, residual) = (
        logits(&model, &plan),
        logits(&model.clone().with_linear_settings(options(Placement::Residual).linear), &plan),
    );
    assert!(relative_error(&residual, &expected) > 0.01, "placement makes no difference here");
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let (loaded, loaded_plan) =
        Gpt2::<Plain>::load_packed(folder.path(), &options(Placement::Residual), &device()).expect("it loads");
    assert_eq!(loaded_plan, plan.clone().without_adapters(), "the adapters are in the weights");
    let error = relative_error(&logits(&loaded, &loaded_plan), &expected);
    assert!(error < 1e-5, "saved: {error}");

    let packed = model.pack(PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let error = relative_error(&logits(&packed, &loaded_plan), &expected);
    assert!(error < 1e-5, "in memory: {error}");
    assert!(packed.adapter_widths().is_empty(), "an adapter would be added twice");
    assert!(packed.check_plan(&plan).is_err());
}

#[test]
fn a_span_model_packs_its_merged_weights() {
    skip_without_device!();
    let options = options(Placement::Merged);
    let mut model =
        Gpt2ForQuestionAnswering::<Plain>::load(golden("tiny_qa"), &options, MissingHead::Refuse, &device()).unwrap();
    let lora = LoraConfig::new(2, 8.0).unwrap().with_init(LoraInit::LoftQ { iterations: 4 });
    model.transformer.init_adapters(BitWidth::B2, &lora, 7).unwrap();
    let plan = model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B2));
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let (packed, packed_plan) =
        Gpt2ForQuestionAnswering::<Plain>::load_packed(folder.path(), &options, MissingHead::Refuse, &device())
            .unwrap();
    let expected = spans(&model, &plan);
    assert!(relative_error(&spans(&packed, &packed_plan), &expected) < 1e-5);
    let in_memory = model.pack(PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    assert!(relative_error(&spans(&in_memory, &packed_plan), &expected) < 1e-5);
}

/// Start and end scores of the golden batch.
fn spans(model: &Gpt2ForQuestionAnswering<Plain>, plan: &SitePlan) -> Vec<f32> {
    let logits = model.forward(Fixture::open("tiny_qa").batch("input_ids"), None, plan);
    [values(logits.start), values(logits.end)].concat()
}

/// A model whose adapter of 8 bits came with a head; it has nothing at `mlp.c_fc`.
fn with_width_head(placement: Placement) -> (Gpt2ForQuestionAnswering<Plain>, SitePlan) {
    let (dir, options) = (golden("tiny_qa"), options(placement));
    let mut model = Gpt2ForQuestionAnswering::<Plain>::load(dir, &options, MissingHead::Refuse, &device())
        .expect("a golden folder loads");
    _ = model.load_adapter(golden("peft_qa/adapter"), BitWidth::B8).expect("a golden folder loads");
    let bare = SitePrecision::uniform(BitWidth::B8).without_adapter();
    let sites = model.config().sites().clone();
    let has = |site: &Site| model.transformer.site(*site).bank().get(BitWidth::B8).is_some();
    let plan = sites
        .iter()
        .filter(has)
        .fold(model.transformer.uniform_plan(bare), |plan, site| plan.with(site, SitePrecision::uniform(BitWidth::B8)));
    (model, plan)
}

#[test]
fn the_head_of_a_width_goes_with_its_merged_adapter() {
    skip_without_device!();
    let (model, plan) = with_width_head(Placement::Merged);
    let expected = spans(&model, &plan);
    let folder = Folder::empty();
    model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let options = options(Placement::Merged);
    let (packed, packed_plan) =
        Gpt2ForQuestionAnswering::<Plain>::load_packed(folder.path(), &options, MissingHead::Refuse, &device())
            .unwrap();
    assert!(relative_error(&spans(&packed, &packed_plan), &expected) < 1e-5);
    let in_memory = model.clone().pack(PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    assert!(in_memory.head_widths().is_empty(), "the head has become the base's");
    assert!(relative_error(&spans(&in_memory, &packed_plan), &expected) < 1e-5);
    // Without the adapter the base head answers, in codes as in floats.
    let bare = plan.clone().without_adapters();
    let expected_bare = spans(&model, &bare);
    assert!(relative_error(&expected_bare, &expected) > 0.1);
    model.save_packed(folder.path(), PackedForm::Plan(&bare), &PackOptions::default()).unwrap();
    let (packed, packed_plan) =
        Gpt2ForQuestionAnswering::<Plain>::load_packed(folder.path(), &options, MissingHead::Refuse, &device())
            .unwrap();
    assert!(relative_error(&spans(&packed, &packed_plan), &expected_bare) < 1e-5);
}

#[test]
fn a_plan_that_merges_adapters_at_some_sites_keeps_the_head_that_answered() {
    skip_without_device!();
    // The placement of the sites is that of the plan, not of the model.
    let (model, plan) = with_width_head(Placement::Residual);
    for sites in [1, usize::MAX] {
        let with_adapter: Vec<_> =
            plan.iter().filter(|(_, precision)| precision.adapter.is_some()).take(sites).collect();
        let plan = with_adapter
            .into_iter()
            .fold(plan.clone(), |plan, (site, precision)| plan.with(site, precision.with_placement(Placement::Merged)));
        let expected = spans(&model, &plan);
        let folder = Folder::empty();
        model.save_packed(folder.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
        model.save_adapters(folder.path().join("adapters"), ".").unwrap();
        let residual = options(Placement::Residual);
        let (mut packed, packed_plan) =
            Gpt2ForQuestionAnswering::<Plain>::load_packed(folder.path(), &residual, MissingHead::Refuse, &device())
                .unwrap();
        _ = packed.load_adapters(folder.path().join("adapters")).unwrap();
        assert!(relative_error(&spans(&packed, &packed_plan), &expected) < 1e-5);
    }
}

#[test]
fn nested_codes_of_merged_adapters_are_refused() {
    skip_without_device!();
    let folder = Folder::empty();
    let refused = |error: gpt2_model::Error| {
        let message = error.to_string();
        assert!(message.contains("h.0.attn.c_attn") && message.contains("merged"), "{message}");
        assert!(message.contains("residual"), "{message}");
    };
    refused(
        merged().save_packed(folder.path(), PackedForm::Nested, &PackOptions::default()).expect_err("several weights"),
    );
    assert!(folder.names().is_empty(), "a file was left");
    refused(merged().pack(PackedForm::Nested, &PackOptions::default()).expect_err("several weights"));
}

#[test]
fn packed_weights_take_no_adapter_into_them() {
    skip_without_device!();
    let bare = load_with::<Plain>("tiny", &options(Placement::Merged));
    let plan = bare.uniform_plan(SitePrecision::uniform(BitWidth::B4).without_adapter());
    let folder = Folder::empty();
    for form in [PackedForm::Plan(&plan), PackedForm::Nested] {
        bare.save_packed(folder.path(), form, &PackOptions::default()).expect("there is no adapter");
        let (mut packed, plan) =
            Gpt2::<Plain>::load_packed(folder.path(), &options(Placement::Merged), &device()).expect("it loads");
        packed.check_plan(&plan).expect("without adapters");
        let adapters = Folder::empty();
        merged().save_adapters(adapters.path(), "tiny").expect("adapters");
        let message = packed.load_adapters(adapters.path()).expect_err("they are for merged weights").to_string();
        assert!(message.contains("h.0.attn.c_attn") && message.contains("residual"), "{message}");
        // Asked for as residual they load.
        let residual = options(Placement::Residual).linear;
        merged().with_linear_settings(residual).save_adapters(adapters.path(), "tiny").expect("adapters");
        let mut packed = packed.with_linear_settings(LinearSettings { execution: Execution::Packed, ..residual });
        packed.load_adapters(adapters.path()).expect("beside the codes");
        let four = packed.uniform_plan(SitePrecision::uniform(BitWidth::B4));
        packed.check_plan(&four).expect("codes and adapters of 4 bits");
        let message = packed.with_linear_settings(options(Placement::Merged).linear).check_plan(&four);
        assert!(message.expect_err("they would be beside it").to_string().contains("residual"));
    }
}
