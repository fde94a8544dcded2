//! GGUF files held against the folders that they were made from, and against `transformers`.

use std::path::PathBuf;

use llama_model::Llama;
use llama_model::config::LlamaConfig;
use llama_model::rotary::scaling::RopeScaling;
use switchable_model::config::{ModelConfig as _, read_family};
use switchable_model::generate::GenerateOptions;
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::span_head::{ForQuestionAnswering, MissingHead};

use crate::support::{Fixture, Folder, Plain, assert_close, device, full, golden, load, skip_without_device, values};

fn path(name: &str) -> PathBuf {
    golden("gguf").join(name)
}

fn open(path: PathBuf) -> switchable_model::Result<Llama<Plain>> {
    Llama::load(path, &ModelOptions::default(), &device())
}

#[test]
fn a_file_of_floats_is_the_folder_that_it_was_made_from() {
    skip_without_device!();
    let (folder, file) = (load::<Plain>("tiny"), open(path("floats.gguf")).unwrap());
    let parameters = |model: &Llama<Plain>| -> Vec<(String, Vec<usize>, Vec<u32>)> {
        let bits = |values: Vec<f32>| values.iter().map(|value| value.to_bits()).collect();
        let all = model.named_parameters().into_iter();
        all.map(|(name, parameter)| (name, parameter.shape(), bits(parameter.values()))).collect()
    };
    assert_eq!(parameters(&file), parameters(&folder));
    let config = file.config().clone();
    // An f32 in the file.
    assert!((config.rms_norm_eps - folder.config().rms_norm_eps).abs() < 1e-12);
    // What a file does not say.
    let LlamaConfig { rms_norm_eps, initializer_range, kept, .. } = config.clone();
    assert_eq!(config, LlamaConfig { rms_norm_eps, initializer_range, kept, ..folder.config().clone() });
    let fixture = Fixture::open("tiny");
    let got =
        values(file.next_token_scores(file.forward(fixture.batch("input_ids"), None, &full(&file)), &full(&file)));
    let vocabulary = fixture.shape("logits")[2];
    let real = |all: &[f32]| fixture.real_rows("attention_mask", all, vocabulary);
    assert_close("floats.gguf", &real(&got), &real(&fixture.floats("logits")), 3e-5);
}

#[test]
fn logits_of_codes_of_every_type_equal_those_of_transformers() {
    skip_without_device!();
    let (model, fixture) = (open(path("codes.gguf")).unwrap(), Fixture::open("gguf"));
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let config = model.config();
    assert_eq!((config.rope_scaling, config.attention_bias, config.tie_word_embeddings), (scaling, true, false));
    let plan = full(&model);
    let got = values(model.next_token_scores(model.forward(fixture.batch("input_ids"), None, &plan), &plan));
    assert_close("codes.gguf", &got, &fixture.floats("logits"), 1e-4);
}

#[test]
fn a_file_says_its_family_and_where_a_text_ends() {
    assert_eq!(read_family(path("floats.gguf"), &["gpt2", "llama"]).unwrap(), "llama");
    let message = read_family(path("floats.gguf"), &["gpt2"]).unwrap_err().to_string();
    let expected = "floats.gguf: metadata `general.architecture` is \"llama\", expected \"gpt2\"";
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(GenerateOptions::of_folder(path("floats.gguf")).unwrap().stop, [0]);
}

#[test]
fn a_file_has_no_span_head() {
    type Reader = ForQuestionAnswering<Plain, Llama<Plain>>;
    skip_without_device!();
    assert!(!Reader::holds_head(path("floats.gguf")).unwrap());
    let load = |missing| Reader::load(path("floats.gguf"), &ModelOptions::default(), missing, &device());
    let message = load(MissingHead::Refuse).unwrap_err().to_string();
    assert!(message.contains("floats.gguf") && message.contains("qa_outputs.weight"), "{message}");
    assert!(load(MissingHead::Random(1)).is_ok());
}

#[test]
fn a_file_that_was_exported_is_the_same_model() {
    skip_without_device!();
    let (model, folder) = (open(path("codes.gguf")).unwrap(), Folder::empty());
    model.export(folder.path()).unwrap();
    let again = Llama::<Plain>::load(folder.path(), &ModelOptions::default(), &device()).unwrap();
    assert_eq!(again.config(), model.config());
    assert_eq!(again.config().kept_fields().get("eos_token_id"), Some(&0.into()));
    let fixture = Fixture::open("gguf");
    let scores = |model: &Llama<Plain>| {
        values(model.next_token_scores(model.forward(fixture.batch("input_ids"), None, &full(model)), &full(model)))
    };
    assert_eq!(scores(&again), scores(&model));
}

