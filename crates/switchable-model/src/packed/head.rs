//! The codes of the output matrix.

use burn::tensor::Tensor;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, granularity::Granularity, quant_spec::QuantSpec},
    tensor::rounding::Rounding,
};

use crate::error::Result;

/// Codes of the output matrix, transposed.
pub(crate) fn pack_head<B: QuantBackend>(
    output: Tensor<B, 2>,
    bits: BitWidth,
    scale_format: ScaleFormat,
) -> Result<PackedTensor> {
    // A column of the head is a token.
    let spec = QuantSpec::default().with_granularity(Granularity::PerChannel);
    Ok(Rounding::Nearest { bits, spec }.pack(&output.transpose(), scale_format)?)
}
