//! A bank is saved while any one operation of the system fails, or is the last that the process comes to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::peft::{PeftOptions, save::WidthAdapters, save::save_bank};
use switchable_lora::{LoraAdapterPair, LoraConfig, Result};
use whole_files::failing::{Fault, with_fault, without_exchange};

use crate::support::{Plain, device};

/// A bank of some widths, each adapter with a rank of its own.
fn save(dir: &Path, widths: &[(BitWidth, usize)]) -> Result<()> {
    let pairs: Vec<_> = widths
        .iter()
        .map(|&(width, rank)| {
            let config = LoraConfig::new(rank, 4.0).expect("a configuration");
            (width, LoraAdapterPair::<Plain>::adding_nothing(&config, [8, 6], 1, &device()))
        })
        .collect();
    let bank = pairs.iter().map(|(width, pair)| WidthAdapters {
        width: *width,
        pairs: vec![("h.0.mlp.c_fc", pair)],
        options: PeftOptions::default(),
    });
    save_bank(dir, bank)
}

const OLD: [(BitWidth, usize); 2] = [(BitWidth::B4, 2), (BitWidth::B8, 2)];
const NEW: [(BitWidth, usize); 2] = [(BitWidth::B2, 3), (BitWidth::B4, 3)];

/// The old bank in a folder, with files of others beside and in it.
fn with_old_bank() -> tempfile::TempDir {
    let around = tempfile::tempdir().expect("a folder");
    let dir = around.path().join("adapters");
    save(&dir, &OLD).expect("nothing fails");
    for file in ["README.md", "notes/first.txt", "bits-4/trainer_state.json"] {
        whole_files::write(dir.join(file), file.as_bytes()).expect("nothing fails");
    }
    around
}

/// The files of a folder by their path in it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("it is there") {
            let path = entry.expect("it is read").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("it is in it").display().to_string();
                found.insert(name, fs::read(&path).expect("it is read"));
            }
        }
    }
    found
}

/// The files of the old bank and those of the new one in its place.
fn banks() -> [BTreeMap<String, Vec<u8>>; 2] {
    let around = with_old_bank();
    let dir = around.path().join("adapters");
    let old = files(&dir);
    save(&dir, &NEW).expect("nothing fails");
    let new = files(&dir);
    for kept in ["README.md", "notes/first.txt", "bits-4/trainer_state.json"] {
        assert_eq!(new.get(kept).map(Vec::as_slice), Some(kept.as_bytes()));
    }
    assert!(old.contains_key("bits-8/adapter_config.json") && !new.contains_key("bits-8/adapter_config.json"));
    [old, new]
}

/// Saves with a fault at each operation in turn, until there is none left to fail; gives their number.
fn fail_each() -> usize {
    let [old, new] = banks();
    for operation in 0.. {
        let around = with_old_bank();
        let dir = around.path().join("adapters");
        let (result, happened) = with_fault(operation, Fault::Error, || save(&dir, &NEW));
        let held = files(&dir);
        assert!(held == old || held == new, "operation {operation}: {:?}", held.keys());
        match result {
            // A file that cannot be shared is copied.
            Ok(()) => assert!(held == new, "operation {operation}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with(around.path().to_str().expect("a path")), "{error}");
                // What took its place cannot be undone by a failure to remove the old bank.
                let left = fs::read_dir(around.path()).expect("it is there").count();
                assert!(left <= 1 + usize::from(held == new), "operation {operation}: {left} entries");
            }
        }
        if !happened {
            return operation;
        }
    }
    unreachable!("a bank is saved for ever")
}

#[test]
fn an_operation_that_fails_leaves_the_old_bank_or_the_new_one() {
    let operations = fail_each();
    // Two widths of two files, each made, written, synced, named and its name synced.
    assert!(operations > 20, "{operations} operations");
    assert_eq!(without_exchange(fail_each), operations + 3, "a folder is made and two are renamed");
}

/// `OPERATION DIR` in the environment: where the bank is to be saved, and where to die.
const DEATH: &str = "SAVE_BANK_DEATH";

#[test]
#[ignore = "the child of the test below"]
fn saving_that_dies() {
    let Ok(death) = std::env::var(DEATH) else { return };
    let (operation, dir) = death.split_once(' ').expect("two words");
    let operation = operation.parse().expect("a number");
    with_fault(operation, Fault::Death, || save(Path::new(dir), &NEW)).0.expect("nothing fails");
}

#[test]
fn a_process_that_dies_leaves_the_old_bank_or_the_new_one() {
    let program = std::env::current_exe().expect("this program");
    let [old, new] = banks();
    for operation in 0.. {
        let around = with_old_bank();
        let dir = around.path().join("adapters");
        let arguments = ["--exact", "failing_saves::saving_that_dies", "--ignored"];
        let death = format!("{operation} {}", dir.display());
        let output = Command::new(&program).args(arguments).env(DEATH, death).output().expect("it runs");
        let held = files(&dir);
        assert!(held == old || held == new, "death at operation {operation}: {:?}", held.keys());
        if output.status.success() {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child did run");
            assert!(operation > 20 && held == new, "{operation} operations");
            return;
        }
        // The next save clears away what a death left.
        save(&dir, &NEW).expect("nothing fails");
        assert_eq!(files(&dir), new);
    }
}
