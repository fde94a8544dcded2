//! How a command ends.
//!
//! | what happened | standard error | code |
//! |---|---|---|
//! | it did what it was asked for | | 0 |
//! | something that the user can mend: a file, a value, a full disk | `error: ` and the causes | 1 |
//! | flags that do not go together | `error: ` and what is missing | 2 |
//! | a fault of the program | `internal error: ` and the place | 101 |
//! | `--merge` of work of which items are missing | `error: ` and their keys | 4 |
//! | `--run-item` that never succeeds as it is | `error: ` and the causes | 65 |
//! | `--run-item` that may succeed at another time or place | `error: ` and the causes | 75 |
//! | it was asked to stop (Ctrl-C, SIGTERM), and says what is kept | | 130 |
//! | nobody reads what it prints (`… \| head -n 1`) | | ended by SIGPIPE, which shells show as 141 |
//!
//! An item may succeed at another time or place where model, data or `--out` are not there or not whole, and where items that
//! it needs are not done. It never does where its key is that of no item, where its file is damaged or of other work, and where
//! the work itself refuses.
//!
//! A backtrace is printed in a debug build alone, and only when `RUST_BACKTRACE` asks for it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use crate::made_folders;

/// Flags that do not go together, or a value that no run of the command can have: [`finish`] ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// A command that ends with a code of its own: [`finish`] takes it.
#[derive(Debug)]
pub struct Ended {
    code: u8,
    why: String,
}

impl Ended {
    /// An error that ends with a code.
    pub fn with(code: u8, error: impl Into<anyhow::Error>) -> anyhow::Error {
        Self { code, why: chain(&error.into()) }.into()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Ended {}

/// An error of the flags.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Runs a command and ends as the table above says.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     command_line::finish(command)
/// }
///
/// fn command() -> anyhow::Result<()> {
///     anyhow::bail!("exit code 1");
/// }
/// ```
pub fn finish(command: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    match end_when_nobody_reads().and_then(|()| command()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            made_folders::remove_empty();
            let mut text = format!("error: {}", chain(&error));
            append_backtrace(&mut text, error.backtrace());
            print_to_stderr(&text);
            let code = error.downcast_ref().map(|Ended { code, .. }| *code);
            ExitCode::from(code.unwrap_or(if error.is::<Usage>() { 2 } else { 1 }))
        }
    }
}

/// The error and its causes on one line. Many errors name their cause in their own text, so a cause is left out
/// where it has been said.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.as_str() {
            "" => cause,
            _ if said.contains(&cause) => said,
            _ => format!("{said}: {cause}"),
        }
    })
}

/// A program of Rust ignores SIGPIPE and then panics on the first line that it cannot print; other programs end.
#[cfg(unix)]
fn end_when_nobody_reads() -> anyhow::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::SIGPIPE;
    signal_hook::flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)))?;
    Ok(())
}

#[cfg(not(unix))]
fn end_when_nobody_reads() -> anyhow::Result<()> {
    Ok(())
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    // What `println!` and `eprintln!` say when they cannot write, for instance on a full disk.
    if let Some(failed) = panic.payload_as_str().and_then(|message| message.strip_prefix("failed printing to ")) {
        print_to_stderr(&format!("error: cannot print to {failed}"));
        std::process::exit(1);
    }
    let mut text =
        format!("internal error: {panic}\nthis is a fault of the program; SECURITY.md says how to report it");
    append_backtrace(&mut text, &Backtrace::capture());
    print_to_stderr(&text);
}

fn append_backtrace(text: &mut String, backtrace: &Backtrace) {
    if cfg!(debug_assertions) && backtrace.status() == BacktraceStatus::Captured {
        text.extend(["\n\n", &backtrace.to_string()]);
    }
}

/// Where standard error cannot be written either, there is nobody to tell.
fn print_to_stderr(text: &str) {
    _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_stand_on_one_line_and_each_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("model.safetensors: {source}")]
        struct Unreadable {
            source: io::Error,
        }
        let source = io::Error::other("is a directory");
        let error = Err::<(), _>(Unreadable { source }).context("the model").unwrap_err();
        assert_eq!(chain(&error), "the model: model.safetensors: is a directory");
        let unnamed = Err::<(), _>(io::Error::other("is a directory")).context("the model").unwrap_err();
        assert_eq!(chain(&unnamed), "the model: is a directory");
    }

    #[test]
    fn errors_of_the_flags_are_known_under_their_context() {
        assert!(usage("`--data` is missing").context("report").is::<Usage>());
        assert!(!anyhow::anyhow!("no such file").is::<Usage>());
    }
}
