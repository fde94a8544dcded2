//! What a model and a plan take, before anything is loaded.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::inspect::main()
}
