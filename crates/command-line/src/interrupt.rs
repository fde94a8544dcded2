//! Ctrl-C and SIGTERM.

use std::path::Path;
use std::sync::OnceLock;

use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::{experiments, reader};

use crate::command_words::{line_of, own_arguments, quoted};
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
        eprintln!("  {program} {}", line_of(&own_arguments()));
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

pub(crate) fn was_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(experiments::error::Error::Stopped))
            || matches!(cause.downcast_ref(), Some(reader::Error::Stopped))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_found_under_its_context() {
        use anyhow::Context as _;
        let stopped = Err::<(), _>(experiments::error::Error::Stopped).context("in the search").unwrap_err();
        assert!(was_stopped(&stopped) && was_stopped(&reader::Error::Stopped.into()));
        assert!(!was_stopped(&anyhow::anyhow!("another")));
    }
}
