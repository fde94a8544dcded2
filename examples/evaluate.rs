//! Accuracy of a model under a plan on SQuAD questions, or of a file of predictions.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::evaluate::main()
}
