//! What the configuration of an adapter says.

use super::*;

#[test]
fn the_weights_of_torch_layers_are_not_said_to_be_fan_in_fan_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = PeftOptions { base_layer: BaseLayer::Linear, ..options() };
    save_peft(&dir, pairs().iter().map(|(site, pair)| (site.as_str(), pair)), &options).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
    assert_eq!(config["fan_in_fan_out"], false);
}

#[test]
fn patterns_count_in_the_order_of_the_file_and_rank_stabilised_scales_are_kept() {
    let sites = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj"];
    let dir = saved(&sites.into_iter().map(|site| (site.to_owned(), pair(4, 8.0, [6, 6], 1))).collect());
    let alphas = |patterns: &str| {
        let path = dir.path().join(CONFIG_FILE);
        let config = serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap();
        let mut fields = config.as_object().unwrap().clone();
        fields.remove("alpha_pattern");
        let fields = serde_json::to_string(&fields).unwrap();
        // As text: a map would not keep the order.
        fs::write(dir.path().join(CONFIG_FILE), format!("{{\"alpha_pattern\": {patterns}, {}", &fields[1..])).unwrap();
        let loaded = load(&dir).unwrap();
        sites.map(|site| loaded[site].alpha().to_string())
    };
    assert_eq!(alphas(r#"{"c_proj": 16, "attn.c_proj": 64}"#), ["16"; 3]);
    assert_eq!(alphas(r#"{"attn.c_proj": 64, "c_proj": 16}"#), ["64", "16", "64"]);
    assert_eq!(alphas(r#"{"^transformer\\.h\\.[0]\\..*": 2, "c_proj": 16}"#), ["2", "2", "16"]);
    assert_eq!(alphas("null"), ["8"; 3]);
    edit_config(&dir, |config| config["use_rslora"] = true.into());
    assert!((load(&dir).unwrap()[sites[0]].scaling() - 8.0 / 2.0).abs() < 1e-12);
}

#[test]
fn configurations_that_compute_something_else_are_errors_that_name_the_field() {
    use serde_json::json;
    for (field, value, expected) in [
        ("peft_type", json!("IA3"), "field `peft_type` is IA3, expected LORA"),
        ("use_dora", json!(true), "field `use_dora` is true, expected false"),
        ("use_qalora", json!(true), "field `use_qalora` is true, expected false"),
        ("lora_bias", json!(true), "field `lora_bias` is true, expected false"),
        ("bias", json!("all"), "field `bias` is all, expected none"),
        ("bias", json!("lora_only"), "field `bias` is lora_only, expected none"),
        ("r", json!(0), "field `r` is 0, expected a whole number of at least 1"),
        ("r", json!("four"), "field `r` is four, expected a whole number"),
        ("r", json!(2.5), "field `r` is 2.5, expected a whole number"),
        ("lora_alpha", json!(-1), "field `lora_alpha` is -1, expected a finite number above 0"),
        ("use_rslora", json!("yes"), "field `use_rslora` is yes, expected true or false"),
        ("modules_to_save", json!(["score"]), "field `modules_to_save` is score, expected nothing"),
        ("modules_to_save", json!("score"), "field `modules_to_save` is score, expected a list of names"),
        ("rank_pattern", json!({ "h\\.([0-9]+": 2 }), "field `rank_pattern` has `h\\.([0-9]+`, expected a regular"),
        ("rank_pattern", json!({ "c_attn": 0 }), "field `rank_pattern.c_attn` is 0, expected a whole number"),
        ("rank_pattern", json!([1]), "field `rank_pattern` is [1], expected an object"),
        ("alpha_pattern", json!({ "c_attn": null }), "field `alpha_pattern.c_attn` is null, expected a finite"),
        (
            "alpha_pattern",
            json!({ "h.0.attn.c_atn": 100 }),
            "field `alpha_pattern` has `h.0.attn.c_atn`, which matches no",
        ),
        ("alora_invocation_tokens", json!([1, 2]), "field `alora_invocation_tokens` is [1,2], expected null"),
        ("init_lora_weights", json!("pissa"), "field `init_lora_weights` is pissa, expected true, false, gaussian"),
        ("init_lora_weights", json!("pissa_niter_16"), "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", json!("olora"), "field `init_lora_weights` is olora"),
        ("init_lora_weights", json!("corda"), "field `init_lora_weights` is corda"),
        ("init_lora_weights", json!("loftq"), "merge_and_unload()"),
        ("init_lora_weights", json!("lora_ga"), "field `init_lora_weights` is lora_ga"),
        ("layer_replication", json!([[0, 4]]), "field `layer_replication` is [[0,4]], expected null"),
        ("trainable_token_indices", json!([5]), "field `trainable_token_indices` is [5], expected null"),
        ("target_parameters", json!(["w"]), "field `target_parameters` is [\"w\"], expected nothing"),
        ("arrow_config", json!({ "top_k": 3 }), "field `arrow_config`"),
        ("megatron_config", json!({}), "field `megatron_config` is {}, expected null"),
        ("monteclora_config", json!({}), "field `monteclora_config` is {}, expected null"),
        ("velora_config", json!({}), "field `velora_config` is {}, expected null"),
        ("kasa_config", json!({}), "field `kasa_config` is {}, expected null"),
        ("use_bdlora", json!({}), "field `use_bdlora` is {}, expected null"),
        ("ensure_weight_tying", json!(true), "field `ensure_weight_tying` is true, expected false"),
        ("future_field", json!(1), "field `future_field` is 1, expected null: what it changes is not known here"),
        ("future_field", json!(false), "field `future_field` is false, expected null"),
        ("layers_to_transform", json!("all"), "field `layers_to_transform` is all, expected numbers of blocks"),
        (
            "target_modules",
            json!(["c_attn", "c_fc", "lm_head"]),
            "field `target_modules` has `lm_head`, which matches no",
        ),
    ] {
        let dir = saved(&pairs());
        edit_config(&dir, |config| config[field] = value);
        let message = message(&dir);
        assert!(message.contains(expected) && message.contains(CONFIG_FILE), "{message}");
    }
    for field in ["peft_type", "r", "lora_alpha"] {
        let dir = saved(&pairs());
        edit_config(&dir, |config| drop(config.as_object_mut().unwrap().remove(field)));
        let message = message(&dir);
        assert!(message.contains(&format!("field `{field}` is missing")), "{message}");
    }
}

#[test]
fn fields_that_change_nothing_are_accepted() {
    use serde_json::json;
    let dir = saved(&pairs());
    edit_config(&dir, |config| {
        for (field, value) in [
            ("init_lora_weights", json!("orthogonal")),
            ("auto_mapping", json!({ "base_model_class": "GPT2Model" })),
            ("peft_version", json!("0.21.2")),
            ("lora_dropout", json!(0.1)),
            ("corda_config", json!({ "use_float16_for_covariance": false })),
            ("megatron_core", json!("megatron.core")),
            ("future_field", json!(null)),
            ("target_modules", json!(r".*\.(c_attn|c_fc)")),
            ("exclude_modules", json!(["c_proj"])),
            ("modules_to_save", json!([])),
        ] {
            config[field] = value;
        }
    });
    assert_eq!(load(&dir).unwrap().len(), 5);
}

#[test]
fn an_adapter_without_tensors_or_with_too_few_sites_is_an_error() {
    let dir = saved(&pairs());
    edit_tensors(&dir, BTreeMap::clear);
    let expected = "no adapters in it, expected a pair of factors for at least one module";
    assert!(message(&dir).contains(MODEL_FILE) && message(&dir).contains(expected), "{}", message(&dir));
    let sites: Vec<String> = pairs().into_keys().collect();
    let gone = |tensors: &mut BTreeMap<String, OwnedTensor>| tensors.retain(|name, _| !name.contains("h.1.mlp.c_fc"));
    // Written as full names, as parts of names, and as an expression.
    for targets in [None, Some(serde_json::json!(["c_attn", "c_fc"])), Some(serde_json::json!(r".*\.c_(attn|fc)"))] {
        let dir = saved(&pairs());
        edit_config(&dir, |config| {
            config["rank_pattern"] = serde_json::json!({});
            if let Some(targets) = targets {
                config["target_modules"] = targets;
            }
        });
        edit_tensors(&dir, gone);
        let message = read(&dir, &[]).unwrap().check_sites(&sites).unwrap_err().to_string();
        assert_eq!(message, "tensor `base_model.model.transformer.h.1.mlp.c_fc.lora_A.weight` is missing");
        // Neither is a target where it is left out, or in a block that is.
        for (field, value) in [
            ("exclude_modules", serde_json::json!(["h.1.mlp.c_fc"])),
            ("layers_to_transform", serde_json::json!([0, 2])),
        ] {
            edit_config(&dir, |config| config[field] = value);
            if field == "layers_to_transform" {
                edit_tensors(&dir, |tensors| tensors.retain(|name, _| !name.contains("h.1.")));
            }
            let checked = read(&dir, &[]).unwrap().check_sites(&sites);
            let is_listed = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap().contains("target_modules\":[");
            assert_eq!(checked.is_ok(), field == "exclude_modules" || is_listed, "{field}");
            edit_config(&dir, |config| config[field] = serde_json::Value::Null);
        }
    }
}

/// PEFT makes no adapter where the configuration asks for none, and passes over the tensors.
#[test]
fn tensors_of_modules_that_are_no_targets_are_errors_that_name_them() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (field, value, module) in [
        ("layers_to_transform", "[0]", "h.1.attn.c_attn"),
        ("target_modules", r#"["c_attn"]"#, "h.1.mlp.c_fc"),
        ("target_modules", r#""transformer\\.h\\.0\\..*""#, "h.1.attn.c_attn"),
        ("exclude_modules", r#"["c_fc"]"#, "h.1.mlp.c_fc"),
    ] {
        for targets in [None, Some(json(r#"["c_attn", "c_fc"]"#))] {
            let dir = saved(&pairs());
            edit_config(&dir, |config| {
                config["target_modules"] = targets.unwrap_or_default();
                config[field] = json(value);
            });
            let message = message(&dir);
            let expected = format!("tensor `base_model.model.transformer.{module}.lora_A.weight` is unexpected");
            assert!(message.contains(&expected) && message.contains("does not target"), "{field}: {message}");
        }
    }
}

#[test]
fn a_rank_that_the_tensors_do_not_have_is_an_error() {
    let dir = saved(&pairs());
    edit_config(&dir, |config| config["r"] = 3.into());
    assert!(message(&dir).contains("has shape [4, 6], expected [3, d_in]"));
}
