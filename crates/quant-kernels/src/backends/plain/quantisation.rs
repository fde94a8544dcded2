//! Quantisation of primitives.

use burn::tensor::{Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    backends::{
        plain::{
            blocks::{broadcastable, reduce_blocks},
            levels::Broadcast,
            matrices::{as_matrices, with_shape_of},
            precision::{narrowed, widened},
            ranges::BlockQuantizer,
        },
        primitive_params::PrimitiveParams,
    },
    spec::{quant_spec::QuantSpec, quantizer::Quantizer},
};

/// Scales and zero points, in f32 for values of 16 bits.
pub(crate) fn choose_params<B: Backend>(x: FloatTensor<B>, quantizer: &Quantizer) -> PrimitiveParams<B> {
    let x = widened(as_matrices::<B>(x).set_require_grad(false));
    let QuantSpec { granularity, format, range } = quantizer.spec();
    let Ok(shape) = granularity.param_shape(x.dims()) else {
        unreachable!("three dimensions are enough for every granularity")
    };
    let of_block = BlockQuantizer { book: quantizer.code_book(), range };
    let primitive = |param: Tensor<B, 3>| param.into_primitive().tensor();
    if format.has_zero_points() {
        let params = reduce_blocks(x, granularity, shape, |block| of_block.scale_and_zero_point(&block));
        let [scale, zero_point] = params.map(primitive);
        PrimitiveParams { scale, zero_point: Some(zero_point) }
    } else {
        let [scale] = reduce_blocks(x, granularity, shape, |block| [of_block.scale(&block)]);
        PrimitiveParams { scale: primitive(scale), zero_point: None }
    }
}

/// The values after quantisation by given scales.
pub(crate) fn fake_quantize<B: Backend>(
    x: FloatTensor<B>,
    params: &PrimitiveParams<B>,
    quantizer: &Quantizer,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let x = as_matrices::<B>(x);
    let params = fit(params, quantizer, x.dims());
    with_shape_of(narrowed(params.values(params.nearest(x)), dtype), shape)
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
    let outside = fit(params, quantizer, x.dims()).outside(x);
    with_shape_of(as_matrices::<B>(gradient).mask_fill(outside, 0.0), shape)
}

fn fit<B: Backend>(params: &PrimitiveParams<B>, quantizer: &Quantizer, dims: [usize; 3]) -> Broadcast<B, 3> {
    let fit =
        |param: &FloatTensor<B>| broadcastable(as_matrices::<B>(param.clone()), quantizer.spec().granularity, dims);
    let (scale, zero_point) = (fit(&params.scale), params.zero_point.as_ref().map(fit));
    Broadcast { scale, zero_point, book: quantizer.code_book() }
}
