//! Writing model folders.

use llama_model::{Llama, LlamaForQuestionAnswering};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::parameters::ParameterRef;
use switchable_model::span_head::MissingHead;

use crate::support::{Fixture, Folder, Plain, device, full, golden, load, skip_without_device, values};

fn assert_same_parameters(got: &[(String, ParameterRef<'_, Plain>)], want: &[(String, ParameterRef<'_, Plain>)]) {
    assert_eq!(got.len(), want.len());
    for ((name, got), (expected_name, want)) in got.iter().zip(want) {
        assert_eq!(name, expected_name);
        assert_eq!(got.shape(), want.shape(), "{name}");
        assert_eq!(got.values(), want.values(), "{name}");
    }
}

/// Asserts that a folder holds the tensors of a golden one and no others, to the bit.
fn assert_same_tensors(folder: &Folder, case: &str) {
    let mut expected = None;
    Folder::copy_of(case).edit_tensors("model.safetensors", |tensors| expected = Some(tensors.clone()));
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
fn language_models_load_back_identical_and_hold_the_names_of_transformers() {
    skip_without_device!();
    // The shards are in bf16: what is written of them is f32.
    for case in ["tiny", "tiny_untied", "tiny_sharded_bf16"] {
        let (model, folder) = (load::<Plain>(case), Folder::empty());
        model.export(folder.path()).expect("exports");
        assert_eq!(folder.names(), ["config.json", "model.safetensors"]);
        let loaded = Llama::<Plain>::load(folder.path(), &ModelOptions::default(), &device()).expect("it loads");
        assert_eq!(loaded.config(), model.config());
        assert_same_parameters(&loaded.named_parameters(), &model.named_parameters());
        let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
        let [got, want] = [&loaded, &model].map(|model| {
            let hidden = model.forward(ids.clone(), None, &full(model));
            values(model.next_token_scores(hidden, &full(model)))
        });
        assert_eq!(got, want, "{case}");
        if case != "tiny_sharded_bf16" {
            assert_same_tensors(&folder, case);
        }
    }
}

#[test]
fn span_models_load_back_identical_and_hold_the_names_of_transformers() {
    skip_without_device!();
    let (folder, options, device) = (Folder::empty(), ModelOptions::default(), device());
    let load = |dir: &std::path::Path| {
        LlamaForQuestionAnswering::<Plain>::load(dir, &options, MissingHead::Refuse, &device).expect("loads")
    };
    let model = load(&golden("tiny_qa"));
    model.export(folder.path()).expect("exports");
    let loaded = load(folder.path());
    assert_eq!(loaded.config(), model.config());
    assert_same_parameters(&loaded.named_parameters(), &model.named_parameters());
    assert_same_tensors(&folder, "tiny_qa");
}

#[test]
fn transformers_reads_what_is_exported() {
    skip_without_device!();
    let Some(python) = std::env::var_os("PEFT_PYTHON") else {
        eprintln!("skipped: PEFT_PYTHON is not set");
        return;
    };
    for case in ["tiny", "tiny_untied", "tiny_sharded_bf16"] {
        let (model, folder) = (load::<Plain>(case), Folder::empty());
        model.export(folder.path()).expect("exports");
        let output = std::process::Command::new(&python)
            .arg(golden("check_transformers_loads_ours.py"))
            .arg("--model")
            .arg(folder.path())
            .arg("--expected")
            .arg(golden(case).join("expected.safetensors"))
            .output()
            .expect("PEFT_PYTHON runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{case}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}
