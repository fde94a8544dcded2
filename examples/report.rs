//! The whole study on one model: sweeps, sensitivities, searches, choice at run time, training regimes,
//! attacks; one report.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::report::main()
}
