use super::*;

fn read(value: &Value) -> Result<Gpt2Config> {
    Gpt2Config::from_json(value, Path::new("dir/config.json"))
}

#[test]
fn json_round_trips() {
    let config = Gpt2Config::new(97, 64, 32, 3, 4).with_activation(Activation::Relu);
    assert_eq!(read(&config.to_json("GPT2LMHeadModel")).unwrap(), config);
}

#[test]
fn every_bad_field_is_named_with_the_file() {
    let good = Gpt2Config::new(97, 64, 32, 3, 4).to_json("GPT2LMHeadModel");
    let cases = [
        ("model_type", json!("llama")),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(-1)),
        ("vocab_size", json!("many")),
        ("vocab_size", json!(1u64 << 40)),
        ("n_embd", json!(30)),
        ("n_layer", json!(2.5)),
        ("n_inner", json!(0)),
        ("activation_function", json!("mish")),
        ("layer_norm_epsilon", json!(0)),
        ("layer_norm_epsilon", json!(1e308)),
        ("layer_norm_epsilon", json!(1e-60)),
        ("initializer_range", json!(1e39)),
        ("scale_attn_weights", json!("yes")),
        ("add_cross_attention", json!(true)),
        ("tie_word_embeddings", json!("no")),
    ];
    for (field, value) in cases {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let message = read(&bad).expect_err(field).to_string();
        assert!(message.contains("dir/config.json") && message.contains(field), "{field}={value}: {message}");
    }
    for field in ["model_type", "vocab_size", "n_embd", "n_layer", "n_head"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        let message = read(&bad).expect_err(field).to_string();
        assert!(message.contains(field) && message.contains("missing"), "{message}");
    }
    assert!(read(&json!([1, 2])).is_err());
    // A configuration that came from no file is checked in the same way.
    let made = Gpt2Config { layer_norm_epsilon: 1e-60, ..Gpt2Config::new(97, 64, 32, 3, 4) };
    let message = made.check(Path::new("dir/config.json")).unwrap_err().to_string();
    assert!(message.contains("layer_norm_epsilon"), "{message}");
}

/// Configurations as published folders hold them, and as transformers 5.23 saves one.
const PUBLISHED: [&str; 4] = [
    // openai-community/gpt2
    r#"{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
    "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
    "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257}"#,
    // distilbert/distilgpt2
    r#"{"_num_labels": 1, "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02, "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
    "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 6, "n_positions": 1024, "resid_pdrop": 0.1,
    "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
    "summary_type": "cls_index", "summary_use_proj": true,
    "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257}"#,
    // As transformers 2 saved one.
    r#"{"model_type": "gpt2", "vocab_size": 50257, "n_ctx": 1024, "n_positions": 1024, "n_embd": 768, "n_layer": 12,
    "n_head": 12, "finetuning_task": null, "is_decoder": false, "num_labels": 1, "output_past": true,
    "predict_special_tokens": true, "pruned_heads": {}, "torchscript": false, "use_bfloat16": false, "top_k": 50,
    "top_p": 1.0, "temperature": 1.0, "repetition_penalty": 1.0, "num_beams": 1, "do_sample": false, "max_length": 20,
    "output_attentions": false, "output_hidden_states": false}"#,
    // transformers 5.23
    r#"{"activation_function": "gelu_new", "add_cross_attention": false, "attn_pdrop": 0.1, "bos_token_id": 50256,
    "dtype": "float32", "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_inner": null, "n_layer": 12,
    "n_positions": 1024, "pad_token_id": null, "reorder_and_upcast_attn": false, "resid_pdrop": 0.1,
    "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true, "summary_activation": null,
    "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
    "summary_use_proj": true, "tie_word_embeddings": true, "transformers_version": "5.23.0", "use_cache": true,
    "vocab_size": 50257}"#,
];

#[test]
fn published_configurations_are_read_and_written_with_all_of_their_fields() {
    for text in PUBLISHED {
        let published: Value = serde_json::from_str(text).unwrap();
        let config = read(&published).unwrap();
        assert_eq!(config.n_embd, 768);
        let written = config.to_json("GPT2LMHeadModel");
        for (field, value) in published.as_object().unwrap() {
            // The MLP's width is written out, and the type is that of the weights that are written.
            if !["n_inner", "architectures", "dtype"].contains(&field.as_str()) {
                assert_eq!(written.get(field), Some(value), "{field}");
            }
        }
        assert_eq!(read(&written).unwrap(), config);
    }
}

#[test]
fn the_number_of_positions_has_an_old_name_and_is_missed_by_the_other() {
    let mut config = Gpt2Config::new(97, 64, 32, 3, 4).to_json("GPT2LMHeadModel");
    let drop = |config: &mut Value, field| _ = config.as_object_mut().unwrap().remove(field);
    drop(&mut config, "n_positions");
    assert_eq!(read(&config).unwrap().n_positions, 64);
    config["n_ctx"] = json!("many");
    assert!(read(&config).unwrap_err().to_string().contains("field `n_ctx` is"));
    drop(&mut config, "n_ctx");
    let message = read(&config).unwrap_err().to_string();
    assert!(message.contains("`n_positions`") && !message.contains("n_ctx"), "{message}");
}

#[test]
fn fields_that_are_not_known_to_be_harmless_are_refused_by_name_unless_they_are_null() {
    let good = Gpt2Config::new(97, 64, 32, 3, 4).to_json("GPT2LMHeadModel");
    let cases = [
        ("add_cross_attention", json!(true)),
        ("is_encoder_decoder", json!(true)),
        ("pruned_heads", json!({"0": [1]})),
        ("quantization_config", json!({"quant_method": "bitsandbytes", "load_in_8bit": true})),
        ("auto_map", json!({"AutoModel": "modeling.Other"})),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        ("sliding_window", json!(128)),
        ("multi_query", json!(true)),
        ("num_hidden_layers", json!(2)),
        ("hidden_size", json!(64)),
        ("a_field_of_tomorrow", json!("x".repeat(1000))),
    ];
    for (field, value) in cases {
        let mut other = good.clone();
        other[field] = value;
        let message = read(&other).expect_err(field).to_string();
        assert!(message.contains("dir/config.json") && message.contains(field), "{message}");
        assert!(message.len() < 400, "{message}");
        other[field] = Value::Null;
        assert!(read(&other).is_ok(), "{field} is null");
    }
    for (field, value) in
        [("num_hidden_layers", json!(3)), ("pruned_heads", json!({})), ("is_encoder_decoder", json!(false))]
    {
        let mut other = good.clone();
        other[field] = value;
        assert!(read(&other).is_ok(), "{field}");
    }
}
