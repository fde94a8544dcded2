//! How attacks on the questions and contexts change the answers, width against width.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::robustness::main()
}
