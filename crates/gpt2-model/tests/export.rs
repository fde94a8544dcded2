//! Writing model folders.

use serde_json::json;

use gpt2_model::{
    Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, MissingHead, ModelOptions, ModelWeights, PackModel, PackOptions,
    PackedForm, ParameterRef, SwitchableModel,
};

use crate::support::{Fixture, Folder, Plain, device, full, golden, load, skip_without_device, values};

fn assert_same_parameters(got: &[(String, ParameterRef<'_, Plain>)], want: &[(String, ParameterRef<'_, Plain>)]) {
    assert_eq!(got.len(), want.len());
    for ((name, got), (expected_name, want)) in got.iter().zip(want) {
        assert_eq!(name, expected_name);
        assert_eq!(got.shape(), want.shape(), "{name}");
        assert_eq!(got.values(), want.values(), "{name}");
    }
}

fn reload(folder: &Folder) -> Gpt2<Plain> {
    Gpt2::load(folder.path(), &ModelOptions::default(), &device()).expect("an exported folder loads")
}

#[test]
fn an_exported_language_model_loads_back_identical() {
    skip_without_device!();
    let (model, folder, fixture) = (load::<Plain>("tiny"), Folder::empty(), Fixture::open("tiny"));
    model.export(folder.path()).expect("exports");
    assert_eq!(folder.names(), ["config.json", "model.safetensors"]);
    let loaded = reload(&folder);
    assert_eq!(loaded.config(), model.config());
    assert_same_parameters(&loaded.named_parameters(), &model.named_parameters());
    let logits = |model: &Gpt2<Plain>| {
        values(model.next_token_scores(model.forward(fixture.batch("input_ids"), None, &full(model)), &full(model)))
    };
    assert_eq!(logits(&loaded), logits(&model));
}

#[test]
fn an_exported_span_model_loads_back_identical() {
    skip_without_device!();
    let (folder, options, device) = (Folder::empty(), ModelOptions::default(), device());
    let load = |dir: &std::path::Path| {
        Gpt2ForQuestionAnswering::<Plain>::load(dir, &options, MissingHead::Refuse, &device).expect("loads")
    };
    let model = load(&golden("tiny_qa"));
    model.export(folder.path()).expect("exports");
    let loaded = load(folder.path());
    // Its sizes and its epsilon are none of the defaults.
    assert_eq!(loaded.config(), model.config());
    assert_same_parameters(&loaded.named_parameters(), &model.named_parameters());
}

#[test]
fn an_export_holds_the_names_and_values_of_transformers() {
    skip_without_device!();
    let (folder, original) = (Folder::empty(), Folder::copy_of("tiny"));
    load::<Plain>("tiny").export(folder.path()).expect("exports");
    let mut expected = None;
    original.edit_tensors("model.safetensors", |tensors| expected = Some(tensors.clone()));
    let mut expected = expected.expect("tensors");
    folder.edit_tensors("model.safetensors", |tensors| {
        for (name, tensor) in &*tensors {
            let other = expected.remove(name).unwrap_or_else(|| panic!("{name} is not a name of transformers"));
            assert_eq!(
                (tensor.dtype, &tensor.shape, &tensor.bytes),
                (other.dtype, &other.shape, &other.bytes),
                "{name}"
            );
        }
    });
    assert!(expected.is_empty(), "not exported: {:?}", expected.keys());
}

#[test]
fn an_export_keeps_the_fields_of_config_json_that_it_does_not_compute_with() {
    skip_without_device!();
    let original = Folder::copy_of("tiny");
    let fields = [
        ("bos_token_id", json!(3)),
        ("eos_token_id", json!([4, 5])),
        ("pad_token_id", json!(null)),
        ("attn_pdrop", json!(0.25)),
        ("resid_pdrop", json!(0)),
        ("task_specific_params", json!({"text-generation": {"do_sample": true, "max_length": 50}})),
        ("id2label", json!({"0": "LABEL_0"})),
        ("reorder_and_upcast_attn", json!(true)),
    ];
    original.edit_json("config.json", |config| {
        for (field, value) in &fields {
            config[*field] = value.clone();
        }
        config.as_object_mut().expect("an object").remove("embd_pdrop");
    });
    let read = || Gpt2::<Plain>::load(original.path(), &ModelOptions::default(), &device()).expect("loads");
    let (exported, packed) = (Folder::empty(), Folder::empty());
    read().export(exported.path()).expect("exports");
    read().save_packed(packed.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    for folder in [exported, packed] {
        folder.edit_json("config.json", |config| {
            for (field, value) in &fields {
                assert_eq!(config.get(field), Some(value), "{field}");
            }
            assert_eq!(config.get("embd_pdrop"), None, "a field that was not there");
            assert_eq!(config["torch_dtype"], "float32");
        });
    }
}

#[test]
fn a_model_of_random_weights_names_no_tokens_that_it_does_not_know() {
    skip_without_device!();
    let folder = Folder::empty();
    let config = Gpt2Config::new(97, 32, 20, 3, 4);
    Gpt2::<Plain>::random(&config, &ModelOptions::default(), 1, &device())
        .expect("random")
        .export(folder.path())
        .expect("exports");
    folder.edit_json("config.json", |config| {
        for field in ["bos_token_id", "eos_token_id"] {
            assert_eq!(config.get(field), Some(&json!(null)), "{field}: transformers would take 50256");
        }
        assert_eq!(config["attn_pdrop"], 0.0);
    });
}

#[test]
fn a_missing_folder_is_made() {
    skip_without_device!();
    let folder = Folder::empty();
    let nested = folder.join("a/b");
    load::<Plain>("tiny").export(&nested).expect("exports");
    assert!(nested.join("model.safetensors").is_file());
}

#[test]
fn a_second_export_replaces_the_first_and_leaves_other_files_alone() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny_f16");
    folder.write("tokenizer.json", "{}");
    folder.write(".half-written", "left by a program that was killed");
    let model = load::<Plain>("tiny");
    model.export(folder.path()).expect("exports");
    assert_same_parameters(&reload(&folder).named_parameters(), &model.named_parameters());
    assert_eq!(folder.read("tokenizer.json"), b"{}");
}

#[cfg(unix)]
#[test]
fn exported_files_are_as_readable_as_other_files() {
    use std::os::unix::fs::PermissionsExt as _;
    skip_without_device!();
    let folder = Folder::empty();
    folder.write("other", "");
    load::<Plain>("tiny").export(folder.path()).expect("exports");
    let mode = |name: &str| folder.join(name).metadata().expect("a file").permissions().mode();
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(mode(name), mode("other"), "{name}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    skip_without_device!();
    let folder = Folder::empty();
    folder.write("file", "in the way");
    let message = load::<Plain>("tiny").export(folder.join("file")).expect_err("a file is in the way").to_string();
    assert!(message.contains("file"), "{message}");
    assert_eq!(folder.read("file"), b"in the way");
}

#[test]
fn an_export_that_fails_leaves_nothing_behind() {
    skip_without_device!();
    // A folder in the way of either file stops that file's last step, the rename.
    for blocked in ["model.safetensors", "config.json"] {
        let folder = Folder::empty();
        std::fs::create_dir(folder.join(blocked)).expect("a folder");
        let message = load::<Plain>("tiny").export(folder.path()).expect_err("it is blocked").to_string();
        assert!(message.contains(blocked), "{message}");
        assert_eq!(folder.names(), [blocked], "partial output");
    }
}
