//! The CPU kernels on the tensors of burn's flex backend.
//!
//! A contiguous tensor is read where it lies, and so is one whose last two dimensions are
//! exchanged; any other layout is copied first. f16 and bf16 are computed in f32 and rounded once
//! at the end; f64 runs on plain tensor operations.

use burn::{
    backend::{
        Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, FloatDType, Shape, TensorMetadata, ops::FloatTensorOps},
};

use crate::{
    Mapping, PrimitiveParams, QuantBackend, Quantizer, RangeEstimator,
    block_shape::BlockShape,
    cpu::{BlockParams, InstructionSet, SliceQuantizer},
    quant_backend::matrices_of,
    reference,
};

impl QuantBackend for Flex {
    fn fake_quantize(x: FlexTensor, quantizer: &Quantizer) -> FlexTensor {
        if quantizer.spec().range != RangeEstimator::MinMax {
            let params = Self::choose_params(x.clone(), quantizer);
            return Self::fake_quantize_by(x, &params, quantizer);
        }
        match Matrices::of(&x, quantizer) {
            Some(matrices) => matrices.tensor(matrices.kernel.round_trip(matrices.values())),
            None => in_f32(
                x,
                |x| Self::fake_quantize(x, quantizer),
                |x| {
                    let params = Self::choose_params(x.clone(), quantizer);
                    reference::fake_quantize_primitive::<Self>(x, &params, quantizer)
                },
            ),
        }
    }

    fn choose_params(x: FlexTensor, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        // The scales of exchanged dimensions would lie in another order than is promised.
        let matrices = match quantizer.spec().range {
            RangeEstimator::MinMax => Matrices::of(&x.to_contiguous(), quantizer),
            _ => None,
        };
        match matrices {
            Some(matrices) => {
                let BlockParams { scales, zero_points } = matrices.kernel.params(matrices.values());
                let shape = Shape::from(matrices.kernel.shape.param_shape());
                let tensor = |values| tensor_of(values, Layout::contiguous(shape.clone()));
                PrimitiveParams { scale: tensor(scales), zero_point: zero_points.map(tensor) }
            }
            None => reference::choose_params_of_primitive(x, quantizer),
        }
    }

    fn fake_quantize_by(x: FlexTensor, params: &PrimitiveParams<Self>, quantizer: &Quantizer) -> FlexTensor {
        match given(&x, params, quantizer) {
            Some((matrices, params)) => matrices.tensor(matrices.kernel.round_trip_by(matrices.values(), &params)),
            None => reference::fake_quantize_primitive(x, params, quantizer),
        }
    }

    fn pass_inside(
        x: FlexTensor,
        params: &PrimitiveParams<Self>,
        gradient: FlexTensor,
        quantizer: &Quantizer,
    ) -> FlexTensor {
        let contiguous = gradient.to_contiguous();
        match (given(&x, params, quantizer), contiguous.as_slice::<f32>()) {
            (Some((matrices, params)), Some(gradient)) => {
                matrices.tensor(matrices.kernel.pass_inside(matrices.values(), &params, gradient))
            }
            _ => reference::pass_inside_primitive(x, params, gradient, quantizer),
        }
    }
}

/// A tensor of f32 as the kernels see it.
struct Matrices {
    tensor: FlexTensor,
    kernel: SliceQuantizer,
    layout: Layout,
}

impl Matrices {
    /// `None` if the numbers are not f32.
    fn of(x: &FlexTensor, quantizer: &Quantizer) -> Option<Self> {
        if x.dtype() != DType::F32 {
            return None;
        }
        let shape = BlockShape::new(matrices_of(x), quantizer.spec().granularity);
        let kernel = |shape| SliceQuantizer {
            set: InstructionSet::best(),
            shape,
            mapping: quantizer.spec().mapping,
            levels: quantizer.levels(),
        };
        let rank = x.shape().num_dims();
        if !x.is_contiguous() && rank >= 2 {
            let exchanged = x.transpose(rank - 2, rank - 1);
            if exchanged.is_contiguous() {
                let layout = Layout::contiguous(exchanged.shape()).transpose(rank - 2, rank - 1);
                return Some(Self { tensor: exchanged, kernel: kernel(shape.transposed()), layout });
            }
        }
        let tensor = if x.is_contiguous() { x.clone() } else { x.to_contiguous() };
        let layout = Layout::contiguous(tensor.shape());
        Some(Self { tensor, kernel: kernel(shape), layout })
    }

    fn values(&self) -> &[f32] {
        match self.tensor.as_slice() {
            Some(values) => values,
            None => unreachable!("it was made contiguous"),
        }
    }

    /// Results in the layout of the input.
    fn tensor(&self, values: Vec<f32>) -> FlexTensor {
        tensor_of(values, self.layout.clone())
    }
}

fn tensor_of(values: Vec<f32>, layout: Layout) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// A tensor with parameters that were chosen before, if all are f32.
fn given(x: &FlexTensor, params: &PrimitiveParams<Flex>, quantizer: &Quantizer) -> Option<(Matrices, BlockParams)> {
    let matrices = Matrices::of(&x.to_contiguous(), quantizer)?;
    let values = |param: &FlexTensor| param.to_contiguous().as_slice::<f32>().map(<[f32]>::to_vec);
    let expected = matrices.kernel.shape.param_shape();
    assert_eq!(params.scale.shape().as_slice(), expected, "scales do not fit a tensor of shape {:?}", x.shape());
    let zero_points = match (&params.zero_point, quantizer.spec().mapping) {
        (Some(zero_point), Mapping::Asymmetric) => Some(values(zero_point)?),
        _ => None,
    };
    Some((matrices, BlockParams { scales: values(&params.scale)?, zero_points }))
}

/// Runs a kernel for f32 on numbers of 16 bits, or `plain` on any others.
fn in_f32(
    x: FlexTensor,
    kernel: impl FnOnce(FlexTensor) -> FlexTensor,
    plain: impl FnOnce(FlexTensor) -> FlexTensor,
) -> FlexTensor {
    let dtype = match x.dtype() {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => return plain(x),
    };
    Flex::float_cast(kernel(Flex::float_cast(x, FloatDType::F32)), dtype)
}
