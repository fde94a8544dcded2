//! The CPU kernels on the tensors of burn's ndarray backend, which are copied out and in.

use burn::{
    backend::NdArray,
    tensor::{DType, Tensor, TensorData, TensorMetadata, TensorPrimitive, ops::FloatTensor},
};

use crate::{
    Mapping, PrimitiveParams, QuantBackend, Quantizer, RangeEstimator,
    block_shape::BlockShape,
    cpu::{BlockParams, InstructionSet, SliceQuantizer},
    quant_backend::{as_matrices, matrices_of, with_shape_of},
    reference,
};

type Primitive = FloatTensor<NdArray>;

impl QuantBackend for NdArray {
    fn fake_quantize(x: Primitive, quantizer: &Quantizer) -> Primitive {
        if quantizer.spec().range != RangeEstimator::MinMax || x.dtype() != DType::F32 {
            let params = Self::choose_params(x.clone(), quantizer);
            return Self::fake_quantize_by(x, &params, quantizer);
        }
        let kernel = kernel(&x, quantizer);
        let shape = x.shape();
        tensor(kernel.round_trip(&values(x)), shape.as_slice())
    }

    fn choose_params(x: Primitive, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        if quantizer.spec().range != RangeEstimator::MinMax || x.dtype() != DType::F32 {
            return reference::choose_params_of_primitive(x, quantizer);
        }
        let kernel = kernel(&x, quantizer);
        let BlockParams { scales, zero_points } = kernel.params(&values(x));
        let tensor = |values| tensor(values, &kernel.shape.param_shape());
        PrimitiveParams { scale: tensor(scales), zero_point: zero_points.map(tensor) }
    }

    fn fake_quantize_by(x: Primitive, params: &PrimitiveParams<Self>, quantizer: &Quantizer) -> Primitive {
        if x.dtype() != DType::F32 {
            return reference::fake_quantize_primitive(x, params, quantizer);
        }
        let (kernel, params, shape) = (kernel(&x, quantizer), host(params, quantizer), x.shape());
        tensor(kernel.round_trip_by(&values(x), &params), shape.as_slice())
    }

    fn pass_inside(
        x: Primitive,
        params: &PrimitiveParams<Self>,
        gradient: Primitive,
        quantizer: &Quantizer,
    ) -> Primitive {
        if x.dtype() != DType::F32 {
            return reference::pass_inside_primitive(x, params, gradient, quantizer);
        }
        let (kernel, params, shape) = (kernel(&x, quantizer), host(params, quantizer), x.shape());
        tensor(kernel.pass_inside(&values(x), &params, &values(gradient)), shape.as_slice())
    }
}

fn kernel(x: &Primitive, quantizer: &Quantizer) -> SliceQuantizer {
    SliceQuantizer {
        set: InstructionSet::best(),
        shape: BlockShape::new(matrices_of(x), quantizer.spec().granularity),
        mapping: quantizer.spec().mapping,
        levels: quantizer.levels(),
    }
}

fn host(params: &PrimitiveParams<NdArray>, quantizer: &Quantizer) -> BlockParams {
    let zero_point = params.zero_point.as_ref().filter(|_| quantizer.spec().mapping == Mapping::Asymmetric);
    BlockParams {
        scales: values(params.scale.clone()),
        zero_points: zero_point.map(|zero_point| values(zero_point.clone())),
    }
}

fn values(x: Primitive) -> Vec<f32> {
    match as_matrices::<NdArray>(x).into_data().into_vec() {
        Ok(values) => values,
        Err(error) => unreachable!("the numbers are f32: {error}"),
    }
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> Primitive {
    let count = values.len();
    let data = TensorData::new(values, [1, 1, count]);
    let x =
        Tensor::<NdArray, 3>::from_primitive(TensorPrimitive::Float(<NdArray as burn::tensor::ops::FloatTensorOps<
            NdArray,
        >>::float_from_data(
            data,
            &burn::backend::ndarray::NdArrayDevice::default(),
        )));
    with_shape_of(x, shape.to_vec().into())
}
