//! What is wrong is found before anything is computed, and what is done is used for the same work alone: the
//! commands themselves, as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use switchable_quant::data::{GeneratorConfig, Split, generate};

/// An example that was built beside this test.
fn example(name: &str) -> Command {
    let here = std::env::current_exe().expect("a test has a path");
    let target = here.parent().and_then(Path::parent).expect("tests lie in deps");
    let path = target.join("examples").join(name);
    assert!(path.is_file(), "{} is not built: cargo test --workspace builds it", path.display());
    let mut command = Command::new(path);
    command.stdin(std::process::Stdio::null());
    command
}

/// A command, its flags, its flags of files, and what its error says.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a Path)>, &'a str);

fn run(name: &str, flags: &str, files: &[(&str, &Path)]) -> Output {
    let mut command = example(name);
    command.args(flags.split_whitespace());
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    command.output().expect("it starts")
}

/// Waits until a command that runs has written a file.
fn wait_for(child: &mut Child, file: &Path) {
    while !file.exists() {
        assert!(child.try_wait().expect("it runs").is_none(), "it ended before {}", file.display());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// What a command says that is stopped by SIGTERM once it has written a file.
#[cfg(unix)]
fn stopped_after(mut child: Child, file: &Path) -> String {
    wait_for(&mut child, file);
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(kill.success());
    let output = child.wait_with_output().expect("it ends");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    said
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn prints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with questions to read and to train on.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let questions = generate(&GeneratorConfig::new(Split::Dev, 2, 2)).expect("valid");
        questions.write(dir.path().join("dev.json")).expect("it is written");
        std::fs::write(dir.path().join("file"), "no folder").expect("it is written");
        std::fs::write(dir.path().join("text.txt"), "some words\n".repeat(2000)).expect("it is written");
        std::fs::write(dir.path().join("plan.json"), r#"{"sites": 3}"#).expect("it is written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[test]
fn folders_widths_budgets_plans_and_data_are_checked_before_the_first_measurement() {
    let bench = Bench::new();
    let (dev, text, plan) = (bench.path("dev.json"), bench.path("text.txt"), bench.path("plan.json"));
    let answers = bench.path("answers.json");
    std::fs::write(&answers, r#"{"of-another-file": "an answer"}"#).expect("it is written");
    let (taken, missing) = (bench.path("file").join("out"), bench.path("missing.json"));
    let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default"));
    let trains: [(&str, &Path); 2] = [("--model", model), ("--train", &dev)];
    let reads_text: [(&str, &Path); 1] = [("--text", &text)];
    let out = ("--out", taken.as_path());
    let cases: [Case<'_>; 33] = [
        // A folder that cannot be made.
        ("evaluate", "--bits 4", vec![out], "file"),
        ("greedy_search", "", vec![out], "file"),
        ("allocate", "", vec![out], "file"),
        ("report", "", vec![out], "file"),
        ("robustness", "", vec![out], "file"),
        ("dynamic_inference", "", vec![out], "file"),
        ("train_default", "", vec![out], "file"),
        ("train_bank", "", [&trains[..], &[out]].concat(), "file"),
        ("pretrain", "", [&reads_text[..], &[out]].concat(), "file"),
        // Widths that there are not.
        ("greedy_search", "--bits 1", vec![], "1 bits"),
        ("allocate", "--bits 1,4", vec![], "1 bits"),
        ("dynamic_inference", "--bits 2,16", vec![], "--bits 16"),
        ("greedy_search", "--tolerance 1.5", vec![], "tolerance"),
        ("dynamic_inference", "--points 1", vec![], "--points 1"),
        // Budgets that are none, or that no plan meets.
        ("allocate", "--average-bits nan", vec![], "--average-bits"),
        ("allocate", "--average-bits=-1", vec![], "--average-bits"),
        (
            "allocate",
            "--bits 8,4,3 --average-bits 2 --no-adapter",
            vec![],
            "`--average-bits 2` is less than every plan needs: at least 3.01",
        ),
        // Its adapters are 8,192 floats beside 49,152 weights in each block: 5.33 bits per weight.
        ("allocate", "--bits 8,4,3 --average-bits 8", vec![], "at least 8.34 at the widths"),
        ("greedy_search", "--target-bits 1", vec![], "`--target-bits` is 1"),
        ("greedy_search", "--target-bits nan", vec![], "--target-bits"),
        // Plans and data that are none.
        ("evaluate", "", vec![("--plan", &plan)], "plan.json"),
        ("train_bank", "", vec![("--model", model), ("--train", &missing)], "missing.json"),
        ("train_bank", "", [&trains[..], &[("--data", &plan)]].concat(), "plan.json"),
        ("train_bank", "--evaluation-limit 0", [&trains[..], &[("--data", &dev)]].concat(), "--evaluation-limit"),
        ("pretrain", "--steps 1 --batch 7", reads_text.to_vec(), "micro"),
        ("report", "--limit 4", vec![("--data", &dev), ("--search", &dev), ("--train", &dev)], "are in `--search` too"),
        (
            "report",
            "--steps 2 --bits 32,3,2 --contestants joint --no-robustness",
            vec![],
            "`steps` is 2, expected more: `joint`",
        ),
        ("evaluate", "", vec![("--predictions", &answers), ("--data", &dev)], "no prediction is of a question"),
        // What would need more memory than there is.
        ("train_bank", "--steps 1 --rank 4294967296", trains.to_vec(), "h.0.attn.c_attn`: rank 4294967296"),
        ("evaluate", "--limit 2 --workers 20000", vec![], "from 1 to 1024"),
        ("evaluate", "--limit 2 --batch 18446744073709551615", vec![], "from 1 to 65536"),
        // Flags that would change nothing.
        ("evaluate", "--bits 4", vec![("--predictions", &answers), ("--data", &dev)], "cannot be used with"),
        ("pretrain", "--layers 5", [&reads_text[..], &[("--model", model)]].concat(), "cannot be used with"),
    ];
    for (name, flags, files, expected) in cases {
        let mut files = files;
        let results = bench.path("results");
        if !files.iter().any(|(flag, _)| *flag == "--out") {
            files.push(("--out", &results));
        }
        let output = run(name, flags, &files);
        let said = errors(&output);
        assert!(!output.status.success() && said.contains(expected), "{name} {flags}: {said}");
        assert!(!said.contains("panicked"), "{name} {flags}: {said}");
        let printed = prints(&output);
        assert!(!printed.contains(" EM ") && !printed.contains("steps at"), "{name} {flags} computed first: {printed}");
        assert!(!results.exists(), "{name} {flags} left a folder");
    }
}

#[test]
fn data_and_texts_without_anything_in_them_are_named() {
    let bench = Bench::new();
    let (dev, data, text) = (bench.path("dev.json"), bench.path("empty.json"), bench.path("empty.txt"));
    std::fs::write(&data, r#"{"version": "1.1", "data": []}"#).expect("it is written");
    std::fs::write(&text, "\n").expect("it is written");
    let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default"));
    let out = bench.path("results");
    let cases: [Case<'_>; 8] = [
        ("evaluate", "--bits 4", vec![("--data", &data), ("--out", &out)], "empty.json"),
        ("greedy_search", "", vec![("--data", &data), ("--out", &out)], "empty.json"),
        ("report", "", vec![("--data", &dev), ("--search", &data), ("--train", &dev), ("--out", &out)], "empty.json"),
        ("certify", "", vec![("--data", &data), ("--out", &out)], "empty.json"),
        ("train_bank", "", vec![("--model", model), ("--train", &data), ("--out", &out)], "empty.json"),
        (
            "train_bank",
            "",
            vec![("--model", model), ("--train", &dev), ("--data", &data), ("--out", &out)],
            "empty.json",
        ),
        ("pretrain", "", vec![("--text", &text), ("--out", &out)], "empty.txt"),
        ("cloze_questions", "", vec![("--text", &text), ("--out", &out)], "empty.txt"),
    ];
    for (name, flags, files, expected) in cases {
        let output = run(name, flags, &files);
        let said = errors(&output);
        assert!(!output.status.success() && said.contains(expected), "{name} {flags}: {said}");
        assert!(!out.exists(), "{name} left a folder");
    }
}

#[test]
fn looks_at_a_bank_that_is_done_are_not_changed_in_silence() {
    let bench = Bench::new();
    let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default"));
    let (dev, out) = (bench.path("dev.json"), bench.path("bank"));
    let held_out = bench.path("held-out.json");
    generate(&GeneratorConfig::new(Split::Dev, 1, 5)).expect("valid").write(&held_out).expect("it is written");
    let files: [(&str, &Path); 4] = [("--model", model), ("--train", &dev), ("--data", &held_out), ("--out", &out)];
    let flags = "--steps 2 --batch 4 --bits 4 --evaluation-limit 4 --validation-limit 4 --quiet --validate-every";
    let looked = |every: usize| {
        let output = run("train_bank", &format!("{flags} {every}"), &files);
        assert!(output.status.success(), "{}", errors(&output));
        prints(&output)
    };
    assert!(!looked(2).contains("stays as it is"));
    assert!(!looked(2).contains("stays as it is"), "the same again");
    let said = looked(1);
    assert!(said.contains("validation.jsonl stays as it is: `--validate-every 1`"), "{said}");
}

#[test]
fn an_allocation_answers_later_budgets_from_its_table_and_feasible_ones_beside_others() {
    let bench = Bench::new();
    let out = bench.path("results");
    let files: [(&str, &Path); 1] = [("--out", &out)];
    let flags = "--limit 4 --bits 8,4,3 --solve-only --no-adapter --quiet";
    let first = run("allocate", flags, &files);
    assert!(first.status.success(), "{}", errors(&first));
    for plan in ["plan-4.json", "plan-6.json"] {
        assert!(out.join(plan).is_file(), "{plan}: the default budgets fit the widths");
    }
    // A budget that no plan meets is named, the other is answered, and the exit code says so.
    let later = run("allocate", &format!("{flags} --average-bits 2,5"), &files);
    assert!(!later.status.success() && errors(&later).contains("`--average-bits 2` is less"), "{}", errors(&later));
    assert!(prints(&later).contains("is known from"), "{}", prints(&later));
    assert!(out.join("plan-5.json").is_file() && !out.join("plan-2.json").exists());
    // Without its estimates nothing could be known: the plan comes from them and what they made it measure.
    let damage = out.join("allocation/estimates.json");
    let table = std::fs::read_to_string(&damage).expect("the table is kept");
    assert!(!table.is_empty() && !out.join("allocation/sites").exists());
    // Another seed is other work.
    let other = run("allocate", &format!("{flags} --seed 9"), &files);
    let said = errors(&other);
    assert!(!other.status.success() && said.contains("option `seed` was 0, is 9"), "{said}");
}

#[test]
fn a_finished_result_is_written_over_by_the_same_work_alone() {
    let bench = Bench::new();
    let out = bench.path("results");
    let files: [(&str, &Path); 1] = [("--out", &out)];
    for (name, flags, other, result, difference) in [
        ("evaluate", "--limit 4 --bits 4 --quiet", "--limit 4 --bits 3 --quiet", "evaluate.json", "option `plan"),
        ("greedy_search", "--limit 6 --bits 3 --quiet", "--limit 5 --bits 3 --quiet", "plan.json", "data changed"),
    ] {
        let first = run(name, flags, &files);
        assert!(first.status.success(), "{}", errors(&first));
        let before = std::fs::read(out.join(result)).expect("it is written");
        let refused = run(name, other, &files);
        let said = errors(&refused);
        assert!(refused.status.code() == Some(1) && said.contains(difference), "{said}");
        assert_eq!(std::fs::read(out.join(result)).expect("it stays"), before);
        assert!(run(name, flags, &files).status.success());
        assert_eq!(std::fs::read(out.join(result)).expect("it is written"), before);
    }

    // A plan that was refined is kept where it is solved for again, and beside other budgets.
    let flags = "--limit 4 --bits 8,4,3 --no-adapter --swaps 1 --quiet --average-bits";
    assert!(run("allocate", &format!("{flags} 4"), &files).status.success());
    let refined = std::fs::read(out.join("plan-4.json")).expect("it is written");
    let solved = run("allocate", &format!("{flags} 4,6 --solve-only"), &files);
    assert!(prints(&solved).contains("plan-4.json was refined before, and stays"), "{}", prints(&solved));
    assert!(run("allocate", &format!("{flags} 5"), &files).status.success());
    assert_eq!(std::fs::read(out.join("plan-4.json")).expect("it stays"), refined);
    let all = std::fs::read_to_string(out.join("allocation.json")).expect("it is written");
    let all: serde_json::Value = serde_json::from_str(&all).expect("it is JSON");
    assert_eq!(all["average_bits"], serde_json::json!([4.0, 5.0]));
    assert_eq!(all["refined"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_model_without_a_span_head_answers_no_questions() {
    let bench = Bench::new();
    let (out, text, dev) = (bench.path("pretrained"), bench.path("text.txt"), bench.path("dev.json"));
    let shape = "--layers 1 --embedding 8 --heads 2 --positions 64 --vocabulary 300 --steps 1 --batch 2 --quiet";
    let trained = run("pretrain", shape, &[("--text", &text), ("--out", &out)]);
    assert!(trained.status.success(), "{}", errors(&trained));
    let model = out.join("model");
    for name in ["evaluate", "greedy_search", "allocate", "robustness", "dynamic_inference"] {
        let results = bench.path(name);
        let refused = run(name, "--quiet", &[("--model", &model), ("--data", &dev), ("--out", &results)]);
        let said = errors(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("no span head"), "{name}: {said}");
        assert!(!prints(&refused).contains(" EM "), "{name}: {}", prints(&refused));
    }
}

#[test]
fn a_folder_that_another_command_writes_to_is_refused() {
    let bench = Bench::new();
    let out = bench.path("results");
    let mut first = example("greedy_search");
    first.args(["--bits", "3", "--quiet", "--out"]).arg(&out).stdout(std::process::Stdio::null());
    let mut first = first.spawn().expect("it starts");
    wait_for(&mut first, &out.join("search"));
    let second = run("allocate", "--limit 4 --quiet", &[("--out", &out)]);
    first.kill().expect("it is killed");
    first.wait().expect("it is gone");
    let said = errors(&second);
    assert!(second.status.code() == Some(1) && said.contains("another command writes its results there"), "{said}");
}

#[test]
fn a_search_that_was_killed_takes_no_results_of_other_questions() {
    let bench = Bench::new();
    let (out, data) = (bench.path("results"), bench.path("dev.json"));
    let model = bench.path("model");
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default")), &model);
    let flags = "--bits 3 --no-adapter --quiet";
    let files: [(&str, &Path); 3] = [("--model", &model), ("--data", &data), ("--out", &out)];
    let mut search = example("greedy_search");
    search.args(flags.split_whitespace());
    for (flag, file) in files {
        search.arg(flag).arg(file);
    }
    let mut child = search.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    let start = std::time::Instant::now();
    while !out.join("search/h.1.mlp.c_fc.json").exists() {
        assert!(start.elapsed().as_secs() < 300 && child.try_wait().expect("it runs").is_none(), "a site is saved");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");

    // The same path, other questions.
    let text = std::fs::read_to_string(&data).expect("readable");
    std::fs::write(&data, text.replace('?', "!")).expect("writable");
    let refused = run("greedy_search", flags, &files);
    let said = errors(&refused);
    assert!(!refused.status.success() && said.contains("data changed: dev.json"), "{said}");
    assert!(said.contains("search"), "the folder is named: {said}");

    // The same questions under another name, and a model that was moved.
    std::fs::write(&data, text).expect("writable");
    let (renamed, moved) = (bench.path("renamed.json"), bench.path("moved"));
    std::fs::rename(&data, &renamed).expect("it is renamed");
    std::fs::rename(&model, &moved).expect("it is moved");
    let files: [(&str, &Path); 3] = [("--model", &moved), ("--data", &renamed), ("--out", &out)];

    // A weight of the model, changed in place.
    let weights = moved.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("readable");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).expect("writable");
    let said = errors(&run("greedy_search", flags, &files));
    assert!(said.contains("weights changed: model.safetensors"), "{said}");
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).expect("writable");

    let resumed = run("greedy_search", flags, &files);
    assert!(resumed.status.success(), "{}", errors(&resumed));
    assert!(out.join("plan.json").is_file() && out.join("search").is_dir());
}

#[cfg(unix)]
#[test]
fn sigterm_saves_and_prints_the_command_that_goes_on() {
    let bench = Bench::new();
    let out = bench.path("a folder");
    let flags = "--limit 12 --bits 3 --quiet";
    let mut search = example("greedy_search");
    search.args(flags.split_whitespace()).arg("--out").arg(&out);
    let child =
        search.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let said = stopped_after(child, &out.join("search/h.0.mlp.c_fc.json"));
    assert!(said.contains("--limit 12 --bits 3 --quiet --out '") && said.contains("a folder/search"), "{said}");
    let known = std::fs::read_dir(out.join("search")).expect("it is kept").count();
    assert!(known >= 3, "{known}");
    let resumed = run("greedy_search", flags, &[("--out", &out)]);
    assert!(resumed.status.success(), "{}", errors(&resumed));
}

#[cfg(unix)]
#[test]
fn a_cascade_that_was_stopped_goes_on_and_ends_as_one_that_was_not() {
    let bench = Bench::new();
    let (out, whole) = (bench.path("stopped"), bench.path("whole"));
    let flags = "--limit 60 --bits 2,3,4,8 --untimed --quiet";
    let first = run("dynamic_inference", flags, &[("--out", &whole)]);
    assert!(first.status.success(), "{}", errors(&first));
    let result = |dir: &Path| std::fs::read_to_string(dir.join("dynamic_inference.json")).expect("it is written");

    let mut command = example("dynamic_inference");
    command.args(flags.split_whitespace()).arg("--out").arg(&out);
    let pipe = std::process::Stdio::piped;
    let child = command.stdin(pipe()).stdout(std::process::Stdio::null()).stderr(pipe()).spawn().expect("it starts");
    let said = stopped_after(child, &out.join("dynamic/calibration-1.json"));
    assert!(said.contains("stopped/dynamic. It goes on with") && said.contains("--untimed --quiet --out"), "{said}");
    assert!(!out.join("dynamic_inference.json").exists());

    // Other plans are other work.
    let other = run("dynamic_inference", &flags.replace("2,3,4,8", "3,4,8"), &[("--out", &out)]);
    assert!(!other.status.success() && errors(&other).contains("option `plans`"), "{}", errors(&other));
    // Where the questions of a part are others, they are named.
    let fewer = run("dynamic_inference", &flags.replace("60", "59"), &[("--out", &out)]);
    assert!(!fewer.status.success() && errors(&fewer).contains("data changed"), "{}", errors(&fewer));

    let resumed = run("dynamic_inference", flags, &[("--out", &out)]);
    assert!(resumed.status.success(), "{}", errors(&resumed));
    assert_eq!(result(&out), result(&whole));
    // What is read answers other thresholds: no part is written again.
    let part = out.join("dynamic/evaluation-4.json");
    let written = std::fs::metadata(&part).expect("it is kept").modified().expect("a time");
    let fewer = run("dynamic_inference", &format!("{flags} --points 2 --share 0.5"), &[("--out", &out)]);
    assert!(fewer.status.success(), "{}", errors(&fewer));
    assert_ne!(result(&out), result(&whole));
    assert_eq!(std::fs::metadata(&part).expect("it is kept").modified().expect("a time"), written);
}

#[test]
fn a_tolerance_finer_than_one_answer_is_named_before_the_search() {
    let bench = Bench::new();
    let out = bench.path("results");
    let output = run("greedy_search", "--limit 4 --bits 8 --quiet", &[("--out", &out)]);
    let printed = prints(&output);
    assert!(output.status.success(), "{}", errors(&output));
    let named = printed.find("4 questions are too few for a tolerance of 0.1").expect(&printed);
    let searched = printed.find("greedy search, stops when").expect(&printed);
    assert!(named < searched && !printed.contains("may flip everything"), "{printed}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it is made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("it is copied");
        }
    }
}
