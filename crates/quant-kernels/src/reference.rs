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
//! use quant_kernels::{BitWidth, GradientRule, QuantSpec, fake_quantize, reference};
//!
//! let x = Tensor::<Flex, 2>::from_floats([[0.3, -0.7], [0.9, 0.1]], &Default::default());
//! let (bits, spec, rule) = (BitWidth::B3, QuantSpec::default(), GradientRule::Identity);
//! let kernel = fake_quantize(x.clone(), bits, &spec, rule)?;
//! let plain = reference::fake_quantize(x, bits, &spec, rule)?;
//! assert_eq!(kernel.into_data(), plain.into_data());
//! # Ok::<(), quant_kernels::Error>(())
//! ```

use burn::tensor::{Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    BitWidth, GradientRule, Mapping, PrimitiveParams, QuantParams, QuantSpec, Quantizer, Result,
    blocks::{broadcastable, reduce_blocks},
    quant_backend::{as_matrices, with_shape_of},
    quantize::{clamp_to, restore, to_levels},
    range::BlockQuantizer,
};

/// [`choose_params`](crate::choose_params) in plain tensor operations.
///
/// # Errors
///
/// The same.
pub fn choose_params<B: Backend, const D: usize>(
    x: &Tensor<B, D>,
    bits: BitWidth,
    spec: &QuantSpec,
) -> Result<QuantParams<B, D>> {
    let quantizer = Quantizer::new(bits, *spec, GradientRule::default())?;
    let shape = spec.granularity.param_shape(x.dims())?;
    if x.shape().num_elements() == 0 {
        return Ok(QuantParams::of_nothing(shape, x, quantizer));
    }
    let [scale, zero_point] = params_of(x.clone().set_require_grad(false), &quantizer, shape);
    Ok(QuantParams::new(scale, (spec.mapping == Mapping::Asymmetric).then_some(zero_point), quantizer))
}

/// [`fake_quantize`](crate::fake_quantize) in plain tensor operations.
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
    let (scale, zero_point) = params.for_shape(x.dims());
    let constant = x.clone().set_require_grad(false);
    let unclamped = to_levels(constant.clone(), scale.clone(), zero_point.clone());
    let levels = clamp_to(unclamped.clone(), params.levels());
    let restored = restore(levels.clone(), scale, zero_point);
    if !B::ad_enabled(&x.device()) {
        return Ok(restored);
    }
    // Zero with gradient −1. Subtracting +0 leaves every value as it is, the sign of −0 included,
    // which adding it would lose.
    let through = constant - x;
    let through = match gradient {
        GradientRule::Identity => through,
        GradientRule::Clipped => through.mask_fill(levels.not_equal(unclamped), 0.0),
    };
    Ok(restored - through)
}

pub(crate) fn choose_params_of_primitive<B: Backend>(x: FloatTensor<B>, quantizer: &Quantizer) -> PrimitiveParams<B> {
    let x = as_matrices::<B>(x).set_require_grad(false);
    let shape = match quantizer.spec().granularity.param_shape(x.dims()) {
        Ok(shape) => shape,
        Err(_) => unreachable!("three dimensions are enough for every granularity"),
    };
    let [scale, zero_point] = params_of(x, quantizer, shape).map(|param| param.into_primitive().tensor());
    let zero_point = (quantizer.spec().mapping == Mapping::Asymmetric).then_some(zero_point);
    PrimitiveParams { scale, zero_point }
}

pub(crate) fn fake_quantize_primitive<B: Backend>(
    x: FloatTensor<B>,
    params: &PrimitiveParams<B>,
    quantizer: &Quantizer,
) -> FloatTensor<B> {
    let shape = x.shape();
    let x = as_matrices::<B>(x);
    let (scale, zero_point) = fit(params, quantizer, x.dims());
    let levels = clamp_to(to_levels(x, scale.clone(), zero_point.clone()), quantizer.levels());
    with_shape_of(restore(levels, scale, zero_point), shape)
}

pub(crate) fn pass_inside_primitive<B: Backend>(
    x: FloatTensor<B>,
    params: &PrimitiveParams<B>,
    gradient: FloatTensor<B>,
    quantizer: &Quantizer,
) -> FloatTensor<B> {
    let shape: Shape = x.shape();
    let x = as_matrices::<B>(x);
    let (scale, zero_point) = fit(params, quantizer, x.dims());
    let unclamped = to_levels(x, scale, zero_point);
    let clamped = clamp_to(unclamped.clone(), quantizer.levels()).not_equal(unclamped);
    with_shape_of(as_matrices::<B>(gradient).mask_fill(clamped, 0.0), shape)
}

/// Scale and zero point, the latter 0 for the symmetric mapping.
fn params_of<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    quantizer: &Quantizer,
    shape: [usize; D],
) -> [Tensor<B, D>; 2] {
    let QuantSpec { granularity, mapping, range } = quantizer.spec();
    let of_block = BlockQuantizer { levels: quantizer.levels(), range };
    match mapping {
        Mapping::Symmetric => {
            let [scale] = reduce_blocks(x, granularity, shape, |block| [of_block.scale(&block)]);
            [scale.clone(), scale.zeros_like()]
        }
        Mapping::Asymmetric => reduce_blocks(x, granularity, shape, |block| of_block.scale_and_zero_point(&block)),
    }
}

fn fit<B: Backend>(
    params: &PrimitiveParams<B>,
    quantizer: &Quantizer,
    dims: [usize; 3],
) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
    let fit =
        |param: &FloatTensor<B>| broadcastable(as_matrices::<B>(param.clone()), quantizer.spec().granularity, dims);
    (fit(&params.scale), params.zero_point.as_ref().map(fit))
}
