//! From values to integer levels and back.
//!
//! ```text
//! q = clamp(round(x / s) + z, low, high)
//! y = (q − z) · s
//! ```
//!
//! Rounding is half to even. `x / s` is a true division, not a product with 1 / s, so that
//! backends agree to the last bit.

use burn::tensor::{Tensor, backend::Backend};

use crate::{backends::plain::precision::narrowed, tensor::params::QuantParams};

/// The levels of `x`: integers held in a float tensor, as plain tensor operations need them. Those of 16-bit
/// values are f32, as bf16 has no integer past 256. The level of a NaN is NaN.
///
/// # Shapes
///
/// - `x` and output: the same, one whose scales have the shape of `params`
///
/// # Panics
///
/// If the scales do not fit the shape of `x`.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::{BitWidth, QuantSpec, choose_params, dequantize, quantize};
///
/// let x = Tensor::<Flex, 1>::from_floats([0.25, -3.5, 1.75], &Default::default());
/// let params = choose_params(&x, BitWidth::B4, &QuantSpec::default())?; // s = 0.5
/// let levels = quantize(x, &params);
/// assert_eq!(levels.to_data().to_vec::<f32>().unwrap(), [0.0, -7.0, 4.0]); // 0.5 to 0, 3.5 to 4
/// let y = dequantize(levels, &params);
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [0.0, -3.5, 2.0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
pub fn quantize<B: Backend, const D: usize>(x: Tensor<B, D>, params: &QuantParams<B, D>) -> Tensor<B, D> {
    params.for_shape(x.dims()).nearest(x)
}

/// The values that levels stand for, in the type of the values that the scales were chosen for.
///
/// # Shapes
///
/// - `levels` and output: the same, one whose scales have the shape of `params`
///
/// # Panics
///
/// If the scales do not fit the shape of `levels`.
pub fn dequantize<B: Backend, const D: usize>(levels: Tensor<B, D>, params: &QuantParams<B, D>) -> Tensor<B, D> {
    narrowed(params.for_shape(levels.dims()).values(levels), params.dtype())
}
