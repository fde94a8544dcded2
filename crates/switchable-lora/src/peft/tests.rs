use std::collections::BTreeMap;

use burn::{
    backend::Flex,
    tensor::{Tensor, TensorData, bf16, f16},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use quant_kernels::{spec::granularity::Granularity, tensor::learned_step::LearnedStep};

use super::*;
use crate::peft::{
    learned_steps::{LEARNED_STEPS_FILE, parse_learned_steps},
    load::{AdapterNames, load_peft, read_adapter},
    save::{WidthAdapters, save_bank, save_peft},
    trained_for::TRAINED_FOR_FILE,
};
use crate::{
    adapter_pair::LoraAdapterPair, lora_config::LoraConfig, placement::Placement,
    quantisation_settings::QuantisationSettings,
};

type Pairs = BTreeMap<String, LoraAdapterPair<Flex>>;

const PREFIX: &str = "transformer.";

/// A pair whose factors are both filled.
fn pair(rank: usize, alpha: f64, [d_in, d_out]: [usize; 2], seed: u64) -> LoraAdapterPair<Flex> {
    let config = LoraConfig::new(rank, alpha).unwrap();
    let device = Default::default();
    let a = LoraAdapterPair::<Flex>::adding_nothing(&config, [d_in, 1], seed, &device).a.val();
    let b = LoraAdapterPair::<Flex>::adding_nothing(&config, [d_out, 1], seed + 1, &device).a.val();
    LoraAdapterPair::from_factors(a, b.transpose(), alpha).unwrap()
}

fn pairs() -> Pairs {
    let attn = (0..3).map(|block| (format!("h.{block}.attn.c_attn"), pair(4, 8.0, [6, 18], block)));
    let odd = [
        ("h.1.mlp.c_fc".to_owned(), pair(2, 8.0, [6, 24], 11)),
        ("h.2.mlp.c_fc".to_owned(), pair(4, 2.5, [6, 24], 12)),
    ];
    attn.chain(odd).collect()
}

fn options() -> PeftOptions {
    PeftOptions {
        prefix: PREFIX.into(),
        base_model: "openai-community/gpt2".into(),
        task_type: Some("QUESTION_ANS".into()),
        base_layer: BaseLayer::Conv1d,
        saved_modules: Vec::new(),
        trained_for: None,
    }
}

fn saved(pairs: &Pairs) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    dir
}

fn load(dir: &TempDir) -> Result<Pairs> {
    load_peft(dir, PREFIX, &Default::default())
}

fn message(dir: &TempDir) -> String {
    load(dir).unwrap_err().to_string()
}

