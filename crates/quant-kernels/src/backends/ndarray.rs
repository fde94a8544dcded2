//! The CPU kernels on the tensors of burn's ndarray backend, which are copied out and in.

use burn::{
    backend::{NdArray, ndarray::NdArrayDevice},
    tensor::{DType, Tensor, TensorData, TensorMetadata, ops::FloatTensor},
};

use crate::{
    backends::{
        plain::{
            self,
            matrices::{as_matrices, matrices_of, with_shape_of},
        },
        primitive_params::PrimitiveParams,
        quant_backend::QuantBackend,
        transformer_backend::TransformerBackend,
    },
    cpu::{
        blocks::{BlockParams, SliceQuantizer},
        learned_step::StepKernel,
    },
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{quantizer::Quantizer, range_estimator::RangeEstimator, step_quantizer::StepQuantizer},
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
            return plain::quantisation::choose_params(x, quantizer);
        }
        let kernel = kernel(&x, quantizer);
        let BlockParams { scales, zero_points } = kernel.params(&values(x));
        let tensor = |values| tensor(values, &kernel.shape.param_shape());
        PrimitiveParams { scale: tensor(scales), zero_point: zero_points.map(tensor) }
    }

    fn fake_quantize_by(x: Primitive, params: &PrimitiveParams<Self>, quantizer: &Quantizer) -> Primitive {
        if x.dtype() != DType::F32 {
            return plain::quantisation::fake_quantize(x, params, quantizer);
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
            return plain::quantisation::pass_inside(x, params, gradient, quantizer);
        }
        let (kernel, params, shape) = (kernel(&x, quantizer), host(params, quantizer), x.shape());
        tensor(kernel.pass_inside(&values(x), &params, &values(gradient)), shape.as_slice())
    }

    fn learned_step(x: Primitive, step: Primitive, quantizer: &StepQuantizer) -> Primitive {
        if [&x, &step].iter().any(|tensor| tensor.dtype() != DType::F32) {
            return plain::learned_step::learned_step::<Self>(x, step, quantizer);
        }
        let shape = x.shape();
        let y = StepKernel::new(shape.dims(), quantizer).forward(&values(x), &values(step));
        tensor(y, shape.as_slice())
    }

    fn learned_step_backward(
        x: Primitive,
        step: Primitive,
        gradient: Primitive,
        quantizer: &StepQuantizer,
    ) -> [Primitive; 2] {
        if [&x, &step, &gradient].iter().any(|tensor| tensor.dtype() != DType::F32) {
            return plain::learned_step::learned_step_backward::<Self>(x, step, gradient, quantizer);
        }
        let (shape, step_shape) = (x.shape(), step.shape());
        let kernel = StepKernel::new(shape.dims(), quantizer);
        let (of_x, of_step) = kernel.backward(&values(x), &values(step), &values(gradient));
        [tensor(of_x, shape.as_slice()), tensor(of_step, step_shape.as_slice())]
    }

    fn rotate(x: Primitive, transform: &HadamardTransform, direction: Direction) -> Primitive {
        if x.dtype() != DType::F32 {
            return plain::rotation::rotate::<Self>(x, transform, direction);
        }
        let shape = x.shape();
        tensor(transform.rows(direction).of(&values(x)), shape.as_slice())
    }
}

impl TransformerBackend for NdArray {}

fn kernel(x: &Primitive, quantizer: &Quantizer) -> SliceQuantizer {
    SliceQuantizer::new(matrices_of(x), quantizer)
}

fn host(params: &PrimitiveParams<NdArray>, quantizer: &Quantizer) -> BlockParams {
    let zero_point = params.zero_point.as_ref().filter(|_| quantizer.spec().format.has_zero_points());
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
    with_shape_of(Tensor::<NdArray, 3>::from_data(data, &NdArrayDevice::default()), shape.to_vec().into())
}
