//! How the commands end, through the programs themselves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 20] = [
    "allocate",
    "answer",
    "certify",
    "cloze_questions",
    "dynamic_inference",
    "evaluate",
    "export_gguf",
    "generate",
    "greedy_search",
    "import_gpt2",
    "inspect",
    "nested_distortion",
    "pack_gpt2",
    "perplexity",
    "pretrain",
    "report",
    "robustness",
    "serve",
    "train_bank",
    "train_default",
];

/// The program of an example, which cargo builds beside the tests of its package.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("valid input");
    let path = tests.parent().and_then(Path::parent).expect("valid input").join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    path
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE").stdin(Stdio::null());
    command
}

fn code_and_error(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).expect("valid input"))
}

/// One question and its prediction.
fn question_and_prediction(dir: &Path) -> [String; 2] {
    let data = r#"{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "a b", "qas":
        [{"id": "q", "question": "what", "answers": [{"text": "b", "answer_start": 2}]}]}]}]}"#;
    [("data.json", data), ("predictions.json", r#"{"q": "b"}"#)].map(|(name, text)| {
        let path = dir.join(name);
        fs::write(&path, text).expect("valid input");
        path.to_str().expect("valid input").to_owned()
    })
}

#[test]
fn every_command_speaks_to_programs() {
    for name in COMMANDS {
        let help = command(name, &["-h"]).output().expect("valid input");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--json"), "{name}");
    }
}

#[test]
fn a_file_that_the_user_can_mend_is_named_and_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let [data, predictions] = question_and_prediction(dir.path());
    fs::write(&predictions, "{").unwrap();
    let arguments = ["--predictions", &predictions, "--data", &data];
    let (code, error) = code_and_error(&command("evaluate", &arguments).output().unwrap());
    assert_eq!(code, Some(1), "{error}");
    assert!(error.starts_with("error: ") && error.contains(&predictions), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

#[test]
fn a_backtrace_is_printed_in_a_debug_build_that_is_asked_for_one() {
    let with = |value: Option<&str>| {
        let arguments = ["--predictions", "no-such-predictions.json", "--data", "examples/Cargo.toml"];
        let mut command = command("evaluate", &arguments);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if let Some(value) = value {
            command.env("RUST_BACKTRACE", value);
        }
        code_and_error(&command.output().unwrap())
    };
    let (quiet, asked) = (with(None), with(Some("1")));
    assert_eq!((quiet.0, asked.0), (Some(1), Some(1)));
    assert!(!quiet.1.contains("0:"), "{}", quiet.1);
    assert_eq!(asked.1.contains("0: "), cfg!(debug_assertions), "{}", asked.1);
}

#[test]
fn flags_that_do_not_go_together_end_with_2() {
    for (name, arguments) in [
        ("evaluate", &["--predictions", "predictions.json"][..]),
        ("evaluate", &["--limit", "0"]),
        ("evaluate", &["--model", env!("CARGO_MANIFEST_DIR")]),
        ("evaluate", &["--bits", "33"]),
        ("evaluate", &["--batch", "0"]),
        ("report", &["--data", "no-such-questions.json"]),
        ("report", &["--data", "no-such-questions.json", "--search", "no-such-questions.json"]),
        ("train_bank", &["--bits", "four"]),
    ] {
        let (code, error) = code_and_error(&command(name, arguments).output().unwrap());
        assert!(error.starts_with("error: "), "{name} {arguments:?}: {error}");
        assert_eq!(code, Some(2), "{name} {arguments:?}: {error}");
    }
}

#[test]
fn every_command_knows_its_flags() {
    for name in COMMANDS {
        let help = command(name, &["--help"]).output().unwrap();
        assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: "), "{name}");
        let (code, error) = code_and_error(&command(name, &["--no-such-flag"]).output().unwrap());
        assert_eq!(code, Some(2), "{name}: {error}");
        assert!(error.contains("--no-such-flag"), "{name}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_ends_the_command_in_silence() {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGPIPE: i32 = 13;
    let dir = tempfile::tempdir().unwrap();
    let [data, predictions] = question_and_prediction(dir.path());
    for command in [command("evaluate", &["--predictions", &predictions, "--data", &data]), command("quickstart", &[])]
    {
        // It starts when no process that another test has just begun can hold the pipe any more.
        let mut later = Command::new("sh");
        later.args(["-c", r#"sleep 1; exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
        let mut child = later.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(SIGPIPE), "{:?}", output.status);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_does_not_fit_the_disk_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let [data, predictions] = question_and_prediction(dir.path());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = command("evaluate", &["--predictions", &predictions, "--data", &data]);
    let (code, error) = code_and_error(&command.stdout(full).output().unwrap());
    assert_eq!(code, Some(1), "{error}");
    assert!(error.starts_with("error: cannot print to stdout: No space left on device"), "{error}");
}

/// The security policy promises nothing that no test holds.
#[test]
fn every_promise_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let policy = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let table = policy.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut tests = 0;
    for row in table {
        let (promise, held_by) = row.rsplit_once(" | ").unwrap();
        let (mut source, mut found) = (String::new(), 0);
        for name in held_by.split('`').skip(1).step_by(2) {
            if Path::new(name).extension().is_some_and(|end| end == "rs") {
                source = fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            } else {
                assert!(source.contains(&format!("fn {name}(")), "{promise}: no test `{name}`");
                found += 1;
            }
        }
        assert!(found > 0, "{promise} names no test");
        tests += found;
    }
    assert!(tests >= 10, "{tests} tests");
}

#[test]
#[ignore = "the child of the test below"]
fn a_command_with_a_fault() {
    command_line::finish(|| panic!("index 3 of 2"));
}

#[test]
fn a_fault_of_the_program_says_that_it_is_one() {
    let arguments = ["--exact", "a_command_with_a_fault", "--ignored", "--nocapture"];
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(arguments).env_remove("RUST_BACKTRACE").output().unwrap();
    let (code, error) = code_and_error(&output);
    assert_eq!(code, Some(101), "{error}");
    assert!(error.contains("internal error: panicked at") && error.contains("index 3 of 2"), "{error}");
    assert!(error.contains("SECURITY.md") && !error.contains("RUST_BACKTRACE"), "{error}");
}
