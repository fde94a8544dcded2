//! Long evaluations show on a terminal how far they are and what time is left: the commands themselves, under a
//! pseudo-terminal.
#![cfg(unix)]

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};

use switchable_quant::data::{GeneratorConfig, Split, generate};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");

/// What a command writes to a terminal on its standard error.
fn on_terminal(name: &str, flags: &str, files: &[(&str, &Path)]) -> String {
    let here = std::env::current_exe().expect("a test has a path");
    let target = here.parent().and_then(Path::parent).expect("tests lie in deps");
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).expect("a pseudo-terminal");
    let mut command = Command::new(target.join("examples").join(name));
    command.args(flags.split_whitespace()).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null());
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    let mut child = command.stderr(terminal.slave).spawn().expect("it starts");
    // Its end of the terminal is open as long as the command has it.
    drop(command);
    let (mut screen, mut written, mut buffer) = (File::from(terminal.master), Vec::new(), [0; 4096]);
    // Linux ends a terminal that nobody has open any more with an error.
    while let Ok(read @ 1..) = screen.read(&mut buffer) {
        written.extend_from_slice(&buffer[..read]);
    }
    let written = String::from_utf8_lossy(&written).into_owned();
    assert!(child.wait().expect("it ends").success(), "{name} {flags}: {written}");
    written
}

/// Of each time that a bar was drawn: the steps done, those there are, and the time left.
fn bars<'a>(screen: &'a str, label: &str) -> Vec<(usize, usize, &'a str)> {
    let bar = |drawn: &'a str| {
        let mut words = drawn.split_whitespace();
        let (done, all) = words.by_ref().find_map(|word| word.split_once('/'))?;
        let (_elapsed, left) = words.next()?.split_once('<')?;
        Some((done.parse().ok()?, all.parse().ok()?, left))
    };
    screen.split(label).skip(1).filter_map(bar).collect()
}

/// A command, its flags, its flags of files, and the label of its bar.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a Path)], &'a str);

fn questions(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("dev.json");
    generate(&GeneratorConfig::new(Split::Dev, 12, 2)).expect("valid").write(&file).expect("it is written");
    file
}

#[test]
fn whole_evaluations_show_how_far_they_are_and_what_time_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, out) = (questions(dir.path()), dir.path().join("out"));
    let train: [(&str, &Path); 4] =
        [("--model", Path::new(MODEL)), ("--train", &data), ("--data", &data), ("--out", &out)];
    let certified = dir.path().join("certified");
    let cases: [Case<'_>; 4] = [
        ("evaluate", "--bits 4 --limit 120 --batch 4", &[], "evaluation"),
        ("certify", "--limit 120 --batch 4 --timed 1", &[("--out", &certified)], "original"),
        ("greedy_search", "--bits 3 --limit 12 --batch 2 --tolerance 0.5", &[("--out", &out)], "one width everywhere"),
        ("train_bank", "--bits 4 --steps 1 --batch 4 --evaluation-limit 40", &train, "evaluation"),
    ];
    for (name, flags, files, label) in cases {
        let screen = on_terminal(name, flags, files);
        let drawn = bars(&screen, label);
        let positions: std::collections::BTreeSet<usize> = drawn.iter().map(|(done, ..)| *done).collect();
        assert!(positions.len() > 3, "{name}: steps {positions:?} of `{label}` in {screen:?}");
        let (_, all, _) = drawn[0];
        assert!(all > 3 && drawn.iter().all(|(done, of, _)| *of == all && *done <= all), "{name}: {drawn:?}");
        let is_time = |left: &str| left.ends_with('s') || left.contains(':');
        assert!(drawn.iter().all(|(.., left)| is_time(left)), "{name}: {drawn:?}");
        let quiet = on_terminal(name, &format!("{flags} --quiet"), files);
        assert!(bars(&quiet, label).is_empty(), "{name} --quiet: {quiet:?}");
    }
}
