//! The backends of burn that have kernels: the only files of this crate that name one.

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

pub mod head_split;
pub mod linear_terms;
pub(crate) mod plain;
pub mod primitive_params;
pub mod quant_backend;
pub mod same_tensor;
pub mod transformer_backend;
