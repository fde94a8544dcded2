//! Packing of a weight by the names that models use.

use burn::tensor::Tensor;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, quant_spec::QuantSpec},
    tensor::{learned_step::LearnedStep, rounding::Rounding},
};

use crate::error::Result;

/// [`Rounding::Nearest`], packed.
///
/// # Errors
///
/// Those of [`Rounding::code`].
pub fn pack_weight<B: QuantBackend>(
    weight: &Tensor<B, 2>,
    bits: BitWidth,
    spec: &QuantSpec,
    scale_format: ScaleFormat,
) -> Result<PackedTensor> {
    Ok(Rounding::Nearest { bits, spec: *spec }.pack(weight, scale_format)?)
}

/// [`Rounding::Step`], packed.
///
/// # Errors
///
/// Those of [`Rounding::code`].
pub fn pack_weight_by_step<B: QuantBackend>(
    weight: &Tensor<B, 2>,
    step: &LearnedStep<B>,
    scale_format: ScaleFormat,
) -> Result<PackedTensor> {
    Ok(Rounding::Step(step).pack(weight, scale_format)?)
}
