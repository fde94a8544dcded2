//! Answers questions about a text, each request by a plan of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::answer::main()
}
