//! How well a language model foretells documents, at one width after another.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::perplexity::main()
}
