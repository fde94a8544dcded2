//! Model folders that are damaged or lie: an error that names file and field or tensor, no panic.

use safetensors::Dtype;
use serde_json::{Value, json};

use gpt2_model::{
    Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, MissingHead, ModelConfig, ModelOptions, ModelWeights, PackModel,
    PackOptions, PackedForm, SwitchableModel, WeightSource,
};

use crate::support::{Folder, Plain, StoredTensor, device, golden, skip_without_device};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn load(folder: &Folder) -> gpt2_model::Result<Gpt2<Plain>> {
    Gpt2::load(folder.path(), &ModelOptions::default(), &device())
}

/// Asserts that the folder does not load and that the error names all of `parts`.
#[track_caller]
fn refused(folder: &Folder, parts: &[&str]) {
    let message = load(folder).map(|_| ()).expect_err("the folder is damaged").to_string();
    let root = folder.path().to_str().expect("a path");
    for part in [root].iter().chain(parts) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn with_weights(bytes: impl AsRef<[u8]>) -> Folder {
    let folder = Folder::copy_of("tiny");
    folder.write(WEIGHTS, bytes);
    folder
}

/// Length of the JSON header of the golden weights and all their bytes.
fn golden_weights() -> (usize, Vec<u8>) {
    let bytes = Folder::copy_of("tiny").read(WEIGHTS);
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    (usize::try_from(length).expect("a length"), bytes)
}

#[test]
fn weights_cut_anywhere_are_refused() {
    skip_without_device!();
    let (header, bytes) = golden_weights();
    let data = 8 + header;
    for length in
        [0, 1, 7, 8, 9, data / 2, data - 1, data, data + 1, usize::midpoint(data, bytes.len()), bytes.len() - 1]
    {
        refused(&with_weights(&bytes[..length]), &[WEIGHTS]);
    }
}

#[test]
fn weights_with_bytes_behind_their_data_are_refused() {
    skip_without_device!();
    let (_, mut bytes) = golden_weights();
    bytes.push(0);
    refused(&with_weights(bytes), &[WEIGHTS]);
}

#[test]
fn a_lying_header_length_is_refused() {
    skip_without_device!();
    let (header, bytes) = golden_weights();
    for length in [0, 1, header - 1, header + 1, bytes.len(), usize::MAX / 2, usize::MAX - 8, usize::MAX] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&(length as u64).to_le_bytes());
        refused(&with_weights(lying), &[WEIGHTS]);
    }
}

