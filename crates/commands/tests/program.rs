//! The one program: every command under its name, help, completions, errors.

use std::process::{Command, Output, Stdio};

fn run(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchable-quant"));
    command.args(flags).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_has_help_that_names_it_and_flags_of_its_own() {
    let listed = text(&run(&["--help"]).stdout);
    for subcommand in commands::SUBCOMMANDS {
        let about = (subcommand.definition)().get_about().expect("a line about it").to_string();
        let line = listed.lines().find(|line| line.trim_start().starts_with(&format!("{} ", subcommand.name)));
        assert!(line.is_some_and(|line| line.contains(about.split('\n').next().expect("a line"))), "{listed}");
        let help = run(&[subcommand.name, "--help"]);
        let said = text(&help.stdout);
        let definition = (subcommand.definition)();
        let shown = definition.get_arguments().filter(|flag| !flag.is_hide_set());
        let flags: Vec<String> = shown.filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect();
        assert!(!flags.is_empty() && flags.iter().all(|flag| said.contains(flag)), "{said}");
        assert!(help.status.success(), "{}", subcommand.name);
        assert!(said.contains(&format!("Usage: switchable-quant {}", subcommand.name)), "{said}");
    }
    assert!(text(&run(&["--version"]).stdout).starts_with("switchable-quant "));
}

#[test]
fn what_is_no_command_is_refused_with_the_one_that_was_meant() {
    for (flags, expected) in [
        (["evaluat"].as_slice(), "'evaluate'"),
        (&[], "Usage: switchable-quant"),
        (&["completions", "dosshell"], "possible values: bash"),
        (&["evaluate", "--bit", "4"], "Usage: switchable-quant evaluate"),
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(text(&output.stderr).contains(expected), "{flags:?}: {}", text(&output.stderr));
    }
    // A command's own errors end as they do in a program of its own.
    let output = run(&["evaluate", "--task", "generate", "--span-head", "base"]);
    assert_eq!((output.status.code(), text(&output.stderr).contains("`--span-head`")), (Some(2), true));
}

#[test]
fn completions_of_every_shell_know_the_commands_and_their_flags() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        let script = text(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        assert!(
            ["nested-distortion", "embedding-bits", "shots-from"].iter().all(|word| script.contains(word)),
            "{shell}"
        );
    }
}

#[test]
fn a_command_runs_as_it_does_in_a_program_of_its_own() {
    let output = run(&["evaluate", "--limit", "2", "--bits", "4", "--untimed", "--quiet"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let last = text(&output.stdout);
    assert_eq!(last.lines().last(), Some(r#"{"exact_match":100.0,"f1":100.0,"n":2}"#), "{last}");
}
