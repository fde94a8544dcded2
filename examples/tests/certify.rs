//! Certificates of the built-in model, through the programs themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::default_model::{self, QuestionSet, questions};
use switchable_quant::kernels::BitWidth;
use switchable_quant::model::Gpt2;
use switchable_quant::reader::certificate::certificate_file::{Certificate, CertifiedData, ReadingOptions};
use switchable_quant::reader::certificate::certify::{CertifyOptions, Contender, MissingRecord, certify};
use switchable_quant::reader::certificate::held_out::HeldOut;
use switchable_quant::reader::certificate::measured_model::{MeasureOptions, Process};
use switchable_quant::reader::certificate::model_files::ModelFiles;
use switchable_quant::reader::running::workers::Workers;
use switchable_quant::reader::{EvaluateOptions, FolderOptions, ModelFolder};
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::options::ModelOptions;

/// An example that was built beside this test.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().expect("a test has a path");
    let path = tests.parent().and_then(Path::parent).expect("tests lie in deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

fn run(name: &str, dir: &Path, flags: &str) -> Output {
    example(name).args(flags.split_whitespace()).current_dir(dir).output().expect("it starts")
}

#[track_caller]
fn done(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("it prints text")
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    errors.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>().join("\n")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("it is there")).expect("it is JSON")
}

/// A folder with the built-in model at 2 bits, which loses a part of its answers, searched on `search.json`; `data.json`
/// is other questions about other texts.
struct Artefact(tempfile::TempDir);

impl Artefact {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for (set, n, name) in [(QuestionSet::Search, 30, "search.json"), (QuestionSet::HeldOut, 60, "data.json")] {
            questions(set).expect("they are generated").limited(n).write(dir.path().join(name)).expect("it is written");
        }
        let packed = "--bits 2 --no-adapter --quantizer per-channel,symmetric,mse --search-data search.json --out a";
        done(&run("pack_gpt2", dir.path(), packed));
        Self(dir)
    }

    fn at(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at().join(name)
    }

    fn certify(&self, flags: &str) -> Output {
        run("certify", self.at(), &format!("--artefact a --timed 2 --quiet {flags}"))
    }

    fn verify(&self, flags: &str) -> Output {
        run("certify", self.at(), &format!("--verify a --timed 2 --quiet {flags}"))
    }
}

/// The files of a folder by their name, for what must not change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is read").path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(&path).expect("it is read"))).collect()
}

