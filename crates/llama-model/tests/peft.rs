//! Adapters: exchanged with PEFT, and trained.

use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::Tensor;

use llama_model::Llama;
use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{lora_config::LoraConfig, peft::width_folder, site_precision::SitePrecision};
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::loss::next_token_loss;
use switchable_model::model::SwitchableModel as _;
use switchable_model::site_plan::SitePlan;

use crate::support::{
    Fixture, Folder, Plain, Train, assert_close, full, golden, largest_difference, load, on_every_backend,
    skip_without_device, values, width,
};

const TOLERANCE: f32 = 3e-5;

on_every_backend!(an_adapter_of_peft_gives_its_logits,);

/// The full-precision base with the adapters of a width.
fn adapted<B: QuantBackend>(model: &Llama<B>, width: BitWidth) -> SitePlan {
    model.uniform_plan(SitePrecision::FULL.with_adapter(width))
}

fn with_golden_adapter<B: QuantBackend>() -> Llama<B> {
    let mut model = load::<B>("tiny");
    model.load_adapter(golden("peft/adapter"), width(8)).expect("PEFT's adapter loads");
    model
}

fn logits<B: QuantBackend>(model: &Llama<B>, plan: &SitePlan) -> Tensor<B, 3> {
    let fixture = Fixture::open("peft");
    let (ids, padding) = (fixture.batch("input_ids"), fixture.padding("attention_mask"));
    model.next_token_scores(model.forward(ids, Some(&padding), plan), plan)
}

fn an_adapter_of_peft_gives_its_logits<B: QuantBackend>() {
    let (model, fixture) = (with_golden_adapter::<B>(), Fixture::open("peft"));
    let real = |values: &[f32]| fixture.real_rows("attention_mask", values, model.shape().vocabulary);
    let want = real(&fixture.floats("logits"));
    let got = real(&values(logits(&model, &adapted(&model, width(8)))));
    assert_close("logits with PEFT's adapter", &got, &want, TOLERANCE);
    let without = real(&values(logits(&model, &full(&model))));
    assert!(largest_difference(&without, &want) > 0.1, "the adapter changes nothing");
}

fn loss(model: &Llama<Train>, plan: &SitePlan) -> Tensor<Train, 1> {
    let fixture = Fixture::open("peft");
    next_token_loss(logits(model, plan), fixture.batch("input_ids"), Some(fixture.padding("attention_mask")))
}

#[test]
fn loss_and_every_adapter_gradient_equal_those_of_peft() {
    skip_without_device!();
    let (model, fixture) = (with_golden_adapter::<Train>(), Fixture::open("peft"));
    let loss = loss(&model, &adapted(&model, width(8)));
    assert_close("loss", &values(loss.clone()), &fixture.floats("loss"), 5e-6);

    let gradients = loss.backward();
    let mut compared = 0;
    for site in model.sites().iter() {
        let pair = model.site(site).bank().get(width(8)).expect("an adapter at every site");
        for (part, parameter) in [("lora_A", &pair.a), ("lora_B", &pair.b)] {
            let name = format!("grad.base_model.model.model.{}.{part}.weight", model.sites().name(site));
            let gradient = parameter.val().grad(&gradients).unwrap_or_else(|| panic!("{name}: none"));
            // PEFT holds nn.Linear matrices, [out, in].
            assert_close(&name, &values(gradient.transpose()), &fixture.floats(&name), TOLERANCE);
            compared += 1;
        }
    }
    assert_eq!(compared, fixture.names("grad.").len(), "other adapters than PEFT's");
}

