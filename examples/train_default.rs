//! Makes the built-in model from nothing: tokenizer, base, adapter bank.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::train_default::main()
}
