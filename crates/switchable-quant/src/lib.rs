#![doc = include_str!("../README.md")]

#[cfg(any(feature = "cuda", test))]
mod cuda_driver;
mod error;

pub mod backend;
pub mod default_model;
pub mod device;
pub mod families;
#[cfg(feature = "hub")]
pub mod hub;
pub mod prelude;

pub use burn;
#[cfg(feature = "experiments")]
pub use charts;
pub use content_identity as identity;
pub use error::{Error, Result};
#[cfg(feature = "experiments")]
pub use experiments;
pub use gpt2_model as model;
pub use llama_model as llama;
pub use quant_kernels as kernels;
pub use span_reader as reader;
pub use squad_data as data;
pub use switchable_lora as lora;
pub use switchable_model as transformer;
