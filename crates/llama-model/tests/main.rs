//! The crate held against `transformers` and PEFT, and against bad input.
//!
//! One program instead of one per file: the model is compiled for its backends once.

mod support;

mod bad_folders;
mod export;
mod generation;
mod gguf;
mod gguf_export;
mod golden_forward;
mod golden_training;
mod grouped_queries;
mod kv_cache;
mod packed;
mod peft;
mod quantised;
mod scaling;
