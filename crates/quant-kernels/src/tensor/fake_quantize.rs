//! Quantisation and its reverse in one, with a gradient.
//!
//! ```text
//! y = dequantize(quantize(x))
//!
//! ∂L/∂x = ∂L/∂y                                identity
//! ∂L/∂x = ∂L/∂y where low ≤ round(x/s) + z ≤ high, else 0      clipped
//! ```
//!
//! Rounding has gradient 0 almost everywhere. The straight-through estimator (Bengio et al.,
//! arXiv:1308.3432) passes the gradient as though nothing had been rounded. Scales and zero points
//! are constants in it.

use burn::tensor::{Tensor, TensorPrimitive};

use crate::{
    backends::quant_backend::QuantBackend,
    error::Result,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, quantizer::Quantizer},
};

/// The values that `x` has after quantisation to `bits`, with the straight-through gradient.
///
/// The result equals `dequantize(quantize(x))` bit for bit, whether or not the backend records
/// gradients. At [`BitWidth::FULL`] and for an empty tensor it is `x` itself.
///
/// Values of 16 bits are computed in f32, scales included, and rounded once at the end, whatever the gradient
/// rule.
///
/// A block of values that holds a NaN or an infinity becomes NaN (see [`choose_params`](crate::tensor::params::choose_params)).
///
/// # Shapes
///
/// - `x` and output: any; for channels and groups `[.., d_in, d_out]`
///
/// # Errors
///
/// Those of [`QuantSpec::check`].
///
/// ```
/// use burn::{backend::{Autodiff, Flex}, tensor::Tensor};
/// use quant_kernels::{BitWidth, GradientRule, QuantSpec, fake_quantize};
///
/// let x = Tensor::<Autodiff<Flex>, 1>::from_floats([0.3, -0.7, 0.9], &Default::default());
/// let x = x.require_grad();
/// let y = fake_quantize(x.clone(), BitWidth::B2, &QuantSpec::default(), GradientRule::Identity)?;
/// assert_eq!(y.to_data().to_vec::<f32>().unwrap(), [0.0, -0.9, 0.9]);
///
/// let gradient = x.grad(&(y * 2.0).sum().backward()).unwrap();
/// assert_eq!(gradient.into_data().to_vec::<f32>().unwrap(), [2.0, 2.0, 2.0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
pub fn fake_quantize<B: QuantBackend, const D: usize>(
    x: Tensor<B, D>,
    bits: BitWidth,
    spec: &QuantSpec,
    gradient: GradientRule,
) -> Result<Tensor<B, D>> {
    spec.check(bits, D)?;
    if bits.is_full() || x.shape().num_elements() == 0 {
        return Ok(x);
    }
    let quantizer = Quantizer::new(bits, *spec, gradient)?;
    let y = B::fake_quantize(x.into_primitive().tensor(), &quantizer);
    Ok(Tensor::from_primitive(TensorPrimitive::Float(y)))
}
