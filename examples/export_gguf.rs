//! A model under a plan as one GGUF file, for llama.cpp and what is built on it.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::export_gguf::main()
}