#[test]
fn a_certificate_says_what_evaluate_says_and_is_verified() {
    let artefact = Artefact::new();
    fs::write(artefact.path("a/README.md"), "# Mine\n").unwrap();
    let stdout = done(&artefact.certify("--data data.json"));
    assert!(stdout.contains("loses at most "), "{stdout}");
    let certificate = json(&artefact.path("a/certificate.json"));
    let percent = |side: &str, score: &str| certificate[side][score]["percent"].as_f64().expect("a number");
    for (side, flags) in [("artefact", "--model a"), ("original", "")] {
        let evaluated = done(&run("evaluate", artefact.at(), &format!("{flags} --data data.json --quiet")));
        let last: Value = serde_json::from_str(evaluated.lines().last().unwrap()).unwrap();
        for score in ["exact_match", "f1"] {
            let expected = last[score].as_f64().unwrap();
            assert!((percent(side, score) - expected).abs() < 1e-9, "{side} {score}: {expected} {certificate}");
        }
        let resident = &certificate[side]["resident"];
        if cfg!(target_os = "linux") {
            let [loaded, peak] = ["loaded", "peak"].map(|of| resident[of].as_u64().expect("bytes"));
            assert!(loaded > 1_000_000 && peak >= loaded, "{resident}");
        }
        let timing = &certificate[side]["timing"];
        assert!(timing["tokens_per_second"].as_f64() > Some(0.0) && timing["questions"] == 2, "{timing}");
    }
    let lost = percent("original", "exact_match") - percent("artefact", "exact_match");
    assert!(lost > 0.0, "2 bits without adapters lose: {lost}");
    let exact = &certificate["exact_match"];
    assert!((exact["difference"].as_f64().unwrap() + lost).abs() < 1e-9);
    assert!(exact["loses_at_most"].as_f64().unwrap() > lost && exact["independent"] == "paragraphs");
    assert_eq!(certificate["data"]["unseen"], "none is in made_from.json");
    assert_eq!(certificate["data"]["content"]["questions"], 60);
    let packed = &certificate["artefact"]["files"]["files"]["packed.safetensors"];
    assert_eq!(packed["bytes"].as_u64(), Some(fs::metadata(artefact.path("a/packed.safetensors")).unwrap().len()));

    let card = fs::read_to_string(artefact.path("a/README.md")).unwrap();
    assert!(card.starts_with("# Mine\n\n<!-- certificate -->\n") && card.contains("loses at most "), "{card}");
    // The bound is the same number wherever it stands, and so is what it was measured on.
    let promised = card.split("loses at most ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a bound");
    let row = card.lines().find(|line| line.starts_with("| exact match |")).expect("a row");
    assert!(row.ends_with(&format!("| {promised} |")), "{row}");
    assert!(stdout.contains(&format!("points; at most {promised} are lost")), "{stdout}");
    let paragraphs = &certificate["data"]["content"]["paragraphs"];
    assert!(stdout.contains(&format!("n = 60 questions about {paragraphs} paragraphs")), "{stdout}");

    // The same questions in another order and file, all of the set, and fewer batches at once.
    let mut shuffled = questions(QuestionSet::HeldOut).unwrap().limited(60);
    shuffled.articles.reverse();
    shuffled.write(artefact.path("other.json")).unwrap();
    let before = contents(&artefact.path("a"));
    let stdout = done(&artefact.verify("--data other.json --workers 1"));
    assert!(stdout.contains("verified "), "{stdout}");
    done(&artefact.verify("--data generated"));
    assert_eq!(contents(&artefact.path("a")), before, "to verify writes nothing");
}

#[test]
fn what_was_tampered_with_is_named_by_file_and_field() {
    let artefact = Artefact::new();
    done(&artefact.certify("--data data.json"));
    let certificate = artefact.path("a/certificate.json");
    let text = fs::read_to_string(&certificate).unwrap();

    // One byte of the codes; of the tokenizer; a file that is added.
    let packed = artefact.path("a/packed.safetensors");
    let codes = fs::read(&packed).unwrap();
    let mut changed = codes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&packed, changed).unwrap();
    let message = refused(&artefact.verify("--data data.json"));
    assert!(message.contains("packed.safetensors is of content") && message.contains("`artefact.files`"), "{message}");
    fs::write(&packed, codes).unwrap();
    let tokenizer = artefact.path("a/tokenizer.json");
    let words = fs::read(&tokenizer).unwrap();
    fs::write(&tokenizer, [words.as_slice(), b"\n"].concat()).unwrap();
    assert!(refused(&artefact.verify("--data data.json")).contains("tokenizer.json is of content"));
    fs::write(&tokenizer, words).unwrap();
    fs::write(artefact.path("a/model.safetensors"), "floats").unwrap();
    assert!(refused(&artefact.verify("--data data.json")).contains("model.safetensors is there"));
    fs::remove_file(artefact.path("a/model.safetensors")).unwrap();

    // Other questions, and another original.
    let mut other = questions(QuestionSet::HeldOut).unwrap().limited(60);
    other.articles[0].paragraphs[0].questions[0].question.push('?');
    other.write(artefact.path("other.json")).unwrap();
    assert!(refused(&artefact.verify("--data other.json")).contains("field `data.content.hash`"));
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    done(&artefact.verify(&format!("--data data.json --original {model}")));
    let message = refused(&artefact.verify("--data data.json --original a"));
    assert!(message.contains("is the artefact itself"), "{message}");

    // Figures that the models do not have are found by running them; a certificate that lies about its hashes before.
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let lies: [(&str, &[&str], Value, &str); 4] = [
        ("bound", &["exact_match", "loses_at_most"], 0.5.into(), "field `exact_match.loses_at_most` is 0.5"),
        ("score", &["artefact", "exact_match", "percent"], 100.0.into(), "field `artefact.exact_match.percent`"),
        ("version", &["version"], 2.into(), "certificate.json: field `version` is of version 2, expected 1"),
        ("hash", &["original", "files", "hash"], parsed["data"]["content"]["hash"].clone(), "field `original.hash`"),
    ];
    for (what, path, value, expected) in lies {
        let mut lying = parsed.clone();
        let field = path.iter().fold(&mut lying, |value, name| &mut value[*name]);
        *field = value;
        fs::write(&certificate, lying.to_string()).unwrap();
        let message = refused(&artefact.verify("--data data.json"));
        assert!(message.contains(expected), "{what}: {message}");
    }
    let mut unknown = parsed;
    unknown["mcnemar"]["chi"] = 3.into();
    fs::write(&certificate, unknown.to_string()).unwrap();
    assert!(refused(&artefact.verify("--data data.json")).contains("field `mcnemar.chi`: unknown field"));
    fs::write(&certificate, &text[..text.len() / 3]).unwrap();
    assert!(refused(&artefact.verify("--data data.json")).contains("certificate.json: "));
    fs::write(&certificate, text).unwrap();
    done(&artefact.verify("--data data.json"));
    // A card that promises more than its certificate.
    let card = artefact.path("a/README.md");
    let promise = fs::read_to_string(&card).unwrap().replace("loses at most", "never loses more than");
    fs::write(&card, promise).unwrap();
    assert!(refused(&artefact.verify("--data data.json")).contains("README.md is another text"));
}

