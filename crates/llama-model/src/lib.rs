#![doc = include_str!("../README.md")]

pub mod attention;
pub mod block;
pub mod config;
mod initial;
pub mod mlp;
pub mod model;
pub mod rotary;
pub mod sub_modules;

pub use config::LlamaConfig;
pub use model::{Llama, LlamaForQuestionAnswering};
