//! `--json`: one object on standard output, everything else on standard error.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(name: &str, arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().expect("valid input");
    let program: PathBuf =
        tests.parent().and_then(|dir| dir.parent()).expect("valid input").join("examples").join(name);
    Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("valid input")
}

fn object(name: &str, arguments: &[&str]) -> Value {
    let output = run(name, &[arguments, &["--json"]].concat());
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {error}");
    let value: Value = serde_json::from_str(&said).unwrap_or_else(|fault| panic!("{name}: {fault} in {said}"));
    assert!(value.is_object(), "{name}: {value}");
    value
}

#[test]
fn programs_read_what_people_read() {
    let shown = run("generate", &["--prompt", "Mara lives in", "--max-new-tokens", "2", "--greedy"]);
    let told = object("generate", &["--prompt", "Mara lives in", "--max-new-tokens", "2", "--greedy"]);
    let text = format!("Mara lives in{}", told["texts"][0].as_str().expect("a text"));
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim_end(), text.trim_end());

    let told = object("answer", &[]);
    let shown = run("answer", &[]);
    let answer = told["answers"][0]["answer"].as_str().expect("a text");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&format!("\n{answer}\tprobability")), "{told}");

    assert_eq!(object("inspect", &["--bits", "4"])["average_bits"], 4.0);
}

#[test]
fn the_object_is_what_stands_in_the_file() {
    let dir = tempfile::tempdir().expect("valid input");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("valid input");
        path.to_str().expect("valid input").to_owned()
    };
    let data = file(
        "data.json",
        r#"{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "a b", "qas":
            [{"id": "q", "question": "what", "answers": [{"text": "b", "answer_start": 2}]}]}]}]}"#,
    );
    let predictions = file("predictions.json", r#"{"q": "b"}"#);
    let out = dir.path().join("out");
    let flags = ["--predictions", &predictions, "--data", &data, "--out", out.to_str().expect("valid input")];
    let told = object("evaluate", &flags);
    let written = fs::read_to_string(out.join("evaluate.json")).expect("valid input");
    assert_eq!(told, serde_json::from_str::<Value>(&written).expect("valid input"));
    assert_eq!(told["accuracy"]["exact_match"], 100.0);
}

#[test]
fn nothing_is_said_to_programs_by_a_command_that_fails() {
    let output = run("evaluate", &["--json", "--plan", "no-such-plan.json"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
}