#[test]
fn questions_that_made_the_artefact_certify_nothing() {
    let artefact = Artefact::new();
    let before = contents(&artefact.path("a"));
    // The file itself, by any name; with --assume-unseen as well.
    fs::copy(artefact.path("search.json"), artefact.path("renamed.json")).unwrap();
    for flags in ["--data search.json", "--data renamed.json --assume-unseen"] {
        let message = refused(&artefact.certify(flags));
        assert!(message.contains("30 of 30 questions") && message.contains("search.json"), "{message}");
        assert!(message.contains("nothing is reported on these"), "{message}");
    }
    // One question of it among others.
    let mut mixed = questions(QuestionSet::HeldOut).unwrap().limited(12);
    let seen = questions(QuestionSet::Search).unwrap().limited(1);
    let id = seen.questions().next().unwrap().id.clone();
    mixed.articles.extend(seen.articles);
    mixed.write(artefact.path("mixed.json")).unwrap();
    let message = refused(&artefact.certify("--data mixed.json"));
    assert!(message.contains("1 of 13 questions") && message.contains(&format!("`{id}`")), "{message}");
    assert_eq!(contents(&artefact.path("a")), before, "nothing is written");

    // Without a record it is refused, or said to be asserted.
    done(&run("pack_gpt2", artefact.at(), "--bits 2 --out a"));
    let message = refused(&artefact.certify("--data data.json --limit 12"));
    assert!(message.contains("made_from.json is missing") && message.contains("--assume-unseen"), "{message}");
    done(&artefact.certify("--data data.json --limit 12 --assume-unseen"));
    assert_eq!(json(&artefact.path("a/certificate.json"))["data"]["unseen"], "asserted by the caller");
    // The twelve that were certified are found among all.
    done(&artefact.verify("--data data.json"));
}

