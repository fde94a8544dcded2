//! A Llama in a GGUF file: what its metadata and tensors are in a Hugging Face folder, and the other way.

use serde_json::{Map, Value, json};

use switchable_model::error::Result;
use switchable_model::gguf::export::refused;
use switchable_model::gguf::family::WrittenConfig;
use switchable_model::gguf::{GgufFamily, GgufFile};

use super::LlamaConfig;
use crate::rotary::scaling::RopeScaling;

pub(super) static FAMILY: GgufFamily<LlamaConfig> = GgufFamily {
    architecture: "llama",
    fields,
    tensors: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
    block: "model.layers.",
    block_tensors: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    beside: &[FREQUENCY_FACTORS],
    turned_heads: |config, tensor| match tensor {
        "attn_q" => Some(config.num_attention_heads),
        "attn_k" => Some(config.num_key_value_heads),
        _ => None,
    },
    written,
};

/// What every frequency of the rotations is divided by, where the model is a Llama 3.1 or later.
const FREQUENCY_FACTORS: &str = "rope_freqs.weight";

/// The keys that are read, behind `llama.`.
const READ: [&str; 19] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "expert_count",
];

fn fields(file: &GgufFile) -> Result<Map<String, Value>> {
    file.only("llama.", &READ)?;
    let size = |key: &str| file.size(&format!("llama.{key}"), None);
    let size_or = |key: &str, default| file.size(&format!("llama.{key}"), Some(default));
    if file.has("llama.expert_count") && file.whole("llama.expert_count")? != Some(0) {
        return Err(file.refused("llama.expert_count", "0: experts are not run"));
    }
    if file.flag("llama.attention.causal")? == Some(false) {
        return Err(file.refused("llama.attention.causal", "true"));
    }
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let head = size_or("attention.key_length", width / heads.max(1))?;
    for key in ["attention.value_length", "rope.dimension_count"] {
        if size_or(key, head)? != head {
            return Err(file.refused(&format!("llama.{key}"), &format!("{head}, the width of a head")));
        }
    }
    let theta = file.positive("llama.rope.freq_base", Some(10_000.0))?;
    let bias = |tensor: &str| file.tensor(&format!("blk.0.{tensor}.bias")).is_some();
    let fields = json!({
        "vocab_size": file.vocabulary("llama.vocab_size")?,
        "max_position_embeddings": size("context_length")?,
        "hidden_size": width,
        "num_hidden_layers": size("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": size_or("attention.head_count_kv", heads)?,
        "head_dim": head,
        "intermediate_size": size("feed_forward_length")?,
        "hidden_act": "silu",
        "rms_norm_eps": file.positive("llama.attention.layer_norm_rms_epsilon", None)?,
        "rope_theta": theta,
        "rope_scaling": rotations(file, theta, head)?,
        "attention_bias": bias("attn_q"),
        "mlp_bias": bias("ffn_gate"),
        "tie_word_embeddings": file.is_tied(),
    });
    match fields {
        Value::Object(fields) => Ok(fields),
        _ => unreachable!("an object was written"),
    }
}

/// How the frequencies are stretched, as `rope_scaling` of `config.json` has it.
fn rotations(file: &GgufFile, theta: f64, head: usize) -> Result<Value> {
    const KIND: &str = "llama.rope.scaling.type";
    let kind = file.text(KIND)?;
    if let Some(tensor) = file.tensor(FREQUENCY_FACTORS) {
        let factors = file.values(tensor);
        let scaling = llama3(&factors, theta, head);
        let expected = "the factors of a Llama 3.1 or later, trained on 8192 tokens before they were stretched";
        let fault = || file.tensor_fault(FREQUENCY_FACTORS, "of other numbers".to_owned(), expected);
        return Ok(json!(scaling.ok_or_else(fault)?));
    }
    match kind {
        None if file.has("llama.rope.scale_linear") => Ok(linear(file.positive("llama.rope.scale_linear", None)?)),
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(linear(file.positive("llama.rope.scaling.factor", None)?)),
        Some(_) => Err(file.refused(KIND, "\"none\" or \"linear\"")),
    }
}

fn linear(factor: f64) -> Value {
    json!(RopeScaling::Linear { factor })
}

/// The scaling whose factors these are: a file holds the factors and not what they were computed from, which is the
/// same in every Llama but for the largest factor.
fn llama3(factors: &[f32], theta: f64, head: usize) -> Option<RopeScaling> {
    let factor = f64::from(factors.iter().copied().reduce(f32::max)?);
    let scaling = RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let plain = RopeScaling::Default.frequencies(theta, head);
    let stretched = scaling.frequencies(theta, head);
    let is_same = |((plain, stretched), factor): ((&f32, &f32), &f32)| {
        (f64::from(plain / stretched) / f64::from(*factor) - 1.0).abs() < 1e-5
    };
    (factors.len() == plain.len() && plain.iter().zip(&stretched).zip(factors).all(is_same)).then_some(scaling)
}

fn written(config: &LlamaConfig) -> Result<WrittenConfig> {
    let size = |size: usize| (size as u32).into();
    let head = config.head_dim;
    let mut written = WrittenConfig {
        pairs: vec![
            ("vocab_size", size(config.vocab_size)),
            ("context_length", size(config.max_position_embeddings)),
            ("embedding_length", size(config.hidden_size)),
            ("block_count", size(config.num_hidden_layers)),
            ("feed_forward_length", size(config.intermediate_size)),
            ("attention.head_count", size(config.num_attention_heads)),
            ("attention.head_count_kv", size(config.num_key_value_heads)),
            ("attention.key_length", size(head)),
            ("attention.value_length", size(head)),
            ("attention.layer_norm_rms_epsilon", (config.rms_norm_eps as f32).into()),
            ("rope.dimension_count", size(head)),
            ("rope.freq_base", (config.rope_theta as f32).into()),
        ],
        beside: Vec::new(),
    };
    match config.rope_scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } => {
            written.pairs.push(("rope.scaling.type", "linear".into()));
            written.pairs.push(("rope.scaling.factor", (factor as f32).into()));
        }
        RopeScaling::Llama3 { .. } => {
            let plain = RopeScaling::Default.frequencies(config.rope_theta, head);
            let stretched = config.rope_scaling.frequencies(config.rope_theta, head);
            let factors: Vec<f32> = plain.iter().zip(&stretched).map(|(plain, stretched)| plain / stretched).collect();
            // A file holds the factors alone, and the rest must follow from them when it is read.
            if llama3(&factors, config.rope_theta, head).is_none() {
                let got = json!(config.rope_scaling).to_string();
                return Err(refused("rope_scaling", &got, "the factors 1 and 4 and 8192 tokens, as in every Llama"));
            }
            written.beside.push((FREQUENCY_FACTORS, factors));
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_frequencies_are_told_by_their_numbers() {
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = RopeScaling::Default.frequencies(500_000.0, 64);
        let stretched = scaling.frequencies(500_000.0, 64);
        let mut factors: Vec<f32> = plain.iter().zip(&stretched).map(|(plain, stretched)| plain / stretched).collect();
        // The largest is computed here, and 32 in a file.
        factors.iter_mut().filter(|factor| (**factor - 32.0).abs() < 1e-3).for_each(|factor| *factor = 32.0);
        assert_eq!(llama3(&factors, 500_000.0, 64), Some(scaling));
        assert_eq!(llama3(&factors, 10_000.0, 64), None);
        assert_eq!(llama3(&factors[1..], 500_000.0, 64), None);
        factors[14] *= 1.01;
        assert_eq!(llama3(&factors, 500_000.0, 64), None);
    }
}