fn values<const D: usize>(tensor: Tensor<Flex, D>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

fn edit_config(dir: &TempDir, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.path().join(CONFIG_FILE);
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
}

type OwnedTensor = (Dtype, Vec<usize>, Vec<u8>);

fn edit_tensors(dir: &TempDir, edit: impl FnOnce(&mut BTreeMap<String, OwnedTensor>)) {
    edit_tensors_of(dir, MODEL_FILE, edit, |_| ());
}

type Metadata = std::collections::HashMap<String, String>;

fn edit_tensors_of(
    dir: &TempDir,
    file: &str,
    edit: impl FnOnce(&mut BTreeMap<String, OwnedTensor>),
    edit_metadata: impl FnOnce(&mut Metadata),
) {
    let path = dir.path().join(file);
    let bytes = fs::read(&path).unwrap();
    let mut metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    edit_metadata(&mut metadata);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

#[test]
fn adapters_come_back_bit_for_bit_with_their_ranks_and_alphas() {
    let pairs = pairs();
    let loaded = load(&saved(&pairs)).unwrap();
    assert_eq!(loaded.keys().collect::<Vec<_>>(), pairs.keys().collect::<Vec<_>>());
    for (site, pair) in pairs {
        let got = &loaded[&site];
        assert_eq!((got.rank(), got.alpha()), (pair.rank(), pair.alpha()), "{site}");
        assert_eq!(values(got.a.val()), values(pair.a.val()), "{site}");
        assert_eq!(values(got.b.val()), values(pair.b.val()), "{site}");
    }
}

#[test]
fn the_weights_of_torch_layers_are_not_said_to_be_fan_in_fan_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = PeftOptions { base_layer: BaseLayer::Linear, ..options() };
    save_peft(&dir, pairs().iter().map(|(site, pair)| (site.as_str(), pair)), &options).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
    assert_eq!(config["fan_in_fan_out"], false);
}

#[test]
fn the_files_are_those_that_peft_writes() {
    let pairs = pairs();
    let dir = saved(&pairs);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
    for (field, expected) in [
        ("peft_type", "\"LORA\""),
        ("task_type", "\"QUESTION_ANS\""),
        ("base_model_name_or_path", "\"openai-community/gpt2\""),
        ("r", "4"),
        ("lora_alpha", "8"),
        ("fan_in_fan_out", "true"),
        ("bias", "\"none\""),
        ("use_rslora", "false"),
        ("rank_pattern", r#"{"transformer.h.1.mlp.c_fc":2}"#),
        ("alpha_pattern", r#"{"transformer.h.2.mlp.c_fc":2.5}"#),
    ] {
        assert_eq!(config[field].to_string(), expected, "{field}");
    }
    let targets: Vec<_> = pairs.keys().map(|site| format!("{PREFIX}{site}")).collect();
    assert_eq!(config["target_modules"], serde_json::json!(targets));

    let bytes = fs::read(dir.path().join(MODEL_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 2 * pairs.len());
    let a = file.tensor("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight").unwrap();
    let b = file.tensor("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight").unwrap();
    assert_eq!((a.shape(), b.shape()), (&[4, 6][..], &[18, 4][..]));
    // Row-major [rank, d_in] on disk is A transposed.
    let stored: Vec<f32> = a.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_eq!(stored, values(pairs["h.0.attn.c_attn"].a.val().transpose()));
}

#[test]
fn saving_again_replaces_both_files_and_leaves_nothing_else() {
    let mut pairs = pairs();
    let dir = saved(&pairs);
    fs::write(dir.path().join("README.md"), "kept").unwrap();
    pairs.retain(|site, _| site.ends_with("c_fc"));
    save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    assert_eq!(load(&dir).unwrap().len(), 2);
    let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["README.md", CONFIG_FILE, MODEL_FILE]);
}

#[test]
fn half_precision_files_are_read() {
    let pairs = pairs();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let dir = saved(&pairs);
        edit_tensors(&dir, |tensors| {
            for tensor in tensors.values_mut() {
                let floats = tensor.2.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
                tensor.2 = match dtype {
                    Dtype::F16 => floats.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
                    _ => floats.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
                };
                tensor.0 = dtype;
            }
        });
        let loaded = load(&dir).unwrap();
        for (site, pair) in &pairs {
            let close = |got: f32, expected: f32| (got - expected).abs() <= expected.abs() / 200.0 + 1e-6;
            let (got, expected) = (values(loaded[site].b.val()), values(pair.b.val()));
            assert!(got.iter().zip(expected).all(|(&got, expected)| close(got, expected)), "{dtype:?} {site}");
        }
    }
}

#[test]
fn names_of_a_live_state_dictionary_are_read() {
    let dir = saved(&pairs());
    edit_tensors(&dir, |tensors| {
        let renamed = std::mem::take(tensors).into_iter();
        tensors.extend(renamed.map(|(name, tensor)| (name.replace(".weight", ".default.weight"), tensor)));
    });
    assert_eq!(load(&dir).unwrap().len(), 5);
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
fn truncated_and_missing_files_are_errors_that_name_them() {
    for file in [CONFIG_FILE, MODEL_FILE] {
        let dir = saved(&pairs());
        let path = dir.path().join(file);
        let bytes = fs::read(&path).unwrap();
        for keep in [0, 4, 8, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..keep]).unwrap();
            let message = message(&dir);
            assert!(message.contains(file), "{keep} bytes of {file}: {message}");
        }
        fs::remove_file(&path).unwrap();
        assert!(message(&dir).contains(file));
    }
}

#[test]
fn tensors_that_do_not_fit_are_errors_that_name_them() {
    const A: &str = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight";
    const B: &str = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight";
    type Edit = fn(&mut BTreeMap<String, OwnedTensor>);
    let cases: [(Edit, String); 8] = [
        (|tensors| drop(tensors.remove(A)), format!("tensor `{A}` is missing")),
        (|tensors| drop(tensors.remove(B)), format!("tensor `{B}` is missing")),
        (
            |tensors| tensors.get_mut(A).unwrap().1 = vec![6, 4],
            format!("tensor `{A}` has shape [6, 4], expected [4, d_in]"),
        ),
        (
            |tensors| tensors.get_mut(B).unwrap().1 = vec![72],
            format!("tensor `{B}` has shape [72], expected [d_out, 4]"),
        ),
        (|tensors| tensors.get_mut(A).unwrap().0 = Dtype::I32, format!("tensor `{A}` has dtype I32")),
        (
            |tensors| tensors.get_mut(B).unwrap().2[20..24].copy_from_slice(&f32::NAN.to_le_bytes()),
            format!("tensor `{B}` holds NaN at element 5"),
        ),
        (
            |tensors| {
                let tensor = tensors[A].clone();
                tensors.insert("base_model.model.transformer.h.0.attn.c_attn.bias".into(), tensor);
            },
            "tensor `base_model.model.transformer.h.0.attn.c_attn.bias` is unexpected".into(),
        ),
        (
            |tensors| {
                let tensor = tensors.remove(A).unwrap();
                tensors.insert(A.replace("transformer", "gpt"), tensor);
            },
            "expected `base_model.model.transformer.<site>.lora_A.weight`".into(),
        ),
    ];
    for (edit, expected) in cases {
        let dir = saved(&pairs());
        edit_tensors(&dir, edit);
        let message = message(&dir);
        assert!(message.contains(&expected) && message.contains(MODEL_FILE), "`{message}` is not `{expected}`");
    }
}

/// The names that `expected` accepts, and the sites that have an adapter.
fn read(dir: &TempDir, saved_modules: &[&str]) -> Result<crate::peft::load::PeftAdapter<Flex>> {
    let names = AdapterNames { prefixes: &["model.", PREFIX, ""], saved_modules };
    read_adapter(dir, names, &Default::default())
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
fn names_under_other_wrappers_and_without_the_prefix_of_the_body_are_read() {
    type Rename = fn(&str) -> String;
    let renames: [Rename; 5] = [
        |name| name.replace("base_model.model.", ""),
        |name| format!("module.{name}"),
        |name| format!("base_model.model.{name}"),
        |name| name.replace("transformer.", ""),
        |name| name.replace("base_model.model.transformer.", "_orig_mod.model."),
    ];
    for rename in renames {
        let dir = saved(&pairs());
        edit_tensors(&dir, |tensors| {
            let renamed = std::mem::take(tensors).into_iter();
            tensors.extend(renamed.map(|(name, tensor)| (rename(&name), tensor)));
        });
        edit_config(&dir, |config| {
            config["rank_pattern"] = serde_json::json!({ "h.1.mlp.c_fc": 2 });
            config["alpha_pattern"] = serde_json::json!({ "h.2.mlp.c_fc": 2.5 });
        });
        let loaded = read(&dir, &[]).unwrap().pairs;
        assert_eq!(loaded.keys().collect::<Vec<_>>(), pairs().keys().collect::<Vec<_>>());
    }
    let dir = saved(&pairs());
    edit_tensors(&dir, |tensors| {
        let twice: Vec<_> = tensors.iter().map(|(name, tensor)| (format!("module.{name}"), tensor.clone())).collect();
        tensors.extend(twice);
    });
    let message = read(&dir, &[]).unwrap_err().to_string();
    assert!(message.contains("is unexpected") && message.contains("which names the same module, alone"), "{message}");
}

#[test]
fn a_pickle_is_refused_with_how_to_convert_it() {
    let dir = saved(&pairs());
    fs::rename(dir.path().join(MODEL_FILE), dir.path().join(PICKLED_FILE)).unwrap();
    let message = message(&dir);
    for word in [PICKLED_FILE, MODEL_FILE, "import torch", "save_file("] {
        assert!(message.contains(word), "{message}");
    }
}

fn head(name: &str) -> SavedModule {
    let weight = (0..12).map(|index| index as f32 / 8.0).collect::<Vec<_>>();
    SavedModule { name: name.into(), weight: TensorData::new(weight, [2, 6]), bias: TensorData::from([0.5f32, -1.0]) }
}

#[test]
fn saved_modules_come_back_and_others_are_errors_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let (pairs, module) = (pairs(), head("qa_outputs"));
    let options = PeftOptions { saved_modules: vec![module.clone()], ..options() };
    save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
    assert_eq!(config["modules_to_save"], serde_json::json!(["qa_outputs"]));
    assert_eq!(read(&dir, &["qa_outputs"]).unwrap().saved_modules, std::slice::from_ref(&module));
    assert!(module.check_shape([2, 6]).is_ok());
    let message = module.check_shape([2, 8]).unwrap_err().to_string();
    assert!(message.contains("qa_outputs.weight") && message.contains("[2, 6]"), "{message}");

    let message = read(&dir, &[]).unwrap_err().to_string();
    assert!(message.contains("field `modules_to_save` is qa_outputs, expected nothing"), "{message}");
    let message = read(&dir, &["score"]).unwrap_err().to_string();
    assert!(message.contains("field `modules_to_save` is qa_outputs, expected score"), "{message}");
    // PEFT writes the name of the head that its task has behind those that were asked for.
    edit_config(&dir, |config| config["modules_to_save"] = serde_json::json!(["qa_outputs", "qa_outputs"]));
    assert_eq!(read(&dir, &["qa_outputs"]).unwrap().saved_modules.len(), 1);
    for gone in ["weight", "bias"] {
        let dir = tempfile::tempdir().unwrap();
        save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options).unwrap();
        let name = format!("base_model.model.qa_outputs.{gone}");
        edit_tensors(&dir, |tensors| drop(tensors.remove(&name)));
        let message = read(&dir, &["qa_outputs"]).unwrap_err().to_string();
        assert!(message.contains(&format!("tensor `{name}` is missing")), "{message}");
    }
    edit_config(&dir, |config| config["modules_to_save"] = serde_json::Value::Null);
    let message = read(&dir, &["qa_outputs"]).unwrap_err().to_string();
    assert!(message.contains("tensor `base_model.model.qa_outputs.bias` is unexpected"), "{message}");
}

