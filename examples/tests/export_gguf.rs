//! A model that leaves for llama.cpp: what the file holds, and what is said of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn program(name: &str) -> Command {
    let tests = std::env::current_exe().expect("a test has a path");
    let program: PathBuf =
        tests.parent().and_then(Path::parent).expect("tests lie in deps").join("examples").join(name);
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    command
}

/// A language model in the form that llama.cpp runs; the built-in one has another activation.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/english");

fn run(name: &str, flags: &str) -> Output {
    program(name).args(flags.split_whitespace()).output().expect("it starts")
}

#[track_caller]
fn exported(flags: &str, out: &Path) -> [String; 2] {
    let output = run("export_gguf", &format!("--model {MODEL} {flags} --out {}", out.display()));
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("a text"))
}

#[test]
fn codes_are_written_as_codes_and_named_where_they_are_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("model.gguf");
    let [text, said] =
        exported("--bits 4 --embedding-bits 8 --no-adapter --quantizer per-group:32,symmetric,min-max", &out);
    for part in ["Q4_0", "Q8_0", "largest difference of a logit from the plan's weights"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("F16"), "{text}");
    assert!(said.contains("the span head is left out") && said.contains("prompts need that space"), "{said}");
    let [text, _] = exported("--bits 8 --no-adapter --quantizer per-channel,asymmetric,min-max", &out);
    assert!(text.contains("(no type has 8 bits per-channel,asymmetric): h.0.attn.c_attn, h.0.attn.c_proj"), "{text}");
    assert!(!text.contains("Q8_0"), "{text}");
    let [text, _] = exported("--bits 16 --no-adapter --float f32", &out);
    assert!(text.contains("F32 for") && text.contains("(16 bits, and codes have 2 to 8)"), "{text}");
}

#[test]
fn the_file_says_what_the_plan_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("model.gguf");
    let flags = "--bits 8 --no-adapter --quantizer per-group:32,symmetric,min-max";
    exported(flags, &out);
    let text = |flags: &str, prompt: &str| {
        let flags: Vec<&str> = flags.split_whitespace().chain(["--greedy", "--max-new-tokens", "24"]).collect();
        let output = program("generate").args(flags).args(["--prompt", prompt]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text").trim().to_owned()
    };
    let of_plan = text(&format!("--model {MODEL} {flags}"), "The river is");
    // The folder's tokenizer puts a space before a text, which a file does not say.
    let of_file = text(&format!("--model {}", out.display()), " The river is");
    assert_eq!(of_file, of_plan);
    assert!(of_plan.len() > "The river is".len(), "{of_plan}");
}

#[test]
fn a_path_that_cannot_be_written_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    for (out, expected) in [
        (dir.path().to_owned(), "expected a file"),
        (Path::new(MODEL).join("model.gguf"), "expected a folder apart from"),
    ] {
        let output = run("export_gguf", &format!("--model {MODEL} --out {}", out.display()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("`--out`") && said.contains(expected), "{said}");
    }
    let out = dir.path().join("model.gguf");
    let output = run("export_gguf", &format!("--out {}", out.display()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("field `activation_function` is \"relu\""), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    assert!(!Path::new(MODEL).join("model.gguf").exists());
}
