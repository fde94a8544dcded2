//! Model folders, adapters, plans and data that were changed at random, given to the programs themselves: each
//! ends with 0, 1 or 2 within its time, an error names a file, and none panics.
//!
//! `MUTATIONS` in the environment is the number of changes, 120 by default; the same number gives the same ones.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use switchable_quant::data::{BpeConfig, GeneratorConfig, Split, TextTokenizer, corpus_texts, generate};
use switchable_quant::lora::{LoraConfig, PrecisionPlan, SitePrecision};
use switchable_quant::model::Gpt2Config;
use switchable_quant::prelude::*;

const LONGEST: Duration = Duration::from_secs(20);

/// The files that are changed, and which flags make a program read them.
const FILES: [&str; 8] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "adapters/bits-4/adapter_config.json",
    "adapters/bits-4/adapter_model.safetensors",
    "plan.json",
    "data.json",
    "predictions.json",
];

/// A folder of a small GPT-2 with tokenizer, adapters, a plan, two questions and their predictions.
fn write_folder(dir: &Path) -> Result<(), Box<dyn Error>> {
    let questions = generate(&GeneratorConfig::new(Split::Dev, 2, 7))?;
    let texts = corpus_texts(&questions);
    let tokenizer = TextTokenizer::train_bpe(texts, &BpeConfig { vocab_size: 300, ..BpeConfig::default() })?;
    tokenizer.save(dir.join("tokenizer.json"))?;
    let device = CpuDevice::default();
    let config = Gpt2Config::new(tokenizer.vocab_size(), 512, 8, 1, 2);
    let mut model = Gpt2ForQuestionAnswering::<Cpu>::random(&config, &ModelOptions::default(), 1, &device)?;
    model.export(dir)?;
    model.transformer.init_adapters(BitWidth::B4, &LoraConfig::new(2, 4.0)?, 1)?;
    model.transformer.save_adapters(dir.join("adapters"), "gpt2")?;
    let plan = PrecisionPlan::uniform(SitePrecision::uniform(BitWidth::B8).without_adapter())
        .with_site("h.0.mlp.c_fc", SitePrecision::uniform(BitWidth::B4));
    plan.save(dir.join("plan.json"))?;
    let predictions: Map<String, Value> =
        questions.questions().map(|question| (question.id.clone(), json!(question.answers[0].text))).collect();
    fs::write(dir.join("predictions.json"), Value::Object(predictions).to_string())?;
    Ok(questions.write(dir.join("data.json"))?)
}

/// `evaluate` on the files of a folder, or of a file of predictions.
fn arguments(dir: &Path, file: &str) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    let flags = match file {
        "predictions.json" => vec![("--predictions", path(file)), ("--data", path("data.json"))],
        _ => vec![
            ("--model", dir.display().to_string()),
            ("--adapters", path("adapters")),
            ("--plan", path("plan.json")),
            ("--data", path("data.json")),
        ],
    };
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// A file with one change: of its JSON, of the JSON in its header, or of its bytes.
fn changed(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let header = |bytes: &[u8]| {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        Some((json(header)?, data.to_vec()))
    };
    match (rng.random_range(0..4), json(bytes), header(bytes)) {
        (1.., Some(mut value), _) => {
            change(&mut value, rng);
            value.to_string().into_bytes()
        }
        (1.., _, Some((mut value, data))) => {
            change(&mut value, rng);
            let text = value.to_string();
            [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat()
        }
        _ => {
            let mut bytes = bytes.to_vec();
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                _ => bytes.insert(at, rng.random()),
            }
            bytes
        }
    }
}

/// Changes one place somewhere in a value.
fn change(value: &mut Value, rng: &mut StdRng) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.random_bool(0.9) => {
            let name = fields.keys().nth(rng.random_range(0..fields.len())).expect("a field").clone();
            match rng.random_range(0..8) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let field = fields.remove(&name).expect("it is there");
                    fields.insert(format!("{name}x"), field);
                }
                2 => drop(fields.insert(format!("{name}2"), fields[&name].clone())),
                _ => change(fields.get_mut(&name).expect("it is there"), rng),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.random_bool(0.9) => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..5) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => change(&mut items[at], rng),
            }
        }
        _ => {
            let others = [
                Value::Null,
                json!(true),
                json!(0),
                json!(1),
                json!(-1),
                json!(2.5),
                json!(u32::MAX),
                json!(u64::MAX),
                json!(1e300),
                json!(""),
                json!("../../etc/passwd"),
                json!("\u{0}🦀"),
                json!([]),
                json!([[1]]),
                json!({}),
            ];
            *value = others.choose(rng).expect("a value").clone();
        }
    }
}

/// Runs a program to its end, or ends it after [`LONGEST`]; gives its code and what it says.
fn run(program: &Path, arguments: &[String], dir: &Path) -> (Option<i32>, String) {
    let stderr = dir.join("stderr.txt");
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&stderr).expect("valid input"))
        .spawn()
        .expect("valid input");
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().expect("valid input") {
            break status.code();
        }
        if start.elapsed() > LONGEST {
            child.kill().expect("valid input");
            child.wait().expect("valid input");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (code, String::from_utf8_lossy(&fs::read(&stderr).expect("valid input")).into_owned())
}

#[test]
fn no_changed_file_makes_a_command_panic_hang_or_fail_without_a_name() {
    let mutations: u64 = std::env::var("MUTATIONS").map_or(120, |text| text.parse().expect("MUTATIONS is a number"));
    let tests = std::env::current_exe().unwrap();
    let program: PathBuf = tests.parent().and_then(Path::parent).unwrap().join("examples/evaluate");
    assert!(program.exists(), "{} is missing: `cargo build --examples` makes it", program.display());
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path()).unwrap();
    for file in ["plan.json", "predictions.json"] {
        let (code, error) = run(&program, &arguments(dir.path(), file), dir.path());
        assert_eq!(code, Some(0), "the folder as it was written: {error}");
    }
    let mut ended_well = 0;
    for seed in 0..mutations {
        let mut rng = StdRng::seed_from_u64(seed);
        let file = FILES[usize::try_from(seed).expect("a small number") % FILES.len()];
        let path = dir.path().join(file);
        let whole = fs::read(&path).unwrap();
        let bytes = changed(&whole, &mut rng);
        fs::write(&path, &bytes).unwrap();
        let (code, error) = run(&program, &arguments(dir.path(), file), dir.path());
        let shown = || format!("seed {seed}, {file}: {}\n{error}", bytes[..bytes.len().min(3000)].escape_ascii());
        assert!(matches!(code, Some(0..=2)), "ended with {code:?}: {}", shown());
        assert!(!error.contains("panicked"), "a panic: {}", shown());
        if code == Some(1) {
            let message = error.lines().rfind(|line| line.starts_with("error: "));
            let named = message.is_some_and(|line| line.contains(dir.path().to_str().unwrap()));
            assert!(named, "no file is named: {}", shown());
        }
        ended_well += u64::from(code == Some(0));
        fs::write(&path, whole).unwrap();
    }
    // Some changes do not matter, such as a bit of a weight; most do.
    assert!(ended_well < mutations, "{ended_well} of {mutations} ended well");
}
