//! What one 8-bit tensor that serves every width costs beside a tensor per width.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::nested_distortion::main()
}
