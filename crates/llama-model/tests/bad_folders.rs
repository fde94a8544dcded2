//! Model folders that are damaged or lie: an error that names file and field or tensor, no panic.

use safetensors::Dtype;
use serde_json::{Value, json};

use llama_model::{Llama, LlamaConfig, LlamaForQuestionAnswering};
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::span_head::MissingHead;

use crate::support::{
    Folder, Plain, StoredTensor, device, full, golden, load as load_golden, skip_without_device, values,
};

const WEIGHTS: &str = "model.safetensors";

/// Asserts that the folder does not load and that the error names all of `parts`.
#[track_caller]
fn refused(folder: &Folder, parts: &[&str]) {
    let loaded = Llama::<Plain>::load(folder.path(), &ModelOptions::default(), &device());
    let message = loaded.map(|_| ()).expect_err("the folder is damaged").to_string();
    let root = folder.path().to_str().expect("a path");
    for part in [root].iter().chain(parts) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn weights_cut_anywhere_are_refused() {
    skip_without_device!();
    let bytes = Folder::copy_of("tiny").read(WEIGHTS);
    for length in [0, 7, 8, 9, 1000, bytes.len() / 2, bytes.len() - 1] {
        let folder = Folder::copy_of("tiny");
        folder.write(WEIGHTS, &bytes[..length]);
        refused(&folder, &[WEIGHTS]);
    }
}

#[test]
fn a_config_that_does_not_match_its_weights_is_refused() {
    skip_without_device!();
    let cases: [(&str, Value, &[&str]); 8] = [
        ("model_type", json!("gpt2"), &["config.json", "model_type", "gpt2", "llama"]),
        ("num_hidden_layers", json!(2), &[WEIGHTS, "config.json", "num_hidden_layers", "layers.2."]),
        ("num_hidden_layers", json!(4), &[WEIGHTS, "layers.3.", "missing"]),
        ("hidden_size", json!(28), &[WEIGHTS, "embed_tokens.weight", "[97, 24]", "[97, 28]"]),
        ("vocab_size", json!(96), &[WEIGHTS, "embed_tokens.weight", "[97, 24]", "[96, 24]"]),
        ("intermediate_size", json!(40), &[WEIGHTS, "layers.0.mlp.gate_proj.weight", "[36, 24]", "[40, 24]"]),
        ("num_key_value_heads", json!(4), &[WEIGHTS, "layers.0.self_attn.k_proj.weight", "[12, 24]", "[24, 24]"]),
        ("head_dim", json!(8), &[WEIGHTS, "layers.0.self_attn.q_proj.weight", "[24, 24]", "[32, 24]"]),
    ];
    for (field, value, parts) in cases {
        let folder = Folder::copy_of("tiny");
        folder.edit_json("config.json", |config| config[field] = value);
        refused(&folder, parts);
    }
    // Biases and heads that are not there.
    for (field, value, name) in [
        ("attention_bias", true, "layers.0.self_attn.q_proj.bias"),
        ("mlp_bias", true, "layers.0.mlp.gate_proj.bias"),
        ("tie_word_embeddings", false, "lm_head.weight"),
    ] {
        let folder = Folder::copy_of("tiny");
        folder.edit_json("config.json", |config| config[field] = json!(value));
        refused(&folder, &[WEIGHTS, name, "missing"]);
    }
}

#[test]
fn huge_sizes_in_a_config_are_refused_before_memory_is_asked_for() {
    skip_without_device!();
    for field in ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"] {
        let folder = Folder::copy_of("tiny");
        folder.edit_json("config.json", |config| config[field] = json!(u32::MAX));
        refused(&folder, &[]);
    }
}

#[test]
fn every_missing_tensor_is_named() {
    skip_without_device!();
    for (case, tensors_there) in [("tiny", 2 + 3 * 9), ("tiny_untied", 3 + 2 * 16)] {
        let mut names = Vec::new();
        Folder::copy_of(case).edit_tensors(WEIGHTS, |tensors| names.extend(tensors.keys().cloned()));
        assert_eq!(names.len(), tensors_there);
        for name in names {
            let folder = Folder::copy_of(case);
            folder.edit_tensors(WEIGHTS, |tensors| drop(tensors.remove(&name)));
            refused(&folder, &[WEIGHTS, &name, "missing"]);
        }
    }
}

