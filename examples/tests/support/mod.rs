//! The programs themselves, run in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("valid input");
    tests.parent().and_then(Path::parent).expect("valid input").join("examples").join(name)
}

pub(crate) fn run(dir: &Path, command: &str) -> Output {
    let mut words = command.split_whitespace();
    let mut program = Command::new(program(words.next().expect("a program")));
    program.args(words).arg("--quiet").current_dir(dir).stdin(Stdio::null()).output().expect("it runs")
}

#[track_caller]
pub(crate) fn done(dir: &Path, command: &str) -> String {
    let output = run(dir, command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is written")).expect("it is JSON")
}