#[test]
fn what_is_wrong_is_found_before_a_model_is_measured() {
    let artefact = Artefact::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    fs::write(artefact.path("v1"), "{}").unwrap();
    fs::create_dir(artefact.path("empty")).unwrap();
    for (flags, expected) in [
        ("--artefact empty --data data.json --assume-unseen", "config.json is missing"),
        ("--artefact a --data v1", "v1: "),
        ("--artefact a --data data.json --null-threshold 1", "version 2.0"),
        ("--artefact a --data data.json --bits 7", "7"),
        ("--artefact a --data data.json --window 100000", "window"),
        ("--artefact a --data data.json --out v1", "v1"),
    ] {
        let output = run("certify", artefact.at(), flags);
        let message = refused(&output);
        assert!(
            message.contains(expected) || String::from_utf8_lossy(&output.stderr).contains(expected),
            "{flags}: {message}"
        );
    }
    let message = refused(&run("certify", artefact.at(), &format!("--original {model} --data data.json")));
    assert!(message.contains("`--original` needs `--artefact`"), "{message}");
    fs::write(artefact.path("a/README.md"), "<!-- certificate -->").unwrap();
    let message = refused(&artefact.certify("--data data.json"));
    assert!(message.contains("README.md") && message.contains("<!-- /certificate -->"), "{message}");
    assert!(!artefact.path("a/certificate.json").exists());
}

#[test]
fn the_library_certifies_what_the_command_does() {
    let artefact = Artefact::new();
    done(&artefact.certify("--data data.json --limit 30 --batch 8"));
    let by_command = Certificate::read(artefact.path("a")).unwrap();

    let device = FlexDevice;
    let original = default_model::load::<Flex>(&ModelOptions::default(), &device).unwrap();
    let packed = ModelFolder::<Flex, Gpt2<Flex>>::open(artefact.path("a"), &FolderOptions::default(), &device).unwrap();
    let full = original.model.transformer.uniform_plan(original.precision(BitWidth::FULL));
    let of_codes = packed.plan.clone().unwrap();
    let held_out = HeldOut::new(questions(QuestionSet::HeldOut).unwrap().limited(30)).unwrap();
    let options = CertifyOptions {
        data: CertifiedData::of(&held_out, artefact.path("a"), MissingRecord::Refuse).unwrap(),
        reading: ReadingOptions { window: None, batch: 8, null_threshold: None },
        evaluation: EvaluateOptions { workers: Workers::new(2), ..EvaluateOptions::default() },
        measure: MeasureOptions { timed_questions: 1, process: Process::Shared },
    };
    let original = Contender {
        name: "original".into(),
        folder: &original,
        files: ModelFiles::embedded(&default_model::FILES),
        plan: &full,
    };
    let files = ModelFiles::of_folder(artefact.path("a")).unwrap();
    let packed = Contender { name: "packed".into(), folder: &packed, files, plan: &of_codes };
    let certificate = certify(original, packed, &held_out, &options).unwrap();
    by_command.check_same(&certificate).unwrap();
    assert_eq!(certificate.artefact.resident, None);
}

#[cfg(unix)]
#[test]
fn a_command_that_is_stopped_leaves_no_certificate_and_no_process() {
    let artefact = Artefact::new();
    let before = contents(&artefact.path("a"));
    let mut child = example("certify")
        .args("--artefact a --data generated --quiet --batch 1 --workers 1".split_whitespace())
        .current_dir(artefact.at())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was written"));
    assert_eq!(contents(&artefact.path("a")), before);
}

#[test]
fn without_arguments_the_built_in_model_is_packed_and_certified() {
    let dir = tempfile::tempdir().unwrap();
    done(&run("certify", dir.path(), "--limit 30 --quiet --timed 1"));
    let certificate = json(&dir.path().join("runs/certify/certificate.json"));
    assert_eq!(certificate["original"]["name"], "built-in");
    assert_eq!(certificate["artefact"]["plan"]["sites"]["h.0.attn.c_attn"]["weights"], 4);
    assert_eq!(certificate["data"]["unseen"], "none is in made_from.json");
    assert!(dir.path().join("runs/certify/README.md").exists());
    done(&run("certify", dir.path(), "--verify runs/certify --quiet --timed 1"));
}
