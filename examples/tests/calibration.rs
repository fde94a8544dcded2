//! Calibrated rounding on the command line, through the programs themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use switchable_quant::default_model::{QuestionSet, questions};

/// The program of an example, which cargo builds beside the tests of its package.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a test has a path");
    let path = tests.parent().and_then(Path::parent).expect("tests lie in deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    path
}

/// A folder with questions to report on and others to calibrate on, a text, and a place of its own for moments.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for (set, n, name) in [(QuestionSet::Search, 20, "data.json"), (QuestionSet::Train, 80, "calibration.json")] {
            questions(set).expect("they are generated").limited(n).write(dir.path().join(name)).expect("it is written");
        }
        let train = questions(QuestionSet::Train).expect("they are generated");
        let texts: Vec<String> = train.examples().iter().take(120).map(|example| example.context.to_string()).collect();
        fs::write(dir.path().join("text.txt"), texts.join("\n<|endoftext|>\n")).expect("it is written");
        let asked = questions(QuestionSet::Search).expect("they are generated").limited(20);
        let asked: Vec<String> = asked.examples().iter().map(|example| example.context.to_string()).collect();
        fs::write(dir.path().join("asked.txt"), asked.join("\n\n")).expect("it is written");
        fs::write(dir.path().join("short.txt"), "Mira plays the harp.").expect("it is written");
        fs::write(dir.path().join("empty.json"), r#"{"version": "1.1", "data": []}"#).expect("it is written");
        fs::write(dir.path().join("empty.txt"), "\n").expect("it is written");
        Self(dir)
    }

    fn at(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, name: &str, flags: &str) -> Output {
        Command::new(program(name))
            .args(flags.split_whitespace())
            .current_dir(self.at())
            .env("SWITCHABLE_QUANT_CACHE", self.at().join("cache"))
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    #[track_caller]
    fn done(&self, name: &str, flags: &str) -> [String; 2] {
        let output = self.run(name, &quietly(name, flags));
        let [text, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{flags}: {text} {errors}");
        [text, errors]
    }

    #[track_caller]
    fn refused(&self, name: &str, flags: &str) -> String {
        let output = self.run(name, &quietly(name, flags));
        assert!(!output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stdout));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        errors.lines().find(|line| line.starts_with("error: ")).expect("it says why").to_owned()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.at().join(name)).expect("it is there")).expect("it is JSON")
    }
}

/// The flags without progress; packing shows none.
fn quietly(name: &str, flags: &str) -> String {
    if name == "pack_gpt2" { flags.to_owned() } else { format!("{flags} --quiet") }
}

/// The last line of `evaluate`: exact match and F1.
fn official(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().expect("it prints")).expect("it is JSON")
}

#[test]
fn what_is_calibrated_is_packed_and_gives_the_same_answers() {
    let place = Place::new();
    let how = "--bits 2 --no-adapter --quantizer per-channel,symmetric,importance --rounding gptq \
               --calibration calibration.json --calibration-samples 64";
    let [found, errors] = place.done("evaluate", &format!("{how} --data data.json --untimed --out e"));
    assert!(errors.contains("calibrated 64 windows"), "{errors}");
    let kept: Vec<_> = fs::read_dir(place.at().join("cache/calibration")).expect("it is kept").collect();
    assert_eq!(kept.len(), 2, "moments and what they hold");
    // Again, from what was kept.
    let [again, _] = place.done("evaluate", &format!("{how} --data data.json --untimed"));
    assert_eq!(official(&again), official(&found));
    place.done("pack_gpt2", &format!("{how} --out a"));
    let [packed, _] = place.done("evaluate", "--model a --data data.json --untimed");
    assert_eq!(official(&packed), official(&found));
    let made_from = place.json("a/made_from.json").to_string();
    assert!(made_from.contains("calibration"), "{made_from}");
    // Other questions give other codes, and results of one do not become those of the other.
    let other = how.replace("--calibration-samples 64", "--calibration-samples 40");
    let error = place.refused("evaluate", &format!("{other} --data data.json --untimed --out e"));
    assert!(error.contains("evaluate.json"), "{error}");
    // A plan names its rounding, and runs without the flags of its quantiser.
    let plan = place.json("e/evaluate.json")["plan"].clone();
    fs::write(place.at().join("plan.json"), plan.to_string()).expect("it is written");
    let calibration = "--calibration calibration.json --calibration-samples 64";
    let [by_plan, _] = place.done("evaluate", &format!("--plan plan.json --data data.json --untimed {calibration}"));
    assert_eq!(official(&by_plan), official(&found));
    // Calibrated on something else its codes are others, which is said.
    let elsewhere = "--calibration calibration.json --calibration-samples 40";
    let [_, errors] = place.done("evaluate", &format!("--plan plan.json --data data.json --untimed {elsewhere}"));
    assert!(errors.contains("plan.json was found with another calibration"), "{errors}");
    // The questions that it was calibrated on say little of it.
    let [_, errors] = place.done("evaluate", "--model a --data calibration.json --limit 10 --untimed");
    assert!(errors.contains("10 of 10 questions are of the calibration of a"), "{errors}");
    // It names no adapters: those of another quantiser are not in its way.
    place.done("perplexity", &format!("--plan plan.json --tokens 300 {calibration}"));
}

