//! Makes reading-comprehension questions from text files, to train on before real questions.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::cloze_questions::main()
}
