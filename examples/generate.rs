//! Continues texts, printed as they come, with keys and values kept in codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::generate::main()
}
