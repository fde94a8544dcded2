//! Trains a GPT-2 of any size from text files.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::pretrain::main()
}
