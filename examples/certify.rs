//! What an artefact costs beside the model that it was made from, proved on questions that did not make it.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::certify::main()
}
