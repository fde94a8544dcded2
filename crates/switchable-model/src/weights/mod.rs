//! Weights as files hold them: reading, checking and writing them under Hugging Face names, and
//! making a model's parameters of them.

pub mod builder;
mod entry;
pub(crate) mod export;
pub mod opening;
pub mod source;
pub(crate) mod tensors;
pub(crate) mod values;