#[test]
fn a_header_that_lies_about_its_tensors_is_refused() {
    skip_without_device!();
    let lies = [
        ("beyond the file", json!({"wte.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}), 8),
        ("backwards", json!({"wte.weight": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}), 8),
        ("another size", json!({"wte.weight": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}), 8),
        ("too large", json!({"wte.weight": {"dtype": "F32", "shape": [u64::MAX, 4], "data_offsets": [0, 8]}}), 8),
        ("a hole", json!({"wte.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), 8),
        ("unknown type", json!({"wte.weight": {"dtype": "Q7", "shape": [2], "data_offsets": [0, 8]}}), 8),
        ("no object", json!([1, 2, 3]), 0),
    ];
    for (what, header, data) in lies {
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        println!("{what}");
        refused(&with_weights(bytes), &[WEIGHTS]);
    }
}

#[test]
fn no_changed_byte_of_the_header_panics() {
    skip_without_device!();
    let (header, bytes) = golden_weights();
    let mut refused = 0;
    for at in (0..8 + header).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] = changed[at].wrapping_add(1 + (at % 40) as u8);
        refused += usize::from(load(&with_weights(changed)).is_err());
    }
    // Only a change of the free metadata can go unnoticed.
    assert!(refused > (8 + header) / 3 - 40, "{refused} of {} refused", (8 + header) / 3);
}

#[test]
fn a_config_that_does_not_match_its_weights_is_refused() {
    skip_without_device!();
    let cases: [(&str, Value, &[&str]); 6] = [
        ("n_layer", json!(2), &[WEIGHTS, "config.json", "n_layer", "h.2."]),
        ("n_layer", json!(4), &[WEIGHTS, "h.3.", "missing"]),
        ("n_embd", json!(24), &[WEIGHTS, "wte.weight", "[97, 20]", "[97, 24]"]),
        ("vocab_size", json!(96), &[WEIGHTS, "wte.weight", "[97, 20]", "[96, 20]"]),
        ("n_positions", json!(64), &[WEIGHTS, "wpe.weight", "[32, 20]", "[64, 20]"]),
        ("n_inner", json!(40), &[WEIGHTS, "h.0.mlp.c_fc.weight", "[20, 80]", "[20, 40]"]),
    ];
    for (field, value, parts) in cases {
        let folder = Folder::copy_of("tiny");
        folder.edit_json("config.json", |config| config[field] = value);
        refused(&folder, parts);
    }
}

#[test]
fn a_config_that_is_not_an_object_is_refused() {
    skip_without_device!();
    for text in ["[1, 2]", "\"gpt2\"", "null", "{", "", "{} {}", "\u{0}"] {
        let folder = Folder::copy_of("tiny");
        folder.write("config.json", text);
        refused(&folder, &["config.json"]);
    }
    let folder = Folder::copy_of("tiny");
    folder.write("config.json", [0xff, 0xfe, 0x00]);
    refused(&folder, &["config.json"]);
}

#[test]
fn huge_sizes_in_a_config_are_refused_before_memory_is_asked_for() {
    skip_without_device!();
    for field in ["vocab_size", "n_positions", "n_embd", "n_layer", "n_inner"] {
        let folder = Folder::copy_of("tiny");
        folder.edit_json("config.json", |config| {
            config["n_head"] = json!(1);
            config[field] = json!(u32::MAX);
        });
        refused(&folder, &[]);
    }
}

#[test]
fn every_missing_tensor_is_named() {
    skip_without_device!();
    let mut names = Vec::new();
    Folder::copy_of("tiny").edit_tensors(WEIGHTS, |tensors| names.extend(tensors.keys().cloned()));
    assert_eq!(names.len(), 4 + 3 * 12);
    for name in names {
        let folder = Folder::copy_of("tiny");
        folder.edit_tensors(WEIGHTS, |tensors| drop(tensors.remove(&name)));
        refused(&folder, &[WEIGHTS, &name, "missing"]);
    }
}

#[test]
fn a_type_that_is_no_float_is_refused() {
    skip_without_device!();
    for (dtype, size) in [(Dtype::I64, 8), (Dtype::U8, 1), (Dtype::BOOL, 1), (Dtype::F64, 8)] {
        let folder = Folder::copy_of("tiny");
        folder.edit_tensors(WEIGHTS, |tensors| {
            let tensor = tensors.get_mut("transformer.h.1.mlp.c_fc.bias").expect("a bias");
            *tensor = StoredTensor { dtype, shape: vec![80], bytes: vec![0; 80 * size] };
        });
        refused(&folder, &[WEIGHTS, "h.1.mlp.c_fc.bias", &format!("{dtype:?}")]);
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    skip_without_device!();
    let cases: [(&str, &[u8], &str); 5] = [
        ("tiny", &f32::NAN.to_le_bytes(), "NaN"),
        ("tiny", &f32::NEG_INFINITY.to_le_bytes(), "-inf"),
        ("tiny_f16", &half::f16::INFINITY.to_le_bytes(), "inf"),
        ("tiny_f16", &half::f16::NAN.to_le_bytes(), "NaN"),
        ("tiny_bf16", &half::bf16::NAN.to_le_bytes(), "NaN"),
    ];
    for (case, value, shown) in cases {
        let folder = Folder::copy_of(case);
        folder.edit_tensors(WEIGHTS, |tensors| {
            let tensor = tensors.get_mut("transformer.ln_f.weight").expect("a gain");
            tensor.bytes[3 * value.len()..4 * value.len()].copy_from_slice(value);
        });
        refused(&folder, &[WEIGHTS, "ln_f.weight", shown, "element 3"]);
    }
}

#[test]
fn a_missing_shard_is_named() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny_sharded");
    std::fs::remove_file(folder.join("model-00002-of-00003.safetensors")).expect("it was there");
    refused(&folder, &["model-00002-of-00003.safetensors"]);
}

#[test]
fn a_shard_outside_the_folder_is_not_followed() {
    skip_without_device!();
    let outside = golden("tiny").join(WEIGHTS);
    for path in ["../model.safetensors", "a/../../x", "..", "", "/", outside.to_str().expect("a path")] {
        let folder = Folder::copy_of("tiny_sharded");
        folder.edit_json(INDEX, |index| index["weight_map"]["transformer.ln_f.bias"] = json!(path));
        refused(&folder, &[INDEX, "weight_map"]);
    }
}

#[test]
fn an_index_that_names_a_tensor_its_shard_does_not_hold_is_refused() {
    skip_without_device!();
    let shard = "model-00001-of-00003.safetensors";
    // Nowhere, and in another shard than the index says.
    for name in ["transformer.h.0.attn.c_attn.wobble", "transformer.ln_f.bias"] {
        let folder = Folder::copy_of("tiny_sharded");
        folder.edit_json(INDEX, |index| index["weight_map"][name] = json!(shard));
        refused(&folder, &[shard, name]);
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny_sharded");
    folder.write("again.safetensors", folder.read("model-00001-of-00003.safetensors"));
    folder.edit_json(INDEX, |index| index["weight_map"]["transformer.h.0.ln_1.bias"] = json!("again.safetensors"));
    refused(&folder, &["00001-of-00003.safetensors", "in two files"]);
}

#[test]
fn an_index_that_is_no_index_is_refused() {
    skip_without_device!();
    for text in ["[]", "{}", "{\"weight_map\": []}", "{\"weight_map\": {\"a\": 1}}", "{\"weight_map\": {}}", "", "{"] {
        let folder = Folder::copy_of("tiny_sharded");
        folder.write(INDEX, text);
        refused(&folder, &[]);
    }
}

#[test]
fn a_folder_without_its_files_is_refused() {
    skip_without_device!();
    refused(&Folder::empty(), &["config.json"]);
    let folder = Folder::copy_of("tiny");
    std::fs::remove_file(folder.join(WEIGHTS)).expect("it was there");
    refused(&folder, &[WEIGHTS, INDEX]);
    std::fs::create_dir(folder.join(WEIGHTS)).expect("a folder");
    refused(&folder, &[WEIGHTS]);
}

#[test]
fn weights_of_another_format_say_what_they_are_and_what_converts_them() {
    skip_without_device!();
    for file in ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"] {
        let folder = Folder::copy_of("tiny");
        std::fs::rename(folder.join(WEIGHTS), folder.join(file)).expect("it was there");
        refused(&folder, &[WEIGHTS, file, "GPT2LMHeadModel.from_pretrained", "save_pretrained"]);
    }
    let folder = Folder::copy_of("tiny_qa");
    std::fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).expect("it was there");
    refused(&folder, &["transformers.GPT2ForQuestionAnswering.from_pretrained"]);
    let folder = Folder::copy_of("tiny");
    std::fs::rename(folder.join(WEIGHTS), folder.join("adapter_config.json")).expect("it was there");
    refused(&folder, &["PEFT adapter"]);
}

#[test]
fn a_prefix_that_a_wrapper_put_before_every_name_is_read_over() {
    skip_without_device!();
    let expected = load(&Folder::copy_of("tiny")).expect("the golden folder");
    for prefix in ["module.", "_orig_mod.", "module._orig_mod."] {
        let folder = Folder::copy_of("tiny");
        folder.edit_tensors(WEIGHTS, |tensors| {
            *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
        });
        let loaded = load(&folder).expect(prefix);
        for ((name, got), (_, want)) in loaded.named_parameters().iter().zip(expected.named_parameters()) {
            assert_eq!(got.values(), want.values(), "{prefix}{name}");
        }
    }
    // Half of the names: it is not plain what is meant.
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors(WEIGHTS, |tensors| {
        let tensor = tensors.remove("transformer.wpe.weight").expect("it is there");
        tensors.insert("module.transformer.wpe.weight".into(), tensor);
    });
    refused(&folder, &["wpe.weight", "missing"]);
}

#[test]
fn a_mixture_of_names_with_and_without_the_body_is_read_and_a_tensor_in_both_forms_refused() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors(WEIGHTS, |tensors| {
        let tensor = tensors.remove("transformer.wpe.weight").expect("it is there");
        tensors.insert("wpe.weight".into(), tensor);
    });
    assert!(load(&folder).is_ok());
    folder.edit_tensors(WEIGHTS, |tensors| {
        let tensor = tensors["wpe.weight"].clone();
        tensors.insert("transformer.wpe.weight".into(), tensor);
    });
    refused(&folder, &[WEIGHTS, "`wpe.weight`"]);
}

#[test]
fn a_tensor_that_the_configuration_gives_no_meaning_is_refused_by_name() {
    skip_without_device!();
    for name in ["transformer.h.0.attn.q_norm.weight", "transformer.h.1.crossattention.c_attn.weight", "lm_head.bias"] {
        let folder = Folder::copy_of("tiny");
        folder.edit_tensors(WEIGHTS, |tensors| {
            let tensor = tensors["transformer.ln_f.bias"].clone();
            tensors.insert(name.into(), tensor);
        });
        refused(&folder, &[WEIGHTS, name]);
    }
    // Masks that old files hold, and heads of other tasks.
    for name in
        ["transformer.h.0.attn.bias", "h.1.attn.masked_bias", "score.weight", "multiple_choice_head.summary.bias"]
    {
        let folder = Folder::copy_of("tiny");
        folder.edit_tensors(WEIGHTS, |tensors| {
            let tensor = tensors["transformer.ln_f.bias"].clone();
            tensors.insert(name.into(), tensor);
        });
        assert!(load(&folder).is_ok(), "{name}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_json_file() {
    skip_without_device!();
    for (case, file) in [("tiny", "config.json"), ("tiny_sharded", INDEX)] {
        let folder = Folder::copy_of(case);
        folder.write(file, [b"\xef\xbb\xbf".as_slice(), &folder.read(file)].concat());
        assert!(load(&folder).is_ok(), "{file}");
    }
}

#[test]
fn a_config_that_is_cut_names_the_line() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.write("config.json", "{\n \"model_type\": \"gpt2\",\n \"n_embd\": ");
    refused(&folder, &["config.json", "line 3"]);
    let file = std::fs::File::create(folder.join("config.json")).expect("a file");
    file.set_len(1 << 40).expect("a sparse file");
    refused(&folder, &["config.json", "at most"]);
}

#[test]
fn a_config_of_more_parameters_than_can_be_is_refused() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.edit_json("config.json", |config| {
        config["n_head"] = json!(1);
        for field in ["n_layer", "n_embd", "n_inner", "vocab_size"] {
            config[field] = json!(u32::MAX);
        }
    });
    refused(&folder, &["config.json", "parameters"]);
    let config = Gpt2Config { n_layer: usize::MAX, ..Gpt2Config::new(97, 32, 20, 3, 4) };
    let random = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 1, &device());
    assert!(random.map(|_| ()).expect_err("too many").to_string().contains("parameters"));
}

#[test]
fn packed_weights_beside_others_are_refused() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    let model = load(&folder).expect("the golden folder");
    let packed = Folder::empty();
    model.save_packed(packed.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    for (file, bytes) in [(WEIGHTS, folder.read(WEIGHTS)), (INDEX, b"{}".to_vec())] {
        packed.write(file, bytes);
        refused(&packed, &["packed.safetensors", file, "one of them"]);
        let loaded = Gpt2::<Plain>::load_packed(packed.path(), &ModelOptions::default(), &device());
        let message = loaded.map(|_| ()).expect_err("two weights").to_string();
        assert!(message.contains(file), "{message}");
        std::fs::remove_file(packed.join(file)).expect("it was there");
    }
}

#[test]
fn a_packed_tensor_that_the_configuration_gives_no_meaning_is_refused_by_name() {
    skip_without_device!();
    let folder = Folder::empty();
    let model = load(&Folder::copy_of("tiny")).expect("the golden folder");
    model.save_packed(folder.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    let (file, name) = ("packed.safetensors", "transformer.h.0.attn.q_norm.weight");
    let bytes = folder.read(file);
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))).expect("a length");
    let (header, data) = bytes[8..].split_at(length);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    header[name] = json!({"dtype": "F32", "shape": [0], "data_offsets": [data.len(), data.len()]});
    let header = header.to_string();
    folder.write(file, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat());
    let loaded = Gpt2::<Plain>::load_packed(folder.path(), &ModelOptions::default(), &device());
    let message = loaded.map(|_| ()).expect_err("an unknown tensor").to_string();
    assert!(message.contains(file) && message.contains(name), "{message}");
}

