use serde_json::json;

use super::*;

fn read(value: &Value) -> Result<LlamaConfig> {
    LlamaConfig::from_json(value, Path::new("dir/config.json"))
}

/// None of the fields has its default.
fn unusual() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 97,
        max_position_embeddings: 64,
        hidden_size: 20,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 12,
        intermediate_size: 28,
        rms_norm_eps: 1e-3,
        rope_theta: 500.0,
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
        },
        attention_bias: true,
        mlp_bias: true,
        tie_word_embeddings: true,
        initializer_range: 0.25,
        context_reads: 2,
        kept: KeptFields::new().with("eos_token_id", 3),
    }
}

#[test]
fn json_round_trips() {
    for rope_scaling in [RopeScaling::Default, RopeScaling::Linear { factor: 2.5 }, unusual().rope_scaling] {
        let config = LlamaConfig { rope_scaling, ..unusual() };
        assert_eq!(read(&config.to_json("LlamaForCausalLM")).unwrap(), config);
    }
    let plain = LlamaConfig::new(97, 24, 3, 4);
    assert_eq!(read(&plain.to_json("LlamaForCausalLM")).unwrap(), plain);
}

#[test]
fn fields_that_may_be_left_out_have_the_defaults_of_transformers() {
    let mut json = LlamaConfig::new(97, 24, 3, 4).to_json("LlamaForCausalLM");
    let optional = [
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "attention_bias",
        "mlp_bias",
        "tie_word_embeddings",
        "initializer_range",
    ];
    for field in optional {
        assert!(json.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    assert_eq!(read(&json).unwrap(), LlamaConfig::new(97, 24, 3, 4));
    for field in ["num_key_value_heads", "head_dim", "rope_scaling"] {
        json[field] = Value::Null;
    }
    assert_eq!(read(&json).unwrap(), LlamaConfig::new(97, 24, 3, 4));
}

#[test]
fn rotations_are_read_in_each_form_that_transformers_has_written() {
    let linear = LlamaConfig { rope_scaling: RopeScaling::Linear { factor: 3.0 }, ..unusual() };
    let forms = [
        json!({"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
        json!({"rope_theta": 500, "rope_scaling": {"type": "linear", "factor": 3}}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}}),
        json!({"rope_parameters": {"type": "linear", "factor": 3.0}, "rope_theta": 500.0, "rope_scaling": null}),
    ];
    for form in forms {
        let mut json = unusual().to_json("LlamaForCausalLM");
        let fields = json.as_object_mut().unwrap();
        fields.remove("rope_theta");
        fields.remove("rope_scaling");
        fields.extend(form.as_object().unwrap().clone());
        assert_eq!(read(&json).unwrap(), linear, "{form}");
    }
}

#[test]
fn every_bad_field_is_named_with_the_file() {
    let good = unusual().to_json("LlamaForCausalLM");
    let llama3 = |field: &str, value: Value| {
        let mut scaling = good["rope_scaling"].clone();
        scaling[field] = value;
        scaling
    };
    let cases = [
        ("model_type", "model_type", json!("gpt2")),
        ("vocab_size", "vocab_size", json!(0)),
        ("vocab_size", "vocab_size", json!("many")),
        ("vocab_size", "vocab_size", json!(1u64 << 40)),
        ("num_hidden_layers", "num_hidden_layers", json!(2.5)),
        ("num_attention_heads", "num_attention_heads", json!(3)),
        ("num_key_value_heads", "num_attention_heads", json!(3)),
        ("num_key_value_heads", "num_key_value_heads", json!(0)),
        ("head_dim", "head_dim", json!(5)),
        ("intermediate_size", "intermediate_size", json!(-1)),
        ("hidden_act", "hidden_act", json!("gelu")),
        ("rms_norm_eps", "rms_norm_eps", json!(0)),
        ("rms_norm_eps", "rms_norm_eps", json!(1e308)),
        ("rms_norm_eps", "rms_norm_eps", json!(1e-60)),
        ("initializer_range", "initializer_range", json!(1e-60)),
        ("rope_theta", "rope_theta", json!(-1.0)),
        ("rope_theta", "rope_theta", json!(1e39)),
        ("rope_theta", "rope_theta", json!(1e-60)),
        ("partial_rotary_factor", "partial_rotary_factor", json!(0.5)),
        ("attention_bias", "attention_bias", json!("yes")),
        ("mlp_bias", "mlp_bias", json!(1)),
        ("tie_word_embeddings", "tie_word_embeddings", json!("no")),
        ("rope_scaling", "rope_scaling", json!("linear")),
        ("rope_scaling", "factor", json!({"rope_type": "linear"})),
        ("rope_scaling", "factor", json!({"rope_type": "linear", "factor": 0.5})),
        ("rope_scaling", "factor", json!({"rope_type": "linear", "factor": 1e39})),
        ("rope_scaling", "low_freq_factor", llama3("low_freq_factor", json!(0))),
        ("rope_scaling", "low_freq_factor", llama3("low_freq_factor", json!(1e-60))),
        ("rope_scaling", "high_freq_factor", llama3("high_freq_factor", json!(1))),
        ("rope_scaling", "original_max_position_embeddings", llama3("original_max_position_embeddings", json!(0))),
    ];
    for (field, named, value) in cases {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let message = read(&bad).expect_err(field).to_string();
        assert!(message.contains("dir/config.json") && message.contains(named), "{field}={value}: {message}");
    }
    let required = [
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ];
    for field in required {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        let message = read(&bad).expect_err(field).to_string();
        assert!(message.contains(field) && message.contains("missing"), "{message}");
    }
    assert!(read(&json!([1, 2])).is_err());
    // Each number is one of f32; the angle of the last position is none.
    let long = LlamaConfig { rope_theta: 2e-38, max_position_embeddings: u32::MAX as usize, ..unusual() };
    let message = read(&long.to_json("LlamaForCausalLM")).unwrap_err().to_string();
    assert!(message.contains("dir/config.json") && message.contains("rope_theta"), "{message}");
    assert!(read(&LlamaConfig { rope_theta: 0.5, ..unusual() }.to_json("LlamaForCausalLM")).is_ok());
}

#[test]
fn kinds_of_scaling_that_are_not_implemented_are_refused_by_name() {
    for kind in ["dynamic", "yarn", "longrope", "proportional"] {
        for (field, name) in [("rope_scaling", "rope_type"), ("rope_scaling", "type"), ("rope_parameters", "rope_type")]
        {
            let mut bad = unusual().to_json("LlamaForCausalLM");
            bad[field] = json!({name: kind, "factor": 2.0});
            let message = read(&bad).expect_err(kind).to_string();
            let parts = ["dir/config.json", name, kind, RopeScaling::KINDS];
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}

#[test]
fn a_width_that_heads_do_not_divide_needs_the_width_of_a_head() {
    let mut json = LlamaConfig { hidden_size: 22, ..unusual() }.to_json("LlamaForCausalLM");
    assert_eq!(read(&json).unwrap().head_dim, 12);
    json["head_dim"] = Value::Null;
    let message = read(&json).expect_err("no width").to_string();
    assert!(message.contains("hidden_size") && message.contains("22"), "{message}");
}

#[test]
fn parameters_are_those_of_published_models() {
    let smol_lm2_135m = LlamaConfig {
        num_key_value_heads: 3,
        intermediate_size: 1536,
        tie_word_embeddings: true,
        ..LlamaConfig::new(49_152, 576, 30, 9)
    };
    assert_eq!(smol_lm2_135m.parameters(), 134_515_008);
    let llama_2_7b = LlamaConfig { intermediate_size: 11_008, ..LlamaConfig::new(32_000, 4096, 32, 32) };
    assert_eq!(llama_2_7b.parameters(), 6_738_415_616);
}

/// HuggingFaceTB/SmolLM2-135M-Instruct, and what transformers 5.23 saves.
const PUBLISHED: [&str; 2] = [
    r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
    "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152}"#,
    r#"{"_model_name_or_path": "Smollm2 135M", "unk_token_id": 0,
    "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "float32", "eos_token_id": 2,
    "head_dim": 64, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.02, "intermediate_size": 1536,
    "max_position_embeddings": 2048, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 9, "pad_token_id": null, "pretraining_tp": 1,
    "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true, "vocab_size": 32000}"#,
];

#[test]
fn published_configurations_are_read_and_written_with_all_of_their_fields() {
    for text in PUBLISHED {
        let published: Value = serde_json::from_str(text).unwrap();
        let config = read(&published).unwrap();
        assert_eq!((config.hidden_size, config.head_dim), (576, 64));
        let written = config.to_json("LlamaForCausalLM");
        for (field, value) in published.as_object().unwrap() {
            // The type is that of the weights that are written, and the rotations have another form.
            if !["architectures", "torch_dtype", "dtype", "rope_parameters", "rope_theta"].contains(&field.as_str()) {
                assert_eq!(written.get(field), Some(value), "{field}");
            }
        }
        assert_eq!(read(&written).unwrap(), config);
    }
}

#[test]
fn fields_that_are_not_known_to_be_harmless_are_refused_by_name_unless_they_are_null() {
    let good = unusual().to_json("LlamaForCausalLM");
    let cases = [
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
        ("auto_map", json!({"AutoModel": "modeling.Other"})),
        ("sliding_window", json!(128)),
        ("rope_interleaved", json!(true)),
        ("logit_scale", json!(0.5)),
        ("residual_multiplier", json!(0.2)),
        ("layer_types", json!(["sliding_attention"])),
    ];
    for (field, value) in cases {
        let mut other = good.clone();
        other[field] = value;
        let message = read(&other).expect_err(field).to_string();
        assert!(message.contains("dir/config.json") && message.contains(field), "{message}");
        other[field] = Value::Null;
        assert!(read(&other).is_ok(), "{field} is null");
    }
    let cases = [
        (json!({"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}), "attention_factor"),
        (json!({"rope_type": "default", "factor": 2.0}), "factor"),
        (json!({"factor": 2.0}), "factor"),
    ];
    for (scaling, field) in cases {
        let mut other = good.clone();
        other["rope_scaling"] = scaling;
        let message = read(&other).expect_err(field).to_string();
        assert!(message.contains("dir/config.json") && message.contains(field), "{message}");
    }
}
