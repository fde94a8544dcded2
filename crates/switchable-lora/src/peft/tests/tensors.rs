//! The tensors of an adapter.

use super::*;

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
