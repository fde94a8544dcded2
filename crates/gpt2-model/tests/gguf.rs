//! GGUF files held against the folders that they were made from, and against `transformers`.

use std::path::PathBuf;

use gpt2_model::{Gpt2, Gpt2Config};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;

use crate::support::{Fixture, Folder, Plain, assert_close, device, full, golden, load, skip_without_device, values};

fn path(name: &str) -> PathBuf {
    golden("gguf").join(name)
}

fn open(path: PathBuf) -> switchable_model::Result<Gpt2<Plain>> {
    Gpt2::load(path, &ModelOptions::default(), &device())
}

#[test]
fn a_file_of_floats_is_the_folder_that_it_was_made_from() {
    skip_without_device!();
    let (folder, file) = (load::<Plain>("tiny"), open(path("floats.gguf")).unwrap());
    let parameters = |model: &Gpt2<Plain>| -> Vec<(String, Vec<usize>, Vec<u32>)> {
        let bits = |values: Vec<f32>| values.iter().map(|value| value.to_bits()).collect();
        let all = model.named_parameters().into_iter();
        all.map(|(name, parameter)| (name, parameter.shape(), bits(parameter.values()))).collect()
    };
    assert_eq!(parameters(&file), parameters(&folder));
    let config = file.config().clone();
    // An f32 in the file.
    assert!((config.layer_norm_epsilon - folder.config().layer_norm_epsilon).abs() < 1e-12);
    // What a file does not say.
    let Gpt2Config { layer_norm_epsilon, initializer_range, kept, .. } = config.clone();
    assert_eq!(config, Gpt2Config { layer_norm_epsilon, initializer_range, kept, ..folder.config().clone() });
}

#[test]
fn logits_of_codes_equal_those_of_transformers() {
    skip_without_device!();
    let (model, fixture) = (open(path("codes.gguf")).unwrap(), Fixture::open("gguf"));
    let plan = full(&model);
    let got = values(model.next_token_scores(model.forward(fixture.batch("input_ids"), None, &plan), &plan));
    assert_close("codes.gguf", &got, &fixture.floats("logits"), 1e-4);
}

#[test]
fn metadata_and_tensors_that_are_not_a_gpt2_are_refused_by_name() {
    skip_without_device!();
    for (from, to, expected) in [
        ("\u{4}\0\0\0\0\0\0\0gpt2", "\u{4}\0\0\0\0\0\0\0gptj", "`general.architecture` is \"gptj\", expected \"gpt2\""),
        ("gpt2.block_count", "gpt2.block_counu", "`gpt2.block_counu` is 3, expected no such key"),
        (
            "blk.1.attn_qkv.bias",
            "blk.1.attn_qkv.bids",
            "tensor `blk.1.attn_qkv.bids` is there, expected no such tensor",
        ),
        ("blk.0.attn_qkv.bias", "blk.7.attn_qkv.bias", "tensor `blk.7.attn_qkv.bias` stands beyond the last block"),
        ("position_embd", "position_embe", "tensor `position_embe.weight` is there"),
    ] {
        let bytes = std::fs::read(path("floats.gguf")).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
        let folder = Folder::empty();
        folder.write("changed.gguf", [&bytes[..at], to.as_bytes(), &bytes[at + to.len()..]].concat());
        let message = open(folder.join("changed.gguf")).expect_err(expected).to_string();
        assert!(message.contains("changed.gguf") && message.contains(expected), "{message}, expected {expected}");
    }
}

#[test]
fn a_llama_is_no_gpt2() {
    skip_without_device!();
    let llama = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../llama-model/tests/golden/gguf/floats.gguf");
    let message = open(llama).unwrap_err().to_string();
    assert!(message.ends_with("`general.architecture` is \"llama\", expected \"gpt2\""), "{message}");
}
