//! Quantisation of primitives by learned steps. A step of 0 counts as NaN.

use burn::tensor::{Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    backends::plain::{
        blocks::{broadcastable, reduce_blocks, sum_of},
        levels::clamp_to,
        matrices::{as_matrices, with_shape_of},
        precision::{narrowed, narrowed_gradient, widened},
    },
    spec::step_quantizer::StepQuantizer,
};

/// The values after quantisation.
pub(crate) fn learned_step<B: Backend>(
    x: FloatTensor<B>,
    step: FloatTensor<B>,
    quantizer: &StepQuantizer,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let [x, step] = [x, step].map(|tensor| widened(as_matrices::<B>(tensor)));
    let step = broadcastable(usable(step), quantizer.granularity(), x.dims());
    let levels = clamp_to(x / step.clone(), quantizer.levels()).round();
    with_shape_of(narrowed(levels * step, dtype), shape)
}

/// The gradients of values and of steps.
pub(crate) fn learned_step_backward<B: Backend>(
    x: FloatTensor<B>,
    step: FloatTensor<B>,
    gradient: FloatTensor<B>,
    quantizer: &StepQuantizer,
) -> [FloatTensor<B>; 2] {
    let (shape, step_shape) = (x.shape(), step.shape());
    let (dtype, step_dtype) = (x.dtype(), step.dtype());
    let [x, step, gradient] = [x, step, gradient].map(|tensor| widened(as_matrices::<B>(tensor)));
    let step = usable(step);
    let steps = step.dims();
    let granularity = quantizer.granularity();
    let ratio = x.clone() / broadcastable(step, granularity, x.dims());
    let levels = clamp_to(ratio.clone(), quantizer.levels()).round();
    let clamped = ratio.clone().abs().lower_elem(quantizer.levels().high).bool_not();
    let slope = levels - ratio.mask_fill(clamped.clone(), 0.0);
    let [of_step] = reduce_blocks(slope * gradient.clone(), granularity, steps, |block| [sum_of(block)]);
    let of_step = of_step * quantizer.gradient_scale();
    let of_x = narrowed_gradient(gradient.mask_fill(clamped, 0.0), dtype);
    [with_shape_of(of_x, shape), with_shape_of(narrowed_gradient(of_step, step_dtype), step_shape)]
}

/// Steps, NaN where they are 0.
pub(crate) fn usable<B: Backend, const D: usize>(step: Tensor<B, D>) -> Tensor<B, D> {
    let zero = step.clone().equal_elem(0.0);
    step.mask_fill(zero, f32::NAN)
}
