//! Adapters exchanged with PEFT.

use std::process::Command;

use burn::backend::NdArray;
use burn::tensor::{Tensor, TensorData};
use safetensors::Dtype;

use gpt2_model::{
    AdapterFolders, BitWidth, Gpt2, ModelConfig, QuantBackend, SitePlan, SitePrecision, SwitchableModel,
    next_token_loss,
};
use switchable_lora::{lora_config::LoraConfig, peft::load::AdapterBytes};
use switchable_model::adapters::LoadedAdapters;

use crate::support::{
    Fixture, Folder, Plain, StoredTensor, Train, assert_close, full, golden, largest_difference, load,
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
        &values(model.next_token_scores(model.forward(ids, Some(&padding), plan))),
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
    let logits = model.next_token_scores(model.forward(ids, Some(&padding), &adapted(&model, eight())));
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
        let logits = model.next_token_scores(model.forward(ids, Some(&padding), &adapted(&model, width)));
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
