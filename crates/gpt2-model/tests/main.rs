//! The crate held against `transformers` and PEFT, and against bad input.
//!
//! One program instead of one per file: the model is compiled for its backends once.

mod support;

mod bad_folders;
mod bad_requests;
mod changed_weights;
mod export;
mod generation;
mod gguf;
mod gguf_export;
mod golden_forward;
mod golden_training;
mod int8_codes;
mod kv_cache;
mod learned_steps;
mod long_sequences;
mod merged_packing;
mod observe;
mod packed;
mod peft;
mod quantised;
mod quantised_training;
mod scaling;
mod untied_head;
mod width_heads;