/// The file with bytes in the place of others of the same length, everywhere.
fn changed(name: &str, from: &[u8], to: &[u8]) -> (Folder, PathBuf) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(path(name)).expect("a golden file");
    let mut at = 0;
    let mut found = 0;
    while let Some(index) = bytes[at..].windows(from.len()).position(|window| window == from) {
        bytes[at + index..at + index + to.len()].copy_from_slice(to);
        (at, found) = (at + index + to.len(), found + 1);
    }
    assert!(found > 0, "{from:?} is not in {name}");
    let folder = Folder::empty();
    folder.write("changed.gguf", bytes);
    let file = folder.join("changed.gguf");
    (folder, file)
}

/// A key with a value of 32 bits.
fn pair(key: &str, kind: u32, value: u32) -> Vec<u8> {
    [key.as_bytes(), &kind.to_le_bytes(), &value.to_le_bytes()].concat()
}

#[test]
fn metadata_and_tensors_that_are_not_a_llama_are_refused_by_name() {
    const U32: u32 = 4;
    skip_without_device!();
    let number = |key: &str, from: u32, to: u32| (pair(key, U32, from), pair(key, U32, to));
    let cases = [
        (
            "floats.gguf",
            (b"rope.dimension_count".to_vec(), b"rope.dimension_cousi".to_vec()),
            "`llama.rope.dimension_cousi` is 6, expected no such key",
        ),
        (
            "floats.gguf",
            (b"llama.block_count".to_vec(), b"other.block_count".to_vec()),
            "`llama.block_count` is missing",
        ),
        (
            "floats.gguf",
            number("llama.block_count", 3, 2),
            "tensor `blk.2.attn_norm.weight` stands beyond the last block",
        ),
        ("floats.gguf", number("llama.block_count", 3, 4), "tensor `blk.3."),
        (
            "floats.gguf",
            number("llama.vocab_size", 97, 96),
            "`llama.vocab_size` is 96, expected 97, the rows of `token_embd.weight`",
        ),
        ("floats.gguf", number("llama.rope.dimension_count", 6, 4), "`llama.rope.dimension_count` is 4, expected 6"),
        ("floats.gguf", number("llama.attention.key_length", 6, 8), "`llama.attention.value_length` is 6, expected 8"),
        ("floats.gguf", number("llama.attention.head_count_kv", 2, 3), "num_attention_heads"),
        ("floats.gguf", number("llama.feed_forward_length", 36, 0), "`llama.feed_forward_length` is 0"),
        (
            "floats.gguf",
            (b"ffn_gate".to_vec(), b"ffn_gatf".to_vec()),
            "tensor `blk.0.ffn_gatf.weight` is there, expected no such tensor",
        ),
        ("floats.gguf", (b"blk.1.".to_vec(), b"blk.x.".to_vec()), "tensor `blk.x."),
        ("floats.gguf", (b"token_embd".to_vec(), b"token_embe".to_vec()), "tensor `token_embd.weight` is missing"),
        ("floats.gguf", number("llama.embedding_length", 24, 28), "has shape"),
        (
            "codes.gguf",
            (b"blk.1.attn_k.bias".to_vec(), b"blk.9.attn_k.bias".to_vec()),
            "tensor `blk.9.attn_k.bias` stands beyond",
        ),
        (
            "codes.gguf",
            pair_of_floats("llama.rope.freq_base", 1e4, 2e4),
            "tensor `rope_freqs.weight` is of other numbers",
        ),
    ];
    for (name, (from, to), expected) in cases {
        let (_folder, file) = changed(name, &from, &to);
        let message = open(file).expect_err(expected).to_string();
        assert!(message.contains("changed.gguf") && message.contains(expected), "{message}, expected {expected}");
    }
}

fn pair_of_floats(key: &str, from: f32, to: f32) -> (Vec<u8>, Vec<u8>) {
    (pair(key, 6, from.to_bits()), pair(key, 6, to.to_bits()))
}