#[test]
fn a_packed_language_model_is_no_span_model_and_says_what_to_do() {
    skip_without_device!();
    let folder = Folder::empty();
    let model = load(&Folder::copy_of("tiny")).expect("the golden folder");
    model.save_packed(folder.path(), PackedForm::Nested, &PackOptions::default()).expect("it packs");
    let loaded = Gpt2ForQuestionAnswering::<Plain>::load_packed(
        folder.path(),
        &ModelOptions::default(),
        MissingHead::Refuse,
        &device(),
    );
    let message = loaded.map(|_| ()).expect_err("no head").to_string();
    let parts = ["packed.safetensors", "span head", "pack"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    for (case, holds) in [("tiny", false), ("tiny_qa", true)] {
        assert_eq!(Gpt2ForQuestionAnswering::<Plain>::holds_head(golden(case)).expect("it opens"), holds);
    }
    assert!(!Gpt2ForQuestionAnswering::<Plain>::holds_head(folder.path()).expect("it opens"));
}

#[test]
fn a_pickle_is_not_read() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    std::fs::remove_file(folder.join(WEIGHTS)).expect("it was there");
    // As `torch.save` writes the call of a function.
    folder.write("pytorch_model.bin", b"\x80\x02cos\nsystem\nq\0X\x04\0\0\0exitq\x01\x85q\x02Rq\x03.");
    refused(&folder, &["model.safetensors"]);
}

