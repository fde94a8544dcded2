//! The switchable layer as a whole: what it computes, where gradients flow, what it keeps, and how
//! it lives as a module.

mod adapters;
mod as_module;
mod cache;
mod compute;
mod embeddings;
mod failing_saves;
mod gradients;
mod learned_steps;
mod outputs;
mod packed;
mod peft_golden;
mod quantisers;
mod rotation;
mod shared_adapters;
mod support;
