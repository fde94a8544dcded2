//! Questions that a model answers in words, through the programs themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(name: &str, flags: &str) -> Output {
    let tests = std::env::current_exe().expect("a path");
    let program: PathBuf = tests.parent().and_then(Path::parent).expect("a folder").join("examples").join(name);
    let mut command = Command::new(program);
    command.args(flags.split_whitespace()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command.output().expect("it runs")
}

#[track_caller]
fn prints(name: &str, flags: &str) -> String {
    let output = run(name, flags);
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

#[track_caller]
fn refused(name: &str, flags: &str, expected: &str) {
    let output = run(name, flags);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{flags}: {error}");
    assert!(error.contains(expected), "{flags}: {error}");
}

fn official(output: &str) -> serde_json::Value {
    serde_json::from_str(output.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn the_built_in_model_is_asked_in_words_and_the_prompt_changes_what_it_is_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("none");
    let flags = "--task generate --limit 6 --untimed --no-adapter";
    let plain = prints("evaluate", &format!("{flags} --out {}", out.display()));
    assert_eq!(official(&plain)["n"], 6);
    let loss = |out: &Path| -> serde_json::Value {
        let text = std::fs::read_to_string(out.join("evaluate.json")).expect("it is there");
        serde_json::from_str(&text).expect("JSON")
    };
    let none = loss(&out);
    assert_eq!(none["source"]["answers"]["task"], "generate");
    assert!(none["accuracy"]["loss"].as_f64().expect("a number") > 0.0);
    let other = dir.path().join("other");
    prints("evaluate", &format!("{flags} --prompt-template {{context}}{{question}} --out {}", other.display()));
    assert_ne!(none["accuracy"]["loss"], loss(&other)["accuracy"]["loss"]);
    assert_eq!(loss(&other)["source"]["answers"]["prompt_template"], "{context}{question}");
    // With a shot its 128 positions hold no context any more.
    refused("evaluate", &format!("{flags} --answer-tokens 8 --shots 1"), "`--window 128` is too little for 1 shots");
    // Results belong to the prompts that they were made with.
    refused("evaluate", &format!("{flags} --out {} --answer-tokens 5", out.display()), "answer_tokens");
}

#[test]
fn a_search_and_an_allocation_go_by_written_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().display();
    let found = prints(
        "allocate",
        &format!(
            "--task generate --limit 4 --no-adapter --bits 4,8 --average-bits 5 --solve-only --out {out}/allocate"
        ),
    );
    assert!(found.contains("solved for 5 bits: "), "{found}");
    let plan = std::fs::read_to_string(dir.path().join("allocate/plan-5.json")).expect("a plan");
    assert!(plan.contains("h.0.attn.c_attn"), "{plan}");
    let evaluated =
        prints("evaluate", &format!("--task generate --limit 4 --untimed --plan {out}/allocate/plan-5.json"));
    assert_eq!(official(&evaluated)["n"], 4);
}

#[test]
fn flags_of_the_other_form_and_shots_from_nowhere_are_refused_before_anything_is_opened() {
    for name in ["evaluate", "greedy_search", "allocate"] {
        refused(name, "--shots 1", "`--shots` is for `--task generate`");
        refused(name, "--answer-tokens 3", "`--answer-tokens` is for `--task generate`");
        refused(name, "--task generate --null-threshold 0", "`--null-threshold` is for `--task span`");
        refused(name, "--task generate --span-head base", "`--span-head` is for `--task span`");
        refused(name, "--task generate --shots-from x.json", "`--shots-from` needs `--shots`");
        refused(name, "--task generate --model missing --data generated --shots 2", "`--shots` needs `--shots-from`");
        refused(name, "--task generate --prompt-template {context}", "expected `{question}` once");
        refused(name, "--task generate --answer-tokens 0", "--answer-tokens");
    }
    refused("evaluate", "--predictions x.json --data generated --task generate", "`--task generate` is for a model");
    refused("evaluate", "--task generate --limit 3 --shots 100000", "`--shots 100000`: ");
    refused("evaluate", "--task generate --limit 3 --window 40 --answer-tokens 40", "`answer_tokens` is 40");
    refused("report", "--task generate --only uniform,robustness", "`--only robustness` needs `--task span`");
    let bank = "--model missing --train missing --data missing --steps 0 --validate-every 2";
    refused("train_bank", bank, "`--validate-every` looks at a bank that is trained");
}

#[test]
fn a_tolerance_is_refused_where_no_answer_is_right() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().display();
    // The built-in model was trained to point, not to write.
    for (flags, instead) in [("--bits 8", "`--target-bits`"), ("--ladder 32,8 --exact", "`--average-bits`")] {
        let output =
            run("greedy_search", &format!("--task generate --limit 2 --no-adapter {flags} --quiet --out {out}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("none of 2 questions is answered exactly") && error.contains(instead), "{error}");
    }
}
