//! The switchable layer as a whole: what it computes, where gradients flow, what it keeps, and how
//! it lives as a module.

#![expect(clippy::default_trait_access, reason = "there is one device, that of the backend")]

mod adapters;
mod as_module;
mod cache;
mod gradients;
mod learned_steps;
mod outputs;
mod packed;
mod peft_golden;
mod support;