fn trained_for(bits: BitWidth) -> TrainedFor {
    TrainedFor { bits, settings: QuantisationSettings::default(), base: Some("of the base".into()) }
}

#[test]
fn what_an_adapter_was_trained_for_comes_back_and_another_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs_with_steps();
    let options = PeftOptions { trained_for: Some(trained_for(BitWidth::B3)), ..options() };
    save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options).unwrap();
    let got = read(&dir, &[]).unwrap().trained_for.unwrap();
    assert_eq!(got, trained_for(BitWidth::B3));
    let settings = got.settings;
    assert!(got.check(BitWidth::B3, &settings).is_ok());
    let message = got.check(BitWidth::B4, &settings).unwrap_err().to_string();
    assert_eq!(message, "the adapter was trained for another bits: 3, here it is 4");
    let merged = QuantisationSettings { placement: Placement::Merged, ..settings };
    let message = got.check(BitWidth::B3, &merged).unwrap_err().to_string();
    assert_eq!(message, "the adapter was trained for another placement: residual, here it is merged");

    let path = dir.path().join(TRAINED_FOR_FILE);
    let whole = fs::read_to_string(&path).unwrap();
    for (old, new, expected) in [
        ("\"version\": 1", "\"version\": 2", "field `version` is 2, expected 1"),
        ("switchable-lora.adapter", "another", "field `format` is another, expected switchable-lora.adapter"),
        ("\"bits\": 3", "\"bits\": 3, \"more\": 1", "unknown field `more`"),
        ("\"bits\": 3", "\"bits\": 17", "17"),
        ("residual", "beside", "beside"),
        ("\"learned_steps\": true", "\"learned_steps\": false", "field `learned_steps` is false"),
    ] {
        fs::write(&path, whole.replace(old, new)).unwrap();
        let message = read(&dir, &[]).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(TRAINED_FOR_FILE), "{message}");
    }
    fs::write(&path, whole).unwrap();
    fs::remove_file(dir.path().join(LEARNED_STEPS_FILE)).unwrap();
    let message = read(&dir, &[]).unwrap_err().to_string();
    assert!(message.contains("field `learned_steps` is true") && message.contains(LEARNED_STEPS_FILE), "{message}");
}

