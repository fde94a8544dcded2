//! Packed weights as primitives.

use burn::tensor::{DType, FloatDType, Tensor, TensorData, backend::Backend, ops::FloatTensor};

use crate::packed::packed_view::PackedView;

/// The values of packed weights, dequantised on the host.
pub(crate) fn dequantize_on_host<B: Backend>(
    weight: PackedView<'_>,
    device: &B::Device,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let values = TensorData::new(weight.dequantize(), weight.shape());
    Tensor::<B, 2>::from_data(values, (device, DType::from(dtype))).into_primitive().tensor()
}
