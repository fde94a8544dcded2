//! The items of the commands, done by processes apart, make what one process makes: to the bit, but for times.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A well-formed key that no work has.
const UNKNOWN: &str = "nowhere/item@0123456789abcdef";

fn output(dir: &Path, argv: &[String]) -> Output {
    let mut program = Command::new(&argv[0]);
    program
        .args(&argv[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .env_remove("RUST_BACKTRACE")
        .env("HF_HUB_OFFLINE", "1");
    program.output().expect("it starts")
}

/// A command and the folder that it is tried in: `one/` is that of one process, `apart/` that of several.
struct Work<'a> {
    dir: &'a Path,
    command: &'a str,
}

impl Work<'_> {
    fn run(&self, flags: &str) -> Output {
        let words = self.command.split_whitespace().chain(flags.split_whitespace()).map(str::to_owned);
        let program = [env!("CARGO_BIN_EXE_switchable-quant").to_owned()];
        output(self.dir, &program.into_iter().chain(words).chain(["--quiet".to_owned()]).collect::<Vec<_>>())
    }

    #[track_caller]
    fn done(&self, flags: &str) -> String {
        let output = self.run(flags);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {flags}: {errors}", self.command);
        String::from_utf8(output.stdout).expect("it is text")
    }

    #[track_caller]
    fn refused(&self, flags: &str, code: i32, expected: &str) {
        let output = self.run(flags);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{} {flags}: {errors}", self.command);
        assert!(errors.contains(expected), "{} {flags}: {errors}", self.command);
    }

    /// What can be done now: keys and command lines.
    fn missing(&self) -> Vec<(String, Vec<String>)> {
        let listed = self.done("--out apart --items --missing");
        let item = |line: &str| {
            let item: Value = serde_json::from_str(line).expect("an item a line, and nothing else");
            assert!(item["needs"] == serde_json::json!([]) && item["done"] == false, "{line}");
            assert!(item["resources"]["cpus"].as_u64() > Some(0), "{line}");
            (
                item["key"].as_str().expect("a key").to_owned(),
                serde_json::from_value(item["argv"].clone()).expect("words"),
            )
        };
        listed.lines().map(item).collect()
    }

    fn json(&self, file: &str) -> Value {
        without_times(serde_json::from_slice(&fs::read(self.dir.join(file)).expect(file)).expect("it is JSON"))
    }

    /// Does the items and merges. Of a round only the first and the last are done in processes where one process has left
    /// the others' files, which are taken from there: that they are taken says that they are the same work. Returns how many
    /// were listed in each round.
    fn apart(&self, results: &[&str]) -> Vec<usize> {
        self.done("--out one");
        let mut rounds = Vec::new();
        loop {
            let missing = self.missing();
            let Some((first, _)) = missing.first() else { break };
            self.refused("--out apart --merge", 4, first);
            rounds.push(missing.len());
            for (index, (key, argv)) in missing.iter().enumerate().rev() {
                let file = format!("{}.json", key.split('@').next().expect("a path"));
                let [one, apart] = ["one", "apart"].map(|folder| self.dir.join(folder).join(&file));
                let is_run = index == 0 || index + 1 == missing.len() || !one.exists();
                if !is_run {
                    fs::create_dir_all(apart.parent().expect("a folder")).expect("it is made");
                    fs::copy(&one, &apart).expect("it is copied");
                    continue;
                }
                let output = output(self.dir, argv);
                assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
                assert!(output.stdout.is_empty() && apart.exists(), "{key}");
                if one.exists() {
                    assert_eq!(self.json(&format!("apart/{file}")), self.json(&format!("one/{file}")), "{key}");
                }
            }
            let (key, argv) = &missing[0];
            assert!(output(self.dir, argv).status.success(), "{key} is done, and a second attempt does no harm");
        }
        self.done("--out apart --merge");
        for file in results {
            assert_eq!(self.json(&format!("apart/{file}")), self.json(&format!("one/{file}")), "{file}");
        }
        self.refused("--out apart --run-item cells", 2, "`cells`");
        self.refused(&format!("--out apart --run-item {UNKNOWN}"), 65, UNKNOWN);
        rounds
    }
}

/// The same without what depends on the machine and the moment.
fn without_times(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_kept = |name: &str| !["seconds", "mean_seconds"].contains(&name);
            let fields = fields.into_iter().filter(|(name, _)| is_kept(name));
            Value::Object(fields.map(|(name, value)| (name, without_times(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_times).collect()),
        value => value,
    }
}

#[test]
fn a_search_measures_widths_and_sites_apart_and_descends_in_the_merge() {
    let dir = tempfile::tempdir().expect("a folder");
    let work = Work { dir: dir.path(), command: "search --limit 8 --bits 2 --no-adapter" };
    assert_eq!(work.apart(&["greedy_search.json", "plan.json"]), [2, 48]);
    // A part of another work under the same name is refused by both names.
    let key = "search/uniform/row-001@0123456789abcdef";
    work.refused(&format!("--out apart --run-item {key}"), 65, key);
}

#[test]
fn an_allocation_measures_apart_what_its_plans_hang_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let command = "allocate --limit 6 --bits 8,3,2 --no-adapter --average-bits 3,5 --swaps 1 --solve-only";
    let rounds = Work { dir: dir.path(), command }.apart(&["solved.json"]);
    assert_eq!(rounds, [1], "the estimates alone");
    let command = command.replace(" --solve-only", "");
    let work = Work { dir: dir.path(), command: &command };
    work.done("--out one");
    // The greedy search beside it is known; its sites are those of the search.
    fs::copy(
        dir.path().join("one/allocation/against-greedy.json"),
        dir.path().join("apart/allocation/against-greedy.json"),
    )
    .expect("it is copied");
    let rounds = work.apart(&["allocation.json", "plan-3.json", "plan-5.json"]);
    assert!(rounds.len() > 1 && rounds.last() == Some(&2), "what decides, then the two budgets: {rounds:?}");
}

