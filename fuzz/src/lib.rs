//! Every reader of files, fed with whatever comes: it gives a value or an error, never a panic, within a
//! bounded memory and time.
//!
//! A target is a function of bytes. `cargo fuzz run NAME` calls it under libFuzzer; the test `seeds` calls
//! all of them, on the stable toolchain, with the committed seeds and some thousand changes of each.

mod frame;
mod scratch;
mod targets;

use std::alloc::System;

use cap::Cap;

pub use frame::SEPARATOR;
pub use targets::adapters::{TINY_WIDTH, adapter_folder, learned_steps, tiny_model};
pub use targets::data::{predictions, squad, text_files};
pub use targets::models::{config_json, gguf_file, gpt2_folder, llama_folder, weight_index};
pub use targets::packed::{packed_file, packed_folder};
pub use targets::results::{plan_json, stage_part};
pub use targets::tokenizers::{tokenizer_folder, tokenizer_json};

/// The most memory that a reader may hold, in bytes. A request beyond it fails, which ends the program.
pub const MOST_MEMORY: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MOST_MEMORY);

/// Reads bytes as one kind of file.
pub type Target = fn(&[u8]);

/// Every target by the name of its program.
pub const TARGETS: [(&str, Target); 16] = [
    ("adapter_folder", adapter_folder),
    ("config_json", config_json),
    ("gguf_file", gguf_file),
    ("gpt2_folder", gpt2_folder),
    ("learned_steps", learned_steps),
    ("llama_folder", llama_folder),
    ("packed_file", packed_file),
    ("packed_folder", packed_folder),
    ("plan_json", plan_json),
    ("predictions", predictions),
    ("squad", squad),
    ("stage_part", stage_part),
    ("text_files", text_files),
    ("tokenizer_folder", tokenizer_folder),
    ("tokenizer_json", tokenizer_json),
    ("weight_index", weight_index),
];
