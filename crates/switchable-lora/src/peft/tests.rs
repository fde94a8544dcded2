use std::collections::BTreeMap;

use burn::{
    backend::Flex,
    tensor::{Tensor, bf16, f16},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use super::*;
use crate::{LoraAdapterPair, LoraConfig};

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
    let path = dir.path().join(MODEL_FILE);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
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
fn patterns_match_the_ends_of_names_and_rank_stabilised_scales_are_kept() {
    let dir = saved(&BTreeMap::from([("h.0.attn.c_attn".to_owned(), pair(4, 8.0, [6, 18], 1))]));
    edit_config(&dir, |config| {
        config["alpha_pattern"] = serde_json::json!({ "attn.c_attn": 6, "x_attn.c_attn": 99 });
        config["use_rslora"] = true.into();
        config["future_field"] = 1.into();
    });
    let loaded = load(&dir).unwrap();
    assert!((loaded["h.0.attn.c_attn"].scaling() - 6.0 / 2.0).abs() < 1e-12);
}

#[test]
fn configurations_that_compute_something_else_are_errors_that_name_the_field() {
    for (field, value, expected) in [
        ("peft_type", serde_json::json!("IA3"), "field `peft_type` is IA3, expected LORA"),
        ("use_dora", serde_json::json!(true), "field `use_dora` is true, expected false"),
        ("lora_bias", serde_json::json!(true), "field `lora_bias` is true, expected false"),
        ("bias", serde_json::json!("all"), "field `bias` is all, expected none"),
        ("r", serde_json::json!(0), "field `r` is 0, expected at least 1"),
        ("r", serde_json::json!("four"), "invalid json"),
        ("lora_alpha", serde_json::json!(-1), "field `lora_alpha` is -1"),
        ("modules_to_save", serde_json::json!(["qa_outputs"]), "field `modules_to_save` is qa_outputs"),
        ("rank_pattern", serde_json::json!({ "h\\.[0-9]+": 2 }), "field `rank_pattern` is h\\.[0-9]+"),
    ] {
        let dir = saved(&pairs());
        edit_config(&dir, |config| config[field] = value);
        let message = message(&dir);
        assert!(message.contains(expected) && message.contains(CONFIG_FILE), "{message}");
    }
    let dir = saved(&pairs());
    edit_config(&dir, |config| {
        config.as_object_mut().unwrap().remove("lora_alpha");
    });
    assert!(message(&dir).contains("missing field `lora_alpha`"));
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
fn only_folders_with_an_adapter_count_as_widths() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs();
    for width in [BitWidth::B8, BitWidth::FULL, BitWidth::B4] {
        let folder = width_folder(&dir, width);
        save_peft(&folder, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    }
    fs::create_dir(dir.path().join("bits-3")).unwrap();
    fs::create_dir(dir.path().join("bits-many")).unwrap();
    assert_eq!(list_widths(&dir).unwrap(), [BitWidth::B4, BitWidth::B8, BitWidth::FULL]);
    assert!(matches!(list_widths(dir.path().join("none")), Err(Error::Io { .. })));
}