#[test]
fn adapters_say_when_the_codes_go_by_another_calibration() {
    let place = Place::new();
    let gptq = "--quantizer per-channel,symmetric,importance --rounding gptq --calibration calibration.json";
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    place.done(
        "train_bank",
        &format!(
            "--model {model} --train calibration.json --limit 20 --steps 1 --batch 4 --bits 2 {gptq} \
                  --calibration-samples 24 --out bank"
        ),
    );
    let evaluated = |samples: u32| {
        let flags = "--model bank/model --data data.json --limit 8 --bits 2 --untimed";
        place.done("evaluate", &format!("{flags} {gptq} --calibration-samples {samples}"))[1].clone()
    };
    assert!(evaluated(16).contains("the adapters of 2 bits were trained with another calibration"));
    // The model was written anew, and what it is calibrated on is the same.
    assert!(!evaluated(24).contains("another calibration"));
    let error = place.refused("evaluate", "--model bank/model --data data.json --limit 8 --bits 2 --untimed");
    assert!(error.contains("--calibration-samples"), "{error}");
    // Factors change the codes as well.
    let flags =
        format!("--model bank/model --data data.json --limit 8 --bits 2 --untimed {gptq} --calibration-samples 24");
    let [_, errors] = place.done("evaluate", &format!("{flags} --scaling smooth"));
    assert!(
        errors.contains("the adapters of 2 bits were trained on the weights without `--scaling smooth:0.5`"),
        "{errors}"
    );
    let [_, errors] = place.done("evaluate", &format!("{flags} --scaling smooth --no-adapter"));
    assert!(!errors.contains("were trained on the weights without"), "{errors}");
}

#[test]
fn a_damaged_file_of_moments_is_made_anew() {
    let place = Place::new();
    let how = "--bits 3 --no-adapter --rounding gptq --data data.json --untimed --calibration calibration.json";
    let [found, _] = place.done("evaluate", how);
    let kept = fs::read_dir(place.at().join("cache/calibration")).expect("it is kept");
    let mut paths = kept.map(|entry| entry.expect("it is read").path());
    let path = paths.find(|path| path.extension().is_some_and(|name| name == "safetensors")).expect("one");
    let whole = fs::read(&path).expect("it is read");
    // Cut short, and one number changed.
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0x40;
    for damaged in [&whole[..whole.len() / 3], &changed] {
        fs::write(&path, damaged).expect("it is written");
        let [again, _] = place.done("evaluate", how);
        assert_eq!(official(&again), official(&found));
        assert!(fs::read(&path).expect("it is read") == whole, "it is made anew");
    }
}

