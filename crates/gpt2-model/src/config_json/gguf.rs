//! A GPT-2 in a GGUF file: what its metadata and tensors are in a Hugging Face folder, and the other way.

use serde_json::{Map, Value, json};

use switchable_model::error::Result;
use switchable_model::gguf::export::refused;
use switchable_model::gguf::family::WrittenConfig;
use switchable_model::gguf::{GgufFamily, GgufFile};

use crate::activation::Activation;
use crate::config::Gpt2Config;

pub(super) static FAMILY: GgufFamily<Gpt2Config> = GgufFamily {
    architecture: "gpt2",
    fields,
    tensors: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    block: "transformer.h.",
    block_tensors: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    beside: &[],
    turned_heads: |_, _| None,
    written,
};

/// The keys that are read, behind `gpt2.`.
const READ: [&str; 7] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.layer_norm_epsilon",
];

fn fields(file: &GgufFile) -> Result<Map<String, Value>> {
    file.only("gpt2.", &READ)?;
    let size = |key: &str| file.size(&format!("gpt2.{key}"), None);
    let width = size("embedding_length")?;
    let fields = json!({
        "vocab_size": file.vocabulary("gpt2.vocab_size")?,
        "n_positions": size("context_length")?,
        "n_embd": width,
        "n_layer": size("block_count")?,
        "n_head": size("attention.head_count")?,
        "n_inner": file.size("gpt2.feed_forward_length", Some(4 * width))?,
        // The one that llama.cpp runs, whatever the folder said that the file was made from.
        "activation_function": "gelu_new",
        "layer_norm_epsilon": file.positive("gpt2.attention.layer_norm_epsilon", None)?,
        "tie_word_embeddings": file.is_tied(),
    });
    match fields {
        Value::Object(fields) => Ok(fields),
        _ => unreachable!("an object was written"),
    }
}

fn written(config: &Gpt2Config) -> Result<WrittenConfig> {
    if config.activation != Activation::GeluNew {
        let got = json!(config.activation).to_string();
        return Err(refused("activation_function", &got, "\"gelu_new\", which llama.cpp runs in every GPT-2"));
    }
    if !config.scale_attn_weights {
        return Err(refused("scale_attn_weights", "false", "true, as llama.cpp scales"));
    }
    if config.scale_attn_by_inverse_layer_idx {
        return Err(refused("scale_attn_by_inverse_layer_idx", "true", "false, as llama.cpp scales"));
    }
    let size = |size: usize| (size as u32).into();
    let pairs = vec![
        ("vocab_size", size(config.vocab_size)),
        ("context_length", size(config.n_positions)),
        ("embedding_length", size(config.n_embd)),
        ("block_count", size(config.n_layer)),
        ("feed_forward_length", size(config.n_inner)),
        ("attention.head_count", size(config.n_head)),
        ("attention.layer_norm_epsilon", (config.layer_norm_epsilon as f32).into()),
    ];
    Ok(WrittenConfig { pairs, beside: Vec::new() })
}
