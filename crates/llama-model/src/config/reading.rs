//! Reading `config.json`.
//!
//! The rotations stand in `rope_theta` and `rope_scaling`, or, as newer releases of transformers write
//! them, together in `rope_parameters`. The kind is `rope_type`, in older files `type`.

use std::path::Path;

use serde_json::Value;

use switchable_model::config::ModelConfig as _;
use switchable_model::config::context_reads::{CONTEXT_READS, context_reads};
use switchable_model::config::fields::{ConfigFields, POSITIVE};
use switchable_model::error::Result;

use super::LlamaConfig;
use crate::rotary::scaling::RopeScaling;

/// The fields that are computed with.
const READ: [&str; 19] = [
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "hidden_act",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "initializer_range",
    CONTEXT_READS,
];

/// Fields of Llama that change nothing here: a rate of dropout, over how many devices a product was summed in
/// training, and a note that some folders carry.
const HARMLESS: [&str; 3] = ["attention_dropout", "pretraining_tp", "is_llama_config"];

const DEFAULT_THETA: f64 = 10_000.0;

pub(super) fn from_json(value: &Value, path: &Path) -> Result<LlamaConfig> {
    let fields = ConfigFields::new(value, path)?;
    fields.expect("model_type", |v| v == "llama", "\"llama\"")?;
    allow(&fields, "hidden_act", |v| v == "silu" || v == "swish", "\"silu\"")?;
    allow(&fields, "partial_rotary_factor", |v| v.as_f64() == Some(1.0), "1")?;
    let hidden_size = fields.size("hidden_size")?;
    let num_attention_heads = fields.size("num_attention_heads")?;
    let head_dim = match given(&fields, "head_dim") {
        Some(_) => fields.size("head_dim")?,
        None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
        None => {
            let expected = format!("a multiple of num_attention_heads = {num_attention_heads}, or a `head_dim`");
            return Err(fields.error("hidden_size", &hidden_size.into(), &expected));
        }
    };
    let (rope_theta, rope_scaling) = rotations(&fields, path)?;
    let config = LlamaConfig {
        vocab_size: fields.size("vocab_size")?,
        max_position_embeddings: fields.size("max_position_embeddings")?,
        hidden_size,
        num_hidden_layers: fields.size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: fields.size_or("num_key_value_heads", num_attention_heads)?,
        head_dim,
        intermediate_size: fields.size("intermediate_size")?,
        rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
        rope_theta,
        rope_scaling,
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        initializer_range: fields.positive("initializer_range", 0.02)?,
        context_reads: context_reads(&fields)?,
        kept: fields.kept(&READ, &HARMLESS)?,
    };
    config.check(path)?;
    Ok(config)
}

/// The fields that every kind of scaling has.
const SCALING_FIELDS: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// Base of the frequencies and how they are stretched.
fn rotations(fields: &ConfigFields<'_>, path: &Path) -> Result<(f64, RopeScaling)> {
    let theta = fields.positive("rope_theta", DEFAULT_THETA)?;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(value) = given(fields, name) else { continue };
        if !value.is_object() {
            return Err(fields.error(name, value, "null or a JSON object"));
        }
        let parameters = ConfigFields::new(value, path)?;
        return Ok((parameters.positive("rope_theta", theta)?, scaling(&parameters)?));
    }
    Ok((theta, RopeScaling::Default))
}

fn scaling(parameters: &ConfigFields<'_>) -> Result<RopeScaling> {
    allow(parameters, "partial_rotary_factor", |v| v.as_f64() == Some(1.0), "1")?;
    let kind = ["rope_type", "type"].into_iter().find_map(|name| Some((name, given(parameters, name)?)));
    let scaling = match kind.map(|(name, kind)| (name, kind, kind.as_str())) {
        None | Some((_, _, Some("default"))) => RopeScaling::Default,
        Some((_, _, Some("linear"))) => RopeScaling::Linear { factor: number(parameters, "factor")? },
        Some((_, _, Some("llama3"))) => RopeScaling::Llama3 {
            factor: number(parameters, "factor")?,
            low_freq_factor: number(parameters, "low_freq_factor")?,
            high_freq_factor: number(parameters, "high_freq_factor")?,
            original_max_position_embeddings: parameters.size("original_max_position_embeddings")?,
        },
        Some((name, kind, _)) => return Err(parameters.error(name, kind, RopeScaling::KINDS)),
    };
    let of_kind: &[&str] = match scaling {
        RopeScaling::Default => &[],
        RopeScaling::Linear { .. } => &["factor"],
        RopeScaling::Llama3 { .. } => {
            &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
        }
    };
    parameters.only(&[&SCALING_FIELDS, of_kind].concat())?;
    Ok(scaling)
}

/// A field that is there and not `null`.
fn given<'a>(fields: &ConfigFields<'a>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// Checks a field that may be missing.
fn allow(fields: &ConfigFields<'_>, field: &'static str, accept: fn(&Value) -> bool, expected: &str) -> Result<()> {
    match given(fields, field) {
        Some(value) if !accept(value) => Err(fields.error(field, value, expected)),
        _ => Ok(()),
    }
}

/// A positive number that must be there.
fn number(fields: &ConfigFields<'_>, field: &'static str) -> Result<f64> {
    match fields.get(field) {
        Some(_) => fields.positive(field, 1.0),
        None => Err(fields.missing(field, POSITIVE)),
    }
}
