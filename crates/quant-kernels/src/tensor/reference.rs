//! Everything in plain tensor operations: what kernels are tested against, and what backends
//! without kernels run.
//!
//! ```text
//! q = clamp(round(x / s) + z, low, high)
//! y = (q − z) · s
//! ```
//!
//! These functions need nothing of a backend but burn's own operations.
//!
//! ```
//! use burn::{backend::Flex, tensor::Tensor};
//! use quant_kernels::{BitWidth, GradientRule, QuantSpec, fake_quantize, tensor::reference};
//!
//! let x = Tensor::<Flex, 2>::from_floats([[0.3, -0.7], [0.9, 0.1]], &Default::default());
//! let (bits, spec, rule) = (BitWidth::B3, QuantSpec::default(), GradientRule::Identity);
//! let kernel = fake_quantize(x.clone(), bits, &spec, rule)?;
//! let plain = reference::fake_quantize(x, bits, &spec, rule)?;
//! assert_eq!(kernel.into_data(), plain.into_data());
//! # Ok::<(), quant_kernels::Error>(())
//! ```

use burn::tensor::{Tensor, backend::Backend};

use crate::{
    backends::plain::{
        blocks::broadcastable,
        learned_step::usable,
        levels::clamp_to,
        precision::{narrowed, widened},
        quantisation::choose_params as choose_params_of_primitive,
    },
    error::Result,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec},
    tensor::{learned_step::LearnedStep, params::QuantParams},
};

/// [`choose_params`](crate::tensor::params::choose_params) in plain tensor operations.
///
/// # Errors
///
/// The same.
pub fn choose_params<B: Backend, const D: usize>(
    x: &Tensor<B, D>,
    bits: BitWidth,
    spec: &QuantSpec,
) -> Result<QuantParams<B, D>> {
    QuantParams::choose_by(x, bits, spec, choose_params_of_primitive)
}

/// [`fake_quantize`](crate::tensor::fake_quantize::fake_quantize) in plain tensor operations.
///
/// # Errors
///
/// The same.
pub fn fake_quantize<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    bits: BitWidth,
    spec: &QuantSpec,
    gradient: GradientRule,
) -> Result<Tensor<B, D>> {
    spec.check(bits, D)?;
    if bits.is_full() || x.shape().num_elements() == 0 {
        return Ok(x);
    }
    let params = choose_params(&x, bits, spec)?;
    let params = params.for_shape(x.dims());
    let constant = x.clone().set_require_grad(false);
    let restored = narrowed(params.values(params.nearest(constant.clone())), x.dtype());
    if !B::ad_enabled(&x.device()) {
        return Ok(restored);
    }
    // Zero with gradient −1. Subtracting +0 leaves every value as it is, the sign of −0 included,
    // which adding it would lose.
    let through = constant.clone() - x;
    let through = match gradient {
        GradientRule::Identity => through,
        GradientRule::Clipped => through.mask_fill(params.outside(constant), 0.0),
    };
    Ok(restored - through)
}

/// [`LearnedStep::forward`] in plain tensor operations, whose gradients are those of the operations.
///
/// # Panics
///
/// The same.
pub fn learned_step<B: Backend, const D: usize>(x: Tensor<B, D>, learned: &LearnedStep<B>) -> Tensor<B, D> {
    let dims = x.dims();
    if dims.contains(&0) {
        return x;
    }
    learned.check_fit(dims);
    let quantizer = learned.quantizer(dims);
    let dtype = x.dtype();
    let (x, step) = (widened(x), usable(widened(learned.step.val())));
    let mut broadcast = [1; D];
    for (to, from) in broadcast.iter_mut().rev().zip(step.dims().iter().rev()) {
        *to = *from;
    }
    let step = broadcastable(step.reshape(broadcast), quantizer.granularity(), dims);
    // The step itself, whose gradient is multiplied.
    let constant = step.clone().set_require_grad(false);
    let step = constant.clone() - (constant - step) * quantizer.gradient_scale();
    let clamped = clamp_to(x / step.clone(), quantizer.levels());
    let constant = clamped.clone().set_require_grad(false);
    let rounded = constant.clone().round() - (constant - clamped);
    narrowed(rounded * step, dtype)
}
