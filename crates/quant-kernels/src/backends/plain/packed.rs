//! Packed weights as primitives.

use burn::tensor::{DType, FloatDType, Tensor, TensorData, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::packed::{half_weight::HalfWeight, packed_view::PackedView};

/// The values of packed weights, dequantised on the host.
pub(crate) fn dequantize_on_host<B: Backend>(
    weight: PackedView<'_>,
    device: &B::Device,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let values = TensorData::new(weight.dequantize(), weight.shape());
    Tensor::<B, 2>::from_data(values, (device, DType::from(dtype))).into_primitive().tensor()
}

/// The values of a weight in bf16, where a tensor is.
pub(crate) fn half_weight<B: Backend>(beside: &FloatTensor<B>, weight: &HalfWeight) -> FloatTensor<B> {
    let values = TensorData::new(weight.values(), weight.shape());
    let (device, dtype) = (B::float_device(beside), beside.dtype());
    Tensor::<B, 2>::from_data(values, (&device, dtype)).into_primitive().tensor()
}
