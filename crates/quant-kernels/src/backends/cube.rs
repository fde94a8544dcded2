//! The `CubeCL` kernels on the tensors of burn's GPU backends: CUDA, and wgpu with Vulkan, Metal and
//! WebGPU behind it.
//!
//! f16 and bf16 are computed in f32, scales included, and rounded once at the end; f64 runs on plain tensor
//! operations, and so do the ranges of the estimators that are not min-max.

use burn::tensor::{
    DType, FloatDType,
    ops::{FloatTensor, FloatTensorOps},
};
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement, tensor::CubeTensor};

use crate::{
    backends::{
        linear_terms::LinearTerms,
        plain::{self, matrices::matrices_of},
        primitive_params::PrimitiveParams,
        quant_backend::{QuantBackend, packed_linear_of_dequantized},
        transformer_backend::TransformerBackend,
    },
    cube,
    packed::{packed_view::PackedView, product::activations::ActivationBits},
    spec::{
        block_shape::BlockShape, formats::code_book::CodeBook, quantizer::Quantizer, range_estimator::RangeEstimator,
    },
};

impl<R, F, I, BT> QuantBackend for CubeBackend<R, F, I, BT>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    fn fake_quantize(x: FloatTensor<Self>, quantizer: &Quantizer) -> FloatTensor<Self> {
        if has_kernel(&x) && has_kernel_for_range(quantizer) && has_kernel_for_format(quantizer) {
            let block = block_shape(&x, quantizer);
            return cube::fake_quantize::fake_quantize(x, block, quantizer.levels(), quantizer.spec().format);
        }
        let params = Self::choose_params(x.clone(), quantizer);
        Self::fake_quantize_by(x, &params, quantizer)
    }

    fn choose_params(x: FloatTensor<Self>, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        if has_kernel(&x) && has_kernel_for_range(quantizer) && has_kernel_for_format(quantizer) {
            let block = block_shape(&x, quantizer);
            let cube::DeviceParams { scale, zero_point } =
                cube::choose_params::choose_params(x, block, quantizer.levels(), quantizer.spec().format);
            return PrimitiveParams { scale, zero_point };
        }
        plain::quantisation::choose_params(x, quantizer)
    }

    fn fake_quantize_by(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        if has_kernel(&x) && has_kernel(&params.scale) && has_kernel_for_format(quantizer) {
            let block = block_shape(&x, quantizer);
            return cube::fake_quantize::apply_params(x, checked(params, block), block, quantizer.levels());
        }
        plain::quantisation::fake_quantize(x, params, quantizer)
    }

    fn pass_inside(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        if has_kernel(&x) && has_kernel(&params.scale) && has_kernel(&gradient) && has_kernel_for_format(quantizer) {
            let block = block_shape(&x, quantizer);
            assert_eq!(x.meta.shape(), gradient.meta.shape(), "there is one gradient for each value");
            return cube::fake_quantize::pass_gradient_inside(
                x,
                checked(params, block),
                gradient,
                block,
                quantizer.levels(),
            );
        }
        plain::quantisation::pass_inside(x, params, gradient, quantizer)
    }

    fn packed_linear(
        x: FloatTensor<Self>,
        weight: PackedView<'_>,
        activations: ActivationBits,
        terms: LinearTerms<Self>,
    ) -> FloatTensor<Self> {
        let shape = [x.meta.shape()[0], weight.shape()[1]];
        if shape.contains(&0) {
            // burn's products of nothing divide by zero.
            return Self::float_empty(shape.into(), &x.device, x.dtype.into());
        }
        packed_linear_of_dequantized::<Self>(x, weight, activations, terms)
    }

    fn dequantize_packed(weight: PackedView<'_>, device: &Self::Device, dtype: FloatDType) -> FloatTensor<Self> {
        let (stored, bits) = weight.stored();
        let uniform = matches!(weight.code_book(), CodeBook::Uniform(_));
        if uniform && is_kernel_type(dtype.into()) && weight.shape().iter().all(|&size| size > 0) {
            return cube::resident_weight::dequantize_on_device(stored, bits, device, dtype.into());
        }
        plain::packed::dequantize_on_host::<Self>(weight, device, dtype)
    }
}

impl<R, F, I, BT> TransformerBackend for CubeBackend<R, F, I, BT>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
}

fn has_kernel<R: CubeRuntime>(x: &CubeTensor<R>) -> bool {
    is_kernel_type(x.dtype) && x.meta.num_elements() > 0
}

fn is_kernel_type(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

fn has_kernel_for_range(quantizer: &Quantizer) -> bool {
    quantizer.spec().range == RangeEstimator::MinMax
}

/// Tables have none: they run on plain tensor operations.
fn has_kernel_for_format(quantizer: &Quantizer) -> bool {
    matches!(quantizer.code_book(), CodeBook::Uniform(_))
}

fn block_shape<R: CubeRuntime>(x: &CubeTensor<R>, quantizer: &Quantizer) -> BlockShape {
    BlockShape::new(matrices_of(x), quantizer.spec().granularity)
}

/// The parameters, whose number the kernels rely on.
fn checked<R, F, I, BT>(params: &PrimitiveParams<CubeBackend<R, F, I, BT>>, block: BlockShape) -> cube::DeviceParams<R>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let shape = block.param_shape();
    let PrimitiveParams { scale, zero_point } = params.clone();
    for param in [Some(&scale), zero_point.as_ref()].into_iter().flatten() {
        assert_eq!(param.meta.shape().as_slice(), shape, "scales do not fit a tensor of {block:?}");
    }
    if let Some(zero_point) = &zero_point {
        assert_eq!(zero_point.dtype, scale.dtype, "scales and zero points have one type");
    }
    cube::DeviceParams { scale, zero_point }
}
