//! What a command says: text for people, or with `--json` one object for programs.
//!
//! | | standard output | standard error |
//! |---|---|---|
//! | by default | what was found | progress, warnings, errors |
//! | `--json` | one JSON object, the result | everything else |
//!
//! Where a command writes its result to a file as well, the object is what stands there. A command that fails before it has one
//! prints none.

use std::ffi::OsString;
use std::fmt::Arguments;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde::Serialize;

/// The flag, without its dashes.
const JSON: &str = "json";

/// Whether programs read standard output.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// Says a line: `println!`, but on standard error under `--json`.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::say(format_args!($($text)*), "\n") };
}

/// Says a part of a line, or lines with their ends: `print!`, but on standard error under `--json`.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::say(format_args!($($text)*), "") };
}

/// The flags of a command, `--json` among them.
pub fn definition<A: CommandFactory>() -> Command {
    let flag = Arg::new(JSON).long(JSON).action(ArgAction::SetTrue);
    A::command().arg(flag.help("Print the result as one JSON object; what people read goes to standard error"))
}

/// Reads a command line. One that is wrong ends the process with 2, `--help` with 0.
pub fn parse<A: CommandFactory + FromArgMatches>(line: impl IntoIterator<Item = OsString>) -> A {
    let mut definition = definition::<A>();
    let matches = definition.clone().get_matches_from(line);
    read(&matches).unwrap_or_else(|error| error.format(&mut definition).exit())
}

/// The arguments of a command, and whether programs read what it says.
pub(crate) fn read<A: FromArgMatches>(matches: &ArgMatches) -> Result<A, clap::Error> {
    FOR_PROGRAMS.store(matches.get_flag(JSON), Ordering::Relaxed);
    A::from_arg_matches(matches)
}

/// Whether programs read standard output.
pub fn is_for_programs() -> bool {
    FOR_PROGRAMS.load(Ordering::Relaxed)
}

/// What [`outln`] and [`out`] call.
pub fn say(text: Arguments<'_>, end: &str) {
    if is_for_programs() { eprint!("{text}{end}") } else { print!("{text}{end}") }
}

/// The result of the command, where programs read it: said once, at the end.
///
/// # Errors
///
/// When it is no JSON, or standard output takes no more.
pub fn result(result: &impl Serialize) -> anyhow::Result<()> {
    if !is_for_programs() {
        return Ok(());
    }
    let mut text = serde_json::to_string_pretty(result).context("the result as JSON")?;
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot print to stdout")
}
