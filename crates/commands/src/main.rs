//! One program for every command: `switchable-quant search`, `switchable-quant evaluate --bits 4`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};
use clap_complete::Shell;

use command_line::finish;
use commands::{SUBCOMMANDS, Subcommand};

/// What the program is called by.
const PROGRAM: &str = "switchable-quant";

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    let named = line.get(1).and_then(|word| SUBCOMMANDS.iter().find(|subcommand| word == subcommand.name));
    match named {
        Some(subcommand) => finish(|| (subcommand.run)(line_of(subcommand, &line))),
        None => finish(|| {
            complete(&line);
            Ok(())
        }),
    }
}

/// The line that the command reads: program and subcommand are one word, as usage texts have them.
fn line_of(subcommand: &Subcommand, line: &[OsString]) -> Vec<OsString> {
    let program = OsString::from(format!("{PROGRAM} {}", subcommand.name));
    std::iter::once(program).chain(line.iter().skip(2).cloned()).collect()
}

/// Prints the completions of a shell; help or an error where the line names no command.
fn complete(line: &[OsString]) {
    let mut program = program();
    let matches = program.clone().get_matches_from(line);
    let shell = matches.subcommand_matches("completions").and_then(|matches| matches.get_one::<Shell>("shell"));
    if let Some(shell) = shell {
        // Into memory first: it does not expect that a disk is full.
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut program, PROGRAM, &mut script);
        print!("{}", String::from_utf8_lossy(&script));
    }
}

fn program() -> Command {
    let shell = Arg::new("shell").required(true).value_parser(value_parser!(Shell)).help("The shell");
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("One language model at 2 to 32 bits, switched per sub-module at run time")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(SUBCOMMANDS.map(|subcommand| (subcommand.definition)()))
        .subcommand(Command::new("completions").about("Completions of a shell, on standard output").arg(shell))
}
