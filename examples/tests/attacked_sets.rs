//! What attacks make of questions, answered by another model, through the programs themselves.

mod support;

use std::fs;
use std::path::Path;

use support::{done, json, run};

#[track_caller]
fn refused(dir: &Path, command: &str, parts: &[&str]) {
    let output = run(dir, command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && parts.iter().all(|part| errors.contains(part)), "{command}: {errors}");
}

#[test]
fn the_answers_of_a_width_in_files_are_the_column_of_that_width() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    let attacks = "robustness --limit 10 --bits 32,3 --attacks typos,hot-flip-word --out r";
    refused(at, &format!("{attacks} --predictions other=answers"), &["--predictions", "attacked", "without this flag"]);
    done(at, attacks);
    let sets: Vec<String> = fs::read_dir(at.join("r/attacked"))
        .expect("a folder")
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert!(sets.len() > 2 && ["clean", "typos-none", "hot-flip-word-3"].iter().all(|n| sets.iter().any(|s| s == n)));
    refused(at, &format!("{attacks} --predictions 3=answers"), &["another column is called 3"]);
    refused(at, &format!("{attacks} --predictions =answers"), &["NAME=DIR"]);
    refused(at, &format!("{attacks} --predictions other=answers"), &["other", ".json"]);

    // The width itself, as if it were another model.
    for set in &sets {
        done(at, &format!("evaluate --data r/attacked/{set}.json --bits 3 --untimed --out answers/{set}"));
    }
    let shown = done(at, &format!("{attacks} --predictions other=answers"));
    assert!(shown.contains("other"), "{shown}");
    let report = json(&at.join("r/robustness.json"));
    for matrix in report["report"]["matrices"].as_array().expect("matrices") {
        assert_eq!(matrix["others"][0], "other");
        let place = matrix["inference"].as_array().expect("labels").iter().position(|label| label == "3");
        for row in matrix["rows"].as_array().expect("rows") {
            assert_eq!(row["others"][0], row["cells"][place.expect("a label")], "{}", row["source"]);
        }
    }
}