fn bank<'a>(pairs: &'a Pairs, widths: &'a [BitWidth]) -> impl Iterator<Item = WidthAdapters<'a, Flex>> {
    widths.iter().map(|&width| WidthAdapters {
        width,
        pairs: pairs.iter().map(|(site, pair)| (site.as_str(), pair)).collect(),
        options: PeftOptions { trained_for: Some(trained_for(width)), ..options() },
    })
}

fn names_in(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_smaller_bank_leaves_nothing_of_a_larger_one_and_foreign_files_stay() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("adapters");
    save_bank(&dir, bank(&pairs_with_steps(), &[BitWidth::B3])).unwrap();
    save_bank(&dir, bank(&pairs(), &[BitWidth::B8, BitWidth::B4])).unwrap();
    assert_eq!(names_in(&dir), ["bits-4", "bits-8"]);
    fs::write(dir.join("README.md"), "kept").unwrap();
    fs::create_dir(dir.join("notes")).unwrap();
    fs::write(dir.join("notes/note"), "kept").unwrap();
    fs::write(dir.join("bits-4/README.md"), "kept").unwrap();
    save_bank(&dir, bank(&pairs(), &[BitWidth::B4])).unwrap();
    assert_eq!(names_in(&dir), ["README.md", "bits-4", "notes"]);
    assert_eq!(names_in(&dir.join("bits-4")), ["README.md", CONFIG_FILE, MODEL_FILE, TRAINED_FOR_FILE]);
    assert_eq!(fs::read_to_string(dir.join("notes/note")).unwrap(), "kept");

    save_bank(&dir, bank(&pairs(), &[])).unwrap();
    assert_eq!(names_in(&dir), ["README.md", "notes"]);
    let empty = outer.path().join("empty");
    save_bank(&empty, bank(&pairs(), &[BitWidth::B4])).unwrap();
    save_bank(&empty, bank(&pairs(), &[])).unwrap();
    save_bank(outer.path().join("none"), bank(&pairs(), &[])).unwrap();
    assert_eq!(names_in(outer.path()), ["adapters"]);
}