/// Takes optimiser steps and returns the model with its losses.
fn train(mut model: Llama<Train>, plan: &SitePlan, steps: usize) -> (Llama<Train>, Vec<f32>) {
    let mut adamw = AdamWConfig::new().with_weight_decay(0.0).init::<Train, Llama<Train>>();
    let mut losses = Vec::new();
    for _ in 0..steps {
        let loss = loss(&model, plan);
        losses.extend(values(loss.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adamw.step(1e-2, model, gradients);
    }
    (model, losses)
}

#[test]
fn training_a_width_repairs_it_and_its_adapters_survive_their_folder() {
    skip_without_device!();
    let [three, eight] = [3, 8].map(width);
    let mut model = load::<Train>("tiny");
    for (width, rank) in [(three, 2), (eight, 3)] {
        let lora = LoraConfig::new(rank, 4.0).expect("a configuration");
        model.init_adapters(width, &lora, 3).expect("adapters");
    }
    let plan = model.uniform_plan(SitePrecision::uniform(three));
    let (trained, losses) = train(model.clone(), &plan, 12);
    assert!(losses[11] < losses[0] - 0.1, "{losses:?}");
    let pair = |model: &Llama<Train>, site, width| {
        let pair = model.site(site).bank().get(width).expect("an adapter").clone();
        (pair.rank(), pair.alpha().to_bits(), values(pair.a.val()), values(pair.b.val()))
    };
    for site in model.sites().iter() {
        let name = model.sites().name(site);
        assert_eq!(values(trained.site(site).weight()), values(model.site(site).weight()), "{name}: the base moved");
        assert_eq!(pair(&trained, site, eight), pair(&model, site, eight), "{name}: 8 bits moved");
        assert_ne!(pair(&trained, site, three), pair(&model, site, three), "{name}: 3 bits did not move");
    }

    let folder = Folder::empty();
    trained.save_adapters(folder.path(), "tiny").expect("saves");
    let mut loaded = load::<Train>("tiny");
    assert_eq!(loaded.load_adapters(folder.path()).expect("loads").widths, [three, eight]);
    for site in model.sites().iter() {
        for width in [three, eight] {
            assert_eq!(pair(&loaded, site, width), pair(&trained, site, width));
        }
    }
}

#[test]
fn adapters_are_written_under_the_names_of_peft() {
    skip_without_device!();
    let folder = Folder::empty();
    with_golden_adapter::<Plain>().save_adapters(folder.path(), "tiny").expect("saves");
    let ours = width_folder(folder.path(), width(8));
    let file = |name: &str| ours.join(name).to_str().expect("a path").to_owned();

    let mut written = Vec::new();
    folder.edit_tensors(&file("adapter_model.safetensors"), |tensors| written.extend(tensors.clone()));
    let mut expected = Vec::new();
    let golden = Folder::copy_of("peft/adapter");
    golden.edit_tensors("adapter_model.safetensors", |tensors| expected.extend(tensors.clone()));
    assert_eq!(written.len(), 2 * 21);
    for ((name, ours), (golden_name, theirs)) in written.iter().zip(&expected) {
        assert_eq!(name, golden_name);
        assert_eq!((&ours.shape, &ours.bytes), (&theirs.shape, &theirs.bytes), "{name}");
    }
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    assert!(written.iter().any(|(written, _)| written == name));

    folder.edit_json(&file("adapter_config.json"), |config| {
        // The base holds torch's Linear, not the Conv1D of GPT-2.
        assert_eq!(config["fan_in_fan_out"], false);
        assert_eq!((&config["r"], &config["lora_alpha"]), (&2.into(), &4.into()));
    });
}

#[test]
fn adapters_of_another_family_are_refused_and_the_model_stays_as_it_was() {
    skip_without_device!();
    let mut model = load::<Plain>("tiny");
    let folder = Folder::copy_of("peft/adapter");
    folder.edit_tensors("adapter_model.safetensors", |tensors| {
        let renamed = std::mem::take(tensors).into_iter();
        tensors.extend(renamed.map(|(name, tensor)| (name.replace(".layers.2.", ".layers.7."), tensor)));
    });
    let message = model.load_adapter(folder.path(), width(4)).expect_err("no such block").to_string();
    assert!(message.contains("layers.7."), "{message}");
    assert!(model.adapter_widths().is_empty(), "part of the adapter was taken");
}
