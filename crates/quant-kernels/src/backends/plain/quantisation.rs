//! Quantisation of primitives.

use burn::tensor::{Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    backends::{
        plain::{
            blocks::{broadcastable, reduce_blocks},
            levels::{clamp_to, restore, to_levels},
            matrices::{as_matrices, with_shape_of},
            ranges::BlockQuantizer,
        },
        primitive_params::PrimitiveParams,
    },
    spec::{mapping::Mapping, quant_spec::QuantSpec, quantizer::Quantizer},
};

/// Scales and zero points.
pub(crate) fn choose_params<B: Backend>(x: FloatTensor<B>, quantizer: &Quantizer) -> PrimitiveParams<B> {
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

/// The values after quantisation by given scales.
pub(crate) fn fake_quantize<B: Backend>(
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

/// The gradient where the level was not clamped, 0 elsewhere.
pub(crate) fn pass_inside<B: Backend>(
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
