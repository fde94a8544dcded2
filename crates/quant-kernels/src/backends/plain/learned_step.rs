//! Quantisation of primitives by learned steps.

use burn::tensor::{TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    backends::plain::{
        blocks::{broadcastable, reduce_blocks, sum_of},
        levels::clamp_to,
        matrices::{as_matrices, with_shape_of},
    },
    spec::step_quantizer::StepQuantizer,
};

/// The values after quantisation.
pub(crate) fn learned_step<B: Backend>(
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

/// The gradients of values and of steps.
pub(crate) fn learned_step_backward<B: Backend>(
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