#[test]
fn a_bank_that_cannot_be_saved_leaves_the_old_one() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("adapters");
    save_bank(&dir, bank(&pairs(), &[BitWidth::B4])).unwrap();
    let before = fs::read(dir.join("bits-4").join(MODEL_FILE)).unwrap();
    let broken = pair(2, 2.0, [3, 4], 1);
    let broken = LoraAdapterPair::from_factors(broken.a.val() / 0.0, broken.b.val(), 2.0).unwrap();
    let broken = BTreeMap::from([("h.0.mlp.c_fc".to_owned(), broken)]);
    let fine = BTreeMap::from([("h.0.mlp.c_fc".to_owned(), pair(2, 2.0, [3, 4], 9))]);
    let [eight, four] = [[BitWidth::B8], [BitWidth::B4]];
    let message = save_bank(&dir, bank(&fine, &four).chain(bank(&broken, &eight))).unwrap_err().to_string();
    assert!(message.contains("h.0.mlp.c_fc"), "{message}");
    assert_eq!(names_in(outer.path()), ["adapters"]);
    assert_eq!(names_in(&dir), ["bits-4"]);
    assert_eq!(fs::read(dir.join("bits-4").join(MODEL_FILE)).unwrap(), before);
}

#[test]
fn equal_adapters_give_equal_bytes() {
    let bytes = || {
        let dir = saved(&pairs_with_steps());
        [CONFIG_FILE, MODEL_FILE, LEARNED_STEPS_FILE].map(|file| fs::read(dir.path().join(file)).unwrap())
    };
    let first = bytes();
    // The order of a hash map would be the same by chance once in 24 times.
    for _ in 0..8 {
        assert_eq!(bytes(), first);
    }
}

#[test]
fn a_rank_that_the_tensors_do_not_have_is_an_error() {
    let dir = saved(&pairs());
    edit_config(&dir, |config| config["r"] = 3.into());
    assert!(message(&dir).contains("has shape [4, 6], expected [3, d_in]"));
}

