//! Searches down a ladder of widths and allocations from estimates, through the programs themselves.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use support::{done, json, program, run};

/// Site, exact match and whether it was kept, of every step of a search.
fn steps(search: &Value) -> Vec<(String, f64, bool)> {
    let step = |step: &Value| {
        let exact = step["accuracy"]["exact_match"].as_f64().expect("a trial that was read to its end");
        (step["site"].to_string(), exact, step["accepted"] == true)
    };
    search["path"].as_array().expect("a path").iter().map(step).collect()
}

#[test]
fn a_ladder_of_two_rungs_ends_at_the_plan_of_the_studys_search() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    // At 2 bits without adapters the search stops early, with a step that is undone.
    let common = "greedy_search --limit 16 --no-adapter --tolerance 0.2";
    done(at, &format!("{common} --bits 2 --out study"));
    done(at, &format!("{common} --ladder 32,2 --out ladder"));
    let [study, ladder] = ["study", "ladder"].map(|out| json(&at.join(out).join("greedy_search.json")));
    let flips = steps(&study["search"]);
    assert_eq!(steps(&ladder["ladder"]["search"]), flips);
    assert!(flips.len() > 2 && flips.iter().any(|(.., accepted)| !accepted), "{flips:?}");
    assert_eq!(json(&at.join("study/plan.json")), json(&at.join("ladder/ladder-plan.json")));
    assert!(!at.join("study/ladder-plan.json").exists() && study["ladder"].is_null());
}

#[test]
fn a_ladder_by_bytes_is_set_beside_other_plans_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    let solved = done(at, "allocate --limit 8 --bits 32,8,3 --no-adapter --average-bits 6 --solve-only --out a");
    assert!(solved.contains("144 of 144 damages are estimated"), "{solved}");
    let printed = done(
        at,
        "greedy_search --limit 8 --ladder 32,8,3 --no-adapter --average-bits 6 --compare-with a/plan-6.json --out l",
    );
    let found = json(&at.join("l/greedy_search.json"));
    let held_out = &found["ladder"]["held_out"];
    assert!(found["cost"]["average_bits"].as_f64().expect("a number") < 6.0);
    assert_eq!(held_out["others"][0]["label"], "plan-6.json");
    assert!(held_out["bytes"].as_u64() <= Some(6 * 589_824 / 8), "{held_out}");
    assert!(printed.contains("points over plan-6.json") && printed.contains("one width everywhere:"), "{printed}");
    // What was searched is known: the same search ends at once, and other plans are no part of it.
    let again = done(at, "greedy_search --limit 8 --ladder 32,8,3 --no-adapter --average-bits 6 --out l");
    assert!(again.contains("plans evaluated"), "{again}");
}

#[test]
fn flags_of_a_ladder_and_plans_to_compare_are_checked_before_the_search() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    fs::write(at.join("broken.json"), "{").expect("it is written");
    let refused = |command: &str, parts: &[&str]| {
        let output = run(at, command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && parts.iter().all(|part| errors.contains(part)), "{command}: {errors}");
    };
    for flag in ["--exact", "--average-bits 5", "--site-bytes 300000", "--compare-with broken.json"] {
        let name = flag.split(' ').next().expect("a flag");
        refused(&format!("greedy_search --limit 8 --bits 3 --no-adapter {flag} --out s"), &["--ladder", name]);
    }
    let tiny = "greedy_search --limit 8 --ladder 8,4,2 --no-adapter --out t --average-bits";
    refused(&format!("{tiny} 1"), &["--average-bits 1", "at least"]);
    assert!(!at.join("t/search/estimates").exists() && !at.join("t/search/ladder").exists(), "nothing was estimated");
    for file in ["missing.json", "broken.json"] {
        let search = "greedy_search --limit 8 --ladder 32,8,3 --no-adapter --average-bits 6 --out c";
        refused(&format!("{search} --compare-with {file}"), &[file]);
        assert!(!at.join("c/search").exists(), "nothing was searched");
    }
}

#[test]
fn allocations_measure_what_decides_and_exact_ones_everything() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    let common = "allocate --limit 8 --bits 8,4,3,2 --no-adapter --average-bits 3 --swaps 1";
    let printed = done(at, &format!("{common} --out estimated"));
    let found = json(&at.join("estimated/allocation.json"));
    let choices = |table: &Value| -> Vec<Value> {
        let rows = table["sites"].as_array().expect("sites").iter();
        rows.flat_map(|row| row["choices"].as_array().expect("choices").clone()).collect()
    };
    let estimated = choices(&found["table"]).iter().filter(|choice| choice["comparison"].is_null()).count();
    assert!((1..48 * 3).contains(&estimated), "{estimated}");
    assert!(printed.contains(&format!("{estimated} of 192 damages are estimated")), "{printed}");
    // Every damage of the plan is measured.
    let validated = done(at, &format!("{common} --validate-estimates --out exact"));
    assert!(validated.contains("estimated damage against measured") && !validated.contains("are estimated"));
    let exact = json(&at.join("exact/allocation.json"));
    assert!(choices(&exact["table"]).iter().all(|choice| !choice["comparison"].is_null()));
    assert!(exact["validation"]["all"]["coefficient"].as_f64() > Some(0.9), "{}", exact["validation"]["all"]);
    let [solved, best] = [&found, &exact].map(|json| json["solved"][0]["damage"].as_f64().expect("a number"));
    assert!(solved >= best && solved < 1.5 * best, "{solved} against {best}");
    // A table that was measured whole is not estimated again, and the other's results stay.
    let again = done(at, &format!("{common} --out exact"));
    assert!(!again.contains("are estimated"), "{again}");
    let refused = run(at, &format!("{common} --exact --out estimated"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("`damage`"), "{said}");
}

#[test]
fn what_follows_is_said_unless_it_is_to_be_quiet() {
    let dir = tempfile::tempdir().expect("a folder");
    let solve = "--limit 4 --bits 8,4 --no-adapter --average-bits 6 --solve-only --out a";
    let said = |quiet: &[&str]| {
        let mut command = Command::new(program("allocate"));
        command.args(solve.split_whitespace()).args(quiet).current_dir(dir.path()).stdin(Stdio::null());
        String::from_utf8(command.output().expect("it runs").stderr).expect("it is text")
    };
    let expected = "next: cargo run --release --example evaluate -- --plan a/plan-6.json\n";
    let loud = said(&[]);
    assert!(loud.contains(expected), "{loud}");
    assert!(!said(&["--quiet"]).contains("next: "));
}
