//! What `inspect` says of a model that it does not load, beside what the loaded one takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(name: &str, flags: &str) -> Output {
    let tests = std::env::current_exe().expect("a test has a path");
    let program: PathBuf =
        tests.parent().and_then(Path::parent).expect("tests lie in deps").join("examples").join(name);
    let mut command = Command::new(program);
    command
        .args(flags.split_whitespace())
        .stdin(Stdio::null())
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("it starts")
}

#[track_caller]
fn prints(name: &str, flags: &str) -> String {
    let output = run(name, flags);
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

fn inspected(flags: &str) -> Value {
    serde_json::from_str(&prints("inspect", &format!("--json {flags}"))).expect("JSON")
}

#[test]
fn bytes_are_those_of_the_loaded_model_and_of_the_artefact() {
    let dir = tempfile::tempdir().expect("a folder");
    let packed = dir.path().join("packed");
    let form = "--bits 3 --embedding-bits 8 --quantizer per-group:32,asymmetric,min-max";
    prints("pack_gpt2", &format!("{form} --no-adapter --out {}", packed.display()));
    let evaluated = prints("evaluate", &format!("{form} --no-adapter --limit 1 --untimed --quiet"));
    let stored = evaluated.lines().find(|line| line.contains("stored: packed")).expect("a line");
    let kib: f64 = stored.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");

    let of_shapes = inspected(form);
    let bytes = of_shapes["stored_bytes"].as_f64().expect("a number");
    assert!((bytes / 1024.0 - kib).abs() < 0.06, "{bytes} bytes, {kib} KiB");
    // The codes of the artefact say their own widths and quantiser.
    let of_artefact = inspected(&format!("--model {}", packed.display()));
    assert_eq!(of_artefact["stored_bytes"], of_shapes["stored_bytes"]);
    assert_eq!(of_artefact["average_bits"], 3.0);
    let refused = run("inspect", &format!("--bits 8 --model {}", packed.display()));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`--bits` is for weights in floats"));
    // Embeddings have a quantiser of their own.
    inspected("--bits 4 --embedding-bits 8 --quantizer per-channel,nf4");
    let files = of_artefact["files"].as_object().expect("files");
    let on_disk: u64 = files.values().filter_map(Value::as_u64).sum();
    assert!(on_disk as f64 > bytes, "{files:?}");
}

#[test]
fn adapters_and_runs_are_foreseen() {
    // 12 blocks of width 64: 8 · (64 + 192 + 64 + 64 + 64 + 256 + 256 + 64) numbers in each.
    let told = inspected("--rank 8 --widths 3 --tokens 50 --questions 20");
    assert_eq!(told["adapters"]["parameters"], 12 * 8 * 1024);
    let (plain, pass) = (inspected("--tokens 50"), &told["runs"][0]);
    assert_eq!((pass["command"].as_str(), told["runs"].as_array().map(Vec::len)), (Some("evaluate"), Some(4)));
    let macs = plain["footprint"]["macs_per_token"].as_f64().expect("a number") + f64::from(12 * 8 * 1024);
    let expected = macs * 50.0 * 20.0 / told["multiplies_per_second"].as_f64().expect("a number");
    assert!((pass["seconds"].as_f64().expect("a number") / expected - 1.0).abs() < 1e-9, "{told}");
    let text = prints("inspect", "--rank 8 --widths 3 --questions 20");
    assert!(text.contains("rank 8 for 3 widths: 1.1 MiB; 4.5 MiB while they are trained"), "{text}");
    assert_eq!(run("inspect", "--widths 3").status.code(), Some(2));
}

#[test]
fn sequences_and_tokens_count_in_the_cache_and_in_the_time() {
    let [one, four] = ["--tokens 64", "--tokens 64 --batch 4"].map(inspected);
    let number = |value: &Value, field: &str| value[field].as_f64().expect("a number");
    assert!((number(&four, "kv_cache_bytes") - 4.0 * number(&one, "kv_cache_bytes")).abs() < 0.5);
    let multiplies = |value: &Value| number(value, "seconds") * number(value, "multiplies_per_second");
    assert!((multiplies(&four) / multiplies(&one) - 4.0).abs() < 1e-6);
    let text = prints("inspect", "--bits 4");
    for part in ["attn.c_attn", "wte", "KV cache", "4.00 bits on average"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_inspected_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let plan = dir.path().join("plan.json");
    std::fs::write(&plan, r#"{"version":3,"sites":{"h.99.mlp.c_fc":{"weights":4}}}"#).expect("written");
    let plan_flag = format!("--plan {}", plan.display());
    for (flags, code, expected) in [
        (plan_flag.as_str(), 1, "plan.json"),
        ("--tokens 100000", 2, "`--tokens` is 100000"),
        ("--bits 3 --quantizer per-channel,nf4", 1, "h.0.attn.c_attn: 3 bits by `per-channel,nf4"),
        ("--batch 100000", 2, "--batch"),
        ("--model no/such/folder", 1, "no/such/folder"),
        ("--bits 4 --plan x.json", 2, "cannot be used with"),
    ] {
        let output = run("inspect", flags);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{flags}: {error}");
        assert!(error.contains(expected) && output.stdout.is_empty(), "{flags}: {error}");
    }
}
