use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::tokenizer::SpecialTokens;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer")
}

fn expected() -> (Vec<String>, Map<String, Value>) {
    let text = std::fs::read_to_string(golden().join("expected.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let texts = serde_json::from_value(value["texts"].take()).unwrap();
    let Value::Object(cases) = value["cases"].take() else { panic!("no cases") };
    (texts, cases)
}

/// A copy of a golden folder, each file changed.
fn copied(case: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(golden().join(case)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = change(&std::fs::read(&path).unwrap());
        std::fs::write(folder.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    folder
}

fn refused(dir: &Path) -> String {
    TextTokenizer::from_dir(dir).unwrap_err().to_string()
}

#[track_caller]
fn assert_as_expected(tokenizer: &TextTokenizer, texts: &[String], expected: &Value) {
    assert_eq!(json!(tokenizer.vocab_size()), expected["size"]);
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text).unwrap().ids).collect();
    assert_eq!(json!(ids), expected["ids"]);
    let special = SpecialTokens::of(tokenizer).unwrap();
    assert_eq!(json!(special.end), expected["eos"]);
    // What nothing names is the end.
    let or_end = |name: &str| if expected[name].is_null() { &expected["eos"] } else { &expected[name] }.clone();
    assert_eq!(json!([special.separator, special.pad]), json!([[or_end("sep")], or_end("pad")]));
}

#[test]
fn ids_and_special_tokens_of_every_folder_are_those_of_transformers() {
    let (texts, cases) = expected();
    assert_eq!(cases.len(), 9);
    for (case, expected) in cases {
        println!("{case}");
        assert_as_expected(&TextTokenizer::from_dir(golden().join(case)).unwrap(), &texts, &expected);
    }
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_any_file() {
    let (texts, cases) = expected();
    for (case, expected) in cases {
        println!("{case}");
        let marked = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).unwrap().replace('\n', "\r\n");
            ["\u{feff}".as_bytes(), text.as_bytes()].concat()
        };
        assert_as_expected(&TextTokenizer::from_dir(copied(&case, marked).path()).unwrap(), &texts, &expected);
    }
}

#[test]
fn a_tokenizer_saved_in_a_folder_reads_back_with_its_special_tokens() {
    let (texts, cases) = expected();
    for (case, expected) in cases {
        println!("{case}");
        let folder = TempDir::new().unwrap();
        TextTokenizer::from_dir(golden().join(case)).unwrap().save_in(folder.path()).unwrap();
        assert_as_expected(&TextTokenizer::from_dir(folder.path()).unwrap(), &texts, &expected);
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [TOKENIZER, CONFIG]);
    }
}

#[test]
fn the_end_is_what_config_json_names_by_its_id_where_no_other_file_names_it() {
    let folder = copied("added_tokens", <[u8]>::to_vec);
    let path = folder.path().join("config.json");
    let end = |config: Value| {
        std::fs::write(&path, config.to_string()).unwrap();
        SpecialTokens::of(&TextTokenizer::from_dir(folder.path()).unwrap()).unwrap()
    };
    let plain = end(json!({"model_type": "gpt2"}));
    assert_eq!((plain.end, plain.pad), (0, 0));
    let named = end(json!({"eos_token_id": 286, "pad_token_id": 284, "sep_token_id": 283}));
    assert_eq!((named.end, named.pad, named.separator), (286, 284, vec![283]));
    assert_eq!(end(json!({"eos_token_id": [286, 0]})).end, 286);
    // The published vocabulary's id in a folder of another vocabulary.
    assert_eq!(end(json!({"eos_token_id": 50_256})).end, 0);
}

#[test]
fn ids_that_the_vocabulary_does_not_give_are_refused() {
    let folder = copied("added_tokens", <[u8]>::to_vec);
    for (id, shown) in [(json!(300), "300"), (json!(17), "17"), (json!("x"), "\"x\""), (json!(-1), "-1")] {
        std::fs::write(folder.path().join(ADDED_TOKENS), json!({"<sep>": id}).to_string()).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(ADDED_TOKENS) && message.contains("<sep>") && message.contains(shown), "{message}");
    }
    std::fs::write(folder.path().join(ADDED_TOKENS), "{\"<sep>\": 283").unwrap();
    let message = refused(folder.path());
    assert!(message.contains(ADDED_TOKENS) && message.contains("line 1"), "{message}");

    let folder = copied("json_decoder", <[u8]>::to_vec);
    let path = folder.path().join(TOKENIZER);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["added_tokens"][0]["id"] = json!(9);
    std::fs::write(&path, json.to_string()).unwrap();
    let message = refused(folder.path());
    assert!(message.contains(TOKENIZER) && message.contains("<|endoftext|>") && message.contains('9'), "{message}");
}

#[test]
fn fields_of_another_kind_are_refused_by_name() {
    let cases = [
        (json!({"eos_token": 5}), "eos_token"),
        (json!({"pad_token": {"special": true}}), "pad_token"),
        (json!({"sep_token": {"content": "<sep>", "lstrip": "no"}}), "lstrip"),
        (json!({"added_tokens_decoder": []}), "added_tokens_decoder"),
        (json!({"added_tokens_decoder": {"x": {"content": "a"}}}), "added_tokens_decoder"),
        (json!({"added_tokens_decoder": {"9": {"content": "a"}, "09": {"content": "b"}}}), "each token id once"),
        (json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": 1}), "add_prefix_space"),
        (json!([1]), "<root>"),
    ];
    let folder = copied("plain", <[u8]>::to_vec);
    for (config, field) in cases {
        std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(CONFIG) && message.contains(field), "{message}");
    }
}

#[test]
fn a_folder_of_another_tokenizer_says_what_it_is_and_what_to_do() {
    for (file, what) in FOREIGN {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join(file), "x").unwrap();
        let message = refused(folder.path());
        let parts = [file, what, "tokenizer.json", "save_pretrained"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    for (file, other) in [(VOCABULARY, MERGES), (MERGES, VOCABULARY)] {
        let folder = TempDir::new().unwrap();
        std::fs::copy(golden().join("plain").join(file), folder.path().join(file)).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(file) && message.contains(other), "{message}");
    }
}

#[test]
fn a_file_of_absurd_length_is_refused_before_it_is_read() {
    let folder = TempDir::new().unwrap();
    let file = File::create(folder.path().join(TOKENIZER)).unwrap();
    file.set_len(MOST_BYTES << 10).unwrap();
    let message = refused(folder.path());
    assert!(message.contains(TOKENIZER) && message.contains("at most"), "{message}");
}

#[test]
fn a_line_of_merges_that_is_no_pair_is_named() {
    let folder = copied("plain", <[u8]>::to_vec);
    std::fs::write(folder.path().join(MERGES), "#version: 0.2\nĠ t\na b c\n").unwrap();
    let message = refused(folder.path());
    assert!(message.contains(MERGES) && message.contains("line 3"), "{message}");
}
