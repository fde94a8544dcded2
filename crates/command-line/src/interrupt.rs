//! Ctrl-C and SIGTERM.

use std::path::Path;
use std::sync::OnceLock;

use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::{experiments, reader};

use crate::arguments::items::without_flags;
use crate::made_folders;

/// The exit code of a command that was asked to stop.
const STOPPED: i32 = 130;

/// A flag that Ctrl-C and SIGTERM raise. The first one lets the work stop at its next safe point and save; a
/// second one ends the program at once.
///
/// # Errors
///
/// When the handler cannot be installed.
pub fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    static INSTALLED: OnceLock<StopFlag> = OnceLock::new();
    if let Some(stop) = INSTALLED.get() {
        return Ok(stop.clone());
    }
    let stop = StopFlag::default();
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.is_requested() {
            std::process::exit(STOPPED);
        }
        eprintln!("stopping at the next safe point; once more ends at once");
        raised.request();
    })?;
    Ok(INSTALLED.get_or_init(|| stop).clone())
}

/// Runs a command that keeps what is done of it in a folder. One that was asked to stop ends with exit code
/// 130, and says where that is and by which command it goes on.
///
/// # Errors
///
/// Those of the command.
pub fn resumable(kept_in: &Path, command: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let result = command();
    if result.as_ref().is_err_and(was_stopped) {
        let program = std::env::args_os().next().unwrap_or_default();
        let program = quoted(&program.to_string_lossy());
        eprintln!("stopped; what is done is kept in {}. It goes on with", kept_in.display());
        eprintln!("  {program} {}", line_of(&arguments()));
        std::process::exit(STOPPED);
    }
    result
}

/// Runs a command that keeps nothing until it is done. One that was asked to stop says so, with exit code 130.
///
/// # Errors
///
/// Those of the command.
pub fn stoppable(command: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let result = command();
    if result.as_ref().is_err_and(was_stopped) {
        made_folders::remove_empty();
        eprintln!("stopped; nothing was written, so that it starts anew with the same command");
        std::process::exit(STOPPED);
    }
    result
}

/// The command that makes again what is made now: as a subcommand where it is one, else as an example of the workspace. By
/// how many processes it was made, and what they said of it on the way, is left out.
pub fn command_again(example: &str) -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let is_subcommand = Path::new(&program).file_stem().is_some_and(|name| name == "switchable-quant");
    let program = if is_subcommand {
        "switchable-quant".to_owned()
    } else {
        format!("cargo run --release --example {example} --")
    };
    format!("{program} {}", line_of(&of_the_result(&arguments())))
}

/// The arguments that say what a command finds, and where it writes it.
fn of_the_result(arguments: &[String]) -> Vec<String> {
    let mut arguments = without_flags(arguments);
    arguments.retain(|argument| !["--quiet", "--json"].contains(&argument.as_str()));
    arguments
}

/// The arguments of the command. What is no UTF-8 of them stands as a person reads it.
fn arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// Arguments as a shell reads them.
fn line_of(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

pub(crate) fn was_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(experiments::error::Error::Stopped))
            || matches!(cause.downcast_ref(), Some(reader::Error::Stopped))
    })
}

/// An argument as a shell reads it back.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_change_them() {
        for (argument, expected) in [
            ("--out", "--out"),
            ("runs/a-1.json", "runs/a-1.json"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }

    #[test]
    fn a_merge_is_made_again_by_the_command_of_one_process() {
        let line = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let merged = line("report --seed 1 --out runs/a --quiet --merge --json");
        assert_eq!(of_the_result(&merged), line("report --seed 1 --out runs/a"));
    }

    #[test]
    fn a_stop_is_found_under_its_context() {
        use anyhow::Context as _;
        let stopped = Err::<(), _>(experiments::error::Error::Stopped).context("in the search").unwrap_err();
        assert!(was_stopped(&stopped) && was_stopped(&reader::Error::Stopped.into()));
        assert!(!was_stopped(&anyhow::anyhow!("another")));
    }
}