#[test]
fn what_cannot_be_saved_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let none = std::iter::empty::<(&str, &LoraAdapterPair<Flex>)>();
    assert!(matches!(save_peft(&dir, none, &options()), Err(Error::NoAdapters)));

    let broken = pair(2, 2.0, [3, 4], 1);
    let broken = LoraAdapterPair::from_factors(broken.a.val() / 0.0, broken.b.val(), 2.0).unwrap();
    let message = save_peft(&dir, [("h.0.mlp.c_fc", &broken)], &options()).unwrap_err().to_string();
    assert!(message.contains("h.0.mlp.c_fc.lora_A.weight") && message.contains("inf"), "{message}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn folders_that_are_not_those_of_widths_are_errors_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    save_bank(&dir, bank(&pairs(), &[BitWidth::B8, BitWidth::FULL, BitWidth::B4])).unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(dir.path().join("bits-file"), "").unwrap();
    assert_eq!(list_widths(&dir).unwrap(), [BitWidth::B4, BitWidth::B8, BitWidth::FULL]);
    for (name, expected) in [
        ("bits-3", "a folder of adapters, expected an adapter_config.json in it"),
        ("bits-many", "expected a width of 1 to 16 or 32 in its name"),
        ("bits-17", "expected a width of 1 to 16 or 32 in its name"),
        ("bits-04", "expected no zeros before the width"),
    ] {
        fs::create_dir(dir.path().join(name)).unwrap();
        let message = list_widths(&dir).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(expected), "{message}");
        fs::remove_dir(dir.path().join(name)).unwrap();
    }
    assert!(matches!(list_widths(dir.path().join("none")), Err(Error::Io { .. })));
}

/// The pairs with steps of every granularity at all sites but the first.
fn pairs_with_steps() -> Pairs {
    let group = Granularity::per_group(4).unwrap();
    let shapes = [
        (Granularity::PerTensor, [1, 1]),
        (Granularity::PerChannel, [1, 18]),
        (group, [2, 24]),
        (Granularity::PerChannel, [1, 24]),
    ];
    let mut pairs = pairs();
    let sites = ["h.1.attn.c_attn", "h.2.attn.c_attn", "h.1.mlp.c_fc", "h.2.mlp.c_fc"];
    for (site, (granularity, [rows, columns])) in sites.into_iter().zip(shapes) {
        let values: Vec<f32> = (0..rows * columns).map(|index| 0.01 + 0.1 * index as f32).collect();
        let values = Tensor::<Flex, 1>::from_floats(&values[..], &Default::default()).reshape([rows, columns]);
        let step = LearnedStep::from_steps(values, BitWidth::B3, granularity).unwrap();
        let pair = pairs.remove(site).unwrap().with_step(step);
        pairs.insert(site.to_owned(), pair);
    }
    pairs
}

