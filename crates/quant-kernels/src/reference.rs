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

use burn::tensor::{
    Bool, Shape, Tensor, TensorMetadata, TensorPrimitive, activation,
    backend::Backend,
    module::attention,
    ops::{AttentionModuleOptions, FloatTensor},
};

use crate::{
    BitWidth, GradientRule, HeadSplit, LearnedStep, Mapping, PrimitiveParams, QuantParams, QuantSpec, Quantizer,
    Result, StepQuantizer,
    blocks::{broadcastable, reduce_blocks, sum_of},
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
    QuantParams::choose_by(x, bits, spec, choose_params_of_primitive)
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
    let step = learned.step.val();
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
    rounded * step
}

pub(crate) fn learned_step_primitive<B: Backend>(
    x: FloatTensor<B>,
    step: FloatTensor<B>,
    quantizer: &StepQuantizer,
) -> FloatTensor<B> {
    let shape = x.shape();
    let x = as_matrices::<B>(x);
    let step = broadcastable(as_matrices::<B>(step), quantizer.granularity(), x.dims());
    let levels = clamp_to(x / step.clone(), quantizer.levels()).round();
    with_shape_of(levels * step, shape)
}

pub(crate) fn learned_step_backward_primitive<B: Backend>(
    x: FloatTensor<B>,
    step: FloatTensor<B>,
    gradient: FloatTensor<B>,
    quantizer: &StepQuantizer,
) -> [FloatTensor<B>; 2] {
    let (shape, step_shape) = (x.shape(), step.shape());
    let [x, step, gradient] = [x, step, gradient].map(as_matrices::<B>);
    let steps = step.dims();
    let granularity = quantizer.granularity();
    let ratio = x.clone() / broadcastable(step, granularity, x.dims());
    let levels = clamp_to(ratio.clone(), quantizer.levels()).round();
    let clamped = ratio.clone().abs().lower_elem(quantizer.levels().high).bool_not();
    let slope = levels - ratio.mask_fill(clamped.clone(), 0.0);
    let [of_step] = reduce_blocks(slope * gradient.clone(), granularity, steps, |block| [sum_of(block)]);
    let of_step = of_step * quantizer.gradient_scale();
    [with_shape_of(gradient.mask_fill(clamped, 0.0), shape), with_shape_of(of_step, step_shape)]
}

pub(crate) fn choose_params_of_primitive<B: Backend>(x: FloatTensor<B>, quantizer: &Quantizer) -> PrimitiveParams<B> {
    let x = as_matrices::<B>(x).set_require_grad(false);
    let QuantSpec { granularity, mapping, range } = quantizer.spec();
    let Ok(shape) = granularity.param_shape(x.dims()) else {
        unreachable!("three dimensions are enough for every granularity")
    };
    let of_block = BlockQuantizer { levels: quantizer.levels(), range };
    let primitive = |param: Tensor<B, 3>| param.into_primitive().tensor();
    match mapping {
        Mapping::Symmetric => {
            let [scale] = reduce_blocks(x, granularity, shape, |block| [of_block.scale(&block)]);
            PrimitiveParams { scale: primitive(scale), zero_point: None }
        }
        Mapping::Asymmetric => {
            let params = reduce_blocks(x, granularity, shape, |block| of_block.scale_and_zero_point(&block));
            let [scale, zero_point] = params.map(primitive);
            PrimitiveParams { scale, zero_point: Some(zero_point) }
        }
    }
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

fn fit<B: Backend>(
    params: &PrimitiveParams<B>,
    quantizer: &Quantizer,
    dims: [usize; 3],
) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
    let fit =
        |param: &FloatTensor<B>| broadcastable(as_matrices::<B>(param.clone()), quantizer.spec().granularity, dims);
    (fit(&params.scale), params.zero_point.as_ref().map(fit))
}

pub(crate) fn gelu_tanh_primitive<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let x = as_matrices::<B>(x);
    let gate = activation::sigmoid(gelu_argument(x.clone()));
    with_shape_of(x * gate, shape)
}

pub(crate) fn gelu_tanh_backward_primitive<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let (x, gradient) = (as_matrices::<B>(x), as_matrices::<B>(gradient));
    let gate = activation::sigmoid(gelu_argument(x.clone()));
    let slope = (x.clone() * x.clone() * (3.0 * GELU_CUBIC) + 1.0) * gelu_scale();
    let rising = gate.clone() * (gate.clone().neg() + 1.0);
    with_shape_of((gate + x * rising * slope) * gradient, shape)
}

const GELU_CUBIC: f64 = 0.044_715;

fn gelu_scale() -> f64 {
    2.0 * (2.0 / std::f64::consts::PI).sqrt()
}

fn gelu_argument<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let cube = x.clone() * x.clone() * x.clone();
    (cube * GELU_CUBIC + x) * gelu_scale()
}

pub(crate) fn causal_attention_primitive<B: Backend>(qkv: FloatTensor<B>, split: HeadSplit) -> FloatTensor<B> {
    let [q, k, v] = split.split::<B>(Tensor::from_primitive(TensorPrimitive::Float(qkv)));
    let options = AttentionModuleOptions { scale: Some(split.scale), is_causal: true, ..Default::default() };
    HeadSplit::join(attention(q, k, v, None, None, options)).into_primitive().tensor()
}

pub(crate) fn cached_attention_primitive<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let [q, k, v] = [q, k, v].map(|x| Tensor::<B, 4>::from_primitive(TensorPrimitive::Float(x)));
    let options = AttentionModuleOptions { scale: Some(scale), is_causal: true, ..Default::default() };
    HeadSplit::join(attention(q, k, v, None, None, options)).into_primitive().tensor()
}

pub(crate) fn causal_attention_backward_primitive<B: Backend>(
    qkv: FloatTensor<B>,
    gradient: FloatTensor<B>,
    split: HeadSplit,
) -> FloatTensor<B> {
    let [q, k, v] = split.split::<B>(Tensor::from_primitive(TensorPrimitive::Float(qkv)));
    let [batch, heads, tokens, width] = q.dims();
    let gradient = Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(gradient));
    let gradient = gradient.reshape([batch, tokens, heads, width]).swap_dims(1, 2);
    let hidden = Tensor::<B, 2, Bool>::tril_mask([tokens, tokens], 0, &q.device()).unsqueeze::<4>();
    let scores = (q.clone() * split.scale).matmul(k.clone().transpose()).mask_fill(hidden, f32::MIN);
    let p = activation::softmax(scores, 3);
    let dp = gradient.clone().matmul(v.transpose());
    let mean = (p.clone() * dp.clone()).sum_dim(3);
    let ds = p.clone() * (dp - mean) * split.scale;
    let parts = [ds.clone().matmul(k), ds.transpose().matmul(q), p.transpose().matmul(gradient)];
    Tensor::cat(parts.map(HeadSplit::join).to_vec(), 2).into_primitive().tensor()
}
