//! Packs a model and shows what is on disk and how far its logits are from those of floats.

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::pack_gpt2::main()
}
