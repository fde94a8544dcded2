//! `--model` and `--adapters` that name something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use switchable_quant::default_model::{QuestionSet, questions};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");

fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("valid input");
    tests.parent().and_then(Path::parent).expect("valid input").join("examples").join(name)
}

/// What a command that is refused says.
#[track_caller]
fn refused(dir: &Path, command: &str) -> String {
    let mut words = command.split_whitespace();
    let mut program = Command::new(program(words.next().expect("a program")));
    let output = program.args(words).current_dir(dir).stdin(Stdio::null()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command}: {errors}");
    errors
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("it is there") {
        let path = entry.expect("it is read").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).expect("it is copied");
        }
    }
}

#[test]
fn what_is_no_model_is_refused_with_what_to_name_instead() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    copy(Path::new(MODEL), &at("results/model"));
    copy(&Path::new(MODEL).join("adapters"), &at("bank"));
    copy(&at("bank/bits-4"), &at("adapter"));
    for folder in ["empty", "gguf", "gguf-config", "weights", "tokenizer"] {
        fs::create_dir_all(at(folder)).expect("a folder");
    }
    fs::copy(at("results/model/tokenizer.json"), at("tokenizer/tokenizer.json")).expect("it is copied");
    fs::copy(at("results/model/config.json"), at("gguf-config/config.json")).expect("it is copied");
    for file in ["gguf/model.Q4_K_M.gguf", "gguf-config/model.gguf", "weights/model.safetensors", "text.txt"] {
        fs::write(at(file), "some text").expect("it is written");
    }
    let data = questions(QuestionSet::Search).expect("they are in the program").limited(4);
    data.write(at("data.json")).expect("it is written");
    let commands = [
        "evaluate --data data.json",
        "pack_gpt2 --out packed",
        "train_bank --train data.json",
        "import_gpt2 --ids 1,2",
    ];
    for (model, expected) in [
        ("adapter", "is an adapter, expected the model that it was trained on: `--model"),
        (
            "bank",
            "is a folder of adapters, expected the model that they were trained on: `--model BASE --adapters bank`",
        ),
        ("results", "is a folder of results, expected `--model results/model`"),
        ("results/model/model.safetensors", "is a file, expected `--model results/model`"),
        ("gguf/model.Q4_K_M.gguf", "magic is \"some\", expected \"GGUF\""),
        ("text.txt", "is a file, expected a folder with config.json"),
        ("gguf", "holds model.Q4_K_M.gguf, expected that file: `--model gguf/model.Q4_K_M.gguf`"),
        ("gguf-config", "`model.gguf` is a model of its own: name the file in the place of the folder"),
        ("weights", "holds model.safetensors without a config.json"),
        ("tokenizer", "holds a tokenizer alone"),
        ("empty", "config.json is missing"),
    ] {
        for command in &commands[..if model == "gguf-config" { 2 } else { 4 }] {
            let error = refused(dir.path(), &format!("{command} --model {model}"));
            assert!(error.contains(expected) && error.contains(model), "{command} --model {model}: {error}");
        }
    }
    for (adapters, expected) in [
        ("adapter", "found one adapter: move its files into adapter/bits-N"),
        ("results/model", "whose adapters are in results/model/adapters"),
        ("results", "whose adapters are in results/model/adapters"),
        ("text.txt", "found a file"),
        ("empty", "found none"),
        ("missing", "missing"),
    ] {
        let error = refused(dir.path(), &format!("pack_gpt2 --out packed --adapters {adapters}"));
        assert!(error.contains(expected) && error.contains(adapters), "--adapters {adapters}: {error}");
    }
    assert!(!at("packed").exists(), "something was written");
}

#[test]
fn a_gguf_file_is_a_model_by_whatever_name() {
    let dir = tempfile::tempdir().expect("a folder");
    for family in ["llama", "gpt2"] {
        let golden = format!("{MODEL}/../../{family}-model/tests/golden/gguf/codes.gguf");
        fs::copy(&golden, dir.path().join("model.gguf")).expect("it is copied");
        fs::copy(&golden, dir.path().join("blob")).expect("it is copied");
        fs::write(dir.path().join("text.txt"), "Ada keeps a crab and the crab keeps a crow.").expect("it is written");
        let run = |words: &str| {
            let mut words = words.split_whitespace();
            let mut program = Command::new(program(words.next().expect("a program")));
            let output = program.args(words).current_dir(dir.path()).stdin(Stdio::null()).output().expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{family}: {errors}");
            (String::from_utf8_lossy(&output.stdout).into_owned(), errors)
        };
        for command in ["perplexity --text text.txt --tokens 16 --bits 32,4", "import_gpt2 --ids 1,2,3"] {
            let (file, blob) = (run(&format!("{command} --model model.gguf")), run(&format!("{command} --model blob")));
            assert_eq!(file.0, blob.0, "{family}: {command}");
            assert!(!file.0.is_empty());
        }
        let (_, errors) = run("perplexity --text text.txt --tokens 16 --bits 4 --model model.gguf");
        assert!(errors.contains("rounding to the same grid shows nothing"), "{errors}");
    }
    let error = refused(dir.path(), "perplexity --text text.txt --model model.gguf --adapters none");
    assert!(error.contains("none"), "{error}");
}
