//! Bits per sub-module under a byte budget: exact allocation, verified, refined, against the greedy search.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::allocate::main()
}
