//! Weights as files hold them: reading, checking and writing safetensors under Hugging Face names, and
//! making a model's parameters of them.

pub mod builder;
pub(crate) mod export;
pub mod source;
pub(crate) mod tensors;
pub(crate) mod values;