#[test]
fn learned_steps_come_back_bit_for_bit_beside_the_files_that_peft_reads() {
    let (pairs, bare) = (pairs_with_steps(), saved(&pairs()));
    let dir = saved(&pairs);
    for file in [CONFIG_FILE, MODEL_FILE] {
        let read = |dir: &TempDir| fs::read(dir.path().join(file)).unwrap();
        assert_eq!(read(&dir), read(&bare), "{file}");
    }
    assert!(!bare.path().join(LEARNED_STEPS_FILE).exists());
    let loaded = load(&dir).unwrap();
    for (site, pair) in &pairs {
        let step = |pair: &LoraAdapterPair<Flex>| {
            let step = pair.step()?;
            Some((step.bits(), step.granularity(), step.step.dims(), values(step.step.val())))
        };
        assert_eq!(step(&loaded[site]), step(pair), "{site}");
        assert_eq!(step(pair).is_none(), site == "h.0.attn.c_attn");
        assert_eq!(values(loaded[site].a.val()), values(pair.a.val()), "{site}");
    }

    // From bytes, onto the adapters that have none yet.
    let bytes = fs::read(dir.path().join(LEARNED_STEPS_FILE)).unwrap();
    let given = parse_learned_steps(&bytes, PREFIX, load(&bare).unwrap()).unwrap();
    assert_eq!(given.values().filter(|pair| pair.step().is_some()).count(), 4);

    // A later bank without steps leaves none behind.
    let without = super::tests::pairs();
    save_peft(&dir, without.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    assert!(!dir.path().join(LEARNED_STEPS_FILE).exists());
    assert!(load(&dir).unwrap().values().all(|pair| pair.step().is_none()));
}

#[test]
fn bad_files_of_learned_steps_are_errors_that_name_file_and_tensor() {
    const TENSOR: &str = "transformer.h.2.attn.c_attn.step";
    type Tensors = BTreeMap<String, OwnedTensor>;
    type Edit<'a> = &'a dyn Fn(&mut Tensors);
    let set = |tensors: &mut Tensors, value: f32| {
        tensors.get_mut(TENSOR).unwrap().2[8..12].copy_from_slice(&value.to_le_bytes());
    };
    let cases: [(Edit<'_>, String); 9] = [
        (&|tensors| set(tensors, f32::NAN), format!("tensor `{TENSOR}` holds NaN at element 2")),
        (&|tensors| set(tensors, f32::INFINITY), format!("tensor `{TENSOR}` holds inf at element 2")),
        (&|tensors| set(tensors, 0.0), format!("tensor `{TENSOR}` holds 0 at element 2")),
        (&|tensors| set(tensors, -0.0), format!("tensor `{TENSOR}` holds 0 at element 2")),
        (
            &|tensors| tensors.get_mut(TENSOR).unwrap().1 = vec![2, 9],
            format!("tensor `{TENSOR}` has shape [2, 9], expected [1, 18], per-channel"),
        ),
        (&|tensors| tensors.get_mut(TENSOR).unwrap().0 = Dtype::I32, format!("tensor `{TENSOR}` has dtype I32")),
        (&|tensors| drop(tensors.remove(TENSOR)), format!("tensor `{TENSOR}` is missing")),
        (
            &|tensors| {
                let tensor = tensors[TENSOR].clone();
                tensors.insert("transformer.h.9.mlp.c_fc.step".into(), tensor);
            },
            "tensor `transformer.h.9.mlp.c_fc.step` is unexpected, expected `transformer.<site with an adapter>.step`"
                .into(),
        ),
        (
            &|tensors| {
                let tensor = tensors.remove(TENSOR).unwrap();
                tensors.insert(TENSOR.replace("transformer", "gpt"), tensor);
            },
            "tensor `gpt.h.2.attn.c_attn.step` is unexpected, expected `transformer.<site>.step`".into(),
        ),
    ];
    for (edit, expected) in cases {
        let dir = saved(&pairs_with_steps());
        edit_tensors_of(&dir, LEARNED_STEPS_FILE, edit, |_| ());
        let message = message(&dir);
        assert!(message.contains(&expected) && message.contains(LEARNED_STEPS_FILE), "`{message}` is not `{expected}`");
    }

    for (key, value, expected) in [
        ("format", "pt", "field `format` is pt, expected switchable-lora.learned-steps"),
        ("version", "2", "field `version` is 2, expected 1"),
        ("bits", "many", "field `bits` is many"),
        ("bits", "32", "32 bits are full precision"),
        ("granularities", "[]", "field `granularities`: invalid type"),
        ("granularities", "{}", "field `granularities` is transformer.h"),
        ("granularities", r#"{"transformer.h.2.attn.c_attn": "per-row"}"#, "field `granularities`: "),
    ] {
        let dir = saved(&pairs_with_steps());
        edit_tensors_of(&dir, LEARNED_STEPS_FILE, |_| (), |metadata| drop(metadata.insert(key.into(), value.into())));
        let message = message(&dir);
        assert!(message.contains(expected) && message.contains(LEARNED_STEPS_FILE), "`{message}` is not `{expected}`");
    }

    let dir = saved(&pairs_with_steps());
    let path = dir.path().join(LEARNED_STEPS_FILE);
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        assert!(message(&dir).contains(LEARNED_STEPS_FILE), "{keep} bytes");
    }
}

#[test]
fn steps_that_cannot_be_saved_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let of = |value: f32, bits| {
        let step = Tensor::<Flex, 2>::from_floats([[value]], &Default::default());
        pair(2, 2.0, [3, 4], 1).with_step(LearnedStep::from_steps(step, bits, Granularity::PerTensor).unwrap())
    };
    let (fine, other) = (of(0.5, BitWidth::B4), of(0.5, BitWidth::B3));
    let pairs = [("h.0.attn.c_attn", &fine), ("h.0.mlp.c_fc", &other)];
    let message = save_peft(&dir, pairs, &options()).unwrap_err().to_string();
    let expected = "a learned step for 3 bits does not fit the adapter for 4 bits";
    assert!(message.contains("h.0.mlp.c_fc") && message.contains(expected), "{message}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn the_base_model_of_an_adapter_is_a_name_and_no_file() {
    let pairs = pairs();
    let dir = saved(&pairs);
    let path = dir.path().join(CONFIG_FILE);
    let text = fs::read_to_string(&path).unwrap();
    for name in ["../../etc/passwd", "/no/such/folder", "\\u0000", "https://example.org/model"] {
        fs::write(&path, text.replace("openai-community/gpt2", name)).unwrap();
        assert_eq!(load(&dir).unwrap().len(), pairs.len(), "{name}");
    }
}