#[test]
fn types_and_values_that_are_no_weights_are_refused() {
    skip_without_device!();
    let name = "model.layers.1.mlp.up_proj.weight";
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors(WEIGHTS, |tensors| {
        let stored = StoredTensor { dtype: Dtype::I64, shape: vec![36, 24], bytes: vec![0; 36 * 24 * 8] };
        tensors.insert(name.to_owned(), stored);
    });
    refused(&folder, &[WEIGHTS, name, "I64"]);

    let folder = Folder::copy_of("tiny");
    folder.edit_tensors(WEIGHTS, |tensors| {
        let tensor = tensors.get_mut("model.norm.weight").expect("a gain");
        tensor.bytes[12..16].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(&folder, &[WEIGHTS, "model.norm.weight", "NaN", "element 3"]);
}

#[test]
fn a_missing_shard_is_named() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny_sharded_bf16");
    std::fs::remove_file(folder.join("model-00002-of-00003.safetensors")).expect("it was there");
    refused(&folder, &["model-00002-of-00003.safetensors"]);
}

#[test]
fn a_language_model_is_no_span_model_unless_a_random_head_is_asked_for() {
    skip_without_device!();
    let options = ModelOptions::default();
    let load = |missing| LlamaForQuestionAnswering::<Plain>::load(golden("tiny_untied"), &options, missing, &device());
    let message = load(MissingHead::Refuse).map(|_| ()).expect_err("it has no span head").to_string();
    assert!(message.contains("qa_outputs.weight"), "{message}");
    let model = load(MissingHead::Random(1)).expect("a random head");
    assert!(model.transformer.lm_head.param().is_some(), "its own head is lost");
}

#[test]
fn a_span_model_needs_no_output_matrix() {
    skip_without_device!();
    // `transformers` writes none of a LlamaForQuestionAnswering, whatever the config says of tying.
    let folder = Folder::copy_of("tiny_qa");
    folder.edit_json("config.json", |config| config["tie_word_embeddings"] = json!(false));
    let (options, refuse) = (ModelOptions::default(), MissingHead::Refuse);
    let model = LlamaForQuestionAnswering::<Plain>::load(folder.path(), &options, refuse, &device()).expect("it loads");
    assert!(model.transformer.lm_head.param().is_none() && model.config().tie_word_embeddings);
}

#[test]
fn an_output_matrix_is_its_own_where_it_is_not_the_embedding_whatever_the_config_says() {
    skip_without_device!();
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let open = |folder: &Folder| Llama::<Plain>::load(folder.path(), &ModelOptions::default(), &device());
    // As transformers 5.23: a tied config with another matrix in the files runs with that matrix.
    let folder = Folder::copy_of("tiny_untied");
    folder.edit_json("config.json", |config| config["tie_word_embeddings"] = json!(true));
    let model = open(&folder).expect("it loads");
    assert!(model.lm_head.param().is_some() && !model.config().tie_word_embeddings);
    let untied = load_golden::<Plain>("tiny_untied");
    assert_eq!(values(model.output_matrix()), values(untied.output_matrix()));
    // The same numbers twice are one matrix.
    folder.edit_tensors("model.safetensors", |tensors| {
        let same = tensors[embedding].clone();
        tensors.insert(head.into(), same);
    });
    let model = open(&folder).expect("it loads");
    assert!(model.lm_head.is_tied() && model.config().tie_word_embeddings);
    // Not tied, and no matrix: transformers draws a random one.
    let folder = Folder::copy_of("tiny_untied");
    folder.edit_tensors("model.safetensors", |tensors| drop(tensors.remove(head)));
    let message = open(&folder).map(|_| ()).expect_err("no output matrix").to_string();
    assert!(message.contains(head) && message.contains("missing"), "{message}");
}

#[test]
fn requests_that_do_not_fit_the_model_are_refused() {
    skip_without_device!();
    let model = load_golden::<Plain>("tiny");
    let generate = |prompt: &[u32]| model.generate(prompt, &GenerateOptions::default(), &full(&model));
    for (prompt, words) in [(vec![], "0 tokens"), (vec![1; 33], "33 tokens"), (vec![1, 97], "position 1")] {
        let message = generate(&prompt).expect_err("a bad prompt").to_string();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(generate(&[1; 32]).expect("the last position is one").len(), 1);
    let config = LlamaConfig { num_key_value_heads: 3, ..LlamaConfig::new(97, 24, 2, 4) };
    let message = Llama::<Plain>::random(&config, &ModelOptions::default(), 1, &device()).map(|_| ()).unwrap_err();
    assert!(message.to_string().contains("num_attention_heads"), "{message}");
}

#[test]
#[should_panic(expected = "33 tokens exceed the model's 32 positions")]
fn more_tokens_than_positions_panic() {
    fn forward<B: QuantBackend>() {
        let model = load_golden::<B>("tiny");
        model.forward(crate::support::batch_of_one(&[1; 33]), None, &full(&model));
    }
    forward::<burn::backend::NdArray>();
}