#[test]
fn a_language_model_is_no_span_model_unless_a_random_head_is_asked_for() {
    skip_without_device!();
    let load =
        |missing| Gpt2ForQuestionAnswering::<Plain>::load(golden("tiny"), &ModelOptions::default(), missing, &device());
    let message = load(MissingHead::Refuse).map(|_| ()).expect_err("it has no span head").to_string();
    assert!(message.contains("qa_outputs.weight"), "{message}");
    assert!(load(MissingHead::Random(1)).is_ok());
}

#[test]
fn a_damaged_span_head_is_not_replaced_by_a_random_one() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny_qa");
    folder.edit_tensors(WEIGHTS, |tensors| drop(tensors.remove("qa_outputs.bias")));
    let options = ModelOptions::default();
    let loaded = Gpt2ForQuestionAnswering::<Plain>::load(folder.path(), &options, MissingHead::Random(1), &device());
    let message = loaded.map(|_| ()).expect_err("half a head").to_string();
    assert!(message.contains("qa_outputs.bias"), "{message}");
}

#[test]
fn embedded_weights_are_checked_under_the_name_given() {
    skip_without_device!();
    let config = Gpt2Config::load(golden("tiny/config.json")).expect("the golden config");
    let sources = vec![WeightSource::embedded("default weights", b"not safetensors")];
    let loaded = Gpt2::<Plain>::from_sources(&config, sources, &ModelOptions::default(), &device());
    let message = loaded.map(|_| ()).expect_err("damaged").to_string();
    assert!(message.contains("default weights"), "{message}");
}
