//! Which sub-modules can afford how few bits: sensitivity of every site, then the greedy search.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::greedy_search::main()
}
