//! Folders that are written, and read back.

use super::*;

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
