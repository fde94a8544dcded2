//! Weights as files hold them: reading, checking and writing safetensors under Hugging Face names.

mod export;
mod source;
mod tensors;
mod values;

pub(crate) use export::write_folder;
pub use source::WeightSource;
pub(crate) use tensors::WeightSet;
pub(crate) use values::Values;
