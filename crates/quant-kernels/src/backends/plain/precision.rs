//! Tensors of 16 bits, computed in f32.
//!
//! ```text
//! y = round₁₆(f(widen(x)))        one rounding, at the end
//! ```
//!
//! Scales and zero points of 16-bit values are f32: in f16 a scale may be 0, and in bf16 a level past 256 is no
//! number any more.

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};
#[cfg(feature = "flex")]
use burn::tensor::{TensorMetadata, ops::FloatTensor};
use half::{bf16, f16};

#[cfg(feature = "flex")]
use crate::backends::plain::matrices::{as_matrices, with_shape_of};

/// The largest number of a type, above which a rounding gives infinity.
pub(crate) fn largest_of(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::MAX.to_f64(),
        DType::BF16 => bf16::MAX.to_f64(),
        DType::F64 => f64::MAX,
        _ => f64::from(f32::MAX),
    }
}

/// Whether values of a type are computed in f32.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// A tensor of 16 bits in f32, any other as it is.
pub(crate) fn widened<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if is_half(x.dtype()) { x.cast(FloatDType::F32) } else { x }
}

/// A result in the type of what it was computed from. Where 16 bits do not reach, it is the largest number, not
/// infinity; NaN stays.
pub(crate) fn narrowed<B: Backend, const D: usize>(y: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if !is_half(dtype) {
        return y;
    }
    let largest = largest_of(dtype);
    let (above, below) = (y.clone().greater_elem(largest), y.clone().lower_elem(-largest));
    y.mask_fill(above, largest).mask_fill(below, -largest).cast(FloatDType::from(dtype))
}

/// A gradient in the type of what it belongs to; one that 16 bits do not reach is infinite.
pub(crate) fn narrowed_gradient<B: Backend, const D: usize>(gradient: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if is_half(dtype) { gradient.cast(FloatDType::from(dtype)) } else { gradient }
}

/// [`widened`], of a primitive.
#[cfg(feature = "flex")]
pub(crate) fn widened_primitive<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if is_half(x.dtype()) { B::float_cast(x, FloatDType::F32) } else { x }
}

/// [`narrowed`], of a primitive.
#[cfg(feature = "flex")]
pub(crate) fn narrowed_primitive<B: Backend>(y: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if !is_half(dtype) {
        return y;
    }
    let shape = y.shape();
    with_shape_of(narrowed(as_matrices::<B>(y), dtype), shape)
}
