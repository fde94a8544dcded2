//! Texts that `generate` continues, through the program itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");

fn generate(arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().expect("a path");
    let program: PathBuf = tests.parent().and_then(Path::parent).expect("a folder").join("examples/generate");
    let mut command = Command::new(program);
    command.args(arguments).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command.output().expect("it runs")
}

#[track_caller]
fn text(arguments: &[&str]) -> String {
    let output = generate(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

#[track_caller]
fn refused(arguments: &[&str], code: i32) -> String {
    let output = generate(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    error
}

/// The built-in model as a folder, with what is asked for of generation.
fn folder(generation: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(MODEL).join(file), dir.path().join(file)).expect("it is copied");
    }
    fs::write(dir.path().join("generation_config.json"), generation).expect("it is written");
    dir
}

#[test]
fn the_built_in_model_continues_a_text_without_flags() {
    let whole = text(&[]);
    assert!(whole.ends_with('\n') && whole.split(' ').count() > 8, "{whole}");
    assert_eq!(text(&["--kv-bits", "32"]), whole, "the default is full precision");
    let short = text(&["--max-new-tokens", "2"]);
    assert!(whole.starts_with(short.trim_end()) && short.len() < whole.len(), "{short}");
}

#[test]
fn several_texts_are_those_that_each_gets_alone() {
    let prompts = ["The", "Where does the baker live? The town", "A river"];
    let flags = ["--max-new-tokens", "8", "--kv-bits", "8", "--bits", "8"];
    let together = text(&[&flags[..], &["--prompt"], &prompts].concat());
    let alone = prompts.map(|prompt| text(&[&flags[..], &["--prompt", prompt]].concat()));
    assert_eq!(together, alone.concat());
}

#[test]
fn draws_follow_their_seed() {
    let draw = |seed: &str| text(&["--temperature", "3", "--top-k", "50", "--max-new-tokens", "12", "--seed", seed]);
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
    assert_ne!(text(&["--repetition-penalty", "5"]), text(&[]));
}

#[test]
fn a_folder_says_how_its_texts_end_unless_a_flag_does() {
    let prompt = ["--prompt", "The", "--model"];
    let run = |generation: &str, flags: &[&str]| {
        let dir = folder(generation);
        text(&[&prompt[..], &[dir.path().to_str().expect("a path")], flags].concat())
    };
    let whole = run(r#"{"max_new_tokens": 6}"#, &[]);
    let shorter = run(r#"{"max_new_tokens": 3}"#, &[]);
    assert!(whole.starts_with(shorter.trim_end()) && shorter.len() < whole.len(), "{whole}{shorter}");
    assert_eq!(run(r#"{"max_new_tokens": 3}"#, &["--max-new-tokens", "6"]), whole);
    let dir = folder(r#"{"num_beams": 4}"#);
    let error = refused(&[&prompt[..], &[dir.path().to_str().expect("a path")]].concat(), 1);
    assert!(error.contains("generation_config.json") && error.contains("`num_beams` is 4"), "{error}");
}

#[test]
fn a_flag_that_is_wrong_is_named() {
    for (flag, value) in [
        ("--temperature", "0"),
        ("--temperature", "nan"),
        ("--top-k", "0"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--repetition-penalty", "inf"),
        ("--max-new-tokens", "0"),
        ("--seed", "x"),
        ("--bits", "33"),
        ("--kv-bits", "0"),
    ] {
        let error = refused(&[flag, value], 2);
        assert!(error.contains(flag), "{flag} {value}: {error}");
    }
    for arguments in [&["--seed", "1"][..], &["--greedy", "--top-k", "2"], &["--model", MODEL]] {
        refused(arguments, 2);
    }
    for (arguments, words) in [
        (&["--stop", "no such token"][..], "`--stop no such token`"),
        (&["--prompt", "The", ""], "`--prompt` number 2 is empty"),
        (&["--kv-bits", "1"], "kv cache of block `h.0`"),
        (&["--prompt", &"The ".repeat(2000)], "`--prompt` number 1"),
    ] {
        let error = refused(arguments, 1);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}
