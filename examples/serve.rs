//! Answers questions and continues texts over HTTP, with a page to try it by.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::serve::main()
}
