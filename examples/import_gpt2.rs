//! Loads a model folder in Hugging Face form and shows that it is read right.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::import_gpt2::main()
}
