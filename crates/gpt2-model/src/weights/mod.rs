//! Weights as files hold them: reading, checking and writing safetensors under Hugging Face names.

mod export;
mod source;
mod tensors;

pub(crate) use export::write_folder;
pub use source::WeightSource;
pub(crate) use tensors::WeightSet;
