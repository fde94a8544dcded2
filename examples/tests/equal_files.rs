//! Files of weights that two processes write of equal contents are equal to the byte: files are told apart by their
//! hashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use switchable_quant::default_model::{QuestionSet, questions};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");

fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("valid input");
    tests.parent().and_then(Path::parent).expect("valid input").join("examples").join(name)
}

#[track_caller]
fn run(dir: &Path, command: &str) {
    let mut words = command.split_whitespace();
    let mut program = Command::new(program(words.next().expect("a program")));
    let output = program.args(words).current_dir(dir).stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The files of weights in a folder, by their path in it.
fn weights(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("it is there") {
            let path = entry.expect("it is read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "safetensors") {
                let name = path.strip_prefix(dir).expect("it is in it").to_owned();
                found.insert(name, fs::read(path).expect("it is read"));
            }
        }
    }
    found
}

#[test]
fn two_processes_write_equal_weights_as_equal_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let data = questions(QuestionSet::Search).expect("they are in the program").limited(24);
    data.write(at("data.json")).expect("it is written");
    // Weights as floats, adapters, learned steps; then codes of them.
    let train = "--train data.json --base-steps 1 --steps 2 --batch 4 --micro-batches 2 --bits 4,2 --learned-steps";
    let train = format!("train_bank --model {MODEL} {train} --quantizer per-channel --quiet");
    let commands = [
        (train.as_str(), vec!["model.safetensors", "adapter_model.safetensors", "learned_steps.safetensors"]),
        (
            "pack_gpt2 --model train_bank-0/model --bits 4 --embedding-bits 8 --quantizer per-channel",
            vec!["packed.safetensors", "adapter_model.safetensors", "learned_steps.safetensors"],
        ),
        ("pack_gpt2 --nested --no-adapter", vec!["packed.safetensors"]),
        ("pack_gpt2 --model train_bank-0/model --no-adapter --bits 8", vec!["packed.safetensors"]),
    ];
    for (command, names) in commands {
        let name = command.split_whitespace().next().expect("a program");
        let folders = [0, 1, 2].map(|number| format!("{name}-{number}"));
        let [first, others @ ..] = folders.clone().map(|folder| {
            _ = fs::remove_dir_all(at(&folder));
            run(dir.path(), &format!("{command} --out {folder}"));
            weights(&at(&folder))
        });
        for name in names {
            assert!(first.keys().any(|path| path.ends_with(name)), "{command}: no {name} in {:?}", first.keys());
        }
        for other in others {
            assert_eq!(first.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
            for (path, bytes) in &first {
                assert!(*bytes == other[path], "{command}: {} differs", path.display());
            }
        }
    }
}
