//! Trains an adapter bank on SQuAD files for any model folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::train_bank::main()
}