#[test]
fn a_damage_table_is_measured_site_by_site() {
    let dir = tempfile::tempdir().expect("a folder");
    let work = Work { dir: dir.path(), command: "allocate --limit 2 --bits 3,2 --no-adapter --average-bits 3 --exact" };
    let missing = work.missing();
    assert_eq!(missing.len(), 48);
    for (key, argv) in [&missing[0], &missing[47]] {
        let output = output(dir.path(), argv);
        assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let left: Vec<String> = work.missing().into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, missing[1..47].iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
    work.refused("--out apart --merge", 4, &format!("46 items are missing, and what needs them:\n  {}", left[0]));

    // While items are missing, a key that none has may be that of one that needs them; but a file is that of one item.
    work.refused(&format!("--out apart --run-item {UNKNOWN}"), 75, "needs items that are not done");
    let path = |key: &str| key.split('@').next().expect("a path").to_owned();
    let of_other_work = format!("{}@0123456789abcdef", path(&left[0]));
    work.refused(&format!("--out apart --run-item {of_other_work}"), 65, &left[0]);

    // One site's damage under the name of another, and what is left of a file.
    let file = |key: &str| dir.path().join(format!("apart/{}.json", path(key)));
    fs::copy(file(&missing[0].0), file(&left[0])).expect("it is copied");
    let named = format!("option `part` was \"{}\"", path(&missing[0].0).trim_start_matches("allocation/"));
    work.refused("--out apart --items", 1, &named);
    work.refused("--out apart --merge", 1, &named);
    work.refused(&format!("--out apart --run-item {}", left[0]), 65, "or of another item");
    for damaged in ["", "{\"version\": 2, \"made_f"] {
        fs::write(file(&left[0]), damaged).expect("it is written");
        work.refused("--out apart --items", 1, "may be removed");
        work.refused(&format!("--out apart --run-item {}", left[0]), 65, "may be removed");
    }
    fs::remove_file(file(&left[0])).expect("it is removed");
    work.done(&format!("--out apart --run-item {}", left[0]));
}

#[test]
fn an_item_may_be_done_at_another_time_where_model_data_or_folder_are_not_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let work = Work { dir: dir.path(), command: "search --limit 2 --bits 2 --no-adapter" };
    fs::create_dir(dir.path().join("model")).expect("it is made");
    for (file, text) in
        [("model/config.json", "{\"model_type\": \"gpt2\""), ("half.json", "{\"data\": ["), ("file", "")]
    {
        fs::write(dir.path().join(file), text).expect("it is written");
    }
    for (flags, expected) in [
        ("--out apart --model nowhere --data generated", "nowhere"),
        ("--out apart --model model --data generated", "config.json"),
        ("--out apart --data nowhere.json", "nowhere.json"),
        ("--out apart --data half.json", "half.json"),
        ("--out file/apart", "file/apart"),
        ("--out file/apart --retries 1", "trying again in 1 s"),
        ("--out apart --data half.json --retries 1", "trying again in 1 s"),
    ] {
        work.refused(&format!("{flags} --run-item {UNKNOWN}"), 75, expected);
    }
    let by_file = Work { command: "report --config nowhere.toml", ..work };
    by_file.refused(&format!("--run-item {UNKNOWN}"), 75, "nowhere.toml");
    by_file.refused("--items", 1, "nowhere.toml");
    work.refused(&format!("--out apart --high 2 --run-item {UNKNOWN}"), 2, "`--high`");
}

#[test]
fn a_list_of_items_writes_nothing_and_is_json_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let work = Work { dir: dir.path(), command: "search --limit 2 --bits 2 --no-adapter" };
    for command in [work.command, "report --limit 2 --search-limit 2 --only uniform"] {
        let listed = Work { command, ..work }.done("--out new/folder --items");
        assert!(listed.lines().count() > 0, "{command}");
        assert!(!dir.path().join("new").exists(), "{command}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let read_only = dir.path().join("read-only");
        fs::create_dir(&read_only).expect("it is made");
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o555)).expect("they are set");
        assert!(work.done("--out read-only --items").lines().count() > 0);
    }
    for flags in ["--items", &format!("--run-item {UNKNOWN}")] {
        work.refused(&format!("--out apart --json {flags}"), 2, "`--items` prints JSON lines already");
    }
}

#[test]
fn attacks_are_made_on_each_width_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let command = "robustness --limit 3 --bits 32,3 --attacks typos,hot-flip-word";
    let rounds = Work { dir: dir.path(), command }.apart(&["robustness.json"]);
    assert_eq!(rounds, [4], "an attack on no width, and one on each and on all");
}

#[test]
fn the_plans_of_a_cascade_are_read_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let command = "dynamic-inference --limit 8 --bits 3,8 --untimed";
    let work = Work { dir: dir.path(), command };
    assert_eq!(work.apart(&["dynamic_inference.json"]), [2, 2], "to calibrate, then to measure");
    // What it needs is not there yet, as when a file system shows it late.
    let listed = work.done("--out apart --items");
    let keys = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("it is JSON")["key"].clone());
    let keys: Vec<String> = keys.map(|key| key.as_str().expect("a key").to_owned()).collect();
    let measured = keys.iter().find(|key| key.starts_with("dynamic/evaluation-1@")).expect("it is listed");
    work.refused(&format!("--out new --run-item {measured}"), 75, "needs items that are not done");
}