#[test]
fn a_rotation_goes_from_a_flag_into_plan_and_codes() {
    let place = Place::new();
    let how = "--bits 4 --activations 4 --no-adapter --quantizer per-channel";
    place.done("evaluate", &format!("{how} --rotation hadamard:3 --data data.json --untimed --out e"));
    let result = place.json("e/evaluate.json");
    let plan = result["plan"].clone();
    let entry = &plan["sites"]["h.0.attn.c_attn"];
    assert_eq!((&entry["rotation"], &entry["activations"]), (&"hadamard:3".into(), &4.into()), "{plan}");
    fs::write(place.at().join("plan.json"), plan.to_string()).expect("it is written");
    place.done("pack_gpt2", "--plan plan.json --no-adapter --out a");
    for flags in [
        "--model a",
        "--plan plan.json",
        "--plan plan.json --execution simulated",
        "--plan plan.json --rotation hadamard:3",
    ] {
        place.done("evaluate", &format!("{flags} --data data.json --untimed --out again"));
        assert_eq!(place.json("again/evaluate.json")["official"], result["official"], "{flags}");
        fs::remove_dir_all(place.at().join("again")).expect("it is there");
    }
    for (flags, says) in [
        ("--plan plan.json --rotation none", "contradicts plan.json"),
        ("--model a --rotation hadamard", "contradicts the packed weights"),
        ("--plan plan.json --activations 8", "--activations 8"),
        ("--bits 4 --rotation householder", "householder"),
    ] {
        let output = place.run("evaluate", &format!("{flags} --data data.json --untimed --quiet"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(says), "{flags}: {errors}");
    }
}

#[test]
fn calibrations_that_say_nothing_or_too_much_are_refused() {
    let place = Place::new();
    let gptq = "--bits 3 --no-adapter --rounding gptq --data data.json --untimed";
    for (flags, parts) in [
        ("--calibration short.txt", &["--calibration", "short.txt", "too short"][..]),
        ("--calibration data.json", &["--calibration", "data.json"]),
        ("--calibration calibration.json data.json --calibration-samples 200", &["--calibration", "data.json"]),
        ("--calibration asked.txt", &["--calibration", "20 of 20 questions", "paragraphs of `asked.txt`"]),
        ("--calibration text.txt text.txt", &["--calibration", "text.txt", "twice"]),
        ("--calibration missing.txt", &["missing.txt"]),
        ("--calibration missing.json", &["missing.json"]),
        ("--calibration calibration.json empty.json", &["empty.json: the file holds no question"]),
        ("--calibration calibration.json empty.txt", &["`--calibration empty.txt` holds no text"]),
        ("--calibration calibration.json --calibration-samples 0", &["--calibration-samples"]),
    ] {
        let output = place.run("evaluate", &format!("{gptq} {flags} --quiet"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && parts.iter().all(|part| errors.contains(part)), "{flags}: {errors}");
    }
    // A model of a folder does not know what it may be calibrated on.
    let floats = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    let error = place.refused("evaluate", &format!("--model {floats} {gptq}"));
    assert!(error.contains("--calibration FILE"), "{error}");
    // A packed folder keeps how it is rounded, its floats as well.
    place.done("pack_gpt2", "--bits 32 --no-adapter --out packed");
    let error = place.refused("evaluate", &format!("--model packed {gptq} --calibration calibration.json"));
    assert!(error.contains("`--calibration`") && error.contains("this one is packed"), "{error}");
    // Codes are rounded already.
    place.done("pack_gpt2", "--bits 4 --no-adapter --out codes");
    let error = place.refused("evaluate", "--model codes --data data.json --calibration calibration.json --untimed");
    assert!(error.contains("`--calibration`") && error.contains("this one is packed"), "{error}");
}

#[test]
fn a_paragraph_that_is_reported_on_is_found_in_the_whole_file_before_anything_is_calibrated() {
    let place = Place::new();
    let read = |name: &str| place.json(name);
    // One of many paragraphs, and in a text the last one: eight windows may well miss it.
    let mut mixed = read("calibration.json");
    let paragraph = read("data.json")["data"][0]["paragraphs"][0].clone();
    let articles = mixed["data"].as_array_mut().expect("articles");
    articles.push(serde_json::json!({ "title": "", "paragraphs": [paragraph] }));
    fs::write(place.at().join("mixed.json"), mixed.to_string()).expect("it is written");
    let [text, asked] = ["text.txt", "asked.txt"].map(|name| fs::read_to_string(place.at().join(name)).expect("text"));
    let last = asked.split("\n\n").next().expect("a paragraph");
    let many = format!("{text}\n<|endoftext|>\n{last}\n");
    fs::write(place.at().join("mixed.txt"), many).expect("it is written");
    let how = "--no-adapter --rounding gptq --calibration-samples 8 --quiet";
    for file in ["mixed.json", "mixed.txt"] {
        for name in ["evaluate --bits 3 --untimed", "greedy_search --bits 3 --out g", "allocate --bits 4,3 --out a"] {
            let (name, flags) = name.split_once(' ').expect("flags");
            let output = place.run(name, &format!("{flags} --data data.json {how} --calibration {file}"));
            let errors = String::from_utf8_lossy(&output.stderr);
            let said = [file, "--data data.json"].iter().all(|part| errors.contains(part));
            assert!(!output.status.success() && said, "{name}: {errors}");
            assert!(!errors.contains("calibrated 8 windows") && !place.at().join("cache").exists(), "{errors}");
        }
    }
    let floats = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    let error = place.refused(
        "perplexity",
        &format!("--model {floats} --text asked.txt --bits 3 {} --calibration mixed.json", how.replace(" --quiet", "")),
    );
    assert!(error.contains("--calibration mixed.json") && error.contains("--text asked.txt"), "{error}");
    let error = place.refused(
        "train_bank",
        &format!(
            "--model {floats} --train calibration.json --data data.json --steps 1 --bits 3 --out bank --rounding gptq \
             --calibration mixed.json --calibration-samples 8"
        ),
    );
    assert!(error.contains("mixed.json") && error.contains("--data data.json"), "{error}");
    assert!(["g", "a", "bank"].iter().all(|out| !place.at().join(out).exists()), "folders of nothing are left");
}

#[test]
fn flags_of_a_calibration_are_refused_where_nothing_goes_by_it() {
    let place = Place::new();
    for flag in ["--calibration-samples 64", "--calibration-seed 3", "--calibration calibration.json"] {
        for name in ["evaluate --untimed --bits 4 --data data.json", "greedy_search --bits 2 --data data.json"] {
            let (name, flags) = name.split_once(' ').expect("flags");
            let output = place.run(name, &format!("{flags} --quiet {flag}"));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(errors.contains(flag.split(' ').next().expect("a flag")), "{errors}");
            assert!(errors.contains("--rounding gptq"), "{errors}");
        }
        let output = place.run("nested_distortion", flag);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn adapters_of_another_rounding_say_what_to_type() {
    let place = Place::new();
    for (flag, own) in [
        ("--rounding gptq", "--rounding nearest"),
        ("--rotation hadamard", "--rotation none"),
        ("--quantizer per-channel", "--quantizer per-tensor,symmetric,min-max"),
    ] {
        let error = place.refused("evaluate", &format!("--bits 2 --data data.json --untimed {flag}"));
        assert!(error.contains(own) && error.contains("--no-adapter"), "{error}");
    }
}

#[test]
fn perplexity_compares_widths_on_documents_that_were_not_calibrated_on() {
    let place = Place::new();
    let [text, _] = place.done("perplexity", "--bits 4,2 --no-adapter --tokens 600 --out p");
    let result = place.json("p/perplexity.json");
    let rows = result["rows"].as_array().expect("rows");
    let nats: Vec<f64> = rows.iter().map(|row| row["nats_per_token"].as_f64().expect("a number")).collect();
    assert_eq!((rows.len(), text.lines().count()), (3, 3));
    assert!(nats[2] > nats[0] + 1.0, "2 bits per tensor are worse: {nats:?}");
    let [mean, low, high] = ["nats_per_token", "low", "high"].map(|field| {
        let above = &rows[2]["above_first"];
        above.get(field).unwrap_or(&above["interval"][field]).as_f64().expect("a number")
    });
    assert!((mean - (nats[2] - nats[0])).abs() < 1e-9 && low < mean && mean < high && low > 0.0);
    assert!((rows[0]["perplexity"].as_f64().expect("a number") - nats[0].exp()).abs() < 1e-9);
    let floats = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    let own = format!("--model {floats} --no-adapter --text text.txt --tokens 300 --bits 3 --rounding gptq");
    let error = place.refused("perplexity", &format!("{own} --calibration text.txt"));
    assert!(error.contains("--calibration") && error.contains("text.txt"), "{error}");
    // The same paragraphs, whatever they came with.
    let error = place.refused("perplexity", &format!("{own} --calibration calibration.json"));
    assert!(error.contains("calibration.json"), "{error}");
    place.done("perplexity", &format!("{own} --calibration data.json"));
    let error = place.refused("perplexity", &format!("{own} --calibration data.json --window 5000"));
    assert!(error.contains("`--window 5000`") && error.contains("128 positions"), "{error}");
    let error = place.refused("perplexity", &format!("{own} --calibration data.json").replace("text.txt", "empty.txt"));
    assert!(error.contains("--text empty.txt"), "{error}");
    // One document says nothing of others.
    let [text, _] = place.done("perplexity", "--bits 3 --no-adapter --text asked.txt --tokens 300 --out one");
    assert!(text.contains("of one document: no interval"), "{text}");
    assert!(place.json("one/perplexity.json")["rows"][1]["above_first"]["interval"].is_null());
}

#[test]
fn two_runs_are_compared_question_by_question() {
    let place = Place::new();
    let how = "--no-adapter --data data.json --untimed";
    place.done("evaluate", &format!("--bits 32 {how} --out full"));
    let compare = "--compare-with full/predictions.json";
    let [text, _] = place.done("evaluate", &format!("--bits 2 {how} --out two {compare}"));
    let line = text.lines().find(|line| line.starts_with("against ")).expect("a line");
    let found = place.json("two/evaluate.json")["comparison"].clone();
    let difference = 100.0 * found["difference"].as_f64().expect("a number");
    assert!(line.contains(&format!("EM {difference:+.1} [")) && difference < -50.0, "{line}");
    let over_paragraphs = 100.0 * found["over_paragraphs"]["low"].as_f64().expect("a number");
    assert!(line.contains(&format!(", over paragraphs [{over_paragraphs:+.1}, ")), "{line}");
    let paragraphs = found["paragraphs"].as_u64().expect("a number");
    assert!(line.ends_with(&format!("n = 20 questions about {paragraphs} paragraphs")) && paragraphs < 20, "{line}");
    // Of the files alone it is the same.
    let [again, _] =
        place.done("evaluate", &format!("--predictions two/predictions.json --data data.json --limit 20 {compare}"));
    assert!(again.contains(line), "{again}");
    fs::write(place.at().join("few.json"), "{}").expect("it is written");
    let error = place.refused("evaluate", &format!("--bits 2 {how} --compare-with few.json"));
    assert!(error.contains("few.json") && error.contains("20 of 20"), "{error}");
}
