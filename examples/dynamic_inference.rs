//! Answers at few bits, and at more where the confidence is low; plans picked by budget.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::dynamic_inference::main()
}
